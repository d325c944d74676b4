//! The routes. `/register_device` and `/connect_client` are not among them: [`service`](super::service) answers those.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{any, get};
use hyper::StatusCode;

use super::extract::PathId;
use super::files::{assets, device_files};
use super::respond::{STOPPING, error, json};
use super::state::HttpState;
use super::upgrade::upgrade_here;
use super::{dashboard, devices, elsewhere, metrics, nodes, polling};
use crate::core::peer::Role;
use crate::protocol::DeviceId;
use crate::server::cluster::readiness::Readiness;
use crate::server::shared::Shared;
use crate::server::ws::open::Purpose;

/// The routers of one server, which share their state.
pub(in crate::server) struct Routers {
    /// All endpoints.
    pub(in crate::server) all: Router,
    /// The metrics alone, without `authorize`.
    pub(in crate::server) metrics: Router,
}

/// Builds the routers.
pub(in crate::server) fn routers(shared: &Arc<Shared>) -> Routers {
    let state = HttpState::new(shared);
    let metrics = Router::new()
        .route("/metrics", get(metrics::metrics_for_all))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(async || error(StatusCode::NOT_FOUND, "Not found; this address has GET /metrics and nothing else"))
        .with_state(state.clone());
    Routers { all: all(shared, state), metrics }
}

/// The answer to a method that the route does not have.
async fn method_not_allowed() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
}

/// Builds the router of all endpoints.
fn all(shared: &Arc<Shared>, state: HttpState) -> Router {
    let settings = shared.settings();
    let router = if settings.echo { Router::new().route("/echo", any(echo)) } else { Router::new() };
    let router = assets::add_to(router, settings.dashboard);
    let router = dashboard::events::add_to(router, settings.dashboard);
    let router = dashboard::manage::add_to(router, settings.dashboard);
    polling::add_to(router)
        .route("/devices", get(devices::devices))
        .route("/devices/{id}", get(devices::device))
        .route("/devices/{id}/connect", any(connect_to_device))
        .route("/devices/{id}/adb", any(adb_of_device))
        .route("/devices/{id}/files/{*path}", get(device_files::device_file))
        .route("/nodes", get(nodes::nodes))
        .route("/infra_config", get(devices::infra_config))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(assets::of_directory)
        .with_state(state)
}

/// `WS /devices/{id}/connect`: the path names the device, and each text is a payload (docs/protocol.md 5.3.7 and
/// 5.3.8).
async fn connect_to_device(State(shared): State<Arc<Shared>>, PathId(id): PathId, request: Request) -> Response {
    upgrade_here(&shared, Role::Client, Purpose::SignalingWith(DeviceId::new(&id)), request).await
}

/// `WS /devices/{id}/adb`: bytes to and from the device's adb port (docs/protocol.md 5.3.19).
async fn adb_of_device(State(shared): State<Arc<Shared>>, PathId(id): PathId, request: Request) -> Response {
    if !shared.settings().adb.is_on {
        return error(StatusCode::NOT_FOUND, "adb is off on this server: --adb (adb=True) turns it on");
    }
    let id = DeviceId::new(&id);
    if let Some(node) = elsewhere::node_of_device(&shared, &id, elsewhere::was_passed_on(&request)) {
        return elsewhere::tunnel(&shared, node, request).await;
    }
    upgrade_here(&shared, Role::Client, Purpose::Adb(id), request).await
}

/// The echo endpoint for Autobahn.
async fn echo(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    upgrade_here(&shared, Role::Http, Purpose::Echo, request).await
}

/// Whether the server is to be sent peers: it can call its hooks, and does not drain or stop. A node of a cluster without
/// the engine is, unless another node has it.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.stopping.is_cancelled() {
        return error(StatusCode::SERVICE_UNAVAILABLE, STOPPING);
    }
    if shared.drain.begun.is_cancelled() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "Server draining");
    }
    if let Some(reason) = shared.hooks.blocked() {
        return error(StatusCode::SERVICE_UNAVAILABLE, &reason);
    }
    json(
        StatusCode::OK,
        match shared.cluster.as_ref().map_or(Readiness::Ready, |cluster| cluster.readiness()) {
            Readiness::Ready => r#"{"status":"ready"}"#,
            Readiness::Alone => r#"{"status":"ready","cluster":"alone"}"#,
            Readiness::Away => r#"{"status":"ready","cluster":"engine unreachable"}"#,
            Readiness::Unreachable => return error(StatusCode::SERVICE_UNAVAILABLE, "engine unreachable"),
        },
    )
}

/// Whether the server runs.
async fn healthz() -> Response {
    json(StatusCode::OK, r#"{"status":"ok"}"#)
}
