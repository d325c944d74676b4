//! Device sessions beyond the transcripts: new ICE servers, slow consumers, replacement and probes.

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::protocol::{DeviceId, IceServers};
use cuttlefish_signaling::session::OnDuplicate;

use crate::actors::{client_disconnected, client_msg, config, device_msg, error, harness};
use crate::harness::Harness;

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
fn failed_renewal_is_tried_again_after_a_pause() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.all_heard("d");
    harness.ice = None;
    harness.hub.renew_config();
    harness.settle();
    // It fails again, and goes on to be tried.
    harness.after(Duration::from_secs(10));
    harness.ice = Some(IceServers::from_json(r#"[{"urls":"stun:new"}]"#).unwrap());
    harness.after(Duration::from_millis(9_999));
    assert_eq!(harness.all_heard("d"), [""; 0]);
    harness.after(Duration::from_millis(1));
    let renewed = r#"{"message_type":"config","ice_servers":[{"urls":["stun:new"]}]}"#;
    assert_eq!(harness.all_heard("d"), [renewed]);
    // It has succeeded, so nothing more is due.
    harness.after(Duration::from_secs(60));
    assert_eq!(harness.all_heard("d"), [""; 0]);
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
    assert!(!harness.peer("d").outbox.is_closed());
    assert_eq!(harness.balance().accepted, 64, "the client is not read beyond its window");
    harness.after(Duration::from_millis(9_999));
    assert!(!harness.peer("d").outbox.is_closed());
    harness.after(Duration::from_millis(1));
    assert!(harness.peer("d").outbox.is_closed());
    assert_eq!(harness.all_heard("c"), [error("Device disconnected")]);
    harness.leaves("d");
    harness.leaves("c");
    assert!(harness.balance().balances(), "{:?}", harness.balance());
    assert_eq!(harness.balance().delivered, 0);
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
fn packet_device_receives_client_disconnected_for_an_unknown_client() {
    let mut harness = harness();
    harness.opens_over_packets("d");
    harness.says("d", r#"{"message_type":"register","device_id":"x","device_port":8443}"#);
    harness.hears("d");
    harness.forwards_to("d", 9, "1");
    assert_eq!(harness.all_heard("d"), [client_disconnected(9)]);
    assert_eq!(harness.balance().refused, 1);
    assert_eq!(harness.hub.device(&DeviceId::new("x")).unwrap().port, Some(8443));
    harness.opens("remote", Role::Device);
    harness.says("remote", r#"{"message_type":"register","device_id":"y","device_port":22}"#);
    assert_eq!(harness.hub.device(&DeviceId::new("y")).unwrap().port, None, "a stranger's word names no local port");
}
