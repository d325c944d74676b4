//! Answers requests: the two WebSocket endpoints of peers directly, everything else through the router.
//!
//! Peers with a WebSocket come through these two endpoints, which skip the cost of routing (docs/performance.md).

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use tower_service::Service as _;

use super::access_log::Access;
use super::audited::Place;
use super::proxied::{self, Destination};
use super::router::Routers;
use super::{origin, path, proxy, rate, reference, respond, router, upgrade};
use crate::core::peer::Role;
use crate::observe::request_counts::RequestCounts;
use crate::server::connect_info::ConnectInfo;
use crate::server::shared::Shared;
use crate::server::ws::open::Purpose;

/// The answer to the preface of HTTP/2 (RFC 9110, 15.6.6; docs/protocol.md 3.2). hyper has no answer to it.
pub(in crate::server) const HTTP2_REFUSAL: &str = "HTTP/1.1 505 HTTP Version Not Supported\r\n\
    content-type: application/json\r\ncontent-length: 44\r\ncache-control: no-store\r\n\
    x-content-type-options: nosniff\r\nconnection: close\r\n\r\n\
    {\"error\":\"This server speaks HTTP/1.1 only\"}";

/// Answers the requests of one connection.
#[derive(Clone)]
pub(in crate::server) enum Service {
    /// The connection is within the limits.
    Open(Routes),
    /// The connection exceeds the limits; the text names the limit.
    Full(Routes, &'static str),
    /// The connection came to a listener for metrics.
    Metrics(Routes),
    /// The connection came to a listener for metrics, and exceeds the limits.
    MetricsFull(&'static str),
    /// The connection came to the listener for nodes.
    Nodes(Router),
    /// The connection came to the control API; the text names the limit that it exceeds.
    Control(Router, Option<&'static str>),
}

/// The router, built on the first request that needs it.
///
/// A server without such requests starts and stops faster.
#[derive(Clone, Default)]
pub(in crate::server) struct Routes {
    /// The routers of peers.
    routers: Arc<OnceLock<Routers>>,
    /// The router of the control API.
    control: Arc<OnceLock<Router>>,
}

/// The limit that the connection of a request exceeds, in the extensions of a request to the control API.
#[derive(Clone, Copy)]
pub(in crate::server) struct TurnedAway(pub(in crate::server) &'static str);

impl Routes {
    /// The service of a connection. `turned_away` names the limit that the connection exceeds.
    pub(in crate::server) fn service(&self, turned_away: Option<&'static str>) -> Service {
        match turned_away {
            None => Service::Open(self.clone()),
            Some(why) => Service::Full(self.clone(), why),
        }
    }

    /// The service of a connection to a listener for metrics.
    pub(in crate::server) fn metrics_service(&self, turned_away: Option<&'static str>) -> Service {
        turned_away.map_or_else(|| Service::Metrics(self.clone()), Service::MetricsFull)
    }

    /// Sets the router of the control API.
    pub(in crate::server) fn set_control(&self, router: Router) {
        let _is_first = self.control.set(router);
    }

    /// The service of a connection to the control API.
    pub(in crate::server) fn control_service(&self, turned_away: Option<&'static str>) -> Service {
        Service::Control(self.control.get().cloned().unwrap_or_default(), turned_away)
    }

    /// The routers.
    fn routers(&self, shared: &Arc<Shared>) -> &Routers {
        self.routers.get_or_init(|| router::routers(shared))
    }

    /// Answers a request that another node has passed on.
    pub(in crate::server) async fn call(&self, shared: &Arc<Shared>, request: axum::extract::Request) -> Response {
        match self.routers(shared).all.clone().call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Answers through the router.
    async fn answer(&self, shared: &Arc<Shared>, connect_info: ConnectInfo, request: Request<Incoming>) -> Response {
        call(self.routers(shared).all.clone(), connect_info, request).await
    }
}

/// Passes a request to a router.
async fn call(mut router: Router, connect_info: ConnectInfo, request: Request<Incoming>) -> Response {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(connect_info);
    match Box::pin(router.call(request)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

impl Service {
    /// Answers a request and counts it.
    pub(in crate::server) async fn answer(
        &self,
        shared: &Arc<Shared>,
        connect_info: ConnectInfo,
        mut request: Request<Incoming>,
    ) -> Response {
        if let Self::Nodes(router) = self {
            return Box::pin(Self::answer_node(shared, router, connect_info, request)).await;
        }
        path::decode(&mut request);
        if let Self::Control(router, turned_away) = self {
            let router = router.clone();
            return Box::pin(Self::answer_control(shared, router, *turned_away, connect_info, request)).await;
        }
        let destination = proxied::destination(shared, &mut request);
        let endpoint = RequestCounts::endpoint_of(request.uri().path());
        let method = request.method().clone();
        let own_address = connect_info.address;
        let connect_info = proxy::apply(shared, &request, connect_info);
        let address = connect_info.as_ref().map_or(own_address, |connect_info| connect_info.address);
        let access = Access::begin(shared, &request, address);
        let place = Place::of(shared, &request, address, connect_info.as_ref().ok());
        let is_own = !matches!(destination, Destination::Upstream);
        let is_reference = is_own && reference::is_path(request.uri().path());
        let mut response = match connect_info {
            Ok(connect_info) => self.answer_judged(shared, connect_info, destination, request).await,
            Err(refused) => refused,
        };
        if is_reference {
            response = reference::with_type(response);
        }
        if shared.stopping.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response = respond::closing(response);
        }
        respond::finish(&method, &mut response);
        shared.requests.count(endpoint, response.status().as_u16());
        place.answered(shared, &response);
        Access::watch(access, response)
    }

    /// Answers a request of another node. Neither rates nor the origin policy apply: its certificate decides.
    async fn answer_node(
        shared: &Arc<Shared>,
        router: &Router,
        connect_info: ConnectInfo,
        request: Request<Incoming>,
    ) -> Response {
        let endpoint = RequestCounts::endpoint_of(request.uri().path());
        let mut response = call(router.clone(), connect_info, request).await;
        if shared.stopping.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response = respond::closing(response);
        }
        shared.requests.count(endpoint, response.status().as_u16());
        response
    }

    /// Answers a request to the control API, whose router admits it.
    async fn answer_control(
        shared: &Arc<Shared>,
        router: Router,
        turned_away: Option<&'static str>,
        connect_info: ConnectInfo,
        mut request: Request<Incoming>,
    ) -> Response {
        let endpoint = RequestCounts::endpoint_of(request.uri().path());
        let (method, access) = (request.method().clone(), Access::begin(shared, &request, connect_info.address));
        let place = Place::of(shared, &request, connect_info.address, Some(&connect_info));
        if let Some(why) = turned_away {
            request.extensions_mut().insert(TurnedAway(why));
        }
        let mut response = call(router, connect_info, request).await;
        if shared.stopping.is_cancelled() || turned_away.is_some() {
            response = respond::closing(response);
        }
        respond::finish(&method, &mut response);
        shared.requests.count(endpoint, response.status().as_u16());
        place.controlled(shared, &response);
        Access::watch(access, response)
    }

    /// Answers a request within its rate that the origin policy admits.
    async fn answer_judged(
        &self,
        shared: &Arc<Shared>,
        connect_info: ConnectInfo,
        destination: Destination,
        request: Request<Incoming>,
    ) -> Response {
        if let Some(rate) = rate::exceeded(shared, &connect_info, request.uri().path()) {
            return rate::refusal(shared, rate).await;
        }
        if let Some(refused) = origin::refusal(shared, &request, &connect_info) {
            return refused;
        }
        match (destination, self, request.uri().path()) {
            // Boxed: a peer's request needs no room for it.
            (Destination::Upstream, Self::Open(_), _) => {
                Box::pin(proxied::pass_on(shared, connect_info, request)).await
            }
            (Destination::Upstream, Self::Full(_, why), _) => respond::closing(respond::too_many(why)),
            (Destination::Nowhere(answer), ..) => answer,
            // The metrics of a server that is full tell the reason, and a restart would not help it.
            (_, Self::Full(routes, _), "/metrics" | "/healthz") => {
                respond::closing(routes.answer(shared, connect_info, request).await)
            }
            (_, Self::Full(_, why) | Self::MetricsFull(why), _) => respond::closing(respond::too_many(why)),
            (_, Self::Open(_), "/register_device") => {
                upgrade::upgrade(shared, Role::Device, Purpose::Signaling, connect_info, request).await
            }
            (_, Self::Open(_), "/connect_client") => {
                upgrade::upgrade(shared, Role::Client, Purpose::Signaling, connect_info, request).await
            }
            (_, Self::Open(routes), _) => routes.answer(shared, connect_info, request).await,
            (_, Self::Metrics(routes), _) => call(routes.routers(shared).metrics.clone(), connect_info, request).await,
            (_, Self::Nodes(router) | Self::Control(router, _), _) => call(router.clone(), connect_info, request).await,
        }
    }
}
