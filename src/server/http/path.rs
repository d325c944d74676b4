//! Decodes paths before they are matched: `%3Aforward` is `:forward` (docs/protocol.md 5.3.18).
//!
//! Only characters that a path may contain unencoded (RFC 3986, `pchar`) are decoded. Routes, hooks, the origin policy
//! and the counters then see the same spelling. All other encodings stay: `%2F` in an id is no separator.

use hyper::Uri;
use hyper::http::uri::PathAndQuery;

/// The target of a request as the client sent it, in the extensions of a request whose path was decoded.
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

/// The decoded path. `None` if nothing is encoded or an encoding is invalid; such a path stays as it is.
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

/// Whether a path may contain the character unencoded.
fn is_pchar(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(character)
}
