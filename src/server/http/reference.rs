//! The paths of the reference's polling (docs/protocol.md 5.3). Their errors have `"type":"error"` beside the text, whichever
//! part of the server says them.

use axum::body::Body;
use axum::response::Response;
use hyper::header::{self, HeaderValue};

use super::respond::ErrorBody;

/// Whether this is one of them; a decoded path.
pub(in crate::server) fn is_path(path: &str) -> bool {
    matches!(path, "/connect" | "/forward" | "/poll_messages")
}

/// An error in the form that clients of the reference know; any other response as it is.
pub(in crate::server) fn with_type(mut response: Response) -> Response {
    let Some(ErrorBody(body)) = response.extensions_mut().remove() else { return response };
    let text = body.as_str();
    let body = format!(r#"{},"type":"error"}}"#, text.strip_suffix('}').unwrap_or(text));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}
