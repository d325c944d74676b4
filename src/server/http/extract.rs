//! Parts of requests: the id in the path, the members of a header, and a mark for requests that take long.

use axum::extract::{FromRequestParts, Path, Request};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};
use hyper::http::request::Parts;

use super::respond::error;
use crate::server::connect_info::ConnectInfo;

/// The id in the path, decoded.
pub(in crate::server) struct PathId(pub(in crate::server) String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let Path(id) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| error(StatusCode::BAD_REQUEST, "The id in the path is no UTF-8"))?;
        Ok(Self(id))
    }
}

/// The members of a header that is a list, over all of its lines (RFC 9110, 5.6.1).
pub(in crate::server) fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// A request that may take long: a poll that waits, or a stream of events.
pub(in crate::server) struct LongRequest(Option<ConnectInfo>);

impl LongRequest {
    /// Reads the connection of a request.
    pub(in crate::server) fn of(request: &Request) -> Self {
        Self(request.extensions().get::<ConnectInfo>().cloned())
    }

    /// Marks the connection as opened, so that newer connections do not evict it.
    pub(in crate::server) fn mark_opened(&self) {
        if let Some(connect_info) = &self.0 {
            connect_info.permit.opened();
        }
    }
}
