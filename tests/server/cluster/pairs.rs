//! A device on one node, and clients on another.

use std::net::SocketAddr;
use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::core::cluster::registry::Timing;
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::NodeState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::memory::Memory;
use super::{Killable, Nodes, settings, start, timing, until};
use crate::dial::{Dialed, Received, block_on};

const CONFIG: &str = r#"{"message_type":"config","ice_servers":[]}"#;
const INFO: &str = r#"{"message_type":"device_info","device_info":{}}"#;
const DISCONNECTED: &str = r#"{"error":"Device disconnected"}"#;

fn register(id: &str) -> String {
    format!(r#"{{"message_type":"register","device_id":"{id}","device_info":{{}}}}"#)
}

fn connect(id: &str) -> String {
    format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#)
}

fn to_device(number: usize) -> String {
    format!(r#"{{"message_type":"forward","payload":{{"n":{number}}}}}"#)
}

/// Whether a device hears a forward of its first client.
async fn hears_forward(device: &mut Dialed, number: usize) {
    device.hears(&format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{{"n":{number}}}}}"#)).await;
}

/// A forward each way.
async fn exchange(device: &mut Dialed, client: &mut Dialed, number: usize) {
    client.says(&to_device(number)).await;
    hears_forward(device, number).await;
    device.says(&format!(r#"{{"message_type":"forward","client_id":1,"payload":{{"n":{number}}}}}"#)).await;
    client.hears(&format!(r#"{{"message_type":"device_msg","payload":{{"n":{number}}}}}"#)).await;
}

#[test]
fn pair_on_two_nodes_exchanges_messages_in_order() {
    block_on(async {
        let nodes = Nodes::start(3, Config::default()).await;
        let (a, b) = (nodes.address(0), nodes.address(1));
        let mut device = Dialed::device(a, "cvd-1").await;
        assert_eq!(nodes.engine.holder("cvd-1").as_deref(), Some("a"));
        let mut client = Dialed::client(b, "cvd-1").await;
        for number in 0..200 {
            client.says(&to_device(number)).await;
        }
        for number in 0..200 {
            hears_forward(&mut device, number).await;
        }
        for number in 0..200 {
            let text = format!(r#"{{"message_type":"forward","client_id":1,"payload":{{"n":{number}}}}}"#);
            device.says(&text).await;
        }
        for number in 0..200 {
            client.hears(&format!(r#"{{"message_type":"device_msg","payload":{{"n":{number}}}}}"#)).await;
        }
    });
}

#[test]
fn client_hears_that_the_cluster_is_unavailable_while_its_device_is_being_admitted_on_its_own_node() {
    block_on(async {
        let timing = Timing { operation: Duration::from_secs(60), ..timing() };
        let engine = Memory::new(timing.clone());
        let mut config = settings("a", Config::default());
        config.cluster.as_mut().unwrap().timing = timing;
        let node = start(&engine, config);
        until(|| node.is_member()).await;
        engine.holds_answers_to_claims(true);
        let mut device = Dialed::open(node.local_addr(), "/register_device").await;
        device.says(&register("cvd-1")).await;
        until(|| engine.holder("cvd-1").is_some()).await;
        // The registry has an entry of the device, so it is there.
        let mut client = Dialed::open(node.local_addr(), "/connect_client").await;
        client.says(&connect("cvd-1")).await;
        client.hears(CONFIG).await;
        client.hears(r#"{"error":"Connection failed: Cluster unavailable"}"#).await;
        assert_eq!(client.next().await, Received::Closed(1013));
        engine.holds_answers_to_claims(false);
        device.hears(CONFIG).await;
        let _late = Dialed::client(node.local_addr(), "cvd-1").await;
    });
}

#[test]
fn client_that_waits_is_connected_when_its_device_registers_on_another_node() {
    block_on(async {
        let config = Config { device_wait_timeout: None, ..Config::default() };
        let nodes = Nodes::start(3, config).await;
        let mut client = Dialed::open(nodes.address(1), "/connect_client").await;
        client.says(&connect("cvd-1")).await;
        client.hears(CONFIG).await;
        until(|| nodes.nodes[1].hub().waiting_count() == 1).await;
        let mut device = Dialed::device(nodes.address(0), "cvd-1").await;
        client.hears(INFO).await;
        exchange(&mut device, &mut client, 1).await;
        assert_eq!(nodes.nodes[1].hub().waiting_count(), 0);
    });
}

#[test]
fn registry_is_read_before_a_client_hears_not_found() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        // Node b hears of no change, so that its directory is empty.
        nodes.engine.feeds_changes(false);
        let mut device = Dialed::device(nodes.address(0), "cvd-1").await;
        let reads = nodes.engine.reads();
        let mut client = Dialed::client(nodes.address(1), "cvd-1").await;
        assert_eq!(nodes.engine.reads() - reads, 1);
        exchange(&mut device, &mut client, 1).await;
        let mut other = Dialed::open(nodes.address(1), "/connect_client").await;
        other.says(&connect("cvd-2")).await;
        other.hears(CONFIG).await;
        other.hears(r#"{"error":"Connection failed: Device not found: 'cvd-2'"}"#).await;
        assert_eq!(other.next().await, Received::Closed(1008));
        assert_eq!(nodes.engine.reads() - reads, 2);
    });
}

#[test]
fn device_hears_once_that_a_client_of_another_node_has_left() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let mut device = Dialed::device(nodes.address(0), "cvd-1").await;
        let client = Dialed::client(nodes.address(1), "cvd-1").await;
        drop(client);
        device.hears(r#"{"message_type":"client_disconnected","client_id":1}"#).await;
        assert_eq!(device.round_trip().await, Vec::<String>::new());
    });
}

#[test]
fn clients_of_all_nodes_hear_that_their_device_has_left() {
    block_on(async {
        let nodes = Nodes::start(3, Config::default()).await;
        let device = Dialed::device(nodes.address(0), "cvd-1").await;
        let mut clients = Vec::new();
        for node in 0..3 {
            clients.push(Dialed::client(nodes.address(node), "cvd-1").await);
        }
        drop(device);
        for client in &mut clients {
            client.hears(DISCONNECTED).await;
            assert_eq!(client.next().await, Received::Closed(1000));
        }
        until(|| nodes.engine.devices() == 0).await;
    });
}

#[test]
fn client_hears_that_its_device_has_left_when_the_node_of_the_device_stops_or_dies() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let killed = Killable::start(&nodes.engine, "k");
        until(|| nodes.nodes[1].nodes().len() == 3).await;
        for (address, id) in [(nodes.address(0), "cvd-1"), (killed.address, "cvd-2")] {
            let _device = Dialed::device(address, id).await;
            let mut client = Dialed::client(nodes.address(1), id).await;
            if id == "cvd-1" {
                assert!(nodes.nodes[0].stop(Duration::from_secs(2)).await);
                assert_eq!(nodes.engine.holder(id), None, "a node that has stopped has left");
                assert_eq!(nodes.engine.node_names(), ["b", "k"]);
            } else {
                killed.kill();
            }
            client.hears(DISCONNECTED).await;
            assert_eq!(client.next().await, Received::Closed(1000), "{id}");
            if id == "cvd-2" {
                break;
            }
        }
    });
}

#[test]
fn duplicate_on_another_node_is_refused_while_the_holder_answers_and_wins_otherwise() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let mut holder = Dialed::device(nodes.address(0), "cvd-1").await;
        let mut newcomer = Dialed::open(nodes.address(1), "/register_device").await;
        newcomer.says(&register("cvd-1")).await;
        newcomer.hears(r#"{"error":"Device already registered: cvd-1"}"#).await;
        assert_eq!(newcomer.next().await, Received::Closed(1008));
        assert_eq!(holder.round_trip().await, Vec::<String>::new());
        assert_eq!(nodes.engine.holder("cvd-1").as_deref(), Some("a"));
        // The holder is half-open: it answers no ping.
        holder.freeze();
        let newcomer = Dialed::device(nodes.address(1), "cvd-1").await;
        assert_eq!(nodes.engine.holder("cvd-1").as_deref(), Some("b"));
        // Node a hears that its session has lost the id.
        until(|| nodes.nodes[0].hub().device_count() == 0).await;
        drop(newcomer);
    });
}

#[test]
fn pairs_go_on_without_the_engine_and_a_device_that_registers_is_claimed_later() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let mut device = Dialed::device(nodes.address(0), "cvd-1").await;
        let mut client = Dialed::client(nodes.address(1), "cvd-1").await;
        nodes.engine.goes_away();
        until(|| nodes.nodes.iter().all(|node| !node.is_member())).await;
        exchange(&mut device, &mut client, 1).await;
        // The directory still knows the device.
        let second = Dialed::client(nodes.address(1), "cvd-1").await;
        // A device that boots now is served by its node alone.
        let mut late = Dialed::device(nodes.address(0), "cvd-2").await;
        let mut local = Dialed::client(nodes.address(0), "cvd-2").await;
        exchange(&mut late, &mut local, 2).await;
        // A client of another node hears that the registry cannot be asked, and not that there is no such device.
        let mut stranger = Dialed::open(nodes.address(1), "/connect_client").await;
        stranger.says(&connect("cvd-3")).await;
        stranger.hears(CONFIG).await;
        stranger.hears(r#"{"error":"Connection failed: Cluster unavailable"}"#).await;
        assert_eq!(stranger.next().await, Received::Closed(1013));
        nodes.engine.comes_back();
        until(|| nodes.engine.holder("cvd-2").is_some()).await;
        assert_eq!(nodes.engine.holder("cvd-1").as_deref(), Some("a"));
        until(|| nodes.nodes.iter().all(|node| node.is_member())).await;
        exchange(&mut device, &mut client, 3).await;
        let mut away = Dialed::client(nodes.address(1), "cvd-2").await;
        away.says(&to_device(4)).await;
        late.hears(r#"{"message_type":"client_msg","client_id":2,"payload":{"n":4}}"#).await;
        drop(second);
        device.hears(r#"{"message_type":"client_disconnected","client_id":2}"#).await;
    });
}

#[test]
fn nodes_hear_that_one_of_them_drains() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let is_draining = |node: usize| {
            let views = nodes.nodes[node].nodes();
            views.iter().any(|view| view.name == "a" && view.state == NodeState::Draining)
        };
        assert!(!is_draining(1));
        nodes.nodes[0].drain(cuttlefish_signaling::Drain::default()).await;
        until(|| is_draining(1)).await;
    });
}

/// The value of a metric of a node.
pub async fn metric(node: SocketAddr, name: &str) -> f64 {
    let mut stream = TcpStream::connect(node).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    let name = format!("cuttlefish_signaling_cluster_{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}in {page}")).parse().unwrap()
}

#[test]
fn metrics_tell_of_the_cluster() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let _device = Dialed::device(nodes.address(0), "cvd-1").await;
        let client = Dialed::client(nodes.address(1), "cvd-1").await;
        until(|| nodes.nodes[1].node_of(&DeviceId::new("cvd-1")).is_some()).await;
        for (node, name, expected) in [
            (0, "claims_total{outcome=\"granted\"}", 1.0),
            (0, "proxied_clients{direction=\"in\"}", 1.0),
            (1, "proxied_clients{direction=\"in\"}", 0.0),
            (1, "proxied_clients{direction=\"out\"}", 1.0),
            (1, "devices", 1.0),
            (1, "nodes", 2.0),
            (1, "member", 1.0),
            (1, "rejoins_total{cause=\"lost\"}", 0.0),
        ] {
            let value = metric(nodes.address(node), name).await;
            assert!((value - expected).abs() < f64::EPSILON, "{name} of node {node} is {value}");
        }
        assert!(metric(nodes.address(0), "engine_seconds_count").await >= 3.0);
        drop(client);
        until(|| nodes.nodes[0].hub().client_count() == 0 && nodes.nodes[1].hub().connections() == 0).await;
        assert!(metric(nodes.address(1), "proxied_clients{direction=\"out\"}").await < f64::EPSILON);
        nodes.engine.goes_away();
        until(|| nodes.nodes.iter().all(|node| !node.is_member())).await;
        assert!(metric(nodes.address(1), "member").await < f64::EPSILON);
        assert!((metric(nodes.address(1), "rejoins_total{cause=\"lost\"}").await - 1.0).abs() < f64::EPSILON);
    });
}
