//! The claim of one device, step by step: what a node asks, and what its session is told.

use cuttlefish_signaling::core::cluster::claim::{Outcome, Probe};
use cuttlefish_signaling::core::cluster::registry::{Change, Claimed, Entry, Epoch, Operation, Reply};
use cuttlefish_signaling::core::cluster::{Output, Registration};
use std::sync::Arc;
use std::time::Duration;

use crate::driven::*;

#[test]
fn a_free_id_is_granted() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    assert_eq!(node.outputs(), [tell(1, Outcome::Granted)]);
}

#[test]
fn a_holder_that_is_alive_keeps_its_id() {
    let mut node = Node::asks_b(Duration::from_secs(5));
    node.probed(Probe::Alive);
    assert_eq!(node.outputs(), [tell(1, Outcome::Refused)]);
}

#[test]
fn a_holder_that_is_gone_is_named_in_the_next_claim() {
    let mut node = Node::asks_b(Duration::from_secs(5));
    node.probed(Probe::Gone);
    node.claimed(Some(other(1)), Reply::Claimed(Claimed::Granted));
    assert_eq!(node.outputs(), [tell(1, Outcome::Granted)]);
}

#[test]
fn a_holder_that_cannot_be_asked_is_waited_for_until_its_lease_ends() {
    let mut node = Node::asks_b(Duration::from_millis(1500));
    node.probed(Probe::Unreachable);
    assert_eq!(node.outputs(), []);
    node.pass(Duration::from_secs(1));
    node.claimed(None, held(Duration::from_millis(500)));
    assert_eq!(node.outputs().last(), Some(&probe(1)));
    node.probed(Probe::Unreachable);
    node.pass(Duration::from_millis(500));
    node.claimed(None, held(Duration::ZERO));
    node.claimed(Some(other(1)), Reply::Claimed(Claimed::Granted));
    assert!(node.outputs().contains(&tell(1, Outcome::Granted)));
}

#[test]
fn a_holder_without_a_lease_is_asked_again_after_the_engine_was_lost() {
    let mut node = Node::asks_b(Duration::from_millis(1500));
    node.probed(Probe::Unreachable);
    // No node could renew its lease meanwhile.
    node.rejoin();
    node.claimed(None, held(Duration::ZERO));
    assert_eq!(node.outputs().last(), Some(&probe(1)), "and it is not replaced");
}

#[test]
fn a_lease_that_was_renewed_while_its_node_was_asked_counts() {
    let mut node = Node::asks_b(Duration::from_millis(500));
    node.pass(Duration::from_millis(900));
    node.probed(Probe::Unreachable);
    node.claimed(None, held(Duration::from_secs(6)));
    assert_eq!(node.outputs().last(), Some(&probe(1)), "and it is not replaced");
}

#[test]
fn a_holder_whose_node_renews_its_lease_keeps_its_id_in_the_end() {
    let mut node = Node::asks_b(Duration::from_secs(6));
    let lease = Duration::from_secs(6);
    let mut questions = 0;
    while questions < 20 {
        node.probed(Probe::Unreachable);
        let outputs = node.outputs();
        if outputs.contains(&tell(1, Outcome::Refused)) {
            break;
        }
        node.pass(Duration::from_secs(1));
        // Renewals are answered as well, so that the connection lasts.
        let sent = node.outputs();
        for output in sent {
            let Output::Send { number, operation } = output else { continue };
            let reply = match operation {
                Operation::Claim { .. } => held(lease),
                Operation::Renew(_) => Reply::Renewed { epoch: Epoch(1), version: version(1), nodes: vec![] },
                other => panic!("{other:?}"),
            };
            node.membership.on_reply(number, reply, node.now);
        }
        questions += 1;
    }
    assert_eq!(questions, 7, "questions, one a second");
}

#[test]
fn an_id_that_its_holder_leaves_while_its_node_cannot_be_asked_is_granted() {
    let mut node = Node::asks_b(Duration::from_secs(20));
    node.probed(Probe::Unreachable);
    node.pass_renewed(Duration::from_secs(1));
    node.claimed(None, held(Duration::from_secs(20)));
    // The wait is over before the last question is.
    node.pass_renewed(Duration::from_secs(6));
    node.probed(Probe::Unreachable);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    assert!(node.outputs().contains(&tell(1, Outcome::Granted)));
}

#[test]
fn the_hold_begins_with_the_first_question_that_has_no_answer() {
    let mut node = Node::asks_b(Duration::from_secs(6));
    // The node of the holder pings its device, and dies meanwhile.
    node.pass_renewed(Duration::from_secs(4));
    node.probed(Probe::Unreachable);
    node.pass_renewed(Duration::from_secs(1));
    node.claimed(None, held(Duration::from_secs(4)));
    node.pass_renewed(Duration::from_secs(3));
    node.probed(Probe::Unreachable);
    assert!(!node.outputs().contains(&tell(1, Outcome::Refused)), "its lease has not ended");
}

#[test]
fn a_grant_is_given_back_if_the_directory_knows_a_holder_that_is_alive() {
    let mut node = Node::joined(&["cvd-1"]);
    node.claim(1);
    // The change that the claim makes comes before the answer.
    let change = Change::Claimed(vec![(id(), own(1), Arc::from("{}"))]);
    node.membership.on_delta(&delta(2, change), node.now);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    assert_eq!(node.outputs(), [probe(1)], "the engine has lost a write");
    node.probed(Probe::Alive);
    node.answer(&Operation::Release(vec![(id(), own(1))]), Reply::Done);
}

#[test]
fn a_holder_that_the_directory_knew_is_asked_though_the_engine_is_lost_before_its_answer() {
    let mut node = Node::joined(&["cvd-1"]);
    node.claim(1);
    let change = Change::Claimed(vec![(id(), own(1), Arc::from("{}"))]);
    node.membership.on_delta(&delta(2, change), node.now);
    node.rejoin();
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    assert!(node.outputs().contains(&probe(1)), "the directory has only the claim itself");
    node.probed(Probe::Alive);
    assert!(node.outputs().contains(&tell(1, Outcome::Refused)));
}

#[test]
fn a_holder_that_an_old_copy_of_the_registry_brings_back_hides_no_other() {
    let mut node = Node::joined(&["cvd-1"]);
    node.claim(1);
    // An engine that is restored from an old copy names a holder of before.
    let old = || Change::Claimed(vec![(id(), other(9), Arc::from("{}"))]);
    node.membership.on_delta(&delta(2, old()), node.now);
    let held = Claimed::Held { holder: other(9), lease: Duration::from_secs(5) };
    node.claimed(None, Reply::Claimed(held));
    node.outputs();
    node.membership.on_probe(&id(), &own(1), &other(9), Probe::Gone, node.now);
    node.rejoin();
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    assert!(node.outputs().contains(&probe(1)), "the holder of before is gone");
}

#[test]
fn a_grant_that_was_doubted_is_asked_for_again_since_another_may_have_it() {
    let mut node = Node::joined(&["cvd-1"]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    assert_eq!(node.outputs(), [probe(1)]);
    node.probed(Probe::Unreachable);
    let held = Claimed::Held { holder: own(2), lease: Duration::from_secs(5) };
    node.claimed(None, Reply::Claimed(held));
    let outputs = node.outputs();
    assert!(!outputs.contains(&tell(1, Outcome::Granted)), "{outputs:?}");
    assert!(outputs.contains(&Output::Probe { id: id(), claimant: own(1), holder: own(2) }), "{outputs:?}");
}

#[test]
fn a_grant_that_was_doubted_is_doubted_once() {
    for probe in [Probe::Gone, Probe::Unreachable] {
        let mut node = Node::joined(&["cvd-1"]);
        node.claim(1);
        node.claimed(None, Reply::Claimed(Claimed::Granted));
        node.outputs();
        node.probed(probe);
        // The directory names the holder on.
        node.claimed(None, Reply::Claimed(Claimed::Granted));
        assert_eq!(node.outputs(), [tell(1, Outcome::Granted)]);
    }
}

#[test]
fn a_session_that_leaves_while_it_is_asked_for_gives_its_id_back() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.membership.release(&id(), &own(1), node.now);
    let outputs = node.outputs();
    let release = Operation::Release(vec![(id(), own(1))]);
    let sent = |output: &Output| matches!(output, Output::Send { operation, .. } if *operation == release);
    assert!(sent(outputs.last().unwrap()), "{outputs:?}");
}

#[test]
fn replace_names_the_holder_at_once_and_tells_its_node() {
    let mut node = Node::joined(&["cvd-1"]);
    node.membership.claim(wanted(1), true, node.now);
    node.claimed(None, held(Duration::from_secs(5)));
    node.claimed(Some(other(1)), Reply::Claimed(Claimed::Granted));
    let replaced = Output::TellReplaced { id: id(), holder: other(1) };
    assert_eq!(node.outputs(), [tell(1, Outcome::Granted), replaced]);
}

#[test]
fn without_an_engine_a_device_is_admitted_after_the_patience() {
    let mut node = Node::new(false);
    node.claim(1);
    assert_eq!(node.outputs(), []);
    node.pass(Duration::from_secs(2));
    assert!(node.outputs().contains(&tell(1, Outcome::Unclaimed)));
}

#[test]
fn without_an_engine_the_strict_choice_refuses() {
    let mut node = Node::new(true);
    node.claim(1);
    for number in 1..4 {
        // The second and the third come when the engine has been away for longer than a device waits.
        for millis in [2_000, 2_000, 999] {
            node.pass(Duration::from_millis(millis));
            let told = node.outputs().into_iter().find(|output| matches!(output, Output::Tell { .. }));
            assert_eq!(told, None, "{number} after {millis} ms");
        }
        node.pass(Duration::from_millis(1));
        assert!(node.outputs().contains(&tell(number, Outcome::Unavailable)), "{number}");
        node.claim(number + 1);
    }
}

#[test]
fn device_is_admitted_or_refused_in_time_by_a_node_that_joins_and_fails_at_each_claim() {
    for (hold, seconds, outcome) in [(true, 5, Outcome::Unavailable), (false, 2, Outcome::Unclaimed)] {
        let mut node = Node::new(hold);
        node.join(Duration::from_secs(60));
        node.claim(1);
        let (began, mut joins) = (node.now, 0);
        while !node.rejoin().contains(&tell(1, outcome)) {
            joins += 1;
            assert!(joins < 1_000, "{outcome:?} is not told");
        }
        // It is told at the latest when the engine is lost the next time, after the longest pause.
        let took = node.now - began;
        assert!(took >= Duration::from_secs(seconds), "{took:?}");
        assert!(took <= Duration::from_secs(seconds + 4), "{took:?}");
    }
}

#[test]
fn device_whose_claim_was_under_way_waits_as_long_for_the_engine() {
    for (hold, seconds, outcome) in [(true, 5, Outcome::Unavailable), (false, 2, Outcome::Unclaimed)] {
        let mut node = Node::new(hold);
        node.join(Duration::from_secs(60));
        node.claim(1);
        node.membership.on_lost(node.now);
        node.outputs();
        for second in 1..=seconds {
            node.pass(Duration::from_secs(1));
            let is_told = node.outputs().contains(&tell(1, outcome));
            assert_eq!(is_told, second == seconds, "{outcome:?} after {second} s");
        }
    }
}

#[test]
fn without_an_engine_the_holder_that_the_directory_knows_is_asked() {
    let mut node = Node::joined(&["cvd-1"]);
    node.membership.on_lost(node.now);
    node.claim(1);
    node.outputs();
    node.pass(Duration::from_secs(2));
    assert!(node.outputs().contains(&probe(1)));
    node.probed(Probe::Alive);
    assert!(node.outputs().contains(&tell(1, Outcome::Refused)));
}

#[test]
fn an_unclaimed_device_is_claimed_when_the_engine_is_back_and_yields_to_a_holder_that_lives() {
    let mut node = Node::new(false);
    node.claim(1);
    // The first attempt to connect.
    assert_eq!(node.outputs(), []);
    node.pass(Duration::from_secs(2));
    assert_eq!(node.outputs(), [Output::Connect, tell(1, Outcome::Unclaimed)]);
    node.membership.on_connected(node.now);
    let nodes = vec![record("a", 1), record("b", 2)];
    let joined = Reply::Joined { epoch: Epoch(1), version: version(1), age: Duration::from_secs(60), nodes };
    node.answer(&Operation::Join { node: record("a", 1), replaces: None }, joined);
    node.claimed(None, held(Duration::from_secs(5)));
    node.probed(Probe::Alive);
    assert!(node.outputs().contains(&Output::End { id: id(), registration: own(1) }));
}

#[test]
fn a_change_alone_ends_no_session() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    node.outputs();
    let stolen = Change::Claimed(vec![(id(), other(9), Arc::from("{}"))]);
    node.membership.on_delta(&delta(2, stolen), node.now);
    let entry = Entry { registration: own(1), details: Arc::from("{}"), version: 1 };
    let rest = node.answer(&Operation::Read(id()), Reply::Entry(Some(entry)));
    assert_eq!(rest, [Output::Appeared(vec![id()])]);
    assert_eq!(node.outputs(), [], "the registry names this node");
}

#[test]
fn the_entry_of_another_holder_ends_the_session() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    node.outputs();
    let taken = Change::Claimed(vec![(id(), other(9), Arc::from("{}"))]);
    node.membership.on_delta(&delta(2, taken), node.now);
    let entry = Entry { registration: other(9), details: Arc::from("{}"), version: 2 };
    node.answer(&Operation::Read(id()), Reply::Entry(Some(entry)));
    assert_eq!(node.outputs(), [Output::End { id: id(), registration: own(1) }]);
}

#[test]
fn an_id_that_the_registry_has_lost_is_claimed_again() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    node.outputs();
    node.membership.on_delta(&delta(2, Change::Released(vec![id()])), node.now);
    node.answer(&Operation::Read(id()), Reply::Entry(None));
    let reclaim = Operation::Reclaim { node: incarnation("a", 1), wanted: vec![wanted(1)] };
    node.answer(&reclaim, Reply::Reclaimed(vec![Claimed::Granted]));
    assert_eq!(node.outputs(), []);
}

/// A node whose second registration holds its id, and which reads the entry of `holder` there.
fn read_in_its_place(holder: Registration) -> Node {
    let mut node = Node::joined(&[]);
    node.claim(2);
    node.answer(&claim(2, None), Reply::Claimed(Claimed::Granted));
    node.outputs();
    let change = Change::Claimed(vec![(id(), holder.clone(), Arc::from("{}"))]);
    node.membership.on_delta(&delta(2, change), node.now);
    let entry = Entry { registration: holder, details: Arc::from("{}"), version: 2 };
    node.answer(&Operation::Read(id()), Reply::Entry(Some(entry)));
    node
}

fn claim(number: u64, expected: Option<Registration>) -> Operation {
    Operation::Claim { wanted: wanted(number), expected, place: None }
}

#[test]
fn an_old_record_of_this_node_ends_no_session() {
    let mut node = read_in_its_place(own(1));
    node.answer(&claim(2, Some(own(1))), Reply::Claimed(Claimed::Granted));
    assert_eq!(node.outputs(), [tell(2, Outcome::Granted)]);

    // The same where the upkeep finds it.
    let mut node = Node::joined(&[]);
    node.claim(2);
    node.answer(&claim(2, None), Reply::Claimed(Claimed::Granted));
    node.pass_renewed(Duration::from_secs(4));
    node.outputs();
    node.pass(Duration::from_secs(1));
    let reclaim = Operation::Reclaim { node: incarnation("a", 1), wanted: vec![wanted(2)] };
    let in_its_place = Claimed::Held { holder: own(1), lease: Duration::from_secs(5) };
    node.answer(&reclaim, Reply::Reclaimed(vec![in_its_place]));
    let rest = node.answer(&claim(2, Some(own(1))), Reply::Claimed(Claimed::Granted));
    assert!(!rest.iter().any(|output| matches!(output, Output::End { .. })), "{rest:?}");
}

#[test]
fn an_id_that_another_node_has_meanwhile_is_not_taken_back() {
    let mut node = read_in_its_place(own(1));
    node.answer(&claim(2, Some(own(1))), held(Duration::from_secs(5)));
    assert_eq!(node.outputs(), [probe(2)]);
    node.membership.on_probe(&id(), &own(2), &other(1), Probe::Alive, node.now);
    assert_eq!(node.outputs(), [Output::End { id: id(), registration: own(2) }]);
}

#[test]
fn a_newcomer_of_this_node_that_the_registry_names_ends_the_session() {
    let mut node = Node::joined(&[]);
    node.claim(2);
    node.answer(&claim(2, None), Reply::Claimed(Claimed::Granted));
    node.claim(3);
    node.outputs();
    let change = Change::Claimed(vec![(id(), own(3), Arc::from("{}"))]);
    node.membership.on_delta(&delta(2, change), node.now);
    let entry = Entry { registration: own(3), details: Arc::from("{}"), version: 2 };
    node.answer(&Operation::Read(id()), Reply::Entry(Some(entry)));
    assert_eq!(node.outputs(), [Output::End { id: id(), registration: own(2) }]);
}
