//! `GET /metrics`, in the text format of Prometheus: counters and gauges, no ids among the labels.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};

use super::Caller;
use crate::incidents::Incident;
use crate::peer::Role;
use crate::server::Shared;

/// What requests are counted by.
const ENDPOINTS: [&str; 18] = [
    "/",
    "/register_device",
    "/connect_client",
    "/devices",
    "/devices/{id}",
    "/devices/{id}/connect",
    "/devices/{id}/files/{path}",
    "/js/server_connector.js",
    "/dashboard/{file}",
    "/polled_connections",
    "/polled_connections/{id}/:forward",
    "/polled_connections/{id}/messages",
    "/connect",
    "/forward",
    "/poll_messages",
    "/infra_config",
    "/metrics",
    "other",
];

/// Classes of status codes, from 1xx on.
const CLASSES: usize = 5;

/// How many requests were answered, by endpoint and class of status.
#[derive(Default)]
pub(crate) struct Requests([[AtomicU64; CLASSES]; ENDPOINTS.len()]);

impl Requests {
    /// A request to this path was answered.
    pub(in crate::server) fn count(&self, endpoint: usize, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.0.get(endpoint).and_then(|classes| classes.get(class)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// The number of a path's endpoint.
    pub(in crate::server) fn endpoint_of(path: &str) -> usize {
        let mut parts = path.split('/').skip(1);
        let pattern = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("devices"), Some(_), None, None) => "/devices/{id}",
            (Some("devices"), Some(_), Some("connect"), None) => "/devices/{id}/connect",
            (Some("devices"), Some(_), Some("files"), Some(_)) => "/devices/{id}/files/{path}",
            (Some("dashboard"), Some(_), None, None) => "/dashboard/{file}",
            (Some("polled_connections"), Some(_), Some(":forward"), None) => "/polled_connections/{id}/:forward",
            (Some("polled_connections"), Some(_), Some("messages"), None) => "/polled_connections/{id}/messages",
            _ => path,
        };
        ENDPOINTS.iter().position(|endpoint| *endpoint == pattern).unwrap_or(ENDPOINTS.len() - 1)
    }
}

pub(super) async fn metrics(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    if let Err(refused) = caller.authorize(&shared).await {
        return refused;
    }
    let mut response = Response::new(Body::from(render(&shared)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn render(shared: &Shared) -> String {
    let mut page = Page::default();
    let devices = shared.hub.devices();
    let clients: usize = devices.iter().map(|device| device.client_count()).sum();
    page.family("connections", "gauge", "Peers connected now, registered or not.");
    page.sample("", shared.hub.connections());
    page.family("devices", "gauge", "Devices registered now.");
    page.sample("", devices.len());
    page.family("clients", "gauge", "Clients connected to a device now.");
    page.sample("", clients);
    page.family("waiting_clients", "gauge", "Clients that wait for a device to register.");
    page.sample("", shared.hub.waiting());
    let ledger = shared.relay.ledger().read();
    page.family("forwards_accepted_total", "counter", "Forwards taken from peers.");
    page.sample("", ledger.accepted);
    page.family("forwards_total", "counter", "Forwards by how they ended.");
    for (outcome, count) in [
        ("delivered", ledger.delivered),
        ("refused", ledger.refused),
        ("gone", ledger.gone),
        ("dropped", ledger.dropped),
    ] {
        page.sample(&format!(r#"{{outcome="{outcome}"}}"#), count);
    }
    page.family("incidents_total", "counter", "What should not happen, by kind.");
    for incident in Incident::ALL {
        page.sample(&format!(r#"{{kind="{}"}}"#, incident.as_str()), shared.incidents.of(incident));
    }
    page.family(
        "http_requests_total",
        "counter",
        "Requests answered, upgrades included, by endpoint and class of status.",
    );
    for (endpoint, classes) in ENDPOINTS.iter().zip(&shared.requests.0) {
        for (class, count) in (1..).zip(classes) {
            let count = count.load(Relaxed);
            if count > 0 {
                page.sample(&format!(r#"{{endpoint="{endpoint}",status="{class}xx"}}"#), count);
            }
        }
    }
    page.family("start_time_seconds", "gauge", "When the server started, in seconds since 1970.");
    page.sample("", format!("{:.3}", shared.started));
    page.0
}

/// The page as far as it is written, and the name of the family that was begun last.
#[derive(Default)]
struct Page(String, &'static str);

const PREFIX: &str = "cuttlefish_signaling_";

impl Page {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.1 = name;
        let _infallible = write!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
    }

    fn sample(&mut self, labels: &str, value: impl std::fmt::Display) {
        let _infallible = writeln!(self.0, "{PREFIX}{}{labels} {value}", self.1);
    }
}
