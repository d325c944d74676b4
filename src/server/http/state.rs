//! The router's state: the server's shared state, and the state that only HTTP needs.

use std::sync::Arc;

use axum::extract::FromRef;

use super::dashboard::events::ViewerSlots;
use super::dashboard::overview::Overviews;
use super::listing::Listings;
use super::metrics::Metrics;
use super::polled::Polled;
use crate::server::shared::Shared;

/// State that axum clones for each request. Each endpoint extracts the parts that it needs.
#[derive(Clone)]
pub(in crate::server::http) struct HttpState {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// The polled connections.
    polled: Arc<Polled>,
    /// The dashboard's open event streams.
    viewers: Arc<ViewerSlots>,
    /// The rendered list of devices.
    listings: Arc<Listings>,
    /// The overviews that pages of the dashboard share.
    overviews: Arc<Overviews>,
    /// The metrics.
    metrics: Arc<Metrics>,
}

impl HttpState {
    /// Creates the state of a server without polled connections and viewers.
    pub(in crate::server::http) fn new(shared: &Arc<Shared>) -> Self {
        let (listings, overviews) = (Arc::default(), Arc::default());
        Self {
            metrics: Arc::new(Metrics::new(shared, &listings, &overviews)),
            shared: Arc::clone(shared),
            polled: Arc::default(),
            viewers: Arc::default(),
            listings,
            overviews,
        }
    }
}

impl FromRef<HttpState> for Arc<Shared> {
    fn from_ref(state: &HttpState) -> Self {
        Arc::clone(&state.shared)
    }
}

impl FromRef<HttpState> for Arc<Polled> {
    fn from_ref(state: &HttpState) -> Self {
        Arc::clone(&state.polled)
    }
}

impl FromRef<HttpState> for Arc<ViewerSlots> {
    fn from_ref(state: &HttpState) -> Self {
        Arc::clone(&state.viewers)
    }
}

impl FromRef<HttpState> for Arc<Listings> {
    fn from_ref(state: &HttpState) -> Self {
        Arc::clone(&state.listings)
    }
}

impl FromRef<HttpState> for Arc<Overviews> {
    fn from_ref(state: &HttpState) -> Self {
        Arc::clone(&state.overviews)
    }
}

impl FromRef<HttpState> for Arc<Metrics> {
    fn from_ref(state: &HttpState) -> Self {
        Arc::clone(&state.metrics)
    }
}
