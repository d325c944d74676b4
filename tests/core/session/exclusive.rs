//! Devices that one client has for itself, by its grant or by the setting (docs/protocol.md 4.2.12 and 4.2.13).

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::peer::{Grant, Role};
use cuttlefish_signaling::refusal::Refusal;

use crate::actors::{config, device_info, error};
use crate::harness::Harness;
use crate::nodes::Nodes;

const IN_USE: &str = "Connection failed: Device in use: 'cvd-1'";

fn one_each() -> Config {
    Config { one_client_per_device: true, ..Config::default() }
}

fn connects_with(harness: &mut Harness, name: &str, exclusive: bool) {
    harness.opens_with(name, Role::Client, Grant { exclusive, ..Grant::default() });
    harness.says(name, r#"{"message_type":"connect","device_id":"cvd-1"}"#);
}

fn assert_refused(harness: &mut Harness, name: &str) {
    assert_eq!(harness.all_heard(name), [config(), error(IN_USE)], "{name}");
    assert_eq!(harness.peer(name).ended, Some(End::close(1013, IN_USE)), "{name}");
}

fn assert_connected(harness: &mut Harness, name: &str, info: &str) {
    assert_eq!(harness.all_heard(name), [config(), device_info(info)], "{name}");
}

#[test]
fn exclusive_client_keeps_others_out_and_is_refused_beside_others() {
    let mut harness = Harness::new(Config::default());
    harness.registers("d", "cvd-1");
    connects_with(&mut harness, "first", true);
    assert_connected(&mut harness, "first", "d");
    for (name, exclusive) in [("shared", false), ("second", true)] {
        connects_with(&mut harness, name, exclusive);
        assert_refused(&mut harness, name);
    }
    harness.leaves("first");
    for name in ["one", "two"] {
        connects_with(&mut harness, name, false);
        assert_connected(&mut harness, name, "d");
    }
    connects_with(&mut harness, "late", true);
    assert_refused(&mut harness, "late");
    harness.leaves("one");
    connects_with(&mut harness, "later", true);
    assert_refused(&mut harness, "later");
    harness.leaves("two");
    connects_with(&mut harness, "last", true);
    assert_connected(&mut harness, "last", "d");
}

#[test]
fn one_client_per_device_holds_for_all_clients_and_for_each_device() {
    let mut harness = Harness::new(one_each());
    harness.registers("d", "cvd-1");
    harness.registers("e", "cvd-2");
    harness.connects("first", "cvd-1");
    assert_connected(&mut harness, "first", "d");
    harness.connects("second", "cvd-1");
    assert_refused(&mut harness, "second");
    harness.opens_at("bare", "cvd-1");
    assert_eq!(harness.all_heard("bare"), [error(IN_USE)]);
    harness.connects("other", "cvd-2");
    assert_connected(&mut harness, "other", "e");
}

/// A way of leaving.
type Leaving = fn(&mut Harness);

#[test]
fn each_way_of_leaving_frees_the_device() {
    let ways: [(&str, Leaving); 6] = [
        ("lost", |harness| harness.leaves("c")),
        ("close frame", |harness| {
            harness.closes("c", 1000, "done");
            harness.leaves("c");
        }),
        ("invalid message", |harness| harness.says("c", "no JSON")),
        ("disconnected by the administrator", |harness| {
            harness.peer("c").outbox.refuse(&Refusal::EndedByOperator);
            harness.settle();
        }),
        ("slow consumer", |harness| {
            harness.freezes("c");
            harness.forwards_to("d", 1, "1");
            harness.after(Duration::from_secs(10));
        }),
        ("no pong", |harness| {
            harness.peer("c").silent = true;
            harness.after(Duration::from_secs(600));
            harness.after(Duration::from_secs(600));
        }),
    ];
    for (way, leave) in ways {
        let mut harness = Harness::new(one_each());
        harness.registers("d", "cvd-1");
        harness.connects("c", "cvd-1");
        assert_connected(&mut harness, "c", "d");
        leave(&mut harness);
        harness.connects("next", "cvd-1");
        assert_eq!(harness.all_heard("next"), [config(), device_info("d")], "{way}");
    }
}

#[test]
fn device_that_registers_again_is_free() {
    let mut harness = Harness::new(one_each());
    harness.registers("d", "cvd-1");
    harness.connects("c", "cvd-1");
    harness.leaves("d");
    harness.registers("e", "cvd-1");
    harness.connects("next", "cvd-1");
    assert_connected(&mut harness, "next", "e");
}

#[test]
fn of_two_clients_that_wait_for_a_device_one_gets_it() {
    let mut harness = Harness::new(Config { device_wait_timeout: None, ..one_each() });
    harness.connects("one", "cvd-1");
    harness.connects("two", "cvd-1");
    harness.registers("d", "cvd-1");
    let heard = [harness.all_heard("one"), harness.all_heard("two")];
    let (won, lost) = (vec![config(), device_info("d")], vec![config(), error(IN_USE)]);
    assert!(heard == [won.clone(), lost.clone()] || heard == [lost, won], "{heard:?}");
}

#[test]
fn node_of_the_device_refuses_a_second_client_of_any_node() {
    for by_setting in [true, false] {
        let mut nodes = Nodes::new(if by_setting { one_each() } else { Config::default() });
        nodes.a.registers("d", "cvd-1");
        nodes.settle();
        connects_with(&mut nodes.b, "there", !by_setting);
        nodes.settle();
        assert_connected(&mut nodes.b, "there", "d");
        nodes.a.connects("here", "cvd-1");
        nodes.settle();
        assert_refused(&mut nodes.a, "here");
        nodes.b.connects("second", "cvd-1");
        nodes.settle();
        assert_refused(&mut nodes.b, "second");
        nodes.b.leaves("there");
        nodes.settle();
        nodes.a.connects("next", "cvd-1");
        nodes.settle();
        assert_connected(&mut nodes.a, "next", "d");
        nodes.assert_at_rest();
    }
}
