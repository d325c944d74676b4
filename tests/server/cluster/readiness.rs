//! `GET /readyz` of a node without its engine (docs/cluster.md).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::core::cluster::registry::Timing;
use cuttlefish_signaling::{Config, Running};

use super::memory::Memory;
use super::passed_on::ask;
use super::{settings, start, timing, until};
use crate::dial::{block_on, with_timeout};

async fn becomes(address: SocketAddr, status: u16, body: &str) {
    with_timeout(body, async {
        while ask(address, "GET", "/readyz", "").await != (status, body.to_owned()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

const READY: &str = r#"{"status":"ready"}"#;
const AWAY: &str = r#"{"status":"ready","cluster":"engine unreachable"}"#;

/// Two nodes that are not ready after this time without the engine.
async fn two_nodes(unready: Duration) -> (Memory, [Arc<Running>; 2]) {
    let timing = Timing { unready, upkeep: Duration::from_millis(100), ..timing() };
    let engine = Memory::new(timing.clone());
    let nodes = ["a", "b"].map(|name| {
        let mut config = settings(name, Config::default());
        config.cluster.as_mut().unwrap().timing = timing.clone();
        start(&engine, config)
    });
    until(|| nodes.iter().all(|node| node.nodes().len() == 2)).await;
    (engine, nodes)
}

#[test]
fn node_without_engine_is_ready_for_a_time() {
    block_on(async {
        let (engine, nodes) = two_nodes(Duration::from_secs(3600)).await;
        becomes(nodes[0].local_addr(), 200, READY).await;
        engine.is_cut_from("a");
        becomes(nodes[0].local_addr(), 200, AWAY).await;
        becomes(nodes[1].local_addr(), 200, READY).await;
        engine.is_back_for("a");
        becomes(nodes[0].local_addr(), 200, READY).await;
    });
}

#[test]
fn node_is_not_ready_only_while_another_one_has_the_engine() {
    block_on(async {
        let (engine, nodes) = two_nodes(Duration::from_millis(300)).await;
        let [a, b] = [nodes[0].local_addr(), nodes[1].local_addr()];
        becomes(a, 200, READY).await;
        engine.is_cut_from("a");
        becomes(a, 503, r#"{"error":"engine unreachable"}"#).await;
        becomes(b, 200, READY).await;
        // Now it is away for both: neither is better.
        engine.goes_away();
        becomes(b, 200, AWAY).await;
        becomes(a, 200, AWAY).await;
        engine.comes_back();
        engine.is_back_for("a");
        becomes(a, 200, READY).await;
        becomes(b, 200, READY).await;
    });
}

#[test]
fn node_that_starts_without_the_engine_says_so() {
    block_on(async {
        let engine = Memory::new(timing());
        engine.goes_away();
        let node = start(&engine, settings("a", Config::default()));
        becomes(node.local_addr(), 200, r#"{"status":"ready","cluster":"alone"}"#).await;
        engine.comes_back();
        becomes(node.local_addr(), 200, READY).await;
    });
}
