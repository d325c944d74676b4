//! Lists over all nodes, and requests about devices of other nodes (docs/protocol.md 5.4.17 to 5.4.20).

use std::net::SocketAddr;
use std::sync::Arc;

use cuttlefish_signaling::hooks::HookFuture;
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::peer::Peer;
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::{Config, Hooks, Running, Server};

use super::memory::Memory;
use super::passed_on::{ask, ask_whole};
use super::{Killable, Nodes, settings, start, timing, until};
use crate::dial::{Dialed, Received, block_on, keep};
use crate::packets::Packets;

async fn known_on(node: &Running, id: &str) {
    until(|| node.node_of(&DeviceId::new(id)).is_some()).await;
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, "GET", path, "").await
}

/// Shows all of the device info, or one field that tells which node was asked.
struct Filter(Option<&'static str>);

impl Hooks for Filter {
    fn filters_device_info(&self) -> bool {
        self.0.is_some()
    }

    fn filter_device_info(&self, device: &Arc<Device>, _: &Arc<Peer>) -> Option<HookFuture<String>> {
        let (node, id) = (self.0?, device.id.clone());
        Some(HookFuture::new(async move { Ok(format!(r#"{{"filtered":"{id} on {node}"}}"#)) }))
    }
}

fn start_with(engine: &Memory, config: Config, hooks: Filter) -> Arc<Running> {
    let server = Server::bind_with_engine(config, Arc::new(hooks), Arc::new(()), Arc::new(engine.clone()));
    keep(server.unwrap().serve())
}

#[test]
fn lists_have_the_devices_of_all_nodes_with_their_node_and_local_id() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let engine = Memory::new(timing());
        let mut config = settings("a", Config { device_socket: Some(place.path().join("s")), ..Config::default() });
        config.cluster.as_mut().unwrap().device_id_template = Some("{node}-{id}".into());
        let a = start_with(&engine, config, Filter(None));
        let b = start_with(&engine, settings("b", Config::default()), Filter(None));
        let hiding = start_with(&engine, settings("c", Config::default()), Filter(Some("c")));
        until(|| [&a, &b, &hiding].iter().all(|node| node.nodes().len() == 3)).await;
        let local = Packets::open(&place.path().join("s")).await;
        local.says(r#"{"message_type":"register","device_id":"cvd-1","device_info":{"group_id":"g"}}"#).await;
        assert_eq!(local.next().await, Received::Text(r#"{"message_type":"config","ice_servers":[]}"#.into()));
        let _other = Dialed::device(b.local_addr(), "b-device").await;
        for node in [&a, &b, &hiding] {
            known_on(node, "a-cvd-1").await;
            known_on(node, "b-device").await;
        }
        let whole = r#"[{"device_id":"a-cvd-1","group_name":"g","adb_port":0,"node":"a","local_id":"cvd-1"},{"device_id":"b-device","group_name":"","adb_port":0,"node":"b"}]"#;
        for node in [&a, &b] {
            assert_eq!(get(node.local_addr(), "/devices").await, (200, whole.to_owned()));
            let ids = r#"["a-cvd-1","b-device"]"#;
            assert_eq!(get(node.local_addr(), "/devices?format=ids").await, (200, ids.to_owned()));
            assert_eq!(get(node.local_addr(), "/devices?format=ids&groupId=g").await.1, r#"["a-cvd-1"]"#);
        }
        let hidden = whole.replace(r#""group_name":"g""#, r#""group_name":"""#);
        assert_eq!(get(hiding.local_addr(), "/devices").await, (200, hidden));
    });
}

#[test]
fn numbers_of_clients_are_those_that_the_home_nodes_tell() {
    block_on(async {
        let engine = Memory::new(timing());
        let (a, b) = (start(&engine, settings("a", Config::default())), Killable::start(&engine, "b"));
        until(|| a.nodes().len() == 2).await;
        let _here = Dialed::device(a.local_addr(), "here").await;
        let mut there = Dialed::device(b.address, "there").await;
        known_on(&a, "there").await;
        let (status, answer) = ask(a.local_addr(), "POST", "/polled_connections", r#"{"device_id":"there"}"#).await;
        assert_eq!(status, 200, "{answer}");
        let list = |here: &str, there: &str| {
            let entry = |id, node, clients: &str| {
                format!(r#"{{"device_id":"{id}","group_name":"","adb_port":0,"node":"{node}"{clients}}}"#)
            };
            (200, format!("[{},{}]", entry("here", "a", here), entry("there", "b", there)))
        };
        assert_eq!(get(a.local_addr(), "/devices").await, list("", ""));
        assert_eq!(get(a.local_addr(), "/devices?clients=true").await, list(r#","clients":0"#, r#","clients":1"#));
        let one = get(a.local_addr(), "/devices/there?clients=true").await.1;
        assert!(one.contains(r#""clients":1"#), "{one}");
        there.says(r#"{"message_type":"forward","client_id":1,"payload":1}"#).await;
        b.kill();
        // The numbers are used again for a second. Then the node does not tell its own.
        loop {
            let answer = get(a.local_addr(), "/devices?clients=true").await;
            if answer == list(r#","clients":0"#, "") || !answer.1.contains("there") {
                break;
            }
        }
    });
}

#[test]
fn device_info_is_that_of_the_home_node_as_the_hook_of_the_other_node_shows_it() {
    block_on(async {
        let engine = Memory::new(timing());
        let a = start_with(&engine, settings("a", Config::default()), Filter(Some("a")));
        let b = start_with(&engine, settings("b", Config::default()), Filter(Some("b")));
        let all = start_with(&engine, settings("c", Config::default()), Filter(None));
        until(|| [&a, &b, &all].iter().all(|node| node.nodes().len() == 3)).await;
        let mut device = Dialed::open(a.local_addr(), "/register_device").await;
        device.says(r#"{"message_type":"register","device_id":"d","device_info":{"group_id":"g","n":1.0}}"#).await;
        device.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        known_on(&b, "d").await;
        known_on(&all, "d").await;
        let entry = |group: &str, info: &str| {
            let before = format!(r#"{{"device_id":"d","group_name":"{group}","adb_port":0,"node":"a","#);
            (200, format!(r#"{before}"registration_info":{info}}}"#))
        };
        let of = |node: &str| entry("", &format!(r#"{{"filtered":"d on {node}"}}"#));
        assert_eq!(get(a.local_addr(), "/devices/d").await, of("a"));
        assert_eq!(get(b.local_addr(), "/devices/d").await, of("b"));
        assert_eq!(get(all.local_addr(), "/devices/d").await, entry("g", r#"{"group_id":"g","n":1.0}"#));
        let missing = (404, r#"{"error":"Device not found"}"#.to_owned());
        assert_eq!(get(b.local_addr(), "/devices/other").await, missing);
    });
}

#[test]
fn node_that_does_not_answer_fails_the_request_about_its_device_only() {
    block_on(async {
        let engine = Memory::new(timing());
        let b = start(&engine, settings("b", Config { dashboard: true, ..Config::default() }));
        let gone = Killable::start(&engine, "a");
        until(|| b.nodes().len() == 2).await;
        let _device = Dialed::device(gone.address, "d").await;
        known_on(&b, "d").await;
        gone.kill();
        let list = r#"[{"device_id":"d","group_name":"","adb_port":0,"node":"a"}]"#;
        assert_eq!(get(b.local_addr(), "/devices").await, (200, list.to_owned()));
        for (method, path) in [("GET", "/devices/d"), ("POST", "/dashboard/disconnect?device=d")] {
            let (status, answer) = ask(b.local_addr(), method, path, "").await;
            assert_eq!(status, 504, "{answer}");
            assert!(answer.contains(r#"node \"a\": it has device \"d\", and cannot be asked"#), "{answer}");
        }
    });
}

#[test]
fn lists_tell_how_old_they_are_and_which_devices_are_unclaimed_while_the_engine_is_away() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let (a, b) = (nodes.address(0), nodes.address(1));
        let _device = Dialed::device(a, "claimed").await;
        known_on(&nodes.nodes[1], "claimed").await;
        let is_stale = async |node| ask_whole(node, "GET", "/devices", "", "").await.contains("x-cuttlefish-stale: ");
        assert!(!is_stale(a).await && !is_stale(b).await);
        nodes.engine.goes_away();
        until(|| nodes.nodes.iter().all(|node| !node.is_member())).await;
        assert!(is_stale(a).await && is_stale(b).await);
        let _late = Dialed::device(a, "late").await;
        let claimed = r#"{"device_id":"claimed","group_name":"","adb_port":0,"node":"a"}"#;
        let late = r#"{"device_id":"late","group_name":"","adb_port":0,"node":"a","unclaimed":true}"#;
        assert_eq!(get(a, "/devices").await.1, format!("[{claimed},{late}]"));
        assert_eq!(get(b, "/devices").await.1, format!("[{claimed}]"));
        nodes.engine.comes_back();
        until(|| nodes.engine.holder("late").is_some()).await;
        known_on(&nodes.nodes[1], "late").await;
        known_on(&nodes.nodes[0], "late").await;
        until(|| nodes.nodes.iter().all(|node| node.is_member())).await;
        let late = late.replace(r#","unclaimed":true"#, "");
        for node in [a, b] {
            assert_eq!(get(node, "/devices").await.1, format!("[{claimed},{late}]"));
            assert!(!is_stale(node).await);
        }
    });
}

#[test]
fn dashboard_of_one_node_disconnects_peers_of_another() {
    block_on(async {
        let nodes = Nodes::start(2, Config { dashboard: true, ..Config::default() }).await;
        let (a, b) = (nodes.address(0), nodes.address(1));
        let mut device = Dialed::device(a, "d").await;
        let mut client = Dialed::client(b, "d").await;
        known_on(&nodes.nodes[1], "d").await;
        let missing = (404, r#"{"error":"Client not found"}"#.to_owned());
        assert_eq!(ask(b, "POST", "/dashboard/disconnect?device=d&client=7", "").await, missing);
        let done = (200, r#""ok""#.to_owned());
        assert_eq!(ask(b, "POST", "/dashboard/disconnect?device=d&client=1", "").await, done);
        client.hears(r#"{"error":"Disconnected by the server's operator"}"#).await;
        device.hears(r#"{"message_type":"client_disconnected","client_id":1}"#).await;
        assert_eq!(ask(b, "POST", "/dashboard/disconnect?device=d", "").await, done);
        device.hears(r#"{"error":"Disconnected by the server's operator"}"#).await;
        until(|| nodes.nodes[1].node_of(&DeviceId::new("d")).is_none()).await;
        let missing = (404, r#"{"error":"Device not found"}"#.to_owned());
        assert_eq!(ask(b, "POST", "/dashboard/disconnect?device=d", "").await, missing);
    });
}
