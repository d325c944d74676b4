//! Who answers a request. The endpoints of peers do so at once: everybody who signals comes by them. Everything else goes
//! by the routes.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use tower_service::Service;

use super::Shared;
use super::connection::Origin;
use super::http::{self, metrics::Requests, path, reference};
use crate::peer::Role;

/// For one connection.
#[derive(Clone)]
pub(super) enum Reception {
    /// There is room.
    Open(Routes),
    /// There is none, and why.
    Full(&'static str),
}

/// The routes, made for the first who needs them: a server that nobody visits starts and stops the sooner.
#[derive(Clone, Default)]
pub(super) struct Routes(Arc<OnceLock<Router>>);

impl Routes {
    /// Who answers on a connection that may have been turned away, and why.
    pub(super) fn reception(&self, turned_away: Option<&'static str>) -> Reception {
        turned_away.map_or_else(|| Reception::Open(self.clone()), Reception::Full)
    }

    async fn answer(&self, shared: &Arc<Shared>, origin: Origin, request: Request<Incoming>) -> Response {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(origin);
        let mut router = self.0.get_or_init(|| http::router(shared)).clone();
        match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Reception {
    /// The answer, which is counted.
    pub(super) async fn answer(
        &self,
        shared: &Arc<Shared>,
        origin: Origin,
        mut request: Request<Incoming>,
    ) -> Response {
        path::decode(&mut request);
        let endpoint = Requests::endpoint_of(request.uri().path());
        let is_reference = reference::is_path(request.uri().path());
        let mut response = match http::foreign(shared, &request, origin.address) {
            Some(refused) => refused,
            None => self.answer_welcome(shared, origin, request).await,
        };
        if is_reference {
            response = reference::with_type(response);
        }
        shared.requests.count(endpoint, response.status());
        response
    }

    async fn answer_welcome(&self, shared: &Arc<Shared>, origin: Origin, request: Request<Incoming>) -> Response {
        match (self, request.uri().path()) {
            (Self::Full(why), _) => http::full_house(why),
            (Self::Open(_), "/register_device") => http::upgrade(shared, Role::Device, None, origin, request).await,
            (Self::Open(_), "/connect_client") => http::upgrade(shared, Role::Client, None, origin, request).await,
            (Self::Open(routes), _) => routes.answer(shared, origin, request).await,
        }
    }
}
