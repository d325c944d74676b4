//! `GET /metrics`, in Prometheus' text format: counters and gauges. No label has an id as its value.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};

use super::auth::Caller;
use super::dashboard::overview::Overviews;
use super::listing::Listings;
use super::respond::{LengthChanges, error};
use crate::core::peer::Role;
use crate::observe::adb::AdbReading;
use crate::observe::incidents::Incident;
use crate::observe::ledger::LedgerReading;
use crate::server::shared::Shared;

/// The error for a peer whose grant covers some devices only.
const LIMITED: &str = "Not authorized: the metrics are of all devices";

/// `GET /metrics`.
pub(in crate::server) async fn metrics(
    State(shared): State<Arc<Shared>>,
    State(listings): State<Arc<Listings>>,
    State(overviews): State<Arc<Overviews>>,
    request: Request,
) -> Response {
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    match caller.authorize(&shared).await {
        // The numbers are of all devices.
        Ok(peer) if peer.grant.devices.is_some() => {
            shared.incidents.count(Incident::Unauthorized);
            return error(StatusCode::FORBIDDEN, LIMITED);
        }
        Ok(_) => {}
        Err(refused) => return refused,
    }
    let mut response = Response::new(Body::from(render(&shared, &listings, &overviews)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // The next answer counts this one.
    response.extensions_mut().insert(LengthChanges);
    response
}

/// Writes the numbers of peers. They are counters: no list of the hub is walked.
fn peers(page: &mut Page, shared: &Shared) {
    page.family("connections", "gauge", "Connected peers, registered or not.");
    page.sample("", shared.hub.connections());
    page.family("devices", "gauge", "Registered devices.");
    page.sample("", shared.hub.device_count());
    page.family("clients", "gauge", "Clients connected to a device.");
    page.sample("", shared.hub.client_count());
    page.family("waiting_clients", "gauge", "Clients that wait for a device to register.");
    page.sample("", shared.hub.waiting_count());
}

/// Writes all metrics.
fn render(shared: &Shared, listings: &Listings, overviews: &Overviews) -> String {
    let mut page = Page::default();
    peers(&mut page, shared);
    let ledger = shared.relay.ledger().read();
    page.family("forwards_accepted_total", "counter", "Forwards accepted from peers.");
    page.sample("", ledger.accepted);
    page.family("forwards_total", "counter", "Forwards by outcome.");
    let LedgerReading { delivered, refused, gone, dropped, .. } = ledger;
    for (outcome, count) in [("delivered", delivered), ("refused", refused), ("gone", gone), ("dropped", dropped)] {
        page.sample(&format!(r#"{{outcome="{outcome}"}}"#), count);
    }
    incidents(&mut page, shared);
    page.family(
        "http_requests_total",
        "counter",
        "HTTP requests answered, upgrades included, by endpoint and status class.",
    );
    for (endpoint, class, count) in shared.requests.read() {
        page.sample(&format!(r#"{{endpoint="{endpoint}",status="{class}xx"}}"#), count);
    }
    page.family(
        "renderings_total",
        "counter",
        "Renderings: of entries of GET /devices, and of overviews of dashboards.",
    );
    page.sample(r#"{of="device_entry"}"#, listings.rendered());
    page.sample(r#"{of="overview"}"#, overviews.rendered());
    adb(&mut page, shared);
    page.family("start_time_seconds", "gauge", "Start time of the server, in seconds since 1970.");
    page.sample("", format!("{:.3}", shared.started));
    page.0
}

/// Writes the incidents by kind.
fn incidents(page: &mut Page, shared: &Shared) {
    page.family("incidents_total", "counter", "Incidents by kind, such as refused or dropped connections.");
    for incident in Incident::ALL {
        page.sample(&format!(r#"{{kind="{}"}}"#, incident.as_str()), shared.incidents.of(incident));
    }
}

/// Writes the metrics of adb connections.
fn adb(page: &mut Page, shared: &Shared) {
    let AdbReading { open, refused, to_device, from_device } = shared.adb.read();
    page.family("adb_connections", "gauge", "Open adb connections.");
    page.sample("", open);
    page.family("adb_refused_total", "counter", "Requests for adb that were closed without a connection to a device.");
    page.sample("", refused);
    page.family("adb_bytes_total", "counter", "Bytes of adb connections, by direction.");
    page.sample(r#"{direction="to_device"}"#, to_device);
    page.sample(r#"{direction="from_device"}"#, from_device);
}

/// The text so far, and the name of the current metric family.
#[derive(Default)]
struct Page(String, &'static str);

/// The prefix of all metric names.
const PREFIX: &str = "cuttlefish_signaling_";

impl Page {
    /// Begins a metric family.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.1 = name;
        let _infallible = write!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
    }

    /// Writes a sample of the current family.
    fn sample(&mut self, labels: &str, value: impl std::fmt::Display) {
        let _infallible = writeln!(self.0, "{PREFIX}{}{labels} {value}", self.1);
    }
}
