//! Announcements of one node, whose engine is the test.

use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::core::cluster::Output;
use cuttlefish_signaling::core::cluster::claim::Outcome;
use cuttlefish_signaling::core::cluster::registry::{
    BATCH, Change, Claimed, Epoch, Expectation, Expected, Operation, Place, Reply, Wanted,
};
use cuttlefish_signaling::protocol::DeviceId;

use crate::driven::*;

const DETAILS: &str = r#"{"group":"g"}"#;

fn expected(id: &str) -> Expected {
    Expected { id: DeviceId::new(id), details: DETAILS.into() }
}

fn expect(ids: &[&str]) -> Operation {
    let expected = ids.iter().map(|id| expected(id)).collect();
    Operation::Expect { node: incarnation("a", 1), expected, most: 10 }
}

fn cancel(ids: &[&str]) -> Operation {
    Operation::Cancel { node: incarnation("a", 1), ids: ids.iter().map(|id| DeviceId::new(id)).collect() }
}

fn announced(number: u64, outcomes: &[Expectation]) -> Output {
    Output::Announced { number, outcomes: outcomes.to_vec() }
}

/// A node that has announced `cvd-1`.
fn waiting() -> Node {
    let mut node = Node::joined(&[]);
    node.membership.announce(7, &[expected("cvd-1")], 10, node.now);
    node.answer(&expect(&["cvd-1"]), Reply::Expected(vec![Expectation::Pending]));
    assert_eq!(node.outputs(), [announced(7, &[Expectation::Pending])]);
    node
}

fn claimed_by_b(node: &mut Node, version: u64) -> Vec<Output> {
    let entries = vec![(id(), other(1), Arc::from("{}"))];
    node.membership.on_delta(&delta(version, Change::Claimed(entries)), node.now);
    node.outputs()
}

/// Loses the engine, and joins again.
fn rejoin(node: &mut Node) {
    node.membership.on_lost(node.now);
    node.pass(Duration::from_secs(2));
    node.outputs();
    node.membership.on_connected(node.now);
    let join = Operation::Join { node: record("a", 1), replaces: None };
    let nodes = vec![record("a", 1), record("b", 2)];
    node.answer(&join, Reply::Joined { epoch: Epoch(1), version: version(1), age: Duration::from_secs(60), nodes });
}

#[test]
fn control_connection_is_told_of_the_device_once() {
    let mut node = waiting();
    assert_eq!(claimed_by_b(&mut node, 2), [Output::Registered(id()), Output::Appeared(vec![id()])]);
    assert_eq!(claimed_by_b(&mut node, 3), [Output::Appeared(vec![id()])]);
}

#[test]
fn device_that_had_registered_before_the_announcement_is_none_that_was_waited_for() {
    let mut node = Node::joined(&[]);
    node.membership.announce(7, &[expected("cvd-1")], 10, node.now);
    // The engine has published this before it has seen the announcement.
    let outputs = claimed_by_b(&mut node, 2);
    assert!(!outputs.contains(&Output::Registered(id())), "{outputs:?}");
}

#[test]
fn announcement_is_made_again_on_a_new_connection_and_tells_of_a_device_that_was_missed() {
    let mut node = waiting();
    rejoin(&mut node);
    node.answer(&expect(&["cvd-1"]), Reply::Expected(vec![Expectation::Registered]));
    assert!(node.outputs().contains(&Output::Registered(id())));
}

#[test]
fn announcement_without_the_engine_is_accepted_and_made_later() {
    let mut node = Node::joined(&[]);
    node.membership.on_lost(node.now);
    node.outputs();
    node.membership.announce(7, &[expected("cvd-1")], 10, node.now);
    assert_eq!(node.outputs(), [announced(7, &[Expectation::Pending])]);
    rejoin(&mut node);
    node.answer(&expect(&["cvd-1"]), Reply::Expected(vec![Expectation::Pending]));
}

#[test]
fn announcement_under_way_is_accepted_when_the_engine_is_lost() {
    let mut node = Node::joined(&[]);
    let names: Vec<_> = (0..=BATCH).map(|number| format!("d{number:04}")).collect();
    let devices: Vec<_> = names.iter().map(|name| expected(name)).collect();
    node.membership.announce(7, &devices, 10, node.now);
    let ids: Vec<_> = names[..BATCH].iter().map(String::as_str).collect();
    let rest = node.answer(&expect(&ids), Reply::Expected(vec![Expectation::Full; BATCH]));
    assert!(matches!(&rest[..], [Output::Send { .. }]), "{rest:?}");
    assert_eq!(node.outputs(), []);
    node.membership.on_lost(node.now);
    let mut outcomes = vec![Expectation::Full; BATCH];
    outcomes.push(Expectation::Pending);
    assert!(node.outputs().contains(&announced(7, &outcomes)));
}

#[test]
fn announcement_is_taken_back_also_after_the_engine_was_away() {
    let mut node = waiting();
    node.membership.on_lost(node.now);
    node.membership.cancel(&[id()], node.now);
    rejoin(&mut node);
    // It names none: all that the engine has of this node.
    node.answer(&cancel(&[]), Reply::Done);
    let sent = node.outputs();
    assert!(!sent.iter().any(|output| matches!(output, Output::Send { operation: Operation::Expect { .. }, .. })));
}

/// Announces one device more than a batch has. Returns the node, and the ids of the first batch.
fn announcing_two_batches() -> (Node, Vec<String>) {
    let mut node = Node::joined(&[]);
    let mut names = vec!["cvd-1".to_owned()];
    names.extend((0..BATCH).map(|number| format!("d{number:04}")));
    let devices: Vec<_> = names.iter().map(|name| expected(name)).collect();
    node.membership.announce(7, &devices, BATCH + 1, node.now);
    (node, names)
}

fn expect_batch(names: &[String]) -> Operation {
    let expected = names.iter().map(|id| expected(id)).collect();
    Operation::Expect { node: incarnation("a", 1), expected, most: BATCH + 1 }
}

#[test]
fn control_connection_hears_the_outcome_before_the_device() {
    let (mut node, names) = announcing_two_batches();
    let rest = node.answer(&expect_batch(&names[..BATCH]), Reply::Expected(vec![Expectation::Pending; BATCH]));
    node.seen.extend(rest);
    // The engine has the first batch, and gives the id to a device, before it has answered the second one.
    let heard = claimed_by_b(&mut node, 2);
    assert!(!heard.contains(&Output::Registered(id())), "{heard:?}");
    node.seen.extend(heard);
    node.answer(&expect_batch(&names[BATCH..]), Reply::Expected(vec![Expectation::Full]));
    let mut outcomes = vec![Expectation::Pending; BATCH];
    outcomes.push(Expectation::Full);
    assert_eq!(node.outputs(), [announced(7, &outcomes), Output::Registered(id())]);
}

#[test]
fn control_connection_hears_the_outcome_before_the_device_also_when_the_engine_is_lost() {
    let (mut node, names) = announcing_two_batches();
    node.answer(&expect_batch(&names[..BATCH]), Reply::Expected(vec![Expectation::Pending; BATCH]));
    claimed_by_b(&mut node, 2);
    node.membership.on_lost(node.now);
    let told = |output: &Output| matches!(output, Output::Announced { .. } | Output::Registered(_));
    let told: Vec<_> = node.outputs().into_iter().filter(told).collect();
    assert_eq!(told, [announced(7, &[Expectation::Pending; BATCH + 1]), Output::Registered(id())]);
}

#[test]
fn answer_to_an_announcement_that_was_taken_back_says_nothing_of_the_next_one() {
    let mut node = Node::joined(&[]);
    node.membership.announce(7, &[expected("cvd-1")], 10, node.now);
    node.membership.cancel(&[id()], node.now);
    node.membership.announce(8, &[expected("cvd-1")], 10, node.now);
    let sent: Vec<_> = node.outputs();
    let numbers = sent.iter().filter_map(|output| match output {
        Output::Send { number, operation: Operation::Expect { .. } } => Some(*number),
        _ => None,
    });
    for (number, outcome) in numbers.zip([Expectation::Registered, Expectation::Pending]) {
        node.membership.on_reply(number, Reply::Expected(vec![outcome]), node.now);
    }
    let outcomes = [announced(7, &[Expectation::Registered]), announced(8, &[Expectation::Pending])];
    assert_eq!(node.outputs(), outcomes, "the second one is taken back");
    assert!(claimed_by_b(&mut node, 2).contains(&Output::Registered(id())));
}

#[test]
fn announcement_that_succeeds_when_it_is_repeated_after_a_refusal_is_taken_back() {
    let mut node = Node::joined(&[]);
    node.pass_renewed(Duration::from_secs(4));
    node.pass(Duration::from_millis(500));
    node.membership.announce(7, &[expected("cvd-1")], 10, node.now);
    // The upkeep repeats it before the answer.
    node.pass(Duration::from_millis(500));
    let sent = node.outputs().into_iter().filter_map(|output| match output {
        Output::Send { number, operation: Operation::Expect { .. } } => Some(number),
        _ => None,
    });
    let sent: Vec<_> = sent.collect();
    assert_eq!(sent.len(), 2);
    for (number, outcome) in sent.into_iter().zip([Expectation::Registered, Expectation::Pending]) {
        node.membership.on_reply(number, Reply::Expected(vec![outcome]), node.now);
    }
    let rest = node.answer(&cancel(&["cvd-1"]), Reply::Done);
    assert_eq!(rest, [announced(7, &[Expectation::Registered])]);
}

#[test]
fn announcement_is_taken_back() {
    let mut node = waiting();
    node.membership.cancel(&[id(), DeviceId::new("unknown")], node.now);
    node.answer(&cancel(&["cvd-1"]), Reply::Done);
    assert_eq!(node.outputs(), []);
}

#[test]
fn claim_takes_the_announcement_of_another_node_into_its_record() {
    let mut node = Node::joined(&[]);
    let device = Wanted { details: r#"{"adb_port":1,"group":"old","own_group":"x","since":1.5}"#.into(), ..wanted(1) };
    node.membership.claim(device.clone(), false, node.now);
    let first = Operation::Claim { wanted: device.clone(), expected: None, place: None };
    let place = Place { by: incarnation("b", 2), details: r#"{"group":"g","later":1}"#.into() };
    node.answer(&first, Reply::Claimed(Claimed::Expected(place.clone())));
    let described = Wanted { details: r#"{"group":"g","own_group":"x","since":1.5}"#.into(), ..device };
    let second = Operation::Claim { wanted: described, expected: None, place: Some(place.clone()) };
    let rest = node.answer(&second, Reply::Claimed(Claimed::Granted));
    assert_eq!(rest, [Output::Place { registration: own(1), details: place.details }]);
    assert_eq!(node.outputs(), [tell(1, Outcome::Granted)]);
}

#[test]
fn claim_knows_the_announcement_of_its_own_node() {
    let mut node = waiting();
    node.membership.claim(wanted(1), false, node.now);
    let place = Some(Place { by: incarnation("a", 1), details: DETAILS.into() });
    node.answer(&Operation::Claim { wanted: wanted(1), expected: None, place }, Reply::Claimed(Claimed::Granted));
    assert_eq!(node.outputs(), [tell(1, Outcome::Granted)]);
    // Its session tells the control connection, and it is not announced again.
    node.pass_renewed(Duration::from_secs(6));
    assert!(
        !node.outputs().iter().any(|output| matches!(output, Output::Send { operation: Operation::Expect { .. }, .. }))
    );
}

#[test]
fn announcement_outlives_a_session_that_leaves_before_it_has_its_id() {
    let mut node = waiting();
    node.membership.claim(wanted(1), false, node.now);
    let entries = vec![(id(), own(1), Arc::from("{}"))];
    node.membership.on_delta(&delta(2, Change::Claimed(entries)), node.now);
    node.membership.release(&id(), &own(1), node.now);
    let place = Some(Place { by: incarnation("a", 1), details: DETAILS.into() });
    let claim = Operation::Claim { wanted: wanted(1), expected: None, place };
    let released = node.answer(&claim, Reply::Claimed(Claimed::Granted));
    // The registry gives the id back.
    node.membership.on_delta(&delta(3, Change::Released(vec![id()])), node.now);
    for output in released {
        if let Output::Send { number, .. } = output {
            node.membership.on_reply(number, Reply::Done, node.now);
        }
    }
    node.pass_renewed(Duration::from_secs(6));
    let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
    assert!(sent.contains(&expect(&["cvd-1"])), "{sent:?}");
}

#[test]
fn engine_that_does_not_compare_announcements_is_not_asked_on_and_on() {
    let mut node = Node::joined(&[]);
    node.membership.claim(wanted(1), false, node.now);
    let place = Place { by: incarnation("b", 2), details: DETAILS.into() };
    let answer = Reply::Claimed(Claimed::Expected(place.clone()));
    node.answer(&Operation::Claim { wanted: wanted(1), expected: None, place: None }, answer.clone());
    let described = Wanted { details: DETAILS.into(), ..wanted(1) };
    let again = Operation::Claim { wanted: described, expected: None, place: Some(place) };
    node.answer(&again, answer);
    assert!(!node.outputs().iter().any(|output| matches!(output, Output::Send { .. })));
}
