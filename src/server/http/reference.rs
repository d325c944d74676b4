//! The polling paths of the reference server. Every error on them also has `"type":"error"` (docs/protocol.md 5.3.28).

use axum::body::Body;
use axum::response::Response;
use hyper::header::{self, HeaderValue};

use super::respond::ErrorBody;

/// Whether a decoded path is one of them.
pub(in crate::server) fn is_path(path: &str) -> bool {
    matches!(path, "/connect" | "/forward" | "/poll_messages")
}

/// Adds `"type":"error"` to an error. Other responses stay as they are.
pub(in crate::server) fn with_type(mut response: Response) -> Response {
    let Some(ErrorBody(body)) = response.extensions_mut().remove() else { return response };
    let text = body.as_str();
    let body = format!(r#"{},"type":"error"}}"#, text.strip_suffix('}').unwrap_or(text));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Body::from(body);
    response
}
