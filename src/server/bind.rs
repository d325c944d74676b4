//! The start of a server: it checks the settings and listens.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Server;
use super::audit_log::AuditLog;
use super::cluster::engine::Engine;
use super::cluster::handle::Cluster as Handle;
#[cfg(feature = "cluster")]
use super::cluster::redis::Redis;
use super::events::{Changes, LoggingObserver};
use super::fault_timer::JournalHooks;
use super::feed::Feed;
use super::ice_cache::IceCache;
use super::inherited::Inherited;
use super::listener::{Audience, HOST_AND_PORT, Listener, refuse_exposed};
use super::nodes::BoundNode;
use super::refusal_log::RecordRates;
use super::seqpacket::{SeqpacketListener, SocketKind};
use super::settings::{CurrentSettings, Settings};
use super::shared::{DrainSteps, Limiters, Shared};
use super::time::clock::Clock;
use super::time::timers::Timers;
use crate::access::hooks::Hooks;
use crate::access::request_rates::RequestRates;
use crate::config::Config;
use crate::config::cluster::Cluster;
use crate::config::error::{ConfigError, Error};
use crate::core::aliases::Aliases;
use crate::core::hub::{Hub, Observer};
use crate::core::relay::Relay;
use crate::observe::hook_errors::HookFailures;
use crate::observe::incidents::Incidents;
use crate::observe::journal::Journal;
use crate::observe::request_counts::RequestCounts;

impl Server {
    /// Checks the settings and listens. It needs no runtime.
    ///
    /// # Errors
    /// [`Error::Config`] for invalid settings; [`Error::Bind`] if the server cannot listen; [`Error::Runtime`] if the
    /// system has no descriptor left for the timer.
    pub fn bind(config: Config, hooks: Arc<dyn Hooks>, observer: Arc<dyn Observer>) -> Result<Self, Error> {
        let engine = config.cluster.as_ref().map(engine_of).transpose()?;
        Self::listen(config, hooks, observer, engine)
    }

    /// The same for a node of a cluster whose engine is not the one of the settings.
    ///
    /// # Errors
    /// As [`Server::bind`].
    #[doc(hidden)]
    pub fn bind_with_engine(
        config: Config,
        hooks: Arc<dyn Hooks>,
        observer: Arc<dyn Observer>,
        engine: Arc<dyn Engine>,
    ) -> Result<Self, Error> {
        Self::listen(config, hooks, observer, Some(engine))
    }

    fn listen(
        config: Config,
        hooks: Arc<dyn Hooks>,
        observer: Arc<dyn Observer>,
        engine: Option<Arc<dyn Engine>>,
    ) -> Result<Self, Error> {
        let settings = Settings::new(config)?;
        let config = &*settings;
        let mut inherited = Inherited::of(config)?;
        let setting = if config.listen.is_empty() { HOST_AND_PORT } else { "listen" };
        refuse_exposed(config, hooks.authenticates())?;
        let listeners = Listener::bind_all(setting, &config.listeners(), Audience::Peers, &mut inherited)?;
        let metrics = Listener::bind_all("metrics", &config.metrics, Audience::Metrics, &mut inherited)?;
        let control = Listener::bind_all("control_api", &config.control.listen, Audience::Control, &mut inherited)?;
        let local = local_sockets(config, &mut inherited)?;
        let node = node_of(&settings, engine)?;
        let cluster = node.as_ref().map(|node| Arc::clone(&node.cluster));
        let audit = AuditLog::of(&settings)?;
        let mut shared = share(Parts { config: settings, hooks, observer, cluster, audit })?;
        let all = listeners.iter().chain(&metrics).chain(&control);
        shared.own_ports = all.filter_map(|it| it.address.tcp()).map(|tcp| tcp.port()).collect();
        Ok(Self { shared: Arc::new(shared), listeners, metrics, control, local, node })
    }
}

/// Listens on the local sockets.
fn local_sockets(config: &Config, inherited: &mut Inherited) -> Result<Vec<SeqpacketListener>, Error> {
    let sockets = [
        ("device_socket", SocketKind::Devices, &config.device_socket),
        ("control_socket", SocketKind::Control, &config.control_socket),
    ];
    let sockets = sockets.into_iter().filter_map(|(setting, kind, path)| Some((setting, kind, path.as_deref()?)));
    let local = sockets.map(|(setting, kind, path)| {
        let error = |source| Error::Bind { setting, address: path.display().to_string(), source };
        SeqpacketListener::bind(kind, path, inherited).map_err(error)
    });
    local.collect()
}

/// The engine that the settings name.
#[cfg(feature = "cluster")]
fn engine_of(settings: &Cluster) -> Result<Arc<dyn Engine>, Error> {
    let engine = Redis::new(settings).map_err(|error| ConfigError::new("cluster", error.what))?;
    Ok(Arc::new(engine))
}

#[cfg(not(feature = "cluster"))]
fn engine_of(_: &Cluster) -> Result<Arc<dyn Engine>, Error> {
    Err(ConfigError::new("cluster", "this build is without clusters: build it with the feature `cluster`").into())
}

/// Listens for other nodes, if the server is a node of a cluster.
fn node_of(settings: &Settings, engine: Option<Arc<dyn Engine>>) -> Result<Option<BoundNode>, Error> {
    match (&settings.cluster, engine) {
        (Some(cluster), Some(engine)) => BoundNode::bind(settings, cluster, engine).map(Some),
        _ => Ok(None),
    }
}

/// Returns the first client id of a registration.
///
/// It is by the system's clock, not the server's: real devices do not know of a clock that a test has moved
/// (docs/protocol.md 2.5.3).
fn first_client_id(settings: Arc<CurrentSettings>) -> impl Fn() -> u32 {
    move || settings.get().client_ids.first(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The parts of the state that all connections share.
struct Parts {
    config: Settings,
    hooks: Arc<dyn Hooks>,
    observer: Arc<dyn Observer>,
    cluster: Option<Arc<Handle>>,
    audit: Option<Arc<AuditLog>>,
}

/// Creates the state that all connections share.
fn share(Parts { config, hooks, observer, cluster, audit }: Parts) -> Result<Shared, Error> {
    let (changes, timers) = (Arc::new(Changes::default()), Timers::new().map_err(Error::Runtime)?);
    let (clock, incidents) = (Arc::new(Clock::new(Arc::clone(&timers))), Arc::new(Incidents::default()));
    let (relay, feed) = (Arc::new(relay(&config, &clock, &changes, &observer)), Arc::new(Feed::default()));
    let (ice, current) = (RwLock::new(config.ice.clone()), Arc::new(CurrentSettings::new(config)));
    Ok(Shared {
        hub: Arc::new(hub(&current, logging(&changes, &feed, &observer, audit.clone()), cluster.as_ref())),
        audit,
        relay,
        limiters: Limiters::new(&current.get(), &incidents),
        record_rates: RecordRates::new(&current.get().limits, Instant::now()),
        request_rates: RequestRates::default(),
        cluster,
        preregistrations: Arc::default(),
        proxied: Arc::default(),
        adb: Arc::default(),
        own_ports: Vec::new(),
        requests: RequestCounts::default(),
        python: OnceLock::new(),
        started: clock.unix_now(),
        clock,
        timers,
        tasks: TaskTracker::new(),
        timekeeping: TaskTracker::new(),
        incidents,
        hook_failures: HookFailures::default(),
        timings: Arc::default(),
        hooks,
        changes,
        feed,
        observer,
        ice,
        ice_cache: IceCache::default(),
        drain: DrainSteps::default(),
        stopping: CancellationToken::new(),
        over: CancellationToken::new(),
        reloaded: Notify::new(),
        current,
    })
}

/// The second names of devices on local sockets, if the settings give them any.
fn aliases(config: &Config, cluster: Option<&Arc<Handle>>) -> Option<Aliases> {
    let (names, cluster) = (config.local_names()?, Arc::clone(cluster?));
    Some(Aliases { names, is_elsewhere: Box::new(move |id| cluster.elsewhere(id).is_some()) })
}

/// Creates the observer of the hub.
fn logging(
    changes: &Arc<Changes>,
    feed: &Arc<Feed>,
    next: &Arc<dyn Observer>,
    audit: Option<Arc<AuditLog>>,
) -> LoggingObserver {
    let (changes, feed, next) = (Arc::clone(changes), Arc::clone(feed), Arc::clone(next));
    LoggingObserver { changes, node: None, feed, audit, next }
}

/// Creates the registry of devices.
fn hub(current: &Arc<CurrentSettings>, observer: LoggingObserver, cluster: Option<&Arc<Handle>>) -> Hub {
    let settings = current.get();
    let node = cluster.map(|cluster| cluster.incarnation.node().to_owned());
    let observer = LoggingObserver { node, ..observer };
    let hub = Hub::new(Arc::new(observer), settings.limits.max_devices, first_client_id(Arc::clone(current)));
    hub.with_aliases(aliases(&settings, cluster))
}

/// Creates the path of forwards, with the journal if the settings ask for one.
fn relay(config: &Config, clock: &Arc<Clock>, changes: &Arc<Changes>, observer: &Arc<dyn Observer>) -> Relay {
    let (clock, changes, observer) = (Arc::clone(clock), Arc::clone(changes), Arc::clone(observer));
    let hooks = JournalHooks { clock, changes, observer };
    let journal = config.journal.then(|| Arc::new(Journal::new(config.journal_bounds(), Box::new(hooks))));
    Relay::new(journal, config.held_bounds())
}
