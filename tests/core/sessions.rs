//! Sessions beyond the transcripts: pending hooks, concurrent events, slow consumers.

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::outbox::{End, Outgoing};
use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::protocol::{IceServers, outbound};
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::{Answer, OnDuplicate};

use crate::actors::{client_disconnected, client_msg, config, device_info, device_msg, error, harness};
use crate::harness::Harness;

#[test]
fn client_texts_are_held_while_the_device_info_hook_is_pending() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.hold_device_info = true;
    harness.connects("c", "cvd-1");
    harness.forwards("c", "1");
    harness.forwards("c", "2");
    assert_eq!(harness.all_heard("d"), [config()]);
    harness.answers("c", Answer::DeviceInfo(outbound::device_info(r#""filtered""#)));
    assert_eq!(harness.all_heard("c"), [config(), device_info("filtered")]);
    assert_eq!(harness.all_heard("d"), [client_msg(1, "1"), client_msg(1, "2")]);
}

#[test]
fn device_that_leaves_during_the_device_info_hook_is_not_found() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.hold_device_info = true;
    harness.connects("c", "cvd-1");
    harness.leaves("d");
    harness.answers("c", Answer::DeviceInfo(outbound::device_info("1")));
    assert_eq!(harness.all_heard("c"), [config(), error("Connection failed: Device not found: 'cvd-1'")]);
}

#[test]
fn device_that_registers_again_during_the_device_info_hook_is_asked_again() {
    let mut harness = harness();
    harness.registers("old", "cvd-1");
    harness.hold_device_info = true;
    harness.connects("c", "cvd-1");
    harness.leaves("old");
    harness.registers("new", "cvd-1");
    harness.hold_device_info = false;
    // The answer belongs to the old registration and must not be used for the new one.
    harness.answers("c", Answer::DeviceInfo(outbound::device_info(r#""old""#)));
    assert_eq!(harness.all_heard("c"), [config(), device_info("new")]);
}

#[test]
fn device_is_not_notified_of_a_client_that_the_filter_refuses() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.hold_device_info = true;
    harness.connects("c", "cvd-1");
    harness.answers("c", Answer::Refused(Refusal::HookFailed));
    assert_eq!(harness.all_heard("c"), [config(), error("Internal error")]);
    assert_eq!(harness.all_heard("d"), [config()]);
    harness.forwards_to("d", 1, "0");
    assert_eq!(harness.all_heard("d"), [error("Forward failed: Unknown client 1")]);
}

#[test]
fn peer_is_refused_when_its_config_fails() {
    let mut harness = harness();
    harness.ice = None;
    harness.registers("d", "cvd-1");
    harness.connects("c", "cvd-1");
    for peer in ["d", "c"] {
        assert_eq!(harness.all_heard(peer), [error("Internal error")]);
        assert!(matches!(harness.peer(peer).ended, Some(End::Close { code: 1011, .. })));
    }
    assert!(harness.hub.devices().is_empty());
}

#[test]
fn new_ice_servers_are_sent_to_devices_and_a_failed_hook_keeps_the_old_ones() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.connects("c", "cvd-1");
    harness.all_heard("c");
    harness.ice = Some(IceServers::from_json(r#"[{"urls":"stun:new"}]"#).unwrap());
    harness.hub.renew_config();
    harness.settle();
    let renewed = r#"{"message_type":"config","ice_servers":[{"urls":["stun:new"]}]}"#;
    assert_eq!(harness.all_heard("d"), [config(), renewed.into()]);
    assert_eq!(harness.all_heard("c"), [""; 0]);
    harness.ice = None;
    harness.hub.renew_config();
    harness.settle();
    assert_eq!(harness.all_heard("d"), [""; 0]);
    assert!(harness.peer("d").ended.is_none());
    harness.forwards_to("d", 1, "1");
    assert_eq!(harness.all_heard("c"), [device_msg("1")]);
}

#[test]
fn slow_client_is_closed_and_its_device_notified_once() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.connects("c", "cvd-1");
    harness.connects("other", "cvd-1");
    for peer in ["d", "c", "other"] {
        harness.all_heard(peer);
    }
    harness.freezes("c");
    for _ in 0..400 {
        harness.forwards_to("d", 1, r#""x""#);
    }
    // 256 are queued, the 257th closes: one `client_disconnected` for the close, then one for each later forward.
    let notices = harness.all_heard("d");
    assert_eq!(notices.len(), 400 - 256);
    assert!(notices.iter().all(|notice| *notice == client_disconnected(1)));
    harness.forwards_to("d", 2, "1");
    assert_eq!(harness.all_heard("other"), [device_msg("1")]);
    // The client wakes up and forwards: nothing of it follows `client_disconnected`.
    harness.forwards("c", r#""late""#);
    assert_eq!(harness.all_heard("d"), [""; 0]);
    harness.leaves("c");
    assert_eq!(harness.all_heard("d"), [""; 0], "its leaving was told already");
    assert!(harness.balance().balances(), "{:?}", harness.balance());
}

#[test]
fn slow_device_is_closed_and_its_clients_notified() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.connects("c", "cvd-1");
    harness.all_heard("c");
    harness.freezes("d");
    for _ in 0..300 {
        harness.forwards("c", r#""x""#);
    }
    assert!(harness.peer("d").outbox.is_closed());
    harness.leaves("d");
    assert_eq!(harness.all_heard("c"), [error("Device disconnected")]);
    harness.leaves("c");
    assert!(harness.balance().balances(), "{:?}", harness.balance());
    assert_eq!(harness.balance().accepted, 300);
}

#[test]
fn replaced_device_cannot_unregister_or_forward() {
    let mut harness = Harness::new(Config { on_duplicate: OnDuplicate::Replace, ..Config::default() });
    harness.registers("old", "cvd-1");
    harness.connects("c", "cvd-1");
    harness.registers("new", "cvd-1");
    harness.connects("c2", "cvd-1");
    harness.all_heard("c2");
    // The device has not read yet that it was replaced.
    harness.forwards_to("old", 1, r#""from an old session""#);
    assert_eq!(harness.all_heard("c2"), [""; 0]);
    harness.leaves("old");
    assert_eq!(harness.hub.devices().len(), 1);
    harness.forwards("c2", "1");
    assert_eq!(harness.all_heard("new"), [config(), client_msg(2, "1")]);
}

#[test]
fn first_of_several_newcomers_replaces_a_dead_holder() {
    let mut harness = harness();
    harness.registers("dead", "cvd-1");
    harness.freezes("dead");
    harness.registers("a", "cvd-1");
    harness.registers("b", "cvd-1");
    harness.after(Duration::from_secs(3));
    assert_eq!(harness.all_heard("a"), [config()]);
    assert_eq!(harness.all_heard("b"), [error("Device already registered: cvd-1")]);
    assert_eq!(harness.hub.devices().len(), 1);
}

#[test]
fn holder_that_leaves_during_its_probe_frees_the_id_at_once() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.freezes("d");
    harness.registers("new", "cvd-1");
    assert_eq!(harness.all_heard("new"), [""; 0]);
    harness.leaves("d");
    harness.settle();
    assert_eq!(harness.all_heard("new"), [config()]);
}

#[test]
fn first_message_deadline_applies_to_silent_peers_only() {
    let mut harness = harness();
    harness.opens("d", Role::Device);
    harness.opens("c", Role::Client);
    harness.registers("busy", "cvd-1");
    harness.after(Duration::from_millis(9_999));
    assert_eq!(harness.all_heard("d"), [""; 0]);
    harness.after(Duration::from_millis(1));
    for peer in ["d", "c"] {
        assert_eq!(harness.all_heard(peer), [error("Timed out waiting for the first message")]);
    }
    harness.after(Duration::from_secs(3600));
    assert!(harness.peer("busy").ended.is_none());
}

#[test]
fn dropped_session_unregisters_like_one_that_leaves() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.connects("c", "cvd-1");
    harness.all_heard("c");
    // As after a panic of its task.
    let outbox = std::sync::Arc::clone(&harness.peer("d").outbox);
    harness.leaves("d");
    assert!(harness.hub.devices().is_empty());
    assert_eq!(harness.all_heard("c"), [error("Device disconnected")]);
    let cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(outbox.poll_next(&cx, true), std::task::Poll::Ready(Outgoing::Closing));
    assert!(matches!(outbox.poll_next(&cx, true), std::task::Poll::Ready(Outgoing::End(End::Drop))));
}
