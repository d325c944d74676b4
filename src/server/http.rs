//! The routes, and the upgrade to a WebSocket up to its 101. Every "no" is a JSON body
//! `{"error": …}`, never a dropped connection (PROTOCOL.md 3 and 5.3).

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

mod assets;
mod device_files;
mod listing;
pub(super) mod metrics;
mod overview;
pub(super) mod path;
mod polling;
pub(super) mod reference;
pub(super) mod viewers;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::Shared;
use super::connection::{Origin, Upgrade};
use crate::gate::RETRY_AFTER;
use crate::hooks::{HookError, Knock};
use crate::incidents::Incident;
use crate::peer::{self, Peer, Role};
use crate::policy::Foreign;
use crate::protocol::{DeviceId, Text, outbound};
use crate::refusal::Refusal;

/// The sub-protocol that a legacy device offers, and misses if it is not echoed. A device that offers it is one of
/// Cuttlefish's own (PROTOCOL.md 4).
const SUBPROTOCOL: &str = "webrtc-operator";

pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let router = if shared.config.echo { Router::new().route("/echo", any(echo)) } else { Router::new() };
    let router = assets::add_to(router, shared.config.dashboard);
    let router = viewers::add_to(router, shared.config.dashboard);
    polling::add_to(router)
        .route("/devices", get(listing::devices))
        .route("/devices/{id}", get(listing::device))
        .route("/devices/{id}/connect", any(connect_to_device))
        .route("/devices/{id}/files/{*path}", get(device_files::device_file))
        .route("/infra_config", get(listing::infra_config))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::metrics))
        .method_not_allowed_fallback(async || error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed"))
        .fallback(assets::of_directory)
        .with_state(Arc::clone(shared))
}

/// The answer to everything where there is no room.
pub(super) fn full_house(why: &str) -> Response {
    let mut response = too_many(why);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer to a request from a page that may not use the server, if it is one.
pub(super) fn foreign<B>(shared: &Shared, request: &hyper::Request<B>, address: SocketAddr) -> Option<Response> {
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

/// `WS /devices/{id}/connect`: the request names the device, and texts are payloads.
async fn connect_to_device(State(shared): State<Arc<Shared>>, InPath(id): InPath, request: Request) -> Response {
    upgrade_here(&shared, Role::Client, Some(DeviceId::new(&id)), request).await
}

async fn echo(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    upgrade_here(&shared, Role::Http, None, request).await
}

/// Whether it takes connections: not any more once it stops.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.stopping.is_cancelled() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "Server stopping");
    }
    json(StatusCode::OK, r#"{"status":"ready"}"#.into())
}

async fn healthz() -> Response {
    json(StatusCode::OK, r#"{"status":"ok"}"#.into())
}

/// The id in a path, decoded.
struct InPath(String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let Path(id) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| error(StatusCode::BAD_REQUEST, "The id in the path is no UTF-8"))?;
        Ok(Self(id))
    }
}

/// Agrees to a WebSocket on a route.
async fn upgrade_here(shared: &Arc<Shared>, role: Role, device: Option<DeviceId>, mut request: Request) -> Response {
    match request.extensions_mut().remove::<Origin>() {
        Some(origin) => upgrade(shared, role, device, origin, request).await,
        None => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}

/// Agrees to a WebSocket, or says why not.
pub(super) async fn upgrade<B>(
    shared: &Arc<Shared>,
    role: Role,
    device: Option<DeviceId>,
    origin: Origin,
    mut request: hyper::Request<B>,
) -> Response {
    let response = match handshake(&request) {
        Ok(response) => response,
        Err(refused) => return refused,
    };
    if role == Role::Device && shared.hub.device_count() >= shared.config.limits.max_devices {
        shared.incidents.count(Incident::TurnedAway);
        return too_many("Too many devices");
    }
    let mut caller = Caller::from(shared, role, Some(&origin), &request);
    caller.peer.hears_errors = role != Role::Device || !offers_subprotocol(request.headers());
    let transport = hyper::upgrade::on(&mut request);
    drop(request);
    match caller.authorize(shared).await {
        Ok(peer) => {
            *origin.upgrade.lock() = Some(Upgrade { transport, peer, device });
            response
        }
        Err(refused) => refused,
    }
}

/// The 101 to a proper upgrade request, or what is wrong with the request (RFC 6455, 4.2).
fn handshake<B>(request: &hyper::Request<B>) -> Result<Response, Response> {
    if request.method() != Method::GET {
        return Err(error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed; this is a WebSocket endpoint"));
    }
    if !request.headers().contains_key(header::UPGRADE) {
        let mut response = error(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket endpoint");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return Err(response);
    }
    let mut response = create_response_with_body(request, Body::empty).map_err(|bad| {
        let mut response = error(StatusCode::BAD_REQUEST, &format!("Bad WebSocket upgrade: {bad}"));
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        response
    })?;
    if offers_subprotocol(request.headers()) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    offers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|o| o.trim() == SUBPROTOCOL)
}

/// The right of a request to take its time: its connection no longer counts as one that is only opening.
struct Stay(Option<Origin>);

impl Stay {
    fn of(request: &Request) -> Self {
        Self(request.extensions().get::<Origin>().cloned())
    }

    fn granted(&self) {
        if let Some(origin) = &self.0 {
            origin.entry.opened();
        }
    }
}

/// Who knocks: what a request says of its sender, taken out before anything is awaited.
struct Caller {
    peer: Peer,
    /// Kept only where a hook wants to see it.
    request: Option<peer::Request>,
}

impl Caller {
    fn of(shared: &Shared, role: Role, request: &Request) -> Self {
        Self::from(shared, role, request.extensions().get(), request)
    }

    fn from<B>(shared: &Shared, role: Role, origin: Option<&Origin>, request: &hyper::Request<B>) -> Self {
        let mut peer = Peer::anonymous(role);
        if let Some(origin) = origin {
            peer.address = Some(origin.address);
            peer.certificate.clone_from(&origin.certificate);
        }
        Self { peer, request: shared.hooks.wants_requests().then(|| facts_of(request)) }
    }

    /// Asks the hook, where there is one.
    async fn authorize(self, shared: &Shared) -> Result<Peer, Response> {
        let Self { mut peer, request: Some(request) } = self else { return Ok(self.peer) };
        let certificate = peer.certificate.clone();
        let knock = Knock { role: peer.role, address: peer.address, certificate, request };
        let decision = shared.hooks.authorize(&knock);
        peer.request = Some(Box::new(knock.request));
        let Some(decision) = decision else { return Ok(peer) };
        match shared.wait_for_hook("authorize", &peer.to_string(), decision).await {
            Ok(grant) => {
                peer.grant = grant;
                Ok(peer)
            }
            Err(no) => {
                shared.incidents.count(Incident::Unauthorized);
                Err(denied(no, &peer))
            }
        }
    }
}

/// The answer where a hook said no, or said nothing.
fn denied(no: HookError, peer: &Peer) -> Response {
    let HookError::Refused { reason, status } = no else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, &Refusal::HookFailed.text());
    };
    let refusal = Refusal::NotAuthorized(reason);
    let reason = refusal.text();
    tracing::info!("refused {} {peer}: {reason:?} [{status}]", peer.role.as_str());
    refused(&reason, status)
}

fn refused(reason: &str, status: u16) -> Response {
    if status != 401 {
        return error(StatusCode::FORBIDDEN, reason);
    }
    let mut response = error(StatusCode::UNAUTHORIZED, reason);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn facts_of<B>(request: &hyper::Request<B>) -> peer::Request {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    peer::Request {
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: request.headers().iter().map(text).collect(),
    }
}

/// The status that says what a refusal says.
fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::DeviceNotFound(_) | Refusal::DeviceDisconnected => StatusCode::NOT_FOUND,
        Refusal::NotAuthorized(_) => StatusCode::FORBIDDEN,
        Refusal::HookFailed => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::TooManyClients(_) | Refusal::ClientIdsExhausted => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// 503, and when to come again.
fn too_many(why: &str) -> Response {
    let mut response = error(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
    response
}

/// The body of an error, in the extensions of its response: the reference's paths have a form of their own for it.
#[derive(Clone)]
struct ErrorBody(Text);

fn error(status: StatusCode, reason: &str) -> Response {
    let body = outbound::error(reason);
    let mut response = json(status, body.as_str().to_owned());
    response.extensions_mut().insert(ErrorBody(body));
    response
}

fn json(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
