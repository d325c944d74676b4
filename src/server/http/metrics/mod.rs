//! `GET /metrics`, in the text format of Prometheus or of OpenMetrics. No label has an id as its value.

mod accept;
mod collector;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

use self::collector::Collected;
use super::auth::Caller;
use super::dashboard::overview::Overviews;
use super::listing::Listings;
use super::respond::{LengthChanges, error};
use crate::core::peer::Role;
use crate::observe::incidents::Incident;
use crate::server::shared::Shared;

/// The error for a peer whose grant covers some devices only.
const LIMITED: &str = "Not authorized: the metrics are of all devices";

/// The prefix of all metric names.
const PREFIX: &str = "cuttlefish_signaling";

/// The media type of OpenMetrics (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one server.
pub(in crate::server::http) struct Metrics(Registry);

impl Metrics {
    /// Registers the numbers of a server.
    pub(in crate::server::http) fn new(
        shared: &Arc<Shared>,
        listings: &Arc<Listings>,
        overviews: &Arc<Overviews>,
    ) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Collected {
            shared: Arc::clone(shared),
            listings: Arc::clone(listings),
            overviews: Arc::clone(overviews),
        }));
        Self(registry)
    }

    /// Writes all metrics, in the format that the request prefers.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let mut page = String::new();
        let (written, kind) = if accept::prefers_openmetrics(headers) {
            (text::encode(&mut page, &self.0), OPENMETRICS)
        } else {
            (prometheus_text::encode(&mut page, &self.0), prometheus_text::CONTENT_TYPE)
        };
        if written.is_err() {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error: the metrics cannot be written");
        }
        let mut response = Response::new(Body::from(page));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
        // The next answer counts this one.
        response.extensions_mut().insert(LengthChanges);
        response
    }
}

/// `GET /metrics` beside the endpoints of peers, for those whom `authorize` admits.
pub(in crate::server::http) async fn metrics(
    State(shared): State<Arc<Shared>>,
    State(metrics): State<Arc<Metrics>>,
    request: Request,
) -> Response {
    let caller = Caller::of(&shared, Role::Http, &request);
    let headers = request.headers().clone();
    drop(request);
    match caller.authorize(&shared).await {
        // The numbers are of all devices.
        Ok(peer) if peer.grant.devices.is_some() => {
            shared.incidents.count(Incident::Unauthorized);
            error(StatusCode::FORBIDDEN, LIMITED)
        }
        Ok(_) => metrics.answer(&headers),
        Err(refused) => refused,
    }
}

/// `GET /metrics` on a listener of its own, which needs no token.
pub(in crate::server::http) async fn metrics_for_all(
    State(metrics): State<Arc<Metrics>>,
    headers: HeaderMap,
) -> Response {
    metrics.answer(&headers)
}
