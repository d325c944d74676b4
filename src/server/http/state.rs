//! State of the routes: what the server's connections share, and what only HTTP needs.

use std::sync::Arc;

use axum::extract::FromRef;

use super::dashboard::events::ViewerSlots;
use super::polled::Polled;
use crate::server::shared::Shared;

/// Cheap to clone. Each endpoint extracts the parts that it needs.
#[derive(Clone)]
pub(in crate::server::http) struct HttpState {
    shared: Arc<Shared>,
    polled: Arc<Polled>,
    viewers: Arc<ViewerSlots>,
}

impl HttpState {
    pub(in crate::server::http) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), polled: Arc::default(), viewers: Arc::default() }
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
