//! The server: bind, serve, stop.
//!
//! A server listens as soon as it is bound. Each connection is one task on a tracker, so a server that has stopped has
//! left no task behind.

mod audit_log;
mod bind;
mod catch_panic;
mod certificate_watch;
pub mod cluster;
mod cluster_view;
mod connect_info;
mod connection;
mod control;
mod drain;
mod events;
mod fault_timer;
mod feed;
mod http;
mod ice_cache;
mod ice_command;
mod ice_process;
mod inherited;
mod key_watch;
mod listener;
mod message_pump;
mod nodes;
mod peer_rows;
mod peer_stream;
mod refusal_log;
mod reload;
mod resolver;
mod seqpacket;
mod session_driver;
mod settings;
mod shared;
mod socket_file;
mod throttle;
mod time;
mod tls_stream;
mod ws;

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

pub use self::cluster::ask::NodeUnreachable;
pub use self::cluster::view::{NodeState, NodeView, RemoteDevice};
pub use self::drain::Drain;
pub use self::events::Changes;
pub use self::reload::Reload;
pub use self::time::clock::Clock;
pub use crate::core::cluster::facts::DeviceFacts;

use self::http::service::Routes;
use self::inherited::Inherited;
use self::listener::{Listener, refuse_exposed};
use self::nodes::BoundNode;
use self::seqpacket::SeqpacketListener;
use self::settings::Settings;
use self::shared::Shared;
use crate::config::error::{ConfigError, Error};
use crate::config::listen::Listen;
use crate::config::{Config, IceSource};
use crate::core::hub::Hub;
use crate::core::outbox::End;
use crate::observe::adb::AdbReading;
use crate::observe::faults::{FaultStats, Rule, RuleId};
use crate::observe::incidents::Incidents;
use crate::observe::journal::Journal;
use crate::observe::ledger::LedgerReading;

/// A server that listens and does not accept connections yet.
pub struct Server {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// The listening sockets for HTTP and WebSocket.
    listeners: Vec<Listener>,
    /// The listening sockets for metrics.
    metrics: Vec<Listener>,
    /// The listening sockets for the control API.
    control: Vec<Listener>,
    /// The local sockets of devices.
    local: Vec<SeqpacketListener>,
    /// The node of a cluster.
    node: Option<BoundNode>,
}

/// A handle to a server that accepts connections. Clones refer to the same server.
#[derive(Clone)]
pub struct Running {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// The HTTP routes, for connections in memory.
    routes: Routes,
    /// The addresses that the server listens on.
    addresses: Arc<[Listen]>,
    /// The addresses for metrics.
    metrics_addresses: Arc<[Listen]>,
    /// The addresses of the control API.
    control_addresses: Arc<[Listen]>,
    /// The address for other nodes of a cluster.
    node_address: Option<SocketAddr>,
}

impl Server {
    /// Checks the settings as [`Server::bind`] does, without listening. `authenticates`: whether the hooks would.
    ///
    /// # Errors
    /// [`Error::Config`] for the first setting that is wrong.
    pub fn check(config: Config, authenticates: bool) -> Result<(), Error> {
        let settings = Settings::new(config)?;
        Inherited::of(&settings)?;
        audit_log::check(&settings)?;
        Ok(refuse_exposed(&settings, authenticates)?)
    }

    /// The addresses that the server listens on, with the ports that the system has chosen, in the order of the setting.
    pub fn addresses(&self) -> impl Iterator<Item = &Listen> {
        self.listeners.iter().map(|listener| &listener.address)
    }

    /// The address of the first TCP listener.
    ///
    /// # Panics
    /// If all listeners are Unix sockets.
    pub fn local_addr(&self) -> SocketAddr {
        first_tcp(self.addresses())
    }

    /// Tells the version of the Python that the server runs in, for the metrics. Only the first call has an effect.
    pub fn runs_in_python(&self, version: &str) {
        let _first = self.shared.python.set(version.to_owned());
    }

    /// Starts to accept connections, on the current tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled. On systems other than Linux the runtime needs time enabled as well.
    pub fn serve(self) -> Running {
        let Self { shared, listeners, metrics, control, local, node } = self;
        if let Some(audit) = shared.audit.clone() {
            shared.tasks.spawn(async move { audit.start() });
        }
        for kind in local {
            shared.tasks.spawn(kind.accept(Arc::clone(&shared)));
        }
        shared.tasks.spawn(fault_timer::release_when_due(Arc::clone(&shared)));
        if shared.settings().tls.is_some() {
            shared.tasks.spawn(certificate_watch::watch(Arc::clone(&shared)));
        }
        shared.tasks.spawn(key_watch::watch(Arc::clone(&shared)));
        shared.timekeeping.spawn(run_timers(Arc::clone(&shared)));
        let node_address = node.as_ref().map(BoundNode::address);
        let routes = Routes::default();
        if let Some(node) = node {
            node.start(&shared, &routes);
        }
        let addresses = |of: &[Listener]| of.iter().map(|listener| listener.address.clone()).collect();
        let (metrics_addresses, control_addresses): (Arc<[Listen]>, Arc<[Listen]>) =
            (addresses(&metrics), addresses(&control));
        let addresses: Arc<[Listen]> = addresses(&listeners);
        if !control.is_empty() {
            routes.set_control(control::router(&shared, &addresses, &control_addresses));
        }
        for listener in listeners.into_iter().chain(metrics).chain(control) {
            shared.tasks.spawn(listener.accept(Arc::clone(&shared), routes.clone()));
        }
        Running { shared, routes, addresses, metrics_addresses, control_addresses, node_address }
    }
}

impl Running {
    /// The addresses that the server listens on, in the order of the setting.
    pub fn addresses(&self) -> &[Listen] {
        &self.addresses
    }

    /// The addresses at which the metrics are read without a token, in the order of the setting.
    pub fn metrics_addresses(&self) -> &[Listen] {
        &self.metrics_addresses
    }

    /// The addresses of the control API, in the order of the setting.
    pub fn control_addresses(&self) -> &[Listen] {
        &self.control_addresses
    }

    /// The address of the first TCP listener.
    ///
    /// # Panics
    /// If all listeners are Unix sockets.
    pub fn local_addr(&self) -> SocketAddr {
        first_tcp(self.addresses.iter())
    }

    /// Serves one more connection, in memory: without TLS, and with the limits of a connection from loopback.
    ///
    /// Returns the task, which ends with the connection.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn serve_in_memory(&self, stream: DuplexStream) -> JoinHandle<()> {
        self.serve_in_memory_from(stream, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Serves one more connection, in memory, as if it came from this address.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn serve_in_memory_from(&self, stream: DuplexStream, address: SocketAddr) -> JoinHandle<()> {
        let counted = listener::limited_address(&self.shared, Some(address));
        let permit = self.shared.limiters.tcp.acquire(counted, Instant::now());
        let service = self.routes.service(permit.turned_away);
        let connection = connection::Connection::new(Arc::clone(&self.shared), service, Some(address), permit);
        self.shared.spawn(connection.run_plain(stream), Some(address))
    }

    /// The registered devices and their clients.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    /// The number of forwards by outcome.
    pub fn ledger(&self) -> LedgerReading {
        self.shared.relay.ledger().read()
    }

    /// The counters of adb connections.
    pub fn adb(&self) -> AdbReading {
        self.shared.adb.read()
    }

    /// The number of incidents by kind.
    pub fn incidents(&self) -> &Incidents {
        &self.shared.incidents
    }

    /// The journal, if the settings ask for one.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.shared.relay.journal()
    }

    /// Arms a fault. It applies from the next forward on.
    pub fn arm_fault(&self, rule: Rule) -> RuleId {
        self.shared.relay.arm(rule)
    }

    /// Removes a fault and releases the forwards that it holds back. `None` if it is not armed.
    pub fn disarm_fault(&self, id: RuleId) -> Option<FaultStats> {
        self.shared.relay.disarm(id, self.shared.clock.now())
    }

    /// The statistics of a fault. `None` if it is not armed.
    pub fn fault_stats(&self, id: RuleId) -> Option<FaultStats> {
        self.shared.relay.fault_stats(id)
    }

    /// Sets the seed of faults that are armed from now on. The default is 0.
    pub fn seed_faults(&self, seed: u64) {
        self.shared.relay.set_seed(seed);
    }

    /// The server's clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Applies a change of the clock: all sessions recheck their deadlines.
    ///
    /// The receiver is disconnected once everything that was due is done.
    pub fn clock_turned(&self) -> mpsc::Receiver<()> {
        self.shared.relay.release_due(self.shared.clock.now());
        self.shared.hub.wake_all_sessions()
    }

    /// A counter that increases with each event; a thread can wait on it.
    pub fn changes(&self) -> &Arc<Changes> {
        &self.shared.changes
    }

    /// Sets the ICE servers of new `config` messages, and sends connected devices a new `config`.
    ///
    /// In a cluster, a fixed list is set on all nodes, and for those that join later.
    pub fn set_ice_servers(&self, source: IceSource) {
        self.shared.replace_ice_servers(source);
    }

    /// Checks that the server may go on without a hook `authorize`.
    ///
    /// # Errors
    /// As [`Server::bind`]: other machines can reach a listener, and `allow_unauthenticated` is not set.
    pub fn check_exposed_without_authorize(&self) -> Result<(), ConfigError> {
        refuse_exposed(&self.shared.settings(), false)
    }

    /// Stops the server and returns whether all connections closed in time.
    ///
    /// The server stops listening and sends each peer a close frame with 1001. Connections that are still open after
    /// `deadline` are dropped.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.shared.drain.begun.cancel();
        self.shared.drain.no_more.cancel();
        self.shared.stopping.cancel();
        // A frozen clock would stop the timeouts of the closing handshakes.
        self.shared.clock.resume();
        self.shared.hub.close(&server_stopping());
        self.shared.tasks.close();
        let in_time = self.shared.timers.timeout(deadline, self.shared.tasks.wait()).await.is_some();
        self.shared.over.cancel();
        drop(self.shared.hub.wake_all_sessions());
        self.shared.tasks.wait().await;
        self.shared.timekeeping.close();
        self.shared.timekeeping.wait().await;
        self.shared.relay.abandon();
        if let Some(audit) = &self.shared.audit {
            audit.finish();
        }
        in_time
    }
}

/// The end of each connection when the server stops (docs/protocol.md 4.3.14).
fn server_stopping() -> End {
    End::close(1001, "server stopping")
}

/// The address of the first TCP listener.
#[allow(clippy::expect_used, reason = "documented as a panic; `addresses` is the function without one")]
fn first_tcp<'a>(mut addresses: impl Iterator<Item = &'a Listen>) -> SocketAddr {
    addresses.find_map(Listen::tcp).expect("no listener uses TCP: see `addresses`")
}

/// Fires due timers until the last connection has ended.
async fn run_timers(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.tasks.wait() => {}
        Err(error) = shared.timers.run() => {
            let what = "cannot watch the timer, and deadlines will be missed";
            tracing::error!(event = "timer_failed", reason = %error, "{what}: {error}");
            shared.tasks.wait().await;
        }
    }
    shared.timers.close();
}
