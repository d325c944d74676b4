//! Client sessions beyond the transcripts: pending hooks, slow consumers, and clients whose request names the device.

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::protocol::{IceServers, outbound};
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::Answer;

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
    assert_eq!(harness.all_heard("d"), [""; 0], "a number of messages is no bound");
    harness.after(std::time::Duration::from_secs(10));
    assert_eq!(harness.all_heard("d"), [client_disconnected(1)]);
    harness.forwards_to("d", 1, "1");
    assert_eq!(harness.all_heard("d"), [client_disconnected(1)], "for each later forward");
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
fn client_of_a_device_path_sends_and_receives_bare_payloads() {
    let mut harness = harness();
    harness.registers("d", "x");
    harness.hears("d");
    harness.opens_at("c", "x");
    assert_eq!(harness.all_heard("c"), [r#"{"device_info":"d"}"#], "no config");
    for payload in [r#"{"message_type":"connect"}"#, "1.0", "null"] {
        harness.says("c", payload);
        assert_eq!(harness.all_heard("d"), [client_msg(1, payload)]);
        harness.forwards_to("d", 1, payload);
        assert_eq!(harness.all_heard("c"), [device_msg(payload)]);
    }
    harness.leaves("d");
    assert_eq!(harness.all_heard("c"), [error("Device disconnected")]);
    assert_eq!(harness.peer("c").ended, Some(End::close(1000, "Device disconnected")));
}

#[test]
fn client_of_a_device_path_receives_errors() {
    let mut harness = harness();
    harness.opens_at("early", "x");
    assert_eq!(harness.all_heard("early"), [error("Connection failed: Device not found: 'x'")]);
    harness.registers("d", "x");
    harness.hears("d");
    harness.opens_at("c", "x");
    harness.hears("c");
    harness.says("c", "{");
    assert_eq!(harness.all_heard("c"), [error("Received Invalid JSON")]);
    assert_eq!(harness.all_heard("d"), [client_disconnected(1)]);
}

fn waiting_clients() -> Harness {
    let mut harness = Harness::new(Config { device_wait_timeout: None, ..Config::default() });
    harness.good_for = Some(Duration::from_secs(600));
    harness
}

#[test]
fn client_that_waited_past_half_of_its_credentials_gets_new_ones_before_device_info() {
    let mut harness = waiting_clients();
    harness.connects("early", "cvd-1");
    assert_eq!(harness.all_heard("early"), [config()]);
    harness.after(Duration::from_secs(299));
    harness.connects("late", "cvd-1");
    assert_eq!(harness.all_heard("late"), [config()]);
    harness.after(Duration::from_secs(1));
    assert_eq!(harness.all_heard("early"), [""; 0], "the device has not come");
    harness.registers("d", "cvd-1");
    harness.settle();
    assert_eq!(harness.all_heard("early"), [config(), device_info("d")]);
    assert_eq!(harness.all_heard("late"), [device_info("d")]);
}

#[test]
fn client_that_waited_while_ice_servers_changed_gets_the_new_ones_before_device_info() {
    let mut harness = waiting_clients();
    harness.connects("c", "cvd-1");
    assert_eq!(harness.all_heard("c"), [config()]);
    harness.ice = Some(IceServers::from_json(r#"[{"urls":"stun:new"}]"#).unwrap());
    harness.hub.renew_config();
    harness.settle();
    harness.registers("d", "cvd-1");
    harness.settle();
    let renewed = r#"{"message_type":"config","ice_servers":[{"urls":["stun:new"]}]}"#;
    assert_eq!(harness.all_heard("c"), [renewed.to_owned(), device_info("d")]);
}

#[test]
fn client_of_a_device_path_gets_no_config_after_its_wait() {
    let mut harness = waiting_clients();
    harness.opens_at("c", "cvd-1");
    harness.after(Duration::from_secs(3600));
    harness.hub.renew_config();
    harness.registers("d", "cvd-1");
    harness.settle();
    assert_eq!(harness.all_heard("c"), [r#"{"device_info":"d"}"#]);
}
