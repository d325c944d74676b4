//! Responses: JSON bodies, the status of each refusal (docs/protocol.md 5.3), and the headers of all of them.

use axum::body::Body;
use axum::response::Response;
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};

use crate::access::connection_limits::RETRY_AFTER;
use crate::protocol::refusal::Refusal;
use crate::protocol::{Text, outbound};

/// The reason of each 503 of a server that stops.
pub(in crate::server) const STOPPING: &str = "Server stopping";

/// The last response of a connection: it exceeds the limits.
pub(in crate::server) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The HTTP status of a refusal.
pub(in crate::server) fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::DeviceNotFound(_) | Refusal::DeviceDisconnected => StatusCode::NOT_FOUND,
        Refusal::NotAuthorized(_) => StatusCode::FORBIDDEN,
        Refusal::DeviceInUse(_) => StatusCode::CONFLICT,
        Refusal::ForwardTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::HookFailed => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::TooManyClients(_) | Refusal::TooManyClientsOf(..) | Refusal::ClientIdsExhausted => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

/// 503 with `Retry-After`.
pub(in crate::server) fn too_many(why: &str) -> Response {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    response
}

/// 405 with the methods that are allowed (RFC 9110, 15.5.6).
pub(in crate::server) fn method_not_allowed(allowed: &'static str, reason: &str) -> Response {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, reason);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A mark in the extensions of a response whose length the request itself has changed.
#[derive(Clone, Copy)]
pub(in crate::server) struct LengthChanges;

/// A mark in the extensions of an answer of another server. It is passed on as it is.
#[derive(Clone, Copy)]
pub(in crate::server) struct PassedOn;

/// Sets the headers that every answer needs. Each answer passes here, whichever endpoint made it.
///
/// An answer may have TURN credentials or the messages of one client, so no cache may keep it, unless its endpoint says
/// something else. A browser must not guess the type of a content. HEAD tells the length that GET would have, or none
/// (RFC 9110, 8.6).
pub(in crate::server) fn finish(method: &Method, response: &mut Response) {
    let is_passed_on = response.extensions().get::<PassedOn>().is_some();
    if is_passed_on || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if *method == Method::HEAD && response.extensions().get::<LengthChanges>().is_some() {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

/// 429 with `Retry-After`.
pub(in crate::server) fn too_fast(why: &str) -> Response {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    response
}

/// The body of an error, in the extensions of its response. [`reference`](super::reference) adds a field to it.
#[derive(Clone)]
pub(in crate::server) struct ErrorBody(pub(in crate::server) Text);

/// An error with its JSON body.
pub(in crate::server) fn error(status: StatusCode, reason: &str) -> Response {
    let body = outbound::error(reason);
    let mut response = json(status, body.as_str().to_owned());
    response.extensions_mut().insert(ErrorBody(body));
    response
}

/// A response with a JSON body.
pub(in crate::server) fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
