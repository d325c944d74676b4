//! The state that all connections of one server share.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::audit_log::{AuditLog, of_peer};
use super::catch_panic;
use super::cluster::handle::Cluster;
use super::events::Changes;
use super::feed::Feed;
use super::ice_cache::IceCache;
use super::refusal_log::{Admission, RecordRates, RefusalLog, RefusalRecord};
use super::settings::{CurrentSettings, Settings};
use super::time::clock::Clock;
use super::time::timers::Timers;
use crate::access::connection_limits::ConnectionLimiter;
use crate::access::hooks::Hooks;
use crate::access::request_rates::RequestRates;
use crate::config::{Config, IceSource};
use crate::core::hub::{Hub, Observer};
use crate::core::outbox::Outbox;
use crate::core::peer::{Peer, Role};
use crate::core::preregistration::PreRegistrations;
use crate::core::proxied::ProxiedPeers;
use crate::core::relay::Relay;
use crate::core::session::Context;
use crate::observe::adb::AdbCounts;
use crate::observe::audit::{AuditRecord, Outcome};
use crate::observe::hook_errors::HookFailures;
use crate::observe::incidents::Incidents;
use crate::observe::journal::PeerJournal;
use crate::observe::request_counts::RequestCounts;
use crate::observe::timings::Timings;

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
    /// Tells streams of the control API of changes of peers.
    pub(super) feed: Arc<Feed>,
    /// Told of changes of the cluster.
    pub(super) observer: Arc<dyn Observer>,
    /// Counts incidents by kind.
    pub(crate) incidents: Arc<Incidents>,
    /// The last calls of hooks that failed.
    pub(crate) hook_failures: HookFailures,
    /// Histograms of times.
    pub(crate) timings: Arc<Timings>,
    /// The cluster of which this server is a node.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// Devices that were announced over the control socket.
    pub(crate) preregistrations: Arc<PreRegistrations>,
    /// The peers whose connections are passed on to another server.
    pub(crate) proxied: Arc<ProxiedPeers>,
    /// Counts adb connections.
    pub(crate) adb: Arc<AdbCounts>,
    /// The TCP ports that the server listens on. No request or connection to a port of a device goes there.
    pub(crate) own_ports: Vec<u16>,
    /// Counts HTTP requests by endpoint and class of status.
    pub(crate) requests: RequestCounts,
    /// The version of the Python that the server runs in, once it is told.
    pub(crate) python: OnceLock<String>,
    /// The time at which the server was bound, in seconds since 1970.
    pub(crate) started: f64,
    /// All tasks of the server. `stop` waits until it is empty.
    pub(super) tasks: TaskTracker,
    /// Tasks that the other tasks depend on, which end last: the one that fires timers.
    pub(super) timekeeping: TaskTracker,
    /// The limits on connections.
    pub(super) limiters: Limiters,
    /// The audit log, if the settings ask for one.
    pub(super) audit: Option<Arc<AuditLog>>,
    /// The rates of log records that peers cause.
    pub(super) record_rates: RecordRates,
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

/// The limits on connections, which hand out permits. A storm at one kind of listeners takes no place from the others.
pub(crate) struct Limiters {
    /// Of connections over TCP.
    pub(super) tcp: Arc<ConnectionLimiter>,
    /// Of connections to HTTP listeners on Unix sockets.
    pub(super) unix: Arc<ConnectionLimiter>,
    /// Of connections to listeners for metrics.
    pub(super) metrics: Arc<ConnectionLimiter>,
    /// Of connections to listeners of the control API.
    pub(super) control: Arc<ConnectionLimiter>,
    /// Of connections of other nodes.
    pub(super) nodes: Arc<ConnectionLimiter>,
}

impl Limiters {
    /// Creates limiters without connections.
    pub(super) fn new(config: &Config, incidents: &Arc<Incidents>) -> Self {
        let limits = &config.limits;
        let limiter = |limits| ConnectionLimiter::new(limits, Arc::clone(incidents), Instant::now());
        Self {
            tcp: limiter(limits.clone()),
            unix: limiter(limits.clone()),
            metrics: limiter(limits.of_metrics()),
            control: limiter(limits.of_control(config.control.max_connections)),
            nodes: limiter(limits.of_nodes()),
        }
    }

    /// Replaces the limits.
    pub(super) fn set_limits(&self, config: &Config) {
        let limits = &config.limits;
        self.tcp.set_limits(limits.clone());
        self.unix.set_limits(limits.clone());
        self.metrics.set_limits(limits.of_metrics());
        self.control.set_limits(limits.of_control(config.control.max_connections));
        self.nodes.set_limits(limits.of_nodes());
    }
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

    /// The same; in a cluster, a fixed list is set on all nodes, and for those that join later.
    pub(super) fn replace_ice_servers(&self, source: IceSource) {
        if let (Some(cluster), IceSource::Fixed(servers)) = (&self.cluster, &source) {
            let config = servers.config().as_str().into();
            cluster.with(|membership| membership.set_ice(Some(config), Instant::now()));
        }
        self.set_ice_servers(source);
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
            timings: Arc::clone(&self.timings),
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
    pub(super) fn log_refusal(self: &Arc<Self>, refused: &RefusalRecord<'_>) {
        let tell = |more| {
            let event = "refusals_left_out";
            tracing::info!(event, left_out = more, "refused peers, and {more} more");
        };
        if let Some(left_out) = self.admit(|shared| &shared.record_rates.refusals, tell) {
            refused.log(left_out);
        }
    }

    /// Adds a record to the audit log. It is not made without one.
    pub(super) fn audit<'a>(&self, record: impl FnOnce() -> AuditRecord<'a>) {
        if let Some(audit) = &self.audit {
            audit.add(&record());
        }
    }

    /// Adds the end of a peer's connection by the server to the audit log. `device_id` is the device, if it is known.
    pub(super) fn audit_end(&self, peer: &Peer, device_id: Option<&str>, code: u16, reason: &str) {
        let (status, reason) = (Some(code), Some(reason));
        self.audit(|| AuditRecord { device_id, status, reason, ..of_peer(Outcome::Refused, peer) });
    }

    /// Counts a record of the access log, of which `requests_logged_per_second` are logged.
    ///
    /// Returns how many were left out before it, or `None` if it is left out itself.
    pub(super) fn admit_request_record(self: &Arc<Self>) -> Option<u64> {
        let tell = |more| {
            let event = "requests_left_out";
            tracing::info!(event, left_out = more, "answered requests, and {more} more");
        };
        self.admit(|shared| &shared.record_rates.requests, tell)
    }

    /// Counts a record against its rate. If it is left out, and no record follows for a second, `tell` logs that.
    fn admit(self: &Arc<Self>, log: fn(&Self) -> &RefusalLog, tell: fn(u64)) -> Option<u64> {
        match log(self).admit(Instant::now()) {
            Admission::Logged(more) => return Some(more),
            Admission::LeftOut { is_first } => {
                if is_first && Handle::try_current().is_ok() {
                    let shared = Arc::clone(self);
                    self.tasks.spawn(async move {
                        tokio::select! {
                            () = shared.stopping.cancelled() => {}
                            () = shared.timers.sleep(Duration::from_secs(1)) => {}
                        }
                        let more = log(&shared).take_left_out();
                        if more > 0 {
                            tell(more);
                        }
                    });
                }
            }
        }
        None
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
