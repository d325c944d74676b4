//! Grants of `authorize`: a device outside of a peer's grant looks unregistered to that peer.

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::peer::{Grant, Role};
use cuttlefish_signaling::protocol::DeviceId;
use proptest::prelude::*;

use crate::actors::{client_msg, config, device_info, error, harness};
use crate::harness::Harness;

fn for_devices(patterns: &[&str]) -> Grant {
    Grant::of(None, patterns)
}

#[test]
fn grant_patterns_cover_ids() {
    let rows = [
        (&["cvd-1"][..], "cvd-1", true),
        (&["cvd-1"], "cvd-10", false),
        (&["cvd-1"], "CVD-1", false),
        (&["cvd-*"], "cvd-", true),
        (&["cvd-*"], "cvd-a/b\nc", true),
        (&["cvd-?"], "cvd-ä", true),
        (&["cvd-?"], "cvd-10", false),
        (&["a*", "*b"], "xb", true),
        (&["*"], "", true),
        (&[], "cvd-1", false),
    ];
    for (patterns, id, covered) in rows {
        assert_eq!(for_devices(patterns).covers(&DeviceId::new(id)), covered, "{patterns:?} {id:?}");
    }
    assert!(Grant::default().covers(&DeviceId::new("anything")));
}

/// All messages, each with its second, to a client whose grant does not cover a device. `there` tells whether the device
/// is registered.
fn seen_from_outside(there: bool, wait: Duration) -> (Vec<(u64, String)>, Option<End>, usize) {
    let mut harness = Harness::new(Config { device_wait_timeout: Some(wait), ..Config::default() });
    if there {
        harness.registers("d", "secret");
    }
    harness.opens_with("c", Role::Client, for_devices(&["mine-*"]));
    harness.says("c", r#"{"message_type":"connect","device_id":"secret"}"#);
    let mut heard = Vec::new();
    for second in 0..4 {
        heard.extend(harness.all_heard("c").into_iter().map(|text| (second, text)));
        if there && second == 1 {
            harness.leaves("d");
            harness.registers("d", "secret");
        }
        harness.after(Duration::from_secs(1));
    }
    if there {
        assert_eq!(harness.all_heard("d"), [crate::actors::config()], "the device hears nothing of it");
    }
    let ended = harness.peer("c").ended.clone();
    (heard, ended, harness.hub.waiting_count())
}

#[test]
fn device_outside_of_the_grant_looks_unregistered() {
    for wait in [Duration::ZERO, Duration::from_secs(2)] {
        let hidden = seen_from_outside(true, wait);
        assert_eq!(hidden, seen_from_outside(false, wait));
        assert!(hidden.1.is_some());
    }
    let heard = seen_from_outside(true, Duration::ZERO).0;
    assert_eq!(heard, [(0, config()), (0, error("Connection failed: Device not found: 'secret'"))]);
}

#[test]
fn device_within_the_grant_is_reached() {
    let mut harness = harness();
    harness.opens_with("d", Role::Device, for_devices(&["cvd-1"]));
    harness.says("d", r#"{"message_type":"register","device_id":"cvd-1","device_info":"d"}"#);
    harness.opens_with("c", Role::Client, for_devices(&["cvd-*"]));
    harness.says("c", r#"{"message_type":"connect","device_id":"cvd-1"}"#);
    harness.forwards("c", "1");
    assert_eq!(harness.all_heard("c"), [config(), device_info("d")]);
    assert_eq!(harness.all_heard("d"), [config(), client_msg(1, "1")]);
}

#[test]
fn device_may_register_only_ids_of_its_grant() {
    for taken in [true, false] {
        let mut harness = harness();
        if taken {
            harness.registers("holder", "cvd-2");
        }
        harness.opens_with("d", Role::Device, for_devices(&["cvd-1"]));
        harness.says("d", r#"{"message_type":"register","device_id":"cvd-2","device_info":"d"}"#);
        assert_eq!(harness.all_heard("d"), [error("Not authorized")]);
        assert_eq!(harness.peer("d").ended, Some(End::close(1008, "Not authorized")));
        assert_eq!(harness.hub.device_count(), usize::from(taken));
    }
}

proptest! {
    /// Ids are untrusted: no pattern may make matching slow or panic.
    #[test]
    fn covering_any_id_does_not_panic(id in ".{0,2000}", pattern in "[a*?]{0,12}") {
        let grant = for_devices(&[&pattern]);
        let covered = grant.covers(&DeviceId::new(&id));
        prop_assert!(!pattern.chars().all(|c| c == '*') || pattern.is_empty() || covered);
    }
}
