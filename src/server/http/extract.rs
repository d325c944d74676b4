//! Parts of requests: the id in the path, and the members of a header.

use axum::extract::{FromRequestParts, Path};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName};
use hyper::http::request::Parts;

use super::respond::error;

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
