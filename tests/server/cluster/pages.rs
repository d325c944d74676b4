//! The events of a dashboard of a node: the nodes with their state, and the devices of all of them.

use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::hooks::{AuthorizeRequest, HookFuture, Hooks};
use cuttlefish_signaling::peer::{Grant, Role};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::Drain;
use cuttlefish_signaling::session::OnDuplicate;
use cuttlefish_signaling::{Config, Running, Server};
use serde_json::{Value, json};

use super::memory::Memory;
use super::{Killable, Nodes, settings, start, timing, until};
use crate::dial::{Dialed, block_on, keep, with_timeout};
use crate::lists::Http;
use crate::packets::Packets;

fn with_dashboard() -> Config {
    Config { dashboard: true, ..Config::default() }
}

/// A page of a node.
async fn open(node: &Running, query: &str) -> Http {
    let mut page = Http::new(node);
    page.send(&format!("/dashboard/events{query}")).await;
    page
}

/// The next overview for which a condition holds.
async fn overview(page: &mut Http, wanted: impl Fn(&Value) -> bool) -> Value {
    let found = async {
        loop {
            let overview = page.event("overview").await;
            if wanted(&overview) {
                return overview;
            }
        }
    };
    with_timeout("an overview", found).await
}

/// The values of some fields of each entry of a list.
fn fields(list: &Value, names: &[&str]) -> Value {
    let of = |entry: &Value| names.iter().map(|name| entry[*name].clone()).collect::<Value>();
    list.as_array().map(|entries| entries.iter().map(of).collect()).unwrap_or_default()
}

fn states(overview: &Value) -> Value {
    fields(&overview["server"]["cluster"]["nodes"], &["name", "state"])
}

fn devices(overview: &Value) -> Value {
    fields(&overview["devices"], &["device_id", "node", "is_remote"])
}

#[test]
fn page_has_nodes_and_devices_of_all_nodes_and_hears_of_their_changes() {
    block_on(async {
        let nodes = Nodes::start(2, with_dashboard()).await;
        let (a, b) = (&nodes.nodes[0], &nodes.nodes[1]);
        let mut page = open(b, "").await;
        let first = overview(&mut page, |_| true).await;
        let cluster = &first["server"]["cluster"];
        assert_eq!(
            (&cluster["node"], &cluster["state"], &cluster["stale_since"]),
            (&json!("b"), &json!("in"), &Value::Null)
        );
        assert_eq!(fields(&cluster["nodes"], &["name", "is_this"]), json!([["a", false], ["b", true]]));
        assert_eq!(states(&first), json!([["a", "in"], ["b", "in"]]));
        let address = |node: &Running| node.node_address().unwrap().to_string();
        let build = env!("CARGO_PKG_VERSION");
        let facts = json!([[address(a), build, false], [address(b), build, false]]);
        assert_eq!(fields(&cluster["nodes"], &["address", "build", "differs"]), facts);

        let there = Dialed::device(a.local_addr(), "on-a").await;
        let _here = Dialed::device(b.local_addr(), "on-b").await;
        let claimed = json!([["on-a", null], ["on-b", null]]);
        let is_claimed = |overview: &Value| fields(&overview["devices"], &["device_id", "unclaimed"]) == claimed;
        let both = overview(&mut page, is_claimed).await;
        assert_eq!(devices(&both), json!([["on-a", "a", true], ["on-b", "b", null]]));
        assert_eq!(both["server"]["devices"], 2);

        let _client = Dialed::client(b.local_addr(), "on-a").await;
        let counted = json!([["a", 1, 1], ["b", 1, 0]]);
        let counts =
            |overview: &Value| fields(&overview["server"]["cluster"]["nodes"], &["name", "devices", "clients"]);
        overview(&mut page, |overview| counts(overview) == counted).await;

        // A search finds the devices of a node by its name.
        let mut search = open(b, "?search=N-A").await;
        assert_eq!(devices(&search.event("overview").await), json!([["on-a", "a", true]]));
        drop(there);
        overview(&mut page, |overview| devices(overview) == json!([["on-b", "b", null]])).await;
    });
}

#[test]
fn details_of_a_device_name_its_node_and_local_id() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let engine = Memory::new(timing());
        let mut config = settings("a", Config { device_socket: Some(place.path().join("s")), ..with_dashboard() });
        config.cluster.as_mut().unwrap().device_id_template = Some("{node}:{id}".into());
        let a = start(&engine, config);
        let b = start(&engine, settings("b", with_dashboard()));
        until(|| b.nodes().len() == 2).await;
        let local = Packets::open(&place.path().join("s")).await;
        local.says(r#"{"message_type":"register","device_id":"cvd-1","device_info":{}}"#).await;
        local.next().await;
        until(|| engine.holder("a:cvd-1").is_some()).await;
        until(|| b.node_of(&DeviceId::new("a:cvd-1")).is_some()).await;
        let names = ["device_id", "node", "local_id", "is_remote"];
        for (node, is_remote) in [(&a, Value::Null), (&b, json!(true))] {
            let mut page = open(node, "?device=a:cvd-1").await;
            let listed = page.event("overview").await;
            let expected = json!([["a:cvd-1", "a", "cvd-1", is_remote]]);
            assert_eq!(fields(&listed["devices"], &names), expected);
            let details = page.event("device").await;
            assert_eq!(fields(&json!([details]), &names), expected);
            assert!(details["since"].is_f64());
        }
        let details = open(&b, "?device=nowhere").await.event("device").await;
        assert_eq!(fields(&json!([details]), &["since", "node", "is_remote"]), json!([[null, null, null]]));
    });
}

#[test]
fn page_tells_that_the_engine_is_away_and_that_a_node_started_alone() {
    block_on(async {
        let nodes = Nodes::start(2, with_dashboard()).await;
        let b = &nodes.nodes[1];
        let _known = Dialed::device(nodes.address(0), "known").await;
        let mut page = open(b, "").await;
        overview(&mut page, |overview| overview["matching"] == 1).await;
        nodes.engine.goes_away();
        let away = overview(&mut page, |overview| overview["server"]["cluster"]["state"] == "rejoining").await;
        assert!(away["server"]["cluster"]["stale_since"].is_f64(), "{away}");
        assert_eq!(devices(&away), json!([["known", "a", true]]));
        // The other node tells it itself.
        let both = json!([["a", "rejoining"], ["b", "rejoining"]]);
        overview(&mut page, |overview| states(overview) == both).await;
        let _late = Dialed::device(b.local_addr(), "late").await;
        let late = json!([["known", null], ["late", true]]);
        overview(&mut page, |overview| fields(&overview["devices"], &["device_id", "unclaimed"]) == late).await;

        let alone = start(&nodes.engine, settings("c", with_dashboard()));
        let mut page_of_alone = open(&alone, "").await;
        let shown = overview(&mut page_of_alone, |_| true).await;
        assert_eq!(states(&shown), json!([["c", "alone"]]));
        assert!(shown["server"]["cluster"]["stale_since"].is_f64(), "{shown}");

        nodes.engine.comes_back();
        let all = json!([["a", "in"], ["b", "in"], ["c", "in"]]);
        for page in [&mut page, &mut page_of_alone] {
            let back = overview(page, |overview| states(overview) == all && overview["matching"] == 2).await;
            assert_eq!(back["server"]["cluster"]["stale_since"], Value::Null);
        }
    });
}

#[test]
fn page_tells_which_node_drains_and_which_does_not_answer() {
    block_on(async {
        let engine = Memory::new(timing());
        let b = start(&engine, settings("b", with_dashboard()));
        let killed = Killable::start(&engine, "a");
        // It has other settings as well.
        let drains = start(&engine, settings("c", Config { on_duplicate: OnDuplicate::Replace, ..with_dashboard() }));
        until(|| b.nodes().len() == 3).await;
        let mut page = open(&b, "").await;
        let _device = Dialed::device(killed.address, "d").await;
        overview(&mut page, |overview| overview["matching"] == 1).await;
        killed.kill();
        let gone = json!([["a", "unreachable"], ["b", "in"], ["c", "in"]]);
        let shown = overview(&mut page, |overview| states(overview) == gone).await;
        let differs = fields(&shown["server"]["cluster"]["nodes"], &["differs"]);
        assert_eq!(differs, json!([[false], [false], [true]]));
        let drained = tokio::spawn({
            let drains = Arc::clone(&drains);
            async move { drains.drain(Drain { wait: Duration::from_secs(60), spread: Duration::ZERO }).await }
        });
        let draining = json!([["a", "unreachable"], ["b", "in"], ["c", "draining"]]);
        let is_draining = |overview: &Value| states(overview)[2] == draining[2];
        overview(&mut page, is_draining).await;
        let mut own = open(&drains, "").await;
        assert_eq!(own.event("overview").await["server"]["cluster"]["state"], "draining");
        drained.abort();
    });
}

/// Lets a viewer with a query see the devices that begin with `mine`.
struct SomeDevices;

impl Hooks for SomeDevices {
    fn wants_requests(&self) -> bool {
        true
    }

    fn authenticates(&self) -> bool {
        true
    }

    fn authorize(&self, request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        let is_limited = request.role == Role::Http && !request.request.unpack().query.is_empty();
        let grant = if is_limited { Grant::of(None, &["mine*"]) } else { Grant::default() };
        Some(HookFuture::new(async move { Ok(grant) }))
    }
}

#[test]
fn viewer_of_some_devices_gets_those_of_other_nodes_and_no_list_of_nodes() {
    block_on(async {
        let engine = Memory::new(timing());
        let a = start(&engine, settings("a", with_dashboard()));
        let b = settings("b", with_dashboard());
        let b = Server::bind_with_engine(b, Arc::new(SomeDevices), Arc::new(()), Arc::new(engine.clone()));
        let b = keep(b.unwrap().serve());
        until(|| b.nodes().len() == 2).await;
        let _mine = Dialed::device(a.local_addr(), "mine-1").await;
        let _other = Dialed::device(a.local_addr(), "other").await;
        let mut whole = open(&b, "").await;
        overview(&mut whole, |overview| overview["matching"] == 2).await;
        let limited = open(&b, "?device=other").await.event("overview").await;
        assert_eq!(devices(&limited), json!([["mine-1", "a", true]]));
        assert_eq!(limited["server"]["devices"], 1);
        assert_eq!(limited["server"]["cluster"], json!({"node": "b", "state": "in", "stale_since": null}));
        let hidden = open(&b, "?device=other").await.event("device").await;
        assert_eq!(fields(&json!([hidden]), &["since", "node"]), json!([[null, null]]));
    });
}
