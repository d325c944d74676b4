//! The control API: programs read and change a server over HTTP, on listeners of their own (docs/control-api.md).
//!
//! Nothing here is on the path of a forward. A server without such a listener makes no part of it.

mod about;
mod admit;
mod body;
mod changes;
mod clock;
mod entries;
mod expect;
mod export;
mod fault_body;
mod faults;
mod ice;
mod journal;
mod lines;
mod peers;
mod problem;
mod program;
mod query;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::routing::{delete, get, post, put};
use axum::{Router, middleware};
use parking_lot::Mutex;

use crate::config::listen::Listen;
use crate::observe::faults::RuleId;
use crate::server::shared::Shared;

/// The state of the control API of one server.
pub(super) struct Control {
    /// The server.
    shared: Arc<Shared>,
    /// Tells one start of a server from another.
    instance: String,
    /// The addresses for peers, and those of the control API.
    addresses: [Vec<String>; 2],
    /// The requests that are under way.
    requests: Arc<AtomicUsize>,
    /// The faults that requests have armed.
    armed: Mutex<BTreeSet<RuleId>>,
}

impl Control {
    fn new(shared: &Arc<Shared>, peers: &[Listen], own: &[Listen]) -> Self {
        let texts = |of: &[Listen]| of.iter().map(ToString::to_string).collect();
        Self {
            shared: Arc::clone(shared),
            instance: format!("{:016x}", fastrand::u64(..)),
            addresses: [texts(peers), texts(own)],
            requests: Arc::default(),
            armed: Mutex::default(),
        }
    }

    /// The name of this node, if the server is a node of a cluster.
    fn node(&self) -> Option<&str> {
        self.shared.cluster.as_ref().map(|cluster| cluster.incarnation.node())
    }
}

/// Builds the router of a server that listens at these addresses, for peers and for programs that control it.
pub(super) fn router(shared: &Arc<Shared>, peers: &[Listen], own: &[Listen]) -> Router {
    let control = Arc::new(Control::new(shared, peers, own));
    Router::new()
        .route("/control/v1", get(about::about))
        .route("/control/v1/openapi.json", get(about::openapi))
        .route("/control/v1/devices", get(peers::devices))
        .route("/control/v1/devices/{id}", get(peers::device).delete(peers::disconnect_device))
        .route("/control/v1/devices/{id}/clients", get(peers::clients_of))
        .route("/control/v1/devices/{id}/clients/{client}", delete(peers::disconnect_client))
        .route("/control/v1/clients", get(peers::clients))
        .route("/control/v1/waiting", get(peers::waiting))
        .route("/control/v1/nodes", get(peers::nodes))
        .route("/control/v1/stats", get(about::stats))
        .route("/control/v1/errors", get(program::errors))
        .route("/control/v1/reload", post(program::reload))
        .route("/control/v1/watch", get(watch::watch))
        .route("/control/v1/changes", get(changes::changes))
        .route("/control/v1/journal", get(journal::find))
        .route("/control/v1/journal/export", get(export::export))
        .route("/control/v1/journal/transcript", get(program::transcript))
        .route("/control/v1/journal/expect", post(expect::expect))
        .route("/control/v1/faults", get(faults::list).post(faults::arm).delete(faults::disarm_all))
        .route("/control/v1/faults/seed", put(faults::seed))
        .route("/control/v1/faults/{id}", get(faults::one).delete(faults::disarm))
        .route("/control/v1/clock", get(clock::read))
        .route("/control/v1/clock/freeze", post(clock::freeze))
        .route("/control/v1/clock/resume", post(clock::resume))
        .route("/control/v1/clock/advance", post(clock::advance))
        .route("/control/v1/reset", post(clock::reset))
        .route("/control/v1/ice_servers", get(ice::read).put(ice::set))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::unknown_path)
        .layer(middleware::from_fn_with_state(Arc::clone(&control), admit::admit))
        .with_state(control)
}
