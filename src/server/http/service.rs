//! Who answers a request. The endpoints of peers do so at once: everybody who signals comes by them. Everything else goes
//! by the routes.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::header;
use hyper::{Request, StatusCode};
use tower_service::Service as _;

use super::respond::error;
use super::{path, reference, respond, router, upgrade};
use crate::access::origin_policy::Foreign;
use crate::core::peer::Role;
use crate::observe::incidents::Incident;
use crate::observe::request_counts::RequestCounts;
use crate::server::connect_info::ConnectInfo;
use crate::server::shared::Shared;

/// For one connection.
#[derive(Clone)]
pub(in crate::server) enum Service {
    /// There is room.
    Open(Routes),
    /// There is none, and why.
    Full(&'static str),
}

/// The routes, made for the first who needs them: a server that nobody visits starts and stops the sooner.
#[derive(Clone, Default)]
pub(in crate::server) struct Routes(Arc<OnceLock<Router>>);

impl Routes {
    /// Who answers on a connection that may have been turned away, and why.
    pub(in crate::server) fn service(&self, turned_away: Option<&'static str>) -> Service {
        turned_away.map_or_else(|| Service::Open(self.clone()), Service::Full)
    }

    async fn answer(&self, shared: &Arc<Shared>, connect_info: ConnectInfo, request: Request<Incoming>) -> Response {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(connect_info);
        let mut router = self.0.get_or_init(|| router::router(shared)).clone();
        match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl Service {
    /// The answer, which is counted.
    pub(in crate::server) async fn answer(
        &self,
        shared: &Arc<Shared>,
        connect_info: ConnectInfo,
        mut request: Request<Incoming>,
    ) -> Response {
        path::decode(&mut request);
        let endpoint = RequestCounts::endpoint_of(request.uri().path());
        let is_reference = reference::is_path(request.uri().path());
        let mut response = match foreign(shared, &request, connect_info.address) {
            Some(refused) => refused,
            None => self.answer_admitted(shared, connect_info, request).await,
        };
        if is_reference {
            response = reference::with_type(response);
        }
        shared.requests.count(endpoint, response.status().as_u16());
        response
    }

    async fn answer_admitted(
        &self,
        shared: &Arc<Shared>,
        connect_info: ConnectInfo,
        request: Request<Incoming>,
    ) -> Response {
        match (self, request.uri().path()) {
            (Self::Full(why), _) => respond::turned_away(why),
            (Self::Open(_), "/register_device") => {
                upgrade::upgrade(shared, Role::Device, None, connect_info, request).await
            }
            (Self::Open(_), "/connect_client") => {
                upgrade::upgrade(shared, Role::Client, None, connect_info, request).await
            }
            (Self::Open(routes), _) => routes.answer(shared, connect_info, request).await,
        }
    }
}

/// The answer to a request from a page that may not use the server, if it is one.
fn foreign<B>(shared: &Shared, request: &hyper::Request<B>, address: SocketAddr) -> Option<Response> {
    let texts = |name| request.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let (hosts, origins): (Vec<_>, Vec<_>) = (texts(header::HOST).collect(), texts(header::ORIGIN).collect());
    let (hosts, origins): (Vec<_>, Vec<_>) =
        (hosts.iter().map(|h| &**h).collect(), origins.iter().map(|o| &**o).collect());
    let foreign = shared.policy.check(request.uri().path(), &hosts, &origins).err()?;
    shared.incidents.count(Incident::Foreign);
    let (status, what, hint) = match foreign {
        Foreign::Host(host) => (StatusCode::FORBIDDEN, format!("Host not allowed: {host}"), "allowed_hosts"),
        Foreign::Origin(origin) => (StatusCode::FORBIDDEN, format!("Origin not allowed: {origin}"), "allowed_origins"),
        Foreign::Ambiguous => (StatusCode::BAD_REQUEST, "More than one Host".into(), "one Host"),
    };
    tracing::info!("refused a request of {address}: {what:?}; if it is welcome, see {hint}");
    Some(error(status, &what))
}
