//! Bind, serve, stop: the accept loop and what all connections of one server share.
//!
//! The caller binds and the caller stops; a server that was bound is listening. Every connection is one task on a
//! tracker, so that a server that has stopped has left nothing behind.

mod alarm;
mod answers;
mod changes;
mod clock;
mod connection;
mod dialogue;
mod echo;
mod frames;
mod guard;
mod http;
mod local;
mod polled;
mod porter;
mod pump;
mod reception;
mod throttle;
mod transport;
mod watch;
mod websocket;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use socket2::{Domain, Socket, Type};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use changes::Changes;
pub use clock::Clock;

use self::alarm::Alarm;
use self::local::{Door, Local};
use self::reception::Routes;
use crate::config::{Config, IceSource};
use crate::error::{ConfigError, Error};
use crate::faults::{Rule, RuleId, Tally};
use crate::gate::Gate;
use crate::hooks::Hooks;
use crate::hub::{Hub, Observer};
use crate::incidents::Incidents;
use crate::journal::{Journal, Scribe};
use crate::ledger::LedgerReading;
use crate::outbox::{End, Outbox};
use crate::peer::{Peer, Role};
use crate::policy::Policy;
use crate::relay::Relay;
use crate::roster::Roster;
use crate::session::{Context, Rules};
use crate::tls::Tls;

/// Connections the system keeps for us until we accept them.
const BACKLOG: i32 = 4096;

/// What all connections of one server share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) rules: Arc<Rules>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) clock: Arc<Clock>,
    alarm: Arc<Alarm>,
    pub(crate) hooks: Arc<dyn Hooks>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) incidents: Arc<Incidents>,
    pub(crate) roster: Arc<Roster>,
    pub(crate) requests: http::metrics::Requests,
    /// When it was made, in seconds since 1970.
    pub(crate) started: f64,
    pub(crate) polled: polled::Polled,
    pub(crate) viewers: http::viewers::Viewers,
    /// Everything that runs for this server.
    tasks: TaskTracker,
    /// What the others need until they have ended.
    timekeeping: TaskTracker,
    gate: Arc<Gate>,
    policy: Policy,
    ice: RwLock<IceSource>,
    /// Cancelled when no more connections are wanted.
    stopping: CancellationToken,
    /// Cancelled when the time for goodbyes is over.
    over: CancellationToken,
}

impl Shared {
    /// What the session of a peer needs, with an outbox of its own.
    fn context(&self, peer: Peer) -> Context {
        let mut outbox = Outbox::new(self.config.outbox_bounds());
        if !peer.hears_errors {
            outbox = outbox.without_errors();
        }
        if let (Role::Device | Role::Client, Some(journal)) = (peer.role, self.relay.journal()) {
            outbox = outbox.recorded(Scribe::new(Arc::clone(journal), peer.role));
        }
        Context {
            hub: Arc::clone(&self.hub),
            incidents: Arc::clone(&self.incidents),
            relay: Arc::clone(&self.relay),
            rules: Arc::clone(&self.rules),
            roster: Arc::clone(&self.roster),
            outbox: Arc::new(outbox),
            peer: Arc::new(peer),
        }
    }

    /// Serves somebody in a task of its own.
    fn spawn<T>(self: &Arc<Self>, task: T, address: Option<SocketAddr>) -> JoinHandle<()>
    where
        T: Future<Output = ()> + Unpin + Send + 'static,
    {
        self.tasks.spawn(guard::Guard::new(task, self, address))
    }
}

/// A server that listens and does not answer yet.
pub struct Server {
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    local: Vec<Local>,
    address: SocketAddr,
}

/// A server that answers.
#[derive(Clone)]
pub struct Running {
    shared: Arc<Shared>,
    routes: Routes,
    address: SocketAddr,
}

impl Server {
    /// Checks the settings and listens. Needs no runtime yet.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Bind`].
    pub fn bind(config: Config, hooks: Arc<dyn Hooks>, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        config.validate()?;
        if is_exposed(&config, &*hooks) && !config.allow_unauthenticated {
            let what = format!(
                "{} can be reached from other machines, and nobody is asked who they are: set `authorize`, or \
                 allow_unauthenticated if that is meant",
                config.host
            );
            return Err(ConfigError::new("host", what).into());
        }
        let wanted = SocketAddr::new(config.host, config.port);
        let bind_error = |source| Error::Bind { address: wanted, source };
        let listener = listen(wanted).map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let doors = [(Door::Devices, &config.device_socket), (Door::Control, &config.control_socket)];
        let doors = doors.into_iter().filter_map(|(door, path)| Some((door, path.as_deref()?)));
        let local = doors.map(|(door, path)| Local::bind(door, path)).collect::<Result<_, _>>()?;
        let changes = Arc::new(Changes::default());
        let alarm = Alarm::new().map_err(Error::Runtime)?;
        let (clock, incidents) = (Arc::new(Clock::new(Arc::clone(&alarm))), Arc::new(Incidents::default()));
        let started = clock.unix_now();
        let chronicle = changes::Chronicle { changes: Arc::clone(&changes), next: Arc::clone(&observer) };
        let journal = config.journal.then(|| {
            let desk = watch::Desk { clock: Arc::clone(&clock), changes: Arc::clone(&changes), observer };
            Arc::new(Journal::new(config.journal_bounds(), Box::new(desk)))
        });
        let client_ids = config.client_ids;
        // By the system's clock, not by one that a test has turned: real devices do not know of that one.
        let first_client_id =
            move || client_ids.first(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
        let hub = Hub::new(Arc::new(chronicle), config.limits.max_devices, first_client_id);
        let shared = Shared {
            rules: Arc::new(config.rules()),
            hub: Arc::new(hub),
            relay: Arc::new(Relay::new(journal, config.limits.held_by_faults)),
            clock,
            alarm,
            gate: Gate::new(config.limits.clone(), Arc::clone(&incidents), Instant::now()),
            policy: Policy::new(&config),
            roster: Arc::default(),
            requests: http::metrics::Requests::default(),
            started,
            polled: polled::Polled::default(),
            viewers: http::viewers::Viewers::default(),
            tasks: TaskTracker::new(),
            timekeeping: TaskTracker::new(),
            incidents,
            hooks,
            changes,
            ice: RwLock::new(config.ice.clone()),
            stopping: CancellationToken::new(),
            over: CancellationToken::new(),
            config,
        };
        Ok(Self { shared: Arc::new(shared), listener, local, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Starts to answer, on the runtime this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled, and time where the system is not Linux.
    pub fn serve(self) -> Running {
        let Self { shared, listener, local, address } = self;
        for door in local {
            shared.tasks.spawn(door.accept(Arc::clone(&shared)));
        }
        shared.tasks.spawn(watch::release_in_time(Arc::clone(&shared)));
        shared.timekeeping.spawn(keep_time(Arc::clone(&shared)));
        let routes = Routes::default();
        shared.tasks.spawn(accept(Arc::clone(&shared), routes.clone(), listener));
        Running { shared, routes, address }
    }
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves one more connection, in memory: as any that was accepted from this machine, and without TLS. Returns the
    /// task, which ends with the connection.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn serve_in_memory(&self, stream: DuplexStream) -> JoinHandle<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let entry = self.shared.gate.enter(address.ip(), Instant::now());
        let reception = self.routes.reception(entry.turned_away);
        let connection = connection::Connection::new(Arc::clone(&self.shared), reception, address, entry);
        self.shared.spawn(connection.run_in_memory(stream), Some(address))
    }

    /// Who is there.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    /// What became of the forwards so far.
    pub fn ledger(&self) -> LedgerReading {
        self.shared.relay.ledger().read()
    }

    /// How often what should not happen did.
    pub fn incidents(&self) -> &Incidents {
        &self.shared.incidents
    }

    /// What was said, if it was to be written down.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.shared.relay.journal()
    }

    /// Arms a fault: it strikes from the next forward on.
    pub fn arm_fault(&self, rule: Rule) -> RuleId {
        self.shared.relay.arm(rule)
    }

    /// Removes a fault; what it holds back goes on at once. `None` if it is not armed.
    pub fn disarm_fault(&self, id: RuleId) -> Option<Tally> {
        self.shared.relay.disarm(id, self.shared.clock.now())
    }

    /// What became of a fault so far, if it is armed.
    pub fn fault_tally(&self, id: RuleId) -> Option<Tally> {
        self.shared.relay.tally(id)
    }

    /// What faults leave to chance goes by this seed, in those armed from now on. Default 0.
    pub fn seed_faults(&self, seed: u64) {
        self.shared.relay.set_seed(seed);
    }

    /// The time it goes by.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// After the clock was turned: has everybody look at it. The receiver is hung up on once all that was due is done.
    pub fn clock_turned(&self) -> mpsc::Receiver<()> {
        self.shared.relay.release_due(self.shared.clock.now());
        self.shared.hub.nudge_all()
    }

    /// A counter to wait on.
    pub fn changes(&self) -> &Arc<Changes> {
        &self.shared.changes
    }

    /// Tells peers other ICE servers from now on, and live devices at once, in a new `config`.
    pub fn set_ice_servers(&self, source: IceSource) {
        *self.shared.ice.write() = source;
        self.shared.hub.renew_config();
    }

    /// Stops listening, says 1001 to everyone, and waits until all connections are gone, at most until `deadline`;
    /// then drops what is left. Returns whether everybody left in time.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.shared.stopping.cancel();
        // Goodbyes have deadlines too.
        self.shared.clock.resume();
        self.shared.hub.close(&End::close(1001, "server stopping"));
        self.shared.tasks.close();
        let in_time = self.shared.alarm.timeout(deadline, self.shared.tasks.wait()).await.is_some();
        self.shared.over.cancel();
        drop(self.shared.hub.nudge_all());
        self.shared.tasks.wait().await;
        self.shared.timekeeping.close();
        self.shared.timekeeping.wait().await;
        self.shared.relay.abandon();
        in_time
    }
}

/// Wakes connections when their time has come, until the last of them has gone.
async fn keep_time(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.tasks.wait() => {}
        Err(error) = shared.alarm.run() => {
            tracing::error!("can not watch the timer, and deadlines will be missed: {error}");
            shared.tasks.wait().await;
        }
    }
    shared.alarm.close();
}

/// Whether other machines reach it, and nobody is asked who they are.
fn is_exposed(config: &Config, hooks: &dyn Hooks) -> bool {
    let asks = hooks.authenticates() || config.tls.as_ref().is_some_and(Tls::asks_clients);
    !config.host.is_loopback() && !asks
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A port that was just left can be taken again; one that somebody listens on can not.
    socket.set_reuse_address(true)?;
    if matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified()) {
        socket.set_only_v6(false)?;
    }
    // Signaling is small messages that somebody waits for. Accepted sockets have it from the one that listens.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn accept(shared: Arc<Shared>, routes: Routes, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("can not watch the listening socket: {error}"),
    };
    if is_exposed(&shared.config, &*shared.hooks) {
        tracing::warn!(
            "listening on {} without `authorize`: whoever reaches it may register devices and use all of them",
            shared.config.host
        );
    }
    let tls = shared.config.tls.as_ref().map(|tls| TlsAcceptor::from(tls.server_config()));
    let mut pause = Duration::ZERO;
    // At most one line a second.
    let mut told = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                pause = Duration::ZERO;
                let entry = shared.gate.enter(address.ip().to_canonical(), Instant::now());
                let reception = routes.reception(entry.turned_away);
                let connection = connection::Connection::new(Arc::clone(&shared), reception, address, entry);
                shared.spawn(connection.run(stream, tls.clone()), Some(address));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // No descriptors or no memory: they come back when somebody leaves.
                pause = (pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
                if told.is_none_or(|told: Instant| told.elapsed() >= Duration::from_secs(1)) {
                    told = Some(Instant::now());
                    tracing::warn!("can not accept connections, trying again and again: {error}");
                }
                tokio::select! {
                    () = shared.stopping.cancelled() => return,
                    () = shared.alarm.sleep(pause) => {}
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
