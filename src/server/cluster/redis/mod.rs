//! The engine on Redis or Valkey. Only this folder names the crate `redis`.
//!
//! One connection executes the operations and receives the feed, so a renewal is answered by the server that feeds this
//! node. The scripts beside this file are equal to the model of `tests/cluster/engine.rs`.

mod changes;
mod commands;
mod errors;
mod feed;
mod keys;
mod records;
mod reply;
mod request;
mod scripts;
mod sentinel;
mod signer;
mod stream;
mod url;
mod watch;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, RedisResult, Value, cmd};
use rustls::ClientConfig;
use tokio_util::task::AbortOnDropHandle;

use self::commands::{RedisCommands, Shared};
use self::errors::Explainer;
use self::feed::Pushes;
use self::keys::Keys;
use self::scripts::Scripts;
use self::sentinel::SentinelError;
use self::signer::Signer;
use self::stream::{ByteStream, Limited};
use self::url::{Host, Target};
use self::watch::Watch;
use super::engine::{Connection, Engine, EngineError, EngineFuture};
use crate::config::cluster::Cluster;
use crate::core::cluster::registry::Timing;

/// Most operations that wait to be written.
const MAX_QUEUED: usize = 4_096;

/// An engine on Redis or Valkey.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
}

struct Inner {
    target: Arc<Target>,
    keys: Keys,
    timing: Timing,
    signer: Arc<Signer>,
    explainer: Explainer,
    tls: Option<Arc<ClientConfig>>,
    /// Sentinel that is asked first. The next attempt begins with the next one: this one may not answer at all.
    first: AtomicUsize,
}

impl Redis {
    /// Creates the engine of a cluster. Reads the file of the certificate authority.
    ///
    /// # Errors
    /// [`EngineError`] if the URL or the file is invalid.
    pub fn new(settings: &Cluster) -> Result<Self, EngineError> {
        let invalid = |what| EngineError { kind: "settings", what };
        let target = Target::parse(&settings.engine).map_err(|what| invalid(format!("URL of the engine: {what}")))?;
        let tls = target.tls.then(|| stream::client_config(settings.ca.as_deref()));
        let tls = tls.transpose().map_err(|what| invalid(format!("authority of the engine: {what}")))?;
        let keys = Keys::new(&settings.name, target.database);
        let explainer = Explainer::new(&target, &keys);
        let signer = Arc::new(Signer::new(keys.prefix(), &settings.secrets));
        let (timing, first) = (settings.timing.clone(), AtomicUsize::new(0));
        let target = Arc::new(target);
        Ok(Self { inner: Arc::new(Inner { target, keys, timing, signer, explainer, tls, first }) })
    }
}

impl Engine for Redis {
    fn connect(&self) -> EngineFuture<Connection> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.connect().await })
    }

    fn set_secrets(&self, secrets: &[String]) {
        self.inner.signer.replace(secrets);
    }
}

impl Inner {
    async fn connect(&self) -> Result<Connection, EngineError> {
        let Some(master) = &self.target.master else {
            let [host, ..] = self.target.hosts.as_slice() else { return Err(self.no_master("no host")) };
            return self.open(host, None).await;
        };
        let (first, count) = (self.first.fetch_add(1, Relaxed), self.target.hosts.len());
        let mut last = None;
        for place in 0..count {
            let Some(sentinel) = self.target.hosts.get(first.wrapping_add(place) % count) else { continue };
            match self.connect_by(sentinel, master).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| self.no_master("no Sentinel")))
    }

    /// Connects to the master that a Sentinel names.
    async fn connect_by(&self, sentinel: &Host, master: &str) -> Result<Connection, EngineError> {
        let asked = sentinel::master_address(sentinel, self.tls.as_ref(), &self.target, master).await;
        let found = asked.map_err(|error| match error {
            SentinelError::Dial(error) => self.explainer.dial(sentinel, &error),
            SentinelError::Redis(error) => self.explainer.sentinel(sentinel, &error),
        })?;
        let Some(host) = found else {
            return Err(
                self.no_master(&format!("the Sentinel {sentinel} does not know this name: see its `sentinel monitor`"))
            );
        };
        let (target, tls, explainer) = (Arc::clone(&self.target), self.tls.clone(), self.explainer.clone());
        let watch = Watch::new(target, tls, explainer, master, host.clone());
        self.open(&host, Some(watch)).await
    }

    fn no_master(&self, what: &str) -> EngineError {
        self.explainer.error("no_master", what)
    }

    /// Connects to a server, loads the scripts and subscribes to the feed.
    async fn open(&self, host: &Host, watch: Option<Arc<Watch>>) -> Result<Connection, EngineError> {
        let stream = stream::dial(host, self.tls.as_ref()).await.map_err(|error| self.explainer.dial(host, &error))?;
        self.set_up(stream, watch).await.map_err(|error| match error {
            SetupError::Redis(error) => self.explainer.explain(&error),
            SetupError::Replica => self.explainer.error(
                "read_only",
                &format!("{host} is a replica, although a Sentinel names it as the master: a failover is under way"),
            ),
        })
    }

    async fn set_up(&self, stream: Box<dyn ByteStream>, watch: Option<Arc<Watch>>) -> Result<Connection, SetupError> {
        let unread = Arc::new(AtomicUsize::new(0));
        let (pushes, feed) = Pushes::new(&self.keys.channel, Arc::clone(&self.signer), Arc::clone(&unread));
        let receiver = Arc::clone(&pushes);
        let on_push = move |push| {
            receiver.on_push(&push);
            Ok::<_, RedisError>(())
        };
        // The runtime has no timers: the caller has the deadlines.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(MAX_QUEUED)
            .set_push_sender(on_push);
        let stream = Limited::new(stream, Arc::clone(&unread));
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(&self.target.setup(), stream, config).await?;
        let ended = Arc::clone(&pushes);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            driver.await;
            ended.close();
        }));
        if self.target.master.is_some() {
            is_master(&mut connection).await?;
        }
        let scripts = Scripts::load(&mut connection).await?;
        // Returns once the engine has confirmed it: the feed is complete from here on.
        connection.subscribe(&self.keys.channel).await?;
        let Self { keys, signer, timing, explainer, .. } = self;
        let (keys, signer, timing, explainer) = (keys.clone(), Arc::clone(signer), timing.clone(), explainer.clone());
        let shared = Shared { keys, signer, timing, scripts, explainer, pushes, unread, watch, _task: task };
        Ok(Connection { commands: Box::new(RedisCommands { connection, shared: Arc::new(shared) }), feed })
    }
}

/// The reason why a connection cannot be used.
enum SetupError {
    Redis(RedisError),
    /// The server is a replica.
    Replica,
}

impl From<RedisError> for SetupError {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

async fn is_master(connection: &mut MultiplexedConnection) -> Result<(), SetupError> {
    let role: RedisResult<Vec<Value>> = cmd("ROLE").query_async(connection).await;
    match role?.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        _ => Err(SetupError::Replica),
    }
}
