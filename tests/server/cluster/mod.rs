//! Several nodes in one process, over sockets, with an engine in memory.

#[path = "../../cluster/engine.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests without sockets use the rest")]
mod model;

mod announced;
mod dials;
mod kept;
mod known;
mod links;
mod lists;
mod memory;
mod pages;
mod pairs;
mod passed_on;
mod readiness;
mod reused;
mod shared_ice;
mod strangers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cuttlefish_signaling::config::cluster::Cluster;
use cuttlefish_signaling::core::cluster::registry::Timing;
use cuttlefish_signaling::{Config, NoHooks, Running, Server};

use self::memory::Memory;
use crate::dial::{keep, with_timeout};

/// Times of the tests: those of a real cluster, divided by ten.
pub fn timing() -> Timing {
    let tenth = |time: Duration| time / 10;
    let real = Timing::default();
    Timing {
        lease: tenth(real.lease),
        renew: tenth(real.renew),
        settle: tenth(real.settle),
        hold: tenth(real.hold),
        patience: tenth(real.patience),
        outage_hold: tenth(real.outage_hold),
        unready: tenth(real.unready),
        upkeep: tenth(real.upkeep),
        max_backoff: tenth(real.max_backoff),
        backoff: tenth(real.backoff),
        ..real
    }
}

/// The settings of a node.
pub fn settings(name: &str, config: Config) -> Config {
    let cluster = Cluster {
        engine: "redis://127.0.0.1:1".into(),
        name: "test".into(),
        node: name.into(),
        listen: ([127, 0, 0, 1], 0).into(),
        address: None,
        secrets: Vec::new(),
        ca: None,
        hold_on_outage: false,
        device_id_template: None,
        timing: timing(),
    };
    Config { cluster: Some(cluster), ..config }
}

/// Nodes of one cluster.
pub struct Nodes {
    pub engine: Memory,
    pub nodes: Vec<Arc<Running>>,
}

impl Nodes {
    /// Starts nodes `a`, `b` and so on, and waits until each knows all.
    pub async fn start(count: usize, config: Config) -> Self {
        let engine = Memory::new(timing());
        let names = ["a", "b", "c"];
        let nodes = names[..count].iter().map(|name| start(&engine, settings(name, config.clone()))).collect();
        let nodes = Self { engine, nodes };
        for node in &nodes.nodes {
            until(|| node.nodes().len() == count).await;
        }
        nodes
    }

    /// The address for peers of a node.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].local_addr()
    }
}

/// Starts two nodes with settings of their own, and waits until each knows the other.
pub async fn two(configs: [Config; 2]) -> [Arc<Running>; 2] {
    let engine = Memory::new(timing());
    let [first, second] = configs;
    let nodes = [start(&engine, settings("a", first)), start(&engine, settings("b", second))];
    until(|| nodes.iter().all(|node| node.nodes().len() == 2)).await;
    nodes
}

/// Starts a node.
pub fn start(engine: &Memory, config: Config) -> Arc<Running> {
    let server = Server::bind_with_engine(config, Arc::new(NoHooks), Arc::new(()), Arc::new(engine.clone())).unwrap();
    keep(server.serve())
}

/// Waits for a condition that a task makes true.
pub async fn until(condition: impl Fn() -> bool) {
    with_timeout("a condition", async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A node in a runtime of its own, which a test can kill: its tasks end where they are.
pub struct Killable {
    pub address: SocketAddr,
    pub node_address: SocketAddr,
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
}

impl Killable {
    pub fn start(engine: &Memory, name: &str) -> Self {
        Self::start_with(engine, settings(name, Config::default()))
    }

    pub fn start_with(engine: &Memory, config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _entered = runtime.enter();
        let server = Server::bind_with_engine(config, Arc::new(NoHooks), Arc::new(()), Arc::new(engine.clone()));
        let server = server.unwrap().serve();
        let (address, node_address) = (server.local_addr(), server.node_address().unwrap());
        Self { address, node_address, runtime: Mutex::new(Some(runtime)) }
    }

    pub fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }

    /// Kills the node, and waits until its sockets are closed.
    pub fn kill_and_wait(&self) {
        let runtime = self.runtime.lock().unwrap().take().unwrap();
        std::thread::spawn(move || drop(runtime)).join().unwrap();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.kill();
    }
}
