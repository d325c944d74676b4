//! State that all connections of one server share.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::catch_panic;
use super::events::Changes;
use super::time::clock::Clock;
use super::time::timers::Timers;
use crate::access::connection_limits::ConnectionLimiter;
use crate::access::hooks::Hooks;
use crate::access::origin_policy::Policy;
use crate::config::{Config, IceSource};
use crate::core::hub::Hub;
use crate::core::outbox::Outbox;
use crate::core::peer::{Peer, Role};
use crate::core::preregistration::PreRegistrations;
use crate::core::relay::Relay;
use crate::core::session::{Context, Rules};
use crate::observe::incidents::Incidents;
use crate::observe::journal::PeerJournal;
use crate::observe::request_counts::RequestCounts;

/// What all connections of one server share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) rules: Arc<Rules>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) clock: Arc<Clock>,
    pub(super) timers: Arc<Timers>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) incidents: Arc<Incidents>,
    pub(crate) preregistrations: Arc<PreRegistrations>,
    pub(crate) requests: RequestCounts,
    /// When it was made, in seconds since 1970.
    pub(crate) started: f64,
    /// Everything that runs for this server.
    pub(super) tasks: TaskTracker,
    /// What the others need until they have ended.
    pub(super) timekeeping: TaskTracker,
    pub(super) limiter: Arc<ConnectionLimiter>,
    pub(super) policy: Policy,
    pub(super) ice: RwLock<IceSource>,
    /// Cancelled when no more connections are wanted.
    pub(super) stopping: CancellationToken,
    /// Cancelled when the time for goodbyes is over.
    pub(super) over: CancellationToken,
}

impl Shared {
    /// What the session of a peer needs, with an outbox of its own.
    pub(super) fn context(&self, peer: Peer) -> Context {
        let mut outbox = Outbox::new(self.config.outbox_bounds());
        if !peer.hears_errors {
            outbox = outbox.without_errors();
        }
        if let (Role::Device | Role::Client, Some(journal)) = (peer.role, self.relay.journal()) {
            outbox = outbox.recorded(PeerJournal::new(Arc::clone(journal), peer.role));
        }
        Context {
            hub: Arc::clone(&self.hub),
            incidents: Arc::clone(&self.incidents),
            relay: Arc::clone(&self.relay),
            rules: Arc::clone(&self.rules),
            preregistrations: Arc::clone(&self.preregistrations),
            outbox: Arc::new(outbox),
            peer: Arc::new(peer),
        }
    }

    /// Serves somebody in a task of its own.
    pub(super) fn spawn<T>(self: &Arc<Self>, task: T, address: Option<SocketAddr>) -> JoinHandle<()>
    where
        T: Future<Output = ()> + Unpin + Send + 'static,
    {
        self.tasks.spawn(catch_panic::CatchPanic::new(task, &self.incidents, address))
    }

    /// Polls a future until it is ready or the server is over: then there is no more time for goodbyes.
    pub(super) async fn unless_over<T>(&self, future: Pin<Box<dyn Future<Output = T> + Send>>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.over.cancelled() => None,
            done = future => Some(done),
        }
    }
}
