//! Announcements of a control connection of a node of a cluster (docs/protocol.md 5.4.21).

use std::sync::Arc;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::core::cluster::registry::Expectation;
use cuttlefish_signaling::preregistrations::DeviceMetadata;
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::session::{Answer, ClaimGuard, Question};
use parking_lot::Mutex;

use crate::harness::Harness;
use crate::nodes::node;

fn harness() -> Harness {
    let mut harness = Harness::new(node(Config::default()));
    harness.opens_control("cvd");
    harness
}

/// Announces devices. Returns the question to the registry, as ids and details.
fn announces(harness: &mut Harness, ids: &[&str]) -> Vec<(String, String)> {
    let devices: Vec<_> = ids.iter().map(|id| format!(r#"{{"id":"{id}","name":"n-{id}"}}"#)).collect();
    let devices = devices.join(",");
    harness.says("cvd", &format!(r#"{{"message_type":"pre-register","group_name":"g","devices":[{devices}]}}"#));
    match harness.asked.pop_front() {
        Some((_, Question::Announce(devices))) => {
            devices.into_iter().map(|device| (device.id.to_string(), device.details.to_string())).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn registers(harness: &mut Harness, name: &str, id: &str, place: Option<DeviceMetadata>) {
    harness.registers(name, id);
    assert!(matches!(harness.asked.pop_front(), Some((_, Question::Claim(_)))));
    harness.answers(name, Answer::Claimed(ClaimGuard::announced((), place.map(Arc::new))));
}

fn status(id: &str, status: &str, message: &str) -> String {
    format!(r#"{{"id":"{id}","status":"{status}","message":"{message}"}}"#)
}

#[test]
fn announcement_is_answered_by_the_registry_and_heard_after_the_answer() {
    let mut harness = harness();
    let asked = announces(&mut harness, &["x", "y", "z", "v"]);
    assert_eq!(asked[0], ("x".to_owned(), r#"{"group":"g","name":"n-x"}"#.to_owned()));
    assert_eq!(asked.len(), 4);
    registers(&mut harness, "d", "x", None);
    harness.says("cvd", r#"{"message_type":"pre-register","devices":[{"id":"later"}]}"#);
    assert_eq!(harness.all_heard("cvd"), [""; 0], "news come before the answer");
    let outcomes = [Expectation::Pending, Expectation::Taken, Expectation::Registered, Expectation::Full];
    harness.answers("cvd", Answer::Announced(outcomes.to_vec()));
    let answer = [
        status("x", "accepted", ""),
        status("y", "failed", "Device Id already pre-registered"),
        status("z", "failed", "Device Id already registered"),
        status("v", "failed", "Too many devices"),
    ];
    assert_eq!(harness.all_heard("cvd"), [format!("[{}]", answer.join(",")), status("x", "registered", "")]);
    assert_eq!(harness.preregistrations.len(), 2, "those that were refused are kept, or the next one was not asked");
    assert!(matches!(harness.asked.pop_front(), Some((_, Question::Announce(_)))));
}

#[test]
fn news_of_another_node_come_once_and_after_the_answer() {
    let mut harness = harness();
    announces(&mut harness, &["x", "y"]);
    let [x, y] = ["x", "y"].map(DeviceId::new);
    harness.preregistrations.registered_elsewhere(&x, &x);
    assert_eq!(harness.all_heard("cvd"), [""; 0]);
    harness.answers("cvd", Answer::Announced(vec![Expectation::Pending; 2]));
    let accepted = format!("[{},{}]", status("x", "accepted", ""), status("y", "accepted", ""));
    assert_eq!(harness.all_heard("cvd"), [accepted, status("x", "registered", "")]);
    for id in [&x, &y, &y] {
        harness.preregistrations.registered_elsewhere(id, id);
    }
    harness.settle();
    assert_eq!(harness.all_heard("cvd"), [status("y", "registered", "")]);
    assert_eq!(harness.preregistrations.pending(), 0);
}

#[test]
fn device_has_the_announcement_that_comes_with_its_claim() {
    let mut harness = harness();
    let place = r#"{"group":"g","owner":"o","name":"n","adb_port":6520,"advertise":["10.0.0.1=192.0.2.1"],"later":1}"#;
    let place = DeviceMetadata::from_json(place).unwrap();
    registers(&mut harness, "d", "x", Some(place.clone()));
    let device = harness.hub.device(&DeviceId::new("x")).unwrap();
    assert_eq!((device.metadata(), device.advertise.is_some()), (&place, true));
    harness.leaves("d");
    // It has it again when it comes back.
    registers(&mut harness, "again", "x", None);
    assert_eq!(harness.hub.device(&DeviceId::new("x")).unwrap().metadata(), &place);
    assert_eq!(DeviceMetadata::from_json(&place.to_json()), Some(place));
}

#[test]
fn announcements_that_wait_are_taken_back_with_the_control_connection() {
    let mut harness = harness();
    let cancelled = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&cancelled);
    harness.preregistrations.on_cancelled(move |ids| noted.lock().extend(ids.iter().map(ToString::to_string)));
    announces(&mut harness, &["x", "y"]);
    harness.answers("cvd", Answer::Announced(vec![Expectation::Pending; 2]));
    registers(&mut harness, "d", "x", None);
    announces(&mut harness, &["z"]);
    harness.leaves("cvd");
    let mut cancelled = cancelled.lock().clone();
    cancelled.sort();
    assert_eq!(cancelled, ["y", "z"]);
}
