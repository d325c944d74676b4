//! The path of a request to a device's own web server. Such a server may decode a path in its own way, so a path that
//! could mean another file in any reading is refused.

use hyper::Uri;
use percent_encoding::percent_decode;

/// The part of the target behind `/devices/{id}/files`, as it was sent, with its query. `None` if it is refused.
pub(super) fn behind_files(uri: &Uri) -> Option<Uri> {
    let whole = uri.path_and_query()?.as_str();
    let (slash, _) = whole.match_indices('/').nth(3)?;
    let rest = whole.get(slash..)?;
    let path = rest.split('?').next().unwrap_or_default();
    if is_plain(path.as_bytes()) { rest.parse().ok() } else { None }
}

/// Whether a path has neither encoded separators, nor control characters, nor dot segments, however often it is decoded.
fn is_plain(path: &[u8]) -> bool {
    let segments = |path: &[u8]| path.split(|byte| *byte == b'/').count();
    let sent = segments(path);
    let mut path = path.to_vec();
    loop {
        if segments(&path) != sent
            || path.iter().any(|byte| *byte == b'\\' || byte.is_ascii_control())
            || path.split(|byte| *byte == b'/').any(is_dot_segment)
        {
            return false;
        }
        let decoded: Vec<u8> = percent_decode(&path).collect();
        if decoded == path {
            return true;
        }
        path = decoded;
    }
}

/// Whether a segment is `.` or `..`, with or without parameters (`..;x`).
fn is_dot_segment(segment: &[u8]) -> bool {
    matches!(segment.split(|byte| *byte == b';').next(), Some(b"." | b".."))
}
