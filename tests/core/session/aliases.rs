//! Devices of local sockets on a node whose `device_id_template` gives them names in the cluster (docs/protocol.md 5.4.9
//! to 5.4.12).

use cuttlefish_signaling::Config;
use cuttlefish_signaling::core::cluster::registry::Expectation;
use cuttlefish_signaling::journal::Filter;
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::peer::{Grant, Role};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::{Answer, ClaimGuard, OnDuplicate, Question};

use crate::actors::{client_msg, config, device_info, device_msg, error};
use crate::harness::Harness;
use crate::nodes::node;

const REGISTER: &str = r#"{"message_type":"register","device_id":"cvd-1","device_info":"d"}"#;
const CONNECT: &str = r#"{"message_type":"connect","device_id":"cvd-1"}"#;

fn harness_with(settings: Config) -> Harness {
    let mut settings = node(settings);
    let cluster = settings.cluster.as_mut().unwrap();
    (cluster.node, cluster.device_id_template) = ("host7".into(), Some("{node}-{id}".into()));
    Harness::new(settings)
}

fn harness() -> Harness {
    harness_with(Config { journal: true, ..Config::default() })
}

fn granted() -> Answer {
    Answer::Claimed(ClaimGuard::new(()))
}

/// `cvd-1` registers on the device socket.
fn comes(harness: &mut Harness, name: &str) {
    harness.opens_over_packets(name);
    harness.says(name, REGISTER);
    assert!(matches!(harness.asked.pop_front(), Some((_, Question::Claim(_)))));
    harness.answers(name, granted());
    assert_eq!(harness.all_heard(name), [config()]);
}

/// A control connection announces a device, which the registry accepts.
fn announces(harness: &mut Harness, text: &str) {
    harness.says("cvd", text);
    assert!(matches!(harness.asked.pop_front(), Some((_, Question::Announce(devices))) if devices.len() == 1));
    harness.answers("cvd", Answer::Announced(vec![Expectation::Pending]));
}

/// Answers the questions where the devices of clients are: nowhere.
fn not_elsewhere(harness: &mut Harness) {
    while let Some((client, question)) = harness.asked.pop_front() {
        if matches!(question, Question::Locate { .. }) {
            harness.answers(&client, Answer::Nowhere);
        }
    }
}

fn close_reason(harness: &mut Harness, name: &str) -> String {
    match harness.peer(name).ended.clone() {
        Some(End::Close { reason, .. }) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn device_of_the_local_socket_has_its_name_in_the_cluster_and_does_not_hear_it() {
    let mut harness = harness();
    harness.opens_over_packets("d");
    harness.says("d", REGISTER);
    let Some((_, Question::Claim(device))) = harness.asked.pop_front() else { panic!() };
    assert_eq!(device.id.as_str(), "host7-cvd-1");
    assert_eq!(device.said_id().as_str(), "cvd-1");
    assert_eq!(harness.configured, [DeviceId::new("host7-cvd-1")]);
    harness.answers("d", granted());
    assert_eq!(harness.hub.devices()[0].id.as_str(), "host7-cvd-1");
    harness.says("d", REGISTER);
    assert_eq!(close_reason(&mut harness, "d"), "Device already registered: cvd-1");
    assert_eq!(harness.all_heard("d"), [config()]);
}

#[test]
fn device_of_the_network_keeps_its_id() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.answers("d", granted());
    assert_eq!(harness.hub.devices()[0].id.as_str(), "cvd-1");
}

#[test]
fn device_answers_to_both_ids_on_its_own_node() {
    let mut harness = harness();
    comes(&mut harness, "d");
    for (client, id) in [("one", "cvd-1"), ("two", "host7-cvd-1")] {
        harness.connects(client, id);
        assert_eq!(harness.all_heard(client), [config(), device_info("d")]);
    }
    harness.forwards("one", "1");
    assert_eq!(harness.all_heard("d"), [client_msg(1, "1")]);
    harness.forwards_to("d", 1, "2");
    assert_eq!(harness.all_heard("one"), [device_msg("2")]);
    assert!(harness.asked.is_empty(), "the other nodes were asked");
    harness.opens_at("bare", "cvd-1");
    assert_eq!(harness.all_heard("bare"), [r#"{"device_info":"d"}"#]);
}

#[test]
fn id_in_the_cluster_beats_an_alias() {
    let mut harness = harness();
    comes(&mut harness, "local");
    harness.opens("global", Role::Device);
    harness.says("global", r#"{"message_type":"register","device_id":"cvd-1","device_info":"g"}"#);
    harness.asked.pop_front();
    harness.answers("global", granted());
    harness.connects("here", "cvd-1");
    assert_eq!(harness.all_heard("here"), [config(), device_info("g")]);
    harness.leaves("global");
    harness.connects("again", "cvd-1");
    assert_eq!(harness.all_heard("again"), [config(), device_info("d")]);
    harness.elsewhere.lock().unwrap().insert(DeviceId::new("cvd-1"));
    harness.connects("away", "cvd-1");
    let Some((_, Question::Locate { id, .. })) = harness.asked.pop_front() else { panic!("no other node was asked") };
    assert_eq!(id.as_str(), "cvd-1");
}

#[test]
fn device_of_another_node_that_cannot_be_reached_is_not_replaced_by_an_alias() {
    let mut harness = harness();
    comes(&mut harness, "local");
    harness.elsewhere.lock().unwrap().insert(DeviceId::new("cvd-1"));
    harness.connects("c", "cvd-1");
    not_elsewhere(&mut harness);
    assert_eq!(harness.all_heard("c"), [config(), error("Connection failed: Device not found: 'cvd-1'")]);
}

#[test]
fn other_node_says_the_id_in_the_cluster() {
    let mut harness = harness();
    comes(&mut harness, "d");
    harness.opens_for_node("alias", "cvd-1");
    assert_eq!(harness.all_heard("alias"), [""; 0]);
    harness.opens_for_node("name", "host7-cvd-1");
    assert_eq!(harness.all_heard("name"), [device_info("d")]);
}

#[test]
fn alias_is_resolved_before_grants_hooks_and_journal() {
    let mut harness = harness();
    comes(&mut harness, "d");
    harness.configured.clear();
    for (client, pattern, hears) in
        [("yes", "host7-*", device_info("d")), ("no", "cvd-*", error("Connection failed: Device not found: 'cvd-1'"))]
    {
        harness.opens_with(client, Role::Client, Grant::of(None, &[pattern]));
        harness.says(client, CONNECT);
        not_elsewhere(&mut harness);
        assert_eq!(harness.all_heard(client), [config(), hears], "{client}");
    }
    assert_eq!(harness.configured, [DeviceId::new("host7-cvd-1"), DeviceId::new("host7-cvd-1")]);
    let journal = harness.relay.journal().unwrap();
    let entries_of =
        |id: &str| journal.find(&Filter { device: Some(DeviceId::new(id)), ..Filter::default() }, 0, 100).len();
    assert_eq!(entries_of("cvd-1"), 0);
    assert!(entries_of("host7-cvd-1") >= 6, "{} entries", entries_of("host7-cvd-1"));
}

#[test]
fn client_that_waits_for_an_alias_gets_its_device() {
    let settings = Config { journal: true, device_wait_timeout: None, ..Config::default() };
    let mut harness = harness_with(settings);
    for (client, pattern) in [("yes", "host7-*"), ("no", "cvd-*")] {
        harness.opens_with(client, Role::Client, Grant::of(None, &[pattern]));
        harness.says(client, CONNECT);
        not_elsewhere(&mut harness);
        assert_eq!(harness.all_heard(client), [config()]);
    }
    comes_among(&mut harness, "d");
    assert_eq!(harness.all_heard("yes"), [device_info("d")]);
    assert_eq!(harness.all_heard("no"), [""; 0]);
    assert_eq!(harness.hub.waiting_count(), 1);
    let journal = harness.relay.journal().unwrap();
    let entries = journal.find(&Filter { message_type: Some("device_info".into()), ..Filter::default() }, 0, 100);
    assert_eq!(entries[0].device.as_ref().map(DeviceId::as_str), Some("host7-cvd-1"));
}

/// `cvd-1` registers while clients wait, which are told that no other node has it.
fn comes_among(harness: &mut Harness, name: &str) {
    harness.opens_over_packets(name);
    harness.says(name, REGISTER);
    harness.answers(name, granted());
    not_elsewhere(harness);
}

#[test]
fn errors_have_the_id_that_the_peer_has_said() {
    let mut settings = Config { on_duplicate: OnDuplicate::Replace, ..Config::default() };
    settings.limits.max_clients_per_device = 1;
    let mut harness = harness_with(settings);
    comes(&mut harness, "old");
    harness.connects("first", "host7-cvd-1");
    for (client, id) in [("alias", "cvd-1"), ("name", "host7-cvd-1")] {
        harness.connects(client, id);
        let text = format!("Connection failed: Too many clients of device '{id}'");
        assert_eq!(harness.all_heard(client), [config(), error(&text)]);
    }
    comes(&mut harness, "new");
    assert_eq!(close_reason(&mut harness, "old"), "Device replaced: cvd-1");
    harness.opens_over_packets("refused");
    harness.says("refused", REGISTER);
    harness.answers("refused", Answer::Refused(Refusal::AlreadyRegistered(DeviceId::new("host7-cvd-1"))));
    assert_eq!(close_reason(&mut harness, "refused"), "Device already registered: cvd-1");
}

#[test]
fn control_socket_is_answered_with_local_ids() {
    let mut harness = harness();
    harness.opens_control("cvd");
    let announce = r#"{"message_type":"pre-register","group_name":"g","owner":"o","devices":[{"id":"cvd-1","name":"n","adb_port":6520}]}"#;
    announces(&mut harness, announce);
    assert_eq!(harness.all_heard("cvd"), [r#"[{"id":"cvd-1","status":"accepted","message":""}]"#]);
    comes(&mut harness, "d");
    assert_eq!(harness.all_heard("cvd"), [r#"{"id":"cvd-1","status":"registered","message":""}"#]);
    let device = &harness.hub.devices()[0];
    assert_eq!((device.group(), device.metadata().adb_port), ("g", 6520));
    harness.says("cvd", announce);
    let again = r#"[{"id":"cvd-1","status":"failed","message":"Device Id already registered"}]"#;
    assert_eq!(harness.all_heard("cvd"), [again]);
}

#[test]
fn device_of_the_network_registers_under_the_name_that_was_announced() {
    let mut harness = harness();
    harness.opens_control("cvd");
    announces(&mut harness, r#"{"message_type":"pre-register","group_name":"g","devices":[{"id":"cvd-1"}]}"#);
    harness.all_heard("cvd");
    harness.registers("d", "host7-cvd-1");
    harness.answers("d", granted());
    assert_eq!(harness.all_heard("cvd"), [r#"{"id":"cvd-1","status":"registered","message":""}"#]);
    harness.connects("c", "cvd-1");
    not_elsewhere(&mut harness);
    assert_eq!(
        harness.all_heard("c"),
        [config(), error("Connection failed: Device not found: 'cvd-1'")],
        "a device of the network has no alias"
    );
}

#[test]
fn name_that_is_longer_than_an_id_may_be_is_invalid() {
    let mut harness = harness();
    let id = "x".repeat(256 - "host7-".len() + 1);
    harness.opens_over_packets("d");
    harness.says("d", &format!(r#"{{"message_type":"register","device_id":"{id}"}}"#));
    assert_eq!(close_reason(&mut harness, "d"), "Invalid device id");
    harness.opens_control("cvd");
    harness.says("cvd", &format!(r#"{{"message_type":"pre-register","devices":[{{"id":"{id}"}}]}}"#));
    let failed = format!(r#"[{{"id":"{id}","status":"failed","message":"Invalid device id"}}]"#);
    assert_eq!(harness.all_heard("cvd"), [failed]);
}

#[test]
fn device_that_comes_back_is_known_by_its_name() {
    let mut harness = harness();
    comes(&mut harness, "d");
    harness.connects("c", "cvd-1");
    harness.leaves("d");
    assert_eq!(harness.all_heard("c"), [config(), device_info("d"), error("Device disconnected")]);
    harness.connects("missing", "cvd-1");
    not_elsewhere(&mut harness);
    assert_eq!(harness.all_heard("missing"), [config(), error("Connection failed: Device not found: 'cvd-1'")]);
    comes(&mut harness, "again");
    harness.connects("second", "cvd-1");
    assert_eq!(harness.all_heard("second"), [config(), device_info("d")]);
    harness.forwards("second", "1");
    assert_eq!(harness.all_heard("again"), [client_msg(2, "1")], "client ids go on by the name");
}
