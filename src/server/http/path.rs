//! One spelling for a path: `%3Aforward` is `:forward` (docs/protocol.md 5.3).
//!
//! Characters that a path may contain as they are (RFC 3986, `pchar`) are decoded before anything looks at the path, so
//! that routes, hooks, the origin policy and counters go by the same text. All other encodings stay: `%2F` within an id
//! is no separator.

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

/// The target of a request as it was sent, in the extensions of a request whose path was decoded.
#[derive(Clone)]
pub(in crate::server) struct OriginalTarget(pub(in crate::server) Uri);

/// Decodes the path of a request.
pub(in crate::server) fn decode<B>(request: &mut hyper::Request<B>) {
    let Some(mut target) = decoded(request.uri().path()) else { return };
    if let Some(query) = request.uri().query() {
        target.push('?');
        target.push_str(query);
    }
    let mut parts = request.uri().clone().into_parts();
    let Ok(target) = PathAndQuery::try_from(target) else { return };
    parts.path_and_query = Some(target);
    let Ok(uri) = Uri::from_parts(parts) else { return };
    let original = std::mem::replace(request.uri_mut(), uri);
    request.extensions_mut().insert(OriginalTarget(original));
}

/// `None` where nothing is encoded, or a `%` begins no encoding: such a path is left as it is.
fn decoded(path: &str) -> Option<String> {
    let (before, rest) = path.split_once('%')?;
    let mut decoded = String::with_capacity(path.len());
    decoded.push_str(before);
    for part in rest.split('%') {
        let hex = part.get(..2).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        match u8::from_str_radix(hex, 16).map(char::from) {
            Ok(character) if is_pchar(character) => decoded.push(character),
            _ => {
                decoded.push('%');
                decoded.push_str(hex);
            }
        }
        decoded.push_str(part.get(2..).unwrap_or_default());
    }
    Some(decoded)
}

fn is_pchar(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(character)
}
