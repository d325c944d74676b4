//! The CPU that each operation costs the engine, measured on a `redis-server` of the test's own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::core::cluster::registry::{NodeRecord, Operation, Reply, Timing, Wanted};
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::cluster::engine::{Connection, Engine as _};
use cuttlefish_signaling::server::cluster::redis::Redis;

use crate::redis::server::{Server, settings};

/// Devices of one call, as nodes send them.
const BATCH: usize = 512;
/// Ticks of `/proc/PID/stat` in a second.
const TICKS: f64 = 100.0;
/// Facts of a device, as a node writes them.
const DETAILS: &str = r#"{"group":"lab-7","local_id":"cvd-1","since":1795600000}"#;

/// A cost in µs that grows with the number of nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) base: f64,
    pub(crate) per_node: f64,
}

impl Line {
    const fn new(base: f64, per_node: f64) -> Self {
        Self { base, per_node }
    }

    pub(crate) fn at(self, nodes: usize) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a few hundred nodes")]
        let nodes = nodes as f64;
        self.base + self.per_node * nodes
    }

    /// The line through two points. A slope that is not above the noise is none.
    fn through(few: (usize, f64), many: (usize, f64)) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a few hundred nodes")]
        let (few_nodes, many_nodes) = (few.0 as f64, many.0 as f64);
        let per_node = ((many.1 - few.1) / (many_nodes - few_nodes)).max(0.0);
        Self { base: (few.1 - per_node * few_nodes).max(0.0), per_node }
    }
}

/// Costs of the operations, each with the changes that it publishes to all nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Costs {
    pub(crate) claim: Line,
    pub(crate) release: Line,
    pub(crate) renew: Line,
    /// Of 512 devices that the node has.
    pub(crate) confirm: Line,
    /// Of 512 devices that no node has.
    pub(crate) reclaim: Line,
    /// Removal of 512 devices.
    pub(crate) remove: Line,
    /// Records of all nodes, as `Join` answers as well.
    pub(crate) nodes: Line,
    /// A page of a scan.
    pub(crate) page: Line,
}

impl Costs {
    /// Costs that were measured where these tests were written, for a machine without `redis-server`.
    pub(crate) const RECORDED: Self = Self {
        claim: Line::new(26.7, 2.5),
        release: Line::new(16.0, 2.81),
        renew: Line::new(21.1, 0.26),
        confirm: Line::new(2_166.7, 0.0),
        reclaim: Line::new(3_375.0, 62.5),
        remove: Line::new(1_656.3, 5.21),
        nodes: Line::new(10.4, 1.46),
        page: Line::new(493.8, 3.13),
    };

    /// Measures with a few nodes and with many.
    pub(crate) fn measure(few: usize, many: usize, rounds: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let one = runtime.block_on(Bench::run(few, rounds));
        let other = runtime.block_on(Bench::run(many, rounds));
        let line = |of: fn(&Measured) -> f64| Line::through((few, of(&one)), (many, of(&other)));
        Self {
            claim: line(|it| it.claim),
            release: line(|it| it.release),
            renew: line(|it| it.renew),
            confirm: line(|it| it.confirm),
            reclaim: line(|it| it.reclaim),
            remove: line(|it| it.remove),
            nodes: line(|it| it.nodes),
            page: line(|it| it.page),
        }
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claim, release, renew, confirm, reclaim, remove, nodes, page } = self;
        let lines = [
            ("claim", claim),
            ("release", release),
            ("renew", renew),
            ("confirm 512", confirm),
            ("reclaim 512", reclaim),
            ("remove 512", remove),
            ("nodes", nodes),
            ("page of 512", page),
        ];
        for (name, line) in lines {
            writeln!(f, "  {name:12} {:8.1} µs + {:6.2} µs for each node", line.base, line.per_node)?;
        }
        Ok(())
    }
}

/// CPU of the engine for each operation, in µs.
struct Measured {
    claim: f64,
    release: f64,
    renew: f64,
    confirm: f64,
    reclaim: f64,
    remove: f64,
    nodes: f64,
    page: f64,
}

/// Nodes on one engine.
struct Bench {
    server: Server,
    connections: Vec<Arc<Connection>>,
}

impl Bench {
    async fn run(nodes: usize, rounds: usize) -> Measured {
        let server = Server::start(&[]);
        let mut bench = Self { server, connections: Vec::new() };
        for node in 0..nodes {
            bench.connections.push(Arc::new(bench.join(node).await));
        }
        let ids = |round: usize| DeviceId::new(&format!("host-17-cvd-{round}"));
        let claim = bench
            .cost(rounds, |round| Operation::Claim { wanted: wanted(0, ids(round)), expected: None, place: None })
            .await;
        let renew = bench.cost(rounds, |_| Operation::Renew(incarnation(0))).await;
        let records = bench.cost(rounds / 4, |_| Operation::Nodes).await;
        let release = bench
            .cost(rounds, |round| Operation::Release(vec![(ids(round), wanted(0, ids(round)).registration)]))
            .await;
        let batches = rounds / 100;
        let batch = |round: usize| {
            let ids = (0..BATCH).map(|place| DeviceId::new(&format!("host-{round}-cvd-{place}")));
            Operation::Reclaim { node: incarnation(1), wanted: ids.map(|id| wanted(1, id)).collect() }
        };
        let reclaim = bench.cost(batches, batch).await;
        let confirm = bench.cost(batches, batch).await;
        let page = bench.pages(rounds / 20).await;
        let remove = bench.cost(batches, |_| Operation::Leave(incarnation(1))).await;
        Measured { claim, release, renew, confirm, reclaim, remove, nodes: records, page }
    }

    async fn join(&self, node: usize) -> Connection {
        let timing = Timing { settle: Duration::ZERO, lease: Duration::from_secs(3_600), ..Timing::default() };
        let engine = Redis::new(&settings(&self.server.url(), timing)).unwrap();
        let connection = engine.connect().await.unwrap();
        let node = NodeRecord { incarnation: incarnation(node), details: DETAILS.into() };
        let reply = connection.commands.execute(Operation::Join { node, replaces: None }).await.unwrap().reply;
        assert!(matches!(reply, Reply::Joined { .. }), "{reply:?}");
        connection
    }

    /// Returns the CPU of the engine for each of these operations, one after the other, as nodes send them.
    async fn cost(&self, rounds: usize, operation: impl Fn(usize) -> Operation) -> f64 {
        let before = self.cpu();
        for round in 0..rounds {
            let reply = self.connections[0].commands.execute(operation(round)).await.unwrap().reply;
            assert!(!matches!(reply, Reply::NotAMember), "round {round}");
        }
        self.cpu_since(before, rounds)
    }

    async fn pages(&self, rounds: usize) -> f64 {
        let (before, mut cursor) = (self.cpu(), 0);
        for _ in 0..rounds {
            let reply = self.connections[0].commands.execute(Operation::Scan(cursor)).await.unwrap().reply;
            let Reply::Page { cursor: next, .. } = reply else { panic!("{reply:?}") };
            cursor = next;
        }
        self.cpu_since(before, rounds)
    }

    /// Returns the CPU time of the engine so far, in seconds.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: f64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        ticks / TICKS
    }

    #[allow(clippy::cast_precision_loss, reason = "a number of rounds")]
    fn cpu_since(&self, before: f64, rounds: usize) -> f64 {
        (self.cpu() - before) * 1e6 / rounds as f64
    }
}

fn incarnation(node: usize) -> Incarnation {
    Incarnation::new(&format!("host-{node}.lab.example"), 7).unwrap()
}

fn wanted(node: usize, id: DeviceId) -> Wanted {
    Wanted { id, registration: Registration::new(incarnation(node), 123_456), details: DETAILS.into() }
}
