//! Devices that are announced on one node and register on another (docs/protocol.md 5.4.21 to 5.4.23).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::config::Limits;
use cuttlefish_signaling::core::cluster::registry::Timing;
use cuttlefish_signaling::{Config, Running};
use tokio_tungstenite::tungstenite::Message;

use super::memory::Memory;
use super::passed_on::ask;
use super::{Killable, settings, start, timing, until};
use crate::dial::{Dialed, Received, block_on};
use crate::packets::Packets;

/// A node with a control socket.
fn config(name: &str, place: &Path, config: Config) -> Config {
    Config { control_socket: Some(place.join(name)), ..settings(name, config) }
}

async fn two(place: &Path, of_each: Config) -> (Memory, [Arc<Running>; 2]) {
    let engine = Memory::new(timing());
    let nodes = ["a", "b"].map(|name| start(&engine, config(name, place, of_each.clone())));
    until(|| nodes.iter().all(|node| node.nodes().len() == 2)).await;
    (engine, nodes)
}

fn text(text: &str) -> Received {
    Received::Text(text.to_owned())
}

/// Announces a device. Returns the answer.
async fn announce(control: &Packets, id: &str) -> Received {
    let device = format!(r#"{{"id":"{id}","name":"n","adb_port":6520,"advertise_address":["10.0.0.1=192.0.2.1"]}}"#);
    let message = format!(r#"{{"message_type":"pre-register","group_name":"g","owner":"o","devices":[{device}]}}"#);
    control.says(&message).await;
    control.next().await
}

fn accepted(id: &str) -> Received {
    text(&format!(r#"[{{"id":"{id}","status":"accepted","message":""}}]"#))
}

fn failed(id: &str, why: &str) -> Received {
    text(&format!(r#"[{{"id":"{id}","status":"failed","message":"{why}"}}]"#))
}

fn registered(id: &str) -> Received {
    text(&format!(r#"{{"id":"{id}","status":"registered","message":""}}"#))
}

/// Waits until a node lists a device so.
async fn is_listed(node: &Running, entry: &str) {
    loop {
        let (_, list) = ask(node.local_addr(), "GET", "/devices", "").await;
        if list == format!("[{entry}]") {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn device_has_the_announcement_of_another_node_which_is_told() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let (_engine, [a, b]) = two(place.path(), Config::default()).await;
        let control = Packets::open(&place.path().join("b")).await;
        assert_eq!(announce(&control, "d").await, accepted("d"));
        let mut device = Dialed::device(a.local_addr(), "d").await;
        assert_eq!(control.next().await, registered("d"));
        let entry = r#"{"device_id":"d","group_name":"g","owner":"o","name":"n","adb_port":6520,"node":"a"}"#;
        is_listed(&a, entry).await;
        is_listed(&b, entry).await;
        // The rules for addresses came with it: a client on either node gets the outer address.
        for (number, node) in [(1, &a), (2, &b)] {
            let mut client = Dialed::client(node.local_addr(), "d").await;
            let candidate = |address: &str| format!(r#"{{"candidate":"candidate:1 1 udp 1 {address} 9 typ host"}}"#);
            let (inner, outer) = (candidate("10.0.0.1"), candidate("192.0.2.1"));
            device.says(&format!(r#"{{"message_type":"forward","client_id":{number},"payload":{inner}}}"#)).await;
            client.hears(&format!(r#"{{"message_type":"device_msg","payload":{outer}}}"#)).await;
            client.send(Message::Close(None)).await;
            device.hears(&format!(r#"{{"message_type":"client_disconnected","client_id":{number}}}"#)).await;
        }
    });
}

#[test]
fn one_node_announces_an_id_at_a_time() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let (_engine, [a, _b]) = two(place.path(), Config::default()).await;
        let on_a = Packets::open(&place.path().join("a")).await;
        let on_b = Packets::open(&place.path().join("b")).await;
        assert_eq!(announce(&on_b, "d").await, accepted("d"));
        assert_eq!(announce(&on_a, "d").await, failed("d", "Device Id already pre-registered"));
        assert!(on_b.leaves().await);
        while announce(&on_a, "d").await != accepted("d") {}
        let on_b = Packets::open(&place.path().join("b")).await;
        let _device = Dialed::device(a.local_addr(), "d").await;
        assert_eq!(on_a.next().await, registered("d"));
        assert_eq!(announce(&on_b, "d").await, failed("d", "Device Id already registered"));
    });
}

#[test]
fn announcements_of_all_nodes_have_one_bound() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let limits = Limits { max_devices: 2, ..Limits::default() };
        let (_engine, _nodes) = two(place.path(), Config { limits, ..Config::default() }).await;
        let on_a = Packets::open(&place.path().join("a")).await;
        let on_b = Packets::open(&place.path().join("b")).await;
        assert_eq!(announce(&on_a, "one").await, accepted("one"));
        assert_eq!(announce(&on_b, "two").await, accepted("two"));
        assert_eq!(announce(&on_b, "three").await, failed("three", "Too many devices"));
        assert!(on_a.leaves().await);
        while announce(&on_b, "three").await != accepted("three") {}
    });
}

#[test]
fn announcement_without_the_engine_is_made_once_it_is_back() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let (engine, [a, b]) = two(place.path(), Config::default()).await;
        engine.goes_away();
        until(|| !a.is_member() && !b.is_member()).await;
        let control = Packets::open(&place.path().join("b")).await;
        assert_eq!(announce(&control, "d").await, accepted("d"));
        engine.comes_back();
        until(|| engine.announced() == 1).await;
        until(|| a.is_member()).await;
        let _device = Dialed::device(a.local_addr(), "d").await;
        assert_eq!(control.next().await, registered("d"));
        is_listed(&b, r#"{"device_id":"d","group_name":"g","owner":"o","name":"n","adb_port":6520,"node":"a"}"#).await;
        assert_eq!(engine.announced(), 0);
    });
}

#[test]
fn announcements_of_a_dead_node_end_with_it() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let timing = Timing { reap: Duration::from_millis(500), ..timing() };
        let engine = Memory::new(timing.clone());
        let node = |name| {
            let mut config = config(name, place.path(), Config::default());
            config.cluster.as_mut().unwrap().timing = timing.clone();
            config
        };
        let a = start(&engine, node("a"));
        let dead = Killable::start_with(&engine, node("b"));
        until(|| a.nodes().len() == 2).await;
        let on_b = Packets::open(&place.path().join("b")).await;
        let on_a = Packets::open(&place.path().join("a")).await;
        assert_eq!(announce(&on_b, "d").await, accepted("d"));
        dead.kill();
        assert_eq!(announce(&on_a, "d").await, failed("d", "Device Id already pre-registered"));
        while announce(&on_a, "d").await != accepted("d") {}
    });
}
