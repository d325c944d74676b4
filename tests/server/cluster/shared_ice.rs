//! ICE servers that are set on one node, for all nodes.

use cuttlefish_signaling::config::IceSource;
use cuttlefish_signaling::protocol::IceServers;
use cuttlefish_signaling::{Config, Running};

use super::{Nodes, settings, start, until};
use crate::dial::{Dialed, Received, block_on};

const SERVERS: &str = r#"[{"urls":["turn:turn.example"],"username":"u","credential":"c"}]"#;

fn set(node: &Running, servers: &str) {
    node.set_ice_servers(IceSource::Fixed(IceServers::from_json(servers).unwrap()));
}

fn config(servers: &str) -> String {
    format!(r#"{{"message_type":"config","ice_servers":{servers}}}"#)
}

/// A device that has just registered, and has not read its config.
async fn registers(node: &Running, id: &str) -> Dialed {
    let mut device = Dialed::open(node.local_addr(), "/register_device").await;
    device.says(&format!(r#"{{"message_type":"register","device_id":"{id}","device_info":{{}}}}"#)).await;
    device
}

/// Waits for this config. One before may be older than what the node has read of the registry, and is replaced then.
async fn hears_at_last(device: &mut Dialed, servers: &str) {
    while device.next().await != Received::Text(config(servers)) {}
}

#[test]
fn servers_that_are_set_on_one_node_go_to_the_devices_of_all_nodes() {
    block_on(async {
        let nodes = Nodes::start(3, Config::default()).await;
        let mut devices = Vec::new();
        for (at, id) in ["one", "two", "three"].into_iter().enumerate() {
            devices.push(Dialed::device(nodes.address(at), id).await);
        }
        // The last that were set count, whichever node was asked.
        for (at, servers) in [(0, SERVERS), (2, "[]"), (1, SERVERS)] {
            set(&nodes.nodes[at], servers);
            for device in &mut devices {
                device.hears(&config(servers)).await;
            }
        }
        // A client of another node than its device's.
        let mut client = Dialed::open(nodes.address(2), "/connect_client").await;
        client.says(r#"{"message_type":"connect","device_id":"one"}"#).await;
        client.hears(&config(SERVERS)).await;
        for (at, node) in nodes.nodes.iter().enumerate() {
            registers(node, &format!("new-{at}")).await.hears(&config(SERVERS)).await;
        }
    });
}

#[test]
fn servers_are_those_of_a_node_that_starts_later_and_of_all_after_an_outage() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let [a, b] = [&nodes.nodes[0], &nodes.nodes[1]];
        let mut device = Dialed::device(b.local_addr(), "there").await;
        set(a, SERVERS);
        device.hears(&config(SERVERS)).await;
        let late = start(&nodes.engine, settings("c", Config::default()));
        until(|| late.nodes().len() == 3).await;
        let mut other = registers(&late, "late").await;
        hears_at_last(&mut other, SERVERS).await;
        // Servers that are set without the engine are those of all nodes once it is back.
        nodes.engine.goes_away();
        until(|| !a.is_member() && !b.is_member()).await;
        set(b, "[]");
        device.hears(&config("[]")).await;
        nodes.engine.comes_back();
        until(|| a.is_member()).await;
        other.hears(&config("[]")).await;
        hears_at_last(&mut registers(a, "again").await, "[]").await;
    });
}
