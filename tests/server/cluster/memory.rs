//! An engine in memory for nodes on real sockets: the model of the tests without sockets, behind the contract of engines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuttlefish_signaling::core::cluster::registry::{Answer, NodeRecord, Operation, Reply, Timing};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::cluster::engine::{Commands, Connection, Engine, EngineError, EngineFuture, Feed};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::model;

/// Changes that wait for a node.
const FEED: usize = 4096;

/// An engine. Clones are the same one.
#[derive(Clone)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    started: Instant,
    /// Whether claims are executed, and their answers are held back.
    holds_answers: Arc<watch::Sender<bool>>,
}

struct State {
    model: model::Engine,
    /// The feeds of the connections.
    feeds: Vec<mpsc::Sender<Feed>>,
    /// Whether it can be reached.
    is_up: bool,
    /// Whether nodes hear of changes.
    feeds_changes: bool,
    /// Reads of one entry.
    reads: usize,
    /// Reads of all nodes.
    node_reads: usize,
    /// The connections of nodes that have asked to join.
    joined_by: Vec<(String, mpsc::WeakSender<Feed>)>,
    /// Nodes that cannot reach it.
    cut: Vec<String>,
    /// The names of nodes that have asked to join.
    joins: Vec<String>,
    /// A node that others see as one of a later version, with a fact that they do not know, and that sees them so.
    of_later_version: Option<String>,
}

fn away() -> EngineError {
    EngineError { kind: "unreachable", what: "the engine of the test is away".to_owned() }
}

impl Memory {
    /// An engine that is old enough to grant ids at once.
    pub fn new(timing: Timing) -> Self {
        let age = timing.settle;
        let state = State {
            model: model::Engine::new(timing, fastrand::u64(..), Duration::ZERO),
            feeds: Vec::new(),
            is_up: true,
            feeds_changes: true,
            reads: 0,
            node_reads: 0,
            joined_by: Vec::new(),
            cut: Vec::new(),
            joins: Vec::new(),
            of_later_version: None,
        };
        let started = Instant::now().checked_sub(age).unwrap();
        Self { state: Arc::new(Mutex::new(state)), started, holds_answers: Arc::new(watch::Sender::new(false)) }
    }

    /// Executes claims, and holds their answers back.
    pub fn holds_answers_to_claims(&self, yes: bool) {
        self.holds_answers.send_replace(yes);
    }

    /// Cuts all connections, and refuses others until [`Memory::comes_back`].
    pub fn goes_away(&self) {
        let mut state = self.state.lock();
        state.is_up = false;
        state.feeds.clear();
    }

    /// Cuts one node from it until [`Memory::is_back_for`].
    pub fn is_cut_from(&self, name: &str) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.cut.push(name.to_owned());
        let own = state.joined_by.iter().filter(|(node, _)| node == name).filter_map(|(_, feed)| feed.upgrade());
        for own in own {
            state.feeds.retain(|feed| !feed.same_channel(&own));
        }
    }

    pub fn is_back_for(&self, name: &str) {
        self.state.lock().cut.retain(|node| node != name);
    }

    pub fn comes_back(&self) {
        self.state.lock().is_up = true;
    }

    /// Keeps changes from nodes.
    pub fn feeds_changes(&self, yes: bool) {
        self.state.lock().feeds_changes = yes;
    }

    /// The node that holds an id.
    pub fn holder(&self, id: &str) -> Option<String> {
        let state = self.state.lock();
        state.model.devices.get(&DeviceId::new(id)).map(|entry| entry.registration.incarnation().node().to_owned())
    }

    /// Shows a node and the others to each other as nodes of a later version, with a fact that they do not know.
    pub fn shows_later_version_of(&self, name: &str) {
        self.state.lock().of_later_version = Some(name.to_owned());
    }

    /// The number of devices.
    pub fn devices(&self) -> usize {
        self.state.lock().model.devices.len()
    }

    /// The number of announced devices.
    pub fn announced(&self) -> usize {
        self.state.lock().model.places.len()
    }

    /// The names of the nodes with a lease.
    pub fn node_names(&self) -> Vec<String> {
        let now = self.started.elapsed();
        let Reply::Nodes(nodes) = self.state.lock().model.execute(&Operation::Nodes, now).0.reply else { panic!() };
        nodes.iter().map(|node| node.incarnation.node().to_owned()).collect()
    }

    /// Makes a node of the test a member.
    pub fn joins(&self, node: NodeRecord) {
        let now = self.started.elapsed();
        let joined = self.state.lock().model.execute(&Operation::Join { node, replaces: None }, now).0.reply;
        assert!(matches!(joined, Reply::Joined { .. }), "{joined:?}");
    }

    /// The number of times that a node has asked to join.
    pub fn joins_of(&self, name: &str) -> usize {
        self.state.lock().joins.iter().filter(|joined| *joined == name).count()
    }

    /// The number of reads of all nodes.
    pub fn node_reads(&self) -> usize {
        self.state.lock().node_reads
    }

    /// The number of reads of one entry.
    pub fn reads(&self) -> usize {
        self.state.lock().reads
    }

    fn execute(&self, operation: &Operation, connection: &mpsc::Sender<Feed>) -> Result<Answer, EngineError> {
        let mut state = self.state.lock();
        if !state.feeds.iter().any(|feed| feed.same_channel(connection)) {
            return Err(away());
        }
        state.reads += usize::from(matches!(operation, Operation::Read(_)));
        if let Operation::Join { node, .. } = operation {
            let name = node.incarnation.node().to_owned();
            if state.cut.contains(&name) {
                return Err(away());
            }
            state.joined_by.push((name.clone(), connection.downgrade()));
            state.joins.push(name);
        }
        state.node_reads += usize::from(matches!(operation, Operation::Nodes));
        let (mut answer, changes) = state.model.execute(operation, self.started.elapsed());
        if let (Reply::Nodes(nodes) | Reply::Joined { nodes, .. }, Some(later)) =
            (&mut answer.reply, &state.of_later_version)
        {
            let is_own = |(node, feed): &(String, mpsc::WeakSender<Feed>)| {
                node == later && feed.upgrade().is_some_and(|feed| feed.same_channel(connection))
            };
            let asks = state.joined_by.iter().any(is_own);
            for node in nodes.iter_mut().filter(|node| (node.incarnation.node() == later) != asks) {
                node.details = node.details.replace(r#""protocol":1"#, r#""zone":{"of":"later"},"protocol":2"#).into();
            }
        }
        if state.feeds_changes {
            for feed in &state.feeds {
                for change in &changes {
                    // Closed, if the node was killed.
                    let full = feed.try_send(Feed::Delta(change.clone()));
                    assert!(!matches!(full, Err(mpsc::error::TrySendError::Full(_))));
                }
            }
        }
        Ok(answer)
    }
}

impl Engine for Memory {
    fn connect(&self) -> EngineFuture<Connection> {
        let engine = self.clone();
        Box::pin(async move {
            let (sender, feed) = mpsc::channel(FEED);
            {
                let mut state = engine.state.lock();
                if !state.is_up {
                    return Err(away());
                }
                state.feeds.retain(|feed| !feed.is_closed());
                state.feeds.push(sender.clone());
            }
            let commands: Box<dyn Commands> = Box::new(Link { engine, connection: sender.downgrade() });
            Ok(Connection { commands, feed })
        })
    }
}

/// A connection. The engine alone keeps the feed open.
struct Link {
    engine: Memory,
    connection: mpsc::WeakSender<Feed>,
}

impl Commands for Link {
    fn execute(&self, operation: Operation) -> EngineFuture<Answer> {
        let outcome = match self.connection.upgrade() {
            Some(connection) => self.engine.execute(&operation, &connection),
            None => Err(away()),
        };
        let mut holds = self.engine.holds_answers.subscribe();
        Box::pin(async move {
            if matches!(operation, Operation::Claim { .. }) {
                let _held = holds.wait_for(|holds| !holds).await;
            }
            outcome
        })
    }
}
