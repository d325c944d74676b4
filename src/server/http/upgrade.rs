//! The upgrade of a request to a WebSocket, up to its 101 (RFC 6455, 4.2; docs/protocol.md 3).

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::auth::Caller;
use super::respond::{error, too_many};
use crate::core::peer::Role;
use crate::observe::incidents::Incident;
use crate::protocol::DeviceId;
use crate::server::connect_info::{ConnectInfo, Upgrade};
use crate::server::shared::Shared;

/// The sub-protocol of Cuttlefish devices (docs/protocol.md 3.7 and 4.1.1).
///
/// A legacy device offers it, and expects the server to select it.
const SUBPROTOCOL: &str = "webrtc-operator";

/// Upgrades a request to a route.
pub(in crate::server) async fn upgrade_here(
    shared: &Arc<Shared>,
    role: Role,
    device: Option<DeviceId>,
    mut request: Request,
) -> Response {
    match request.extensions_mut().remove::<ConnectInfo>() {
        Some(connect_info) => upgrade(shared, role, device, connect_info, request).await,
        None => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}

/// Upgrades a request, or responds with the reason against it.
pub(in crate::server) async fn upgrade<B>(
    shared: &Arc<Shared>,
    role: Role,
    device: Option<DeviceId>,
    connect_info: ConnectInfo,
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
    let mut caller = Caller::from(shared, role, Some(&connect_info), &request);
    caller.peer.hears_errors = role != Role::Device || !offers_subprotocol(request.headers());
    let transport = hyper::upgrade::on(&mut request);
    drop(request);
    match caller.authorize(shared).await {
        Ok(peer) => {
            *connect_info.upgrade.lock() = Some(Upgrade { transport, peer, device, agreed_at: shared.clock.now() });
            response
        }
        Err(refused) => refused,
    }
}

/// The 101 to a valid upgrade request, or the error of an invalid one (RFC 6455, 4.2).
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

/// Whether a request offers [`SUBPROTOCOL`].
fn offers_subprotocol(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    offers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|o| o.trim() == SUBPROTOCOL)
}
