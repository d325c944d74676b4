//! The upgrade of a request to a WebSocket, up to its 101 (RFC 6455, 4.2; docs/protocol.md 3).

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::auth::Caller;
use super::extract::members;
use super::respond::{error, method_not_allowed, too_many};
use crate::access::connection_limits::SenderPermit;
use crate::core::peer::Role;
use crate::observe::incidents::Incident;
use crate::observe::timings::{Handshake, since};
use crate::server::connect_info::{ConnectInfo, Upgrade};
use crate::server::shared::Shared;
use crate::server::ws::open::Purpose;

/// The sub-protocol of Cuttlefish devices (docs/protocol.md 3.7 and 4.1.1).
///
/// A legacy device offers it, and expects the server to select it.
const SUBPROTOCOL: &str = "webrtc-operator";

/// Upgrades a request to a route.
pub(in crate::server) async fn upgrade_here(
    shared: &Arc<Shared>,
    role: Role,
    purpose: Purpose,
    mut request: Request,
) -> Response {
    match request.extensions_mut().remove::<ConnectInfo>() {
        Some(connect_info) => upgrade(shared, role, purpose, connect_info, request).await,
        None => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}

/// Upgrades a request, or responds with the reason against it.
pub(in crate::server) async fn upgrade<B>(
    shared: &Arc<Shared>,
    role: Role,
    purpose: Purpose,
    connect_info: ConnectInfo,
    mut request: hyper::Request<B>,
) -> Response {
    let began = shared.clock.now();
    let response = match handshake(&request) {
        Ok(response) => response,
        Err(refused) => return refused,
    };
    if role == Role::Device && shared.hub.device_count() >= shared.settings().limits.max_devices {
        shared.incidents.count(Incident::TurnedAway);
        return too_many("Too many devices");
    }
    let sender = match place_of_sender(shared, &connect_info) {
        Ok(sender) => sender,
        Err(why) => return too_many(why),
    };
    let mut caller = Caller::from(shared, role, Some(&connect_info), &request);
    caller.peer.hears_errors = role != Role::Device || !offers_subprotocol(request.headers());
    let transport = hyper::upgrade::on(&mut request);
    drop(request);
    match caller.authorize(shared).await {
        Ok(peer) => {
            if let Some(sender) = sender {
                connect_info.permit.keep_sender(sender);
            }
            let agreed_at = shared.clock.now();
            shared.timings.observe_handshake(Handshake::WebSocket, since(began, agreed_at));
            *connect_info.upgrade.lock() = Some(Upgrade { transport, peer, purpose, agreed_at });
            response
        }
        Err(refused) => refused,
    }
}

/// Counts the connection for the address that a trusted proxy tells, if one does.
pub(super) fn place_of_sender(
    shared: &Shared,
    connect_info: &ConnectInfo,
) -> Result<Option<SenderPermit>, &'static str> {
    let told = connect_info.address.filter(|_| connect_info.is_forwarded);
    told.map(|address| shared.limiters.tcp.acquire_sender(address.ip())).transpose()
}

/// The 101 to a valid upgrade request, or the error of an invalid one (RFC 6455, 4.2).
pub(in crate::server) fn handshake<B>(request: &hyper::Request<B>) -> Result<Response, Response> {
    if request.method() != Method::GET {
        return Err(method_not_allowed("GET", "Method not allowed; this is a WebSocket endpoint"));
    }
    if !request.headers().contains_key(header::UPGRADE) {
        let mut response = error(StatusCode::UPGRADE_REQUIRED, "This is a WebSocket endpoint");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return Err(response);
    }
    let accept = accept_key(request).map_err(|fault| {
        let mut response = error(StatusCode::BAD_REQUEST, &format!("Bad WebSocket upgrade: {fault}"));
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        response
    })?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend([
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    if offers_subprotocol(request.headers()) {
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

/// The `Sec-WebSocket-Accept` to a valid upgrade request, or its fault (RFC 6455, 4.2.1).
///
/// `Connection` and `Upgrade` are lists: over several lines, or with other members (RFC 9110, 5.3).
fn accept_key<B>(request: &hyper::Request<B>) -> Result<HeaderValue, &'static str> {
    let headers = request.headers();
    let has = |name, member: &str| members(headers, name).any(|found| found.eq_ignore_ascii_case(member));
    let only = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
    };
    if request.version() < Version::HTTP_11 {
        return Err("it needs HTTP/1.1");
    }
    if !has(&header::CONNECTION, "upgrade") {
        return Err("Connection does not have upgrade in it");
    }
    if !has(&header::UPGRADE, "websocket") {
        return Err("Upgrade does not have websocket in it");
    }
    if only(&header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err("Sec-WebSocket-Version is not 13");
    }
    let key = only(&header::SEC_WEBSOCKET_KEY).unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
        return Err("Sec-WebSocket-Key is not 16 bytes in Base64");
    }
    HeaderValue::try_from(derive_accept_key(key)).map_err(|_| "Sec-WebSocket-Key is not 16 bytes in Base64")
}

/// Whether a request offers [`SUBPROTOCOL`].
fn offers_subprotocol(headers: &HeaderMap) -> bool {
    members(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == SUBPROTOCOL)
}
