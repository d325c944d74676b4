//! Errors of the control API: `{"error": TEXT, "code": WORD}`, with further fields for some codes.

use std::borrow::Cow;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use serde_json::{Value, json};

use crate::server::cluster::ask::NodeUnreachable;
use crate::server::http::audited::Reason;
use crate::server::http::respond::{self, ErrorBody};

/// The path of this version.
const OWN_VERSION: &str = "/control/v1";

/// The reason why a request is refused.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    error: Cow<'static, str>,
    /// A further field.
    field: Option<(&'static str, Value)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, error: error.into(), field: None }
    }

    pub(super) fn with(self, name: &'static str, value: impl Into<Value>) -> Self {
        Self { field: Some((name, value.into())), ..self }
    }

    /// 400. `path` is the place of the fault: `?limit` in a query, `$.steps[0]` in a body.
    pub(super) fn bad_request(path: &str, error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", error).with("path", path)
    }

    pub(super) fn not_found(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", error)
    }

    /// The text for people.
    pub(super) fn text(&self) -> &str {
        &self.error
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The server stops")
    }

    /// 504. The node of a device does not tell its facts.
    pub(super) fn unknown_now(unreachable: NodeUnreachable) -> Self {
        let NodeUnreachable { node, what } = unreachable;
        Self::new(StatusCode::GATEWAY_TIMEOUT, "node_unreachable", what).with("node", node)
    }

    pub(super) fn busy(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error)
    }
}

impl From<NodeUnreachable> for Problem {
    fn from(unreachable: NodeUnreachable) -> Self {
        let error = format!("It may have been done: {unreachable}");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "node_unreachable", error).with("node", unreachable.node)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.error, "code": self.code });
        if let Some((name, value)) = self.field {
            body[name] = value;
        }
        let mut response = respond::json(self.status, body.to_string());
        response.extensions_mut().insert(Reason(self.error.into_owned()));
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Adds the code to an error of a lower layer. Other responses stay as they are.
pub(super) fn coded(mut response: Response) -> Response {
    let Some(ErrorBody(body)) = response.extensions_mut().remove() else { return response };
    let code = match response.status() {
        StatusCode::BAD_REQUEST => "bad_request",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "unknown_path",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::TOO_MANY_REQUESTS => "too_fast",
        StatusCode::SERVICE_UNAVAILABLE => "busy",
        _ => "internal",
    };
    let text = body.as_str();
    if let Some(reason) = Reason::of(text) {
        response.extensions_mut().insert(reason);
    }
    let body = format!(r#"{},"code":"{code}"}}"#, text.strip_suffix('}').unwrap_or(text));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = body.into();
    response
}

/// The answer to a method that the route does not have.
pub(super) async fn method_not_allowed() -> Response {
    respond::error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
}

/// The answer to a path without a route.
pub(super) async fn unknown_path(request: Request) -> Problem {
    let path = request.uri().path();
    let is_other_version = path.starts_with("/control/v") && !path.starts_with(OWN_VERSION);
    if is_other_version {
        let error = "This server has version 1 of the control API, at /control/v1";
        return Problem::new(StatusCode::NOT_FOUND, "unknown_version", error);
    }
    let error = "Not found; this address has the control API, at /control/v1, and nothing else";
    Problem::new(StatusCode::NOT_FOUND, "unknown_path", error)
}
