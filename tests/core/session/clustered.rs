//! Sessions on a node of a cluster: claims of devices, and clients of devices on other nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::peer::{Grant, Role};
use cuttlefish_signaling::protocol::{DeviceId, IceServers, outbound};
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::{Answer, ClaimGuard, Question};

use crate::actors::{client_disconnected, client_msg, config, device_info, device_msg, error};
use crate::harness::Harness;
use crate::nodes::{Nodes, node, proxied, upstream};

fn one_node() -> Harness {
    Harness::new(node(Config::default()))
}

fn granted() -> Answer {
    Answer::Claimed(ClaimGuard::new(()))
}

/// The question that was asked last, for this peer.
fn asked(harness: &mut Harness, name: &str) -> Question {
    let (asker, question) = harness.asked.pop_front().expect("nothing was asked");
    assert_eq!(asker, name);
    question
}

fn asked_where(harness: &mut Harness, name: &str) -> bool {
    match asked(harness, name) {
        Question::Locate { last, .. } => last,
        other => panic!("{other:?}"),
    }
}

/// Two nodes with a device on A, and a client on B that is connected to it.
fn connected() -> Nodes {
    let mut nodes = Nodes::new(Config::default());
    nodes.a.registers("d", "cvd-1");
    nodes.settle();
    nodes.b.connects("c", "cvd-1");
    nodes.settle();
    assert_eq!(nodes.a.all_heard("d"), [config()]);
    assert_eq!(nodes.b.all_heard("c"), [config(), device_info("d")]);
    nodes
}

#[test]
fn device_gets_its_config_when_its_claim_is_granted_and_not_before() {
    let mut harness = one_node();
    harness.registers("d", "cvd-1");
    assert!(matches!(asked(&mut harness, "d"), Question::Claim(device) if device.id.as_str() == "cvd-1"));
    harness.after(Duration::from_secs(60));
    assert_eq!(harness.all_heard("d"), [""; 0]);
    assert!(harness.hub.devices().is_empty());
    harness.answers("d", granted());
    assert_eq!(harness.all_heard("d"), [config()]);
    assert_eq!(harness.hub.device_count(), 1);
}

#[test]
fn claim_is_given_up_after_the_device_has_left_the_hub() {
    struct Release(Arc<cuttlefish_signaling::hub::Hub>, Arc<AtomicBool>);
    impl Drop for Release {
        fn drop(&mut self) {
            self.1.store(self.0.devices().is_empty(), Ordering::Relaxed);
        }
    }
    let mut harness = one_node();
    let released = Arc::new(AtomicBool::new(false));
    harness.registers("d", "cvd-1");
    let guard = ClaimGuard::new(Release(Arc::clone(&harness.hub), Arc::clone(&released)));
    harness.answers("d", Answer::Claimed(guard));
    assert!(!released.load(Ordering::Relaxed));
    harness.leaves("d");
    assert!(released.load(Ordering::Relaxed), "the claim was given up before the device had left, or not at all");
}

#[test]
fn claim_that_is_granted_after_the_device_has_been_refused_is_given_up_at_once() {
    let mut harness = one_node();
    harness.registers("d", "cvd-1");
    harness.says_binary("d");
    let held = Arc::new(());
    harness.answers("d", Answer::Claimed(ClaimGuard::new(Arc::clone(&held))));
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(harness.hub.devices().is_empty());
}

#[test]
fn claim_that_is_refused_is_heard_as_a_duplicate() {
    let mut harness = one_node();
    harness.registers("d", "cvd-1");
    harness.answers("d", Answer::Refused(Refusal::AlreadyRegistered(DeviceId::new("cvd-1"))));
    assert_eq!(harness.all_heard("d"), [error("Device already registered: cvd-1")]);
}

#[test]
fn device_that_cannot_be_claimed_hears_so() {
    let mut harness = one_node();
    harness.registers("d", "cvd-1");
    harness.answers("d", Answer::Refused(Refusal::ClusterUnavailable(Role::Device)));
    assert_eq!(harness.all_heard("d"), [error("Registration failed: Cluster unavailable")]);
    assert!(matches!(harness.peer("d").ended, Some(End::Close { code: 1013, .. })));
}

#[test]
fn claim_decides_against_a_holder_that_this_node_still_has() {
    let mut harness = one_node();
    harness.registers("old", "cvd-1");
    harness.answers("old", granted());
    harness.registers("new", "cvd-1");
    harness.answers("new", granted());
    assert_eq!(harness.all_heard("old"), [config(), error("Device replaced: cvd-1")]);
    assert_eq!(harness.all_heard("new"), [config()]);
}

#[test]
fn device_of_this_node_is_found_without_a_question() {
    let mut harness = one_node();
    harness.registers("d", "cvd-1");
    harness.answers("d", granted());
    harness.asked.clear();
    harness.connects("c", "cvd-1");
    assert_eq!(harness.all_heard("c"), [config(), device_info("d")]);
    assert!(harness.asked.is_empty());
}

#[test]
fn client_that_may_not_use_a_device_asks_no_other_node() {
    let mut harness = one_node();
    harness.opens_with("c", Role::Client, Grant::of(None, &["other"]));
    harness.says("c", r#"{"message_type":"connect","device_id":"cvd-1"}"#);
    assert!(harness.asked.is_empty());
    assert_eq!(harness.all_heard("c"), [config(), error("Connection failed: Device not found: 'cvd-1'")]);
}

#[test]
fn client_is_told_not_found_only_after_the_registry_was_asked() {
    let mut harness = one_node();
    harness.connects("c", "cvd-1");
    assert!(asked_where(&mut harness, "c"), "it does not wait, so this is the last question");
    assert_eq!(harness.all_heard("c"), [config()]);
    harness.answers("c", Answer::Nowhere);
    assert_eq!(harness.all_heard("c"), [error("Connection failed: Device not found: 'cvd-1'")]);
}

#[test]
fn client_hears_that_the_cluster_is_unavailable_and_not_that_there_is_no_device() {
    let mut harness = one_node();
    harness.connects("c", "cvd-1");
    harness.answers("c", Answer::Refused(Refusal::ClusterUnavailable(Role::Client)));
    assert_eq!(harness.all_heard("c"), [config(), error("Connection failed: Cluster unavailable")]);
    assert!(matches!(harness.peer("c").ended, Some(End::Close { code: 1013, .. })));
}

fn waiting() -> Harness {
    Harness::new(node(Config { device_wait_timeout: Some(Duration::from_secs(30)), ..Config::default() }))
}

#[test]
fn client_that_waits_asks_again_once_it_is_among_those_that_are_woken() {
    let mut harness = waiting();
    harness.connects("c", "cvd-1");
    assert!(!asked_where(&mut harness, "c"));
    assert_eq!(harness.hub.waiting_count(), 0);
    harness.answers("c", Answer::Nowhere);
    assert_eq!(harness.hub.waiting_count(), 1);
    assert!(!asked_where(&mut harness, "c"));
    harness.answers("c", Answer::Nowhere);
    assert!(harness.asked.is_empty());
    // It has registered on another node.
    harness.hub.wake_waiting(&DeviceId::new("cvd-1"));
    harness.settle();
    assert!(!asked_where(&mut harness, "c"));
}

#[test]
fn client_that_is_woken_during_a_question_asks_again() {
    let mut harness = waiting();
    harness.connects("c", "cvd-1");
    harness.answers("c", Answer::Nowhere);
    harness.hub.wake_waiting(&DeviceId::new("cvd-1"));
    harness.settle();
    harness.asked.clear();
    harness.answers("c", Answer::Nowhere);
    assert!(!asked_where(&mut harness, "c"));
}

#[test]
fn client_asks_the_registry_at_its_deadline() {
    let mut harness = waiting();
    harness.connects("c", "cvd-1");
    harness.answers("c", Answer::Nowhere);
    harness.answers("c", Answer::Nowhere);
    harness.asked.clear();
    harness.after(Duration::from_secs(30));
    assert!(asked_where(&mut harness, "c"));
    harness.answers("c", Answer::Nowhere);
    assert_eq!(harness.all_heard("c"), [config(), error("Connection failed: Device not found: 'cvd-1'")]);
    assert_eq!(harness.hub.waiting_count(), 0);
}

#[test]
fn device_that_registers_here_during_a_question_is_found() {
    for answer in [|| Answer::Nowhere, || Answer::Refused(Refusal::ClusterUnavailable(Role::Client))] {
        let mut harness = one_node();
        harness.connects("c", "cvd-1");
        harness.registers("d", "cvd-1");
        harness.answers("d", granted());
        harness.answers("c", answer());
        assert_eq!(harness.all_heard("c"), [config(), device_info("d")]);
    }
}

#[test]
fn client_that_waits_is_woken_by_a_device_of_its_own_node() {
    let mut harness = waiting();
    harness.connects("c", "cvd-1");
    harness.answers("c", Answer::Nowhere);
    harness.answers("c", Answer::Nowhere);
    harness.registers("d", "cvd-1");
    harness.answers("d", granted());
    assert_eq!(harness.all_heard("c"), [config(), device_info("d")]);
    assert_eq!(harness.hub.waiting_count(), 0);
}

#[test]
fn pair_on_two_nodes_talks_like_one_on_one_node() {
    let mut nodes = connected();
    nodes.b.forwards("c", r#"{"offer":1}"#);
    nodes.settle();
    nodes.a.forwards_to("d", 1, r#"{"answer":2}"#);
    nodes.settle();
    assert_eq!(nodes.a.all_heard("d"), [client_msg(1, r#"{"offer":1}"#)]);
    assert_eq!(nodes.b.all_heard("c"), [device_msg(r#"{"answer":2}"#)]);
    nodes.b.leaves("c");
    nodes.settle();
    assert_eq!(nodes.a.all_heard("d"), [client_disconnected(1)]);
    nodes.assert_at_rest();
}

#[test]
fn messages_of_the_device_wait_for_the_device_info() {
    let mut nodes = Nodes::new(Config::default());
    nodes.a.registers("d", "cvd-1");
    nodes.settle();
    nodes.b.hold_device_info = true;
    nodes.b.connects("c", "cvd-1");
    nodes.b.forwards("c", "1");
    nodes.settle();
    // A client of a hasty device, which guesses the id.
    nodes.a.forwards_to("d", 1, "2");
    nodes.settle();
    assert_eq!(nodes.b.all_heard("c"), [config()]);
    assert_eq!(nodes.a.all_heard("d"), [config()]);
    nodes.b.answers("c", Answer::DeviceInfo(outbound::device_info(r#""filtered""#)));
    nodes.settle();
    assert_eq!(nodes.b.all_heard("c"), [device_info("filtered"), device_msg("2")]);
    assert_eq!(nodes.a.all_heard("d"), [client_msg(1, "1")]);
    nodes.assert_at_rest();
}

#[test]
fn client_that_the_filter_refuses_leaves_the_other_node() {
    let mut nodes = Nodes::new(Config::default());
    nodes.a.registers("d", "cvd-1");
    nodes.settle();
    nodes.b.hold_device_info = true;
    nodes.b.connects("c", "cvd-1");
    nodes.settle();
    nodes.b.answers("c", Answer::Refused(Refusal::HookFailed));
    nodes.settle();
    assert_eq!(nodes.b.all_heard("c"), [config(), error("Internal error")]);
    assert!(!nodes.a.has(&proxied("c")));
    nodes.assert_at_rest();
}

#[test]
fn device_that_leaves_during_the_filter_is_looked_for_again() {
    let mut nodes = Nodes::new(Config::default());
    nodes.a.registers("d", "cvd-1");
    nodes.settle();
    nodes.b.hold_device_info = true;
    nodes.b.connects("c", "cvd-1");
    nodes.settle();
    nodes.a.leaves("d");
    nodes.settle();
    nodes.b.answers("c", Answer::DeviceInfo(outbound::device_info("1")));
    nodes.settle();
    assert_eq!(nodes.b.all_heard("c"), [config(), error("Connection failed: Device not found: 'cvd-1'")]);
    nodes.assert_at_rest();
}

#[test]
fn client_of_another_node_is_refused_in_the_words_of_the_node_of_the_device() {
    let mut limited = Config::default();
    limited.limits.max_clients_per_device = 1;
    let mut nodes = Nodes::new(limited);
    nodes.a.registers("d", "cvd-1");
    nodes.settle();
    nodes.b.connects("one", "cvd-1");
    nodes.settle();
    nodes.b.connects("two", "cvd-1");
    nodes.settle();
    assert_eq!(nodes.b.all_heard("two"), [config(), error("Connection failed: Too many clients of device 'cvd-1'")]);
    assert!(matches!(nodes.b.peer("two").ended, Some(End::Close { code: 1013, .. })));
    nodes.assert_at_rest();
}

#[test]
fn client_hears_that_its_device_has_left_however_the_other_node_goes() {
    let stops = |nodes: &mut Nodes| nodes.b.closes(&upstream("c"), 1001, "server stopping");
    let is_killed = |nodes: &mut Nodes| {
        nodes.b.leaves(&upstream("c"));
        nodes.a.leaves(&proxied("c"));
    };
    for goes in [stops, is_killed] {
        let mut nodes = connected();
        goes(&mut nodes);
        assert_eq!(nodes.b.all_heard("c"), [error("Device disconnected")]);
        assert!(matches!(nodes.b.peer("c").ended, Some(End::Close { code: 1000, .. })));
        nodes.b.leaves("c");
        nodes.settle();
        assert_eq!(nodes.a.all_heard("d"), [client_disconnected(1)]);
        nodes.assert_at_rest();
    }
}

#[test]
fn node_that_sends_no_json_loses_the_connection() {
    let mut nodes = connected();
    nodes.b.says(&upstream("c"), r#"{"message_type":"device_msg","payload":]}"#);
    assert_eq!(nodes.b.all_heard("c"), [error("Device disconnected")]);
    nodes.settle();
    assert_eq!(nodes.a.all_heard("d"), [client_disconnected(1)]);
    nodes.assert_at_rest();
}

#[test]
fn client_that_has_waited_gets_new_ice_servers_before_the_device_info() {
    let wait = Config { device_wait_timeout: Some(Duration::from_secs(30)), ..Config::default() };
    let mut nodes = Nodes::new(wait);
    nodes.b.connects("c", "cvd-1");
    nodes.settle();
    assert_eq!(nodes.b.all_heard("c"), [config()]);
    let servers = IceServers::from_json(r#"[{"urls":"stun:stun.lab"}]"#).unwrap();
    let renewed = servers.config().as_str().to_owned();
    nodes.b.ice = Some(servers);
    nodes.b.hub.renew_config();
    nodes.a.registers("d", "cvd-1");
    nodes.settle();
    assert_eq!(nodes.b.all_heard("c"), [renewed, device_info("d")]);
    nodes.assert_at_rest();
}

#[test]
fn client_whose_texts_the_other_node_does_not_take_is_not_read() {
    let mut nodes = connected();
    nodes.b.freezes(&upstream("c"));
    let window = Config::default().limits.backpressure.client_window_messages;
    for number in 0..=2 * window {
        nodes.b.forwards("c", &number.to_string());
    }
    assert_eq!(nodes.b.peer("c").unread.len(), window + 1);
    nodes.b.thaws(&upstream("c"));
    nodes.settle();
    let heard = nodes.a.all_heard("d");
    let sent: Vec<_> = (0..=2 * window).map(|number| client_msg(1, &number.to_string())).collect();
    assert_eq!(heard, sent);
    nodes.assert_at_rest();
}
