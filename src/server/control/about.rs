//! The server itself: what it is, its counters, and the description of this API.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use serde::Serialize;

use super::Control;
use super::problem::Problem;
use super::query::Query;
use crate::observe::incidents::Incident;
use crate::observe::ledger::LedgerReading;
use crate::server::http::respond;

/// The description of this API, of `OpenAPI` 3.1.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// The answer of a route.
pub(super) type Answer = Result<Response, Problem>;

/// 200 with a value as JSON.
pub(super) fn ok(value: &impl Serialize) -> Answer {
    answer(StatusCode::OK, value)
}

/// A response with a value as JSON.
pub(super) fn answer(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_string(value);
    let text = text.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"))?;
    Ok(respond::json(status, text))
}

#[derive(Serialize)]
struct About<'a> {
    api: u32,
    version: &'static str,
    instance: &'a str,
    pid: u32,
    started: f64,
    journal: bool,
    cluster: bool,
    node: Option<&'a str>,
    listeners: &'a [String],
    control: &'a [String],
    max_wait: f64,
}

/// `GET /control/v1`.
pub(super) async fn about(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let shared = &control.shared;
    let [listeners, own] = &control.addresses;
    ok(&About {
        api: 1,
        version: env!("CARGO_PKG_VERSION"),
        instance: &control.instance,
        pid: std::process::id(),
        started: shared.started,
        journal: shared.relay.journal().is_some(),
        cluster: shared.cluster.is_some(),
        node: control.node(),
        listeners,
        control: own,
        max_wait: shared.settings().control.max_wait.as_secs_f64(),
    })
}

/// `GET /control/v1/openapi.json`.
pub(super) async fn openapi(request: Request) -> Answer {
    Query::of(&request)?.done()?;
    Ok(respond::json(StatusCode::OK, OPENAPI))
}

#[derive(Serialize)]
struct Stats {
    connections: usize,
    devices: usize,
    clients: usize,
    waiting: usize,
    accepted: u64,
    delivered: u64,
    refused: u64,
    gone: u64,
    dropped: u64,
    hook_failures: u64,
    incidents: BTreeMap<&'static str, u64>,
}

/// `GET /control/v1/stats`.
pub(super) async fn stats(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let shared = &control.shared;
    let LedgerReading { accepted, delivered, refused, gone, dropped } = shared.relay.ledger().read();
    let incidents = Incident::ALL.into_iter().map(|incident| (incident.as_str(), shared.incidents.of(incident)));
    ok(&Stats {
        connections: shared.hub.connections(),
        devices: shared.hub.device_count(),
        clients: shared.hub.client_count(),
        waiting: shared.hub.waiting_count(),
        accepted,
        delivered,
        refused,
        gone,
        dropped,
        hook_failures: shared.hook_failures.count(),
        incidents: incidents.collect(),
    })
}
