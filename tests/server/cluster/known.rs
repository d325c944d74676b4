//! The facts that nodes have of each other, and how they hear of a change.

use std::sync::Arc;

use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::{Config, Limits, Running};

use super::memory::Memory;
use super::pairs::metric;
use super::{Nodes, settings, start, until};
use crate::dial::{Dialed, block_on, with_timeout};

/// The settings of a node with this limit.
fn limited(name: &str, max_devices: usize) -> Config {
    settings(name, Config { limits: Limits { max_devices, ..Limits::default() }, ..Config::default() })
}

/// Puts another limit into effect on a node, which keeps all else.
fn reload(node: &Running, name: &str, max_devices: usize) {
    node.reload(limited(name, max_devices)).unwrap();
}

/// Waits until a node counts this many others with other settings than its own.
async fn until_differing(node: &Running, count: f64) {
    with_timeout("the number of nodes that differ", async {
        while (metric(node.local_addr(), "nodes_differing").await - count).abs() > f64::EPSILON {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn settings_that_a_reload_brings_are_those_that_other_nodes_compare() {
    block_on(async {
        let Nodes { engine, nodes } = Nodes::start(2, Config::default()).await;
        until_differing(&nodes[0], 0.0).await;
        reload(&nodes[0], "a", 7);
        for node in &nodes {
            until_differing(node, 1.0).await;
        }
        reload(&nodes[1], "b", 7);
        for node in &nodes {
            until_differing(node, 0.0).await;
        }
        // So are those of a node that starts with them.
        let late = start(&engine, limited("c", 7));
        until(|| late.nodes().len() == 3).await;
        until_differing(&late, 0.0).await;
    });
}

#[test]
fn node_that_has_other_settings_keeps_its_connections() {
    block_on(async {
        let engine = Memory::new(super::timing());
        let [home, other]: [Arc<Running>; 2] = ["a", "b"].map(|name| start(&engine, settings(name, Config::default())));
        until(|| [&home, &other].iter().all(|node| node.nodes().len() == 2)).await;
        let _device = Dialed::device(home.local_addr(), "cvd-1").await;
        until(|| other.node_of(&DeviceId::new("cvd-1")).is_some()).await;
        let _first = Dialed::client(other.local_addr(), "cvd-1").await;
        reload(&home, "a", 7);
        until_differing(&other, 1.0).await;
        let made = || async {
            let mut sum = 0.0;
            for handshake in ["full", "resumed", "none"] {
                sum += metric(other.local_addr(), &format!("connections_total{{handshake=\"{handshake}\"}}")).await;
            }
            sum
        };
        let before = made().await;
        let _second = Dialed::client(other.local_addr(), "cvd-1").await;
        // Its own, and no further control connection.
        let after = made().await;
        assert!((after - before - 1.0).abs() < f64::EPSILON, "{before} and {after} connections");
    });
}
