//! The facts that nodes have of each other, and how they hear of a change.

use std::sync::Arc;

use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::NodeState;
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

/// Waits until a gauge of a node has this value.
async fn until_gauge(node: &Running, name: &str, value: f64) {
    with_timeout(name, async {
        while (metric(node.local_addr(), name).await - value).abs() > f64::EPSILON {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until a node counts this many others with other settings than its own.
async fn until_differing(node: &Running, count: f64) {
    until_gauge(node, "nodes_differing", count).await;
}

/// Waits until a node counts this many others that it cannot reach.
pub async fn until_unreachable(node: &Running, count: f64) {
    until_gauge(node, "nodes_unreachable", count).await;
}

/// The state of a node in the list of another.
pub fn state_of(node: &Running, name: &str) -> NodeState {
    node.nodes().iter().find(|view| view.name == name).unwrap().state
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

#[test]
fn nodes_look_at_a_newcomer_whose_address_leads_nowhere() {
    block_on(async {
        let Nodes { engine, nodes } = Nodes::start(2, Config::default()).await;
        let mut config = settings("c", Config::default());
        config.cluster.as_mut().unwrap().address = Some("127.0.0.1:1".to_owned());
        let late = start(&engine, config);
        for node in &nodes {
            until(|| node.nodes().len() == 3).await;
            until_unreachable(node, 1.0).await;
            let states = [state_of(node, "a"), state_of(node, "b")];
            assert!(states.contains(&NodeState::This) && states.contains(&NodeState::Alive), "{states:?}");
            assert_eq!(state_of(node, "c"), NodeState::Unreachable);
        }
        // It reaches them.
        assert_eq!([state_of(&late, "a"), state_of(&late, "b")], [NodeState::Alive; 2]);
        until_unreachable(&late, 0.0).await;
        // A node that has left is none that cannot be reached.
        late.stop(std::time::Duration::from_secs(2)).await;
        for node in &nodes {
            until_unreachable(node, 0.0).await;
        }
    });
}

#[test]
fn nodes_of_two_versions_go_on_and_do_not_reach_each_other() {
    block_on(async {
        let engine = Memory::new(super::timing());
        engine.shows_later_version_of("b");
        let wait = Config { device_wait_timeout: Some(std::time::Duration::from_millis(50)), ..Config::default() };
        let nodes = ["a", "b"].map(|name| start(&engine, settings(name, wait.clone())));
        until(|| nodes.iter().all(|node| node.nodes().len() == 2)).await;
        // Each sees it at once, and goes on.
        for (node, other) in nodes.iter().zip(["b", "a"]) {
            until_unreachable(node, 1.0).await;
            assert_eq!(state_of(node, other), NodeState::Unreachable);
            assert!(node.is_member());
        }
        let (_first, mut second) = (
            Dialed::device(nodes[0].local_addr(), "cvd-1").await,
            Dialed::device(nodes[1].local_addr(), "cvd-2").await,
        );
        until(|| nodes[0].node_of(&DeviceId::new("cvd-2")).as_deref() == Some("b")).await;
        // A device of the other version is listed, and its clients hear why they do not get it.
        let mut across = Dialed::open(nodes[0].local_addr(), "/connect_client").await;
        across.says(r#"{"message_type":"connect","device_id":"cvd-2"}"#).await;
        across.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        across.hears(r#"{"error":"Connection failed: Cluster unavailable"}"#).await;
        let mut client = Dialed::client(nodes[1].local_addr(), "cvd-2").await;
        client.says(r#"{"message_type":"forward","payload":1}"#).await;
        second.hears(r#"{"message_type":"client_msg","client_id":1,"payload":1}"#).await;
    });
}
