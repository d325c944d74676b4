//! The engine, as a node sees it: a connection that executes operations, and a feed of changes.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::core::cluster::registry::{Answer, Delta, Operation};

/// The future of an answer of the engine.
pub type EngineFuture<T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send>>;

/// An engine that holds the registry of a cluster.
pub trait Engine: Send + Sync + 'static {
    /// Connects and subscribes to the feed, which is complete from then on. The caller sets the deadline.
    fn connect(&self) -> EngineFuture<Connection>;

    /// Replaces the secrets of the cluster, also for connections that are there. The first signs, all verify.
    fn set_secrets(&self, _secrets: &[String]) {}
}

/// A connection to the engine. Dropping it closes it.
pub struct Connection {
    /// Executes operations.
    pub commands: Box<dyn Commands>,
    /// The changes of the registry, in their order. Closed when the connection is lost.
    pub feed: mpsc::Receiver<Feed>,
}

/// An event of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    /// A change.
    Delta(Delta),
    /// Changes were lost: the queue was full, or one could not be read.
    Gap,
    /// A record or a change was ignored, for it has no signature by a secret of the cluster: another user of the engine
    /// has written it, or a node with another secret. The text names it, for the log.
    Unsigned(String),
}

/// The side of a connection that executes operations.
pub trait Commands: Send + Sync {
    /// Executes an operation. Operations are executed in the order of the calls, also while earlier ones have no answer
    /// yet.
    fn execute(&self, operation: Operation) -> EngineFuture<Answer>;
}

/// The reason why the engine cannot be used: what failed, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct EngineError {
    /// Short name for the log and the metrics, such as `unreachable`, `wrong_password` or `read_only`.
    pub kind: &'static str,
    /// The reason and the fix.
    pub what: String,
}

/// The facts about an engine that this node cannot use.
#[derive(Debug, Default)]
pub(in crate::server) struct EngineState {
    /// When another node has said that it has the engine, if that was the last answer while this node has not.
    pub(in crate::server) elsewhere: Option<Instant>,
    /// The latest error, until this node joins.
    pub(in crate::server) failure: Option<EngineError>,
}
