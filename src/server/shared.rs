//! The state that all connections of one server share.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::catch_panic;
use super::events::Changes;
use super::ice_cache::IceCache;
use super::refusal_log::{Admission, RefusalLog};
use super::settings::{CurrentSettings, Settings};
use super::time::clock::Clock;
use super::time::timers::Timers;
use crate::access::connection_limits::ConnectionLimiter;
use crate::access::hooks::Hooks;
use crate::access::request_rates::RequestRates;
use crate::config::IceSource;
use crate::core::hub::Hub;
use crate::core::outbox::Outbox;
use crate::core::peer::{Peer, Role};
use crate::core::preregistration::PreRegistrations;
use crate::core::relay::Relay;
use crate::core::session::Context;
use crate::observe::adb::AdbCounts;
use crate::observe::hook_errors::HookFailures;
use crate::observe::incidents::Incidents;
use crate::observe::journal::PeerJournal;
use crate::observe::request_counts::RequestCounts;

/// The state that all connections of one server share. It does not know HTTP.
pub(crate) struct Shared {
    /// The settings, which a reload replaces.
    pub(super) current: Arc<CurrentSettings>,
    /// The registered devices and their clients.
    pub(crate) hub: Arc<Hub>,
    /// The path of forwards, with ledger, journal and faults.
    pub(crate) relay: Arc<Relay>,
    /// The clock of the protocol's deadlines. A test can freeze it or move it.
    pub(crate) clock: Arc<Clock>,
    /// Timers on the system's clock. They wake tasks.
    pub(super) timers: Arc<Timers>,
    /// The user's hooks.
    pub(crate) hooks: Arc<dyn Hooks>,
    /// Counts events, for threads that wait for one.
    pub(crate) changes: Arc<Changes>,
    /// Counts incidents by kind.
    pub(crate) incidents: Arc<Incidents>,
    /// The last calls of hooks that failed.
    pub(crate) hook_failures: HookFailures,
    /// Devices that were announced over the control socket.
    pub(crate) preregistrations: Arc<PreRegistrations>,
    /// Counts adb connections.
    pub(crate) adb: Arc<AdbCounts>,
    /// The TCP ports that the server listens on. No request or connection to a port of a device goes there.
    pub(crate) own_ports: Vec<u16>,
    /// Counts HTTP requests by endpoint and class of status.
    pub(crate) requests: RequestCounts,
    /// The time at which the server was bound, in seconds since 1970.
    pub(crate) started: f64,
    /// All tasks of the server. `stop` waits until it is empty.
    pub(super) tasks: TaskTracker,
    /// Tasks that the other tasks depend on, which end last: the one that fires timers.
    pub(super) timekeeping: TaskTracker,
    /// The limits on connections, which hand out permits.
    pub(super) limiter: Arc<ConnectionLimiter>,
    /// The same limits, for connections to HTTP listeners on Unix sockets: a storm over TCP takes no place from them.
    pub(super) unix_limiter: Arc<ConnectionLimiter>,
    /// The rate of log lines about refusals.
    pub(super) refusals: RefusalLog,
    /// The rates of requests, by address.
    pub(super) request_rates: RequestRates,
    /// The source of ICE servers, which can be replaced while the server runs.
    pub(super) ice: RwLock<IceSource>,
    /// The ICE servers of the command, if that is the source.
    pub(super) ice_cache: IceCache,
    /// Notified when the settings were replaced.
    pub(super) reloaded: Notify,
    /// The steps of a drain.
    pub(super) drain: DrainSteps,
    /// Cancelled when the server stops: all connections that are left close.
    pub(super) stopping: CancellationToken,
    /// Cancelled when the time for closing handshakes is over: tasks that still run end at once.
    pub(super) over: CancellationToken,
}

/// The steps before a stop. A stop without a drain takes them at once.
#[derive(Default)]
pub(crate) struct DrainSteps {
    /// Cancelled when the drain begins: `GET /readyz` answers 503.
    pub(super) begun: CancellationToken,
    /// Cancelled when the server stops listening: no new connections. Those that are there close one after the other.
    pub(super) no_more: CancellationToken,
}

impl Shared {
    /// The settings that are in effect now.
    pub(super) fn settings(&self) -> Arc<Settings> {
        self.current.get()
    }

    /// Sets the ICE servers of new `config` messages, and sends connected devices a new `config`.
    pub(super) fn set_ice_servers(&self, source: IceSource) {
        *self.ice.write() = source;
        self.hub.renew_config();
    }

    /// Creates the context of a peer's session, with an outbox of its own.
    pub(super) fn context(&self, peer: Peer) -> Context {
        let settings = self.settings();
        let mut outbox = Outbox::new(&settings.budget);
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
            rules: Arc::clone(&settings.rules),
            preregistrations: Arc::clone(&self.preregistrations),
            outbox: Arc::new(outbox),
            peer: Arc::new(peer),
        }
    }

    /// Logs that a peer was refused, at most `refusals_logged_per_second` times a second.
    ///
    /// The next line tells how many were left out. If there is none for a second, a line of its own does.
    pub(super) fn log_refusal(self: &Arc<Self>, line: fmt::Arguments<'_>) {
        match self.refusals.admit(Instant::now()) {
            Admission::Logged(0) => tracing::info!("{line}"),
            Admission::Logged(more) => tracing::info!("{line}, and {more} more before it"),
            Admission::LeftOut { is_first: false } => {}
            Admission::LeftOut { is_first: true } => {
                let shared = Arc::clone(self);
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = shared.stopping.cancelled() => {}
                        () = shared.timers.sleep(Duration::from_secs(1)) => {}
                    }
                    let more = shared.refusals.take_left_out();
                    if more > 0 {
                        tracing::info!("refused peers, and {more} more");
                    }
                });
            }
        }
    }

    /// Spawns a connection's task on the tracker. A panic in it ends only that task.
    pub(super) fn spawn<T>(self: &Arc<Self>, task: T, address: Option<SocketAddr>) -> JoinHandle<()>
    where
        T: Future<Output = ()> + Unpin + Send + 'static,
    {
        self.tasks.spawn(catch_panic::CatchPanic::new(task, &self.incidents, address))
    }

    /// Waits until the server has been stopping for `goodbye_timeout`.
    pub(super) async fn stopped_for_a_while(&self) {
        self.stopping.cancelled().await;
        self.timers.sleep(self.settings().limits.goodbye_timeout).await;
    }

    /// Polls a future until it is ready, or until the time for closing handshakes is over. `None` in the second case.
    pub(super) async fn unless_over<T>(&self, future: Pin<Box<dyn Future<Output = T> + Send>>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.over.cancelled() => None,
            done = future => Some(done),
        }
    }
}
