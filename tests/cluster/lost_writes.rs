//! How a node notices that the engine has lost writes: its registry is an old copy, or was empty for a while.

use cuttlefish_signaling::core::cluster::Output;
use cuttlefish_signaling::core::cluster::registry::{
    Answer, Change, Claimed, Delta, Entry, Epoch, Expectation, Expected, Operation, Reply, Version,
};
use cuttlefish_signaling::protocol::DeviceId;
use std::sync::Arc;
use std::time::Duration;

use crate::driven::*;

/// The answer of the engine to a renewal, with this version.
fn named(version: Version) -> Reply {
    Reply::Renewed { epoch: Epoch(1), version, nodes: vec![incarnation("a", 1)] }
}

/// A version of another history: one that an engine makes which was rolled back.
fn forked(number: u64) -> Version {
    Version { number, stamp: 1_000 + number }
}

/// Lets a second pass. The engine answers the renewal with this version. Returns whether the node joins again.
fn renewed(node: &mut Node, version: Version) -> bool {
    node.pass(Duration::from_secs(1));
    joins(&answered(node, version))
}

fn joins(sent: &[Operation]) -> bool {
    sent.iter().any(|sent| matches!(sent, Operation::Join { replaces: None, .. }))
}

/// Answers all operations but a join, each renewal with this version. Returns them.
fn answered(node: &mut Node, version: Version) -> Vec<Operation> {
    answered_with(node, version, &[])
}

/// The same. The registry has these entries.
fn answered_with(node: &mut Node, version: Version, entries: &[(DeviceId, Entry)]) -> Vec<Operation> {
    let (mut waiting, mut sent) = (node.outputs(), Vec::new());
    while !waiting.is_empty() {
        for output in waiting {
            let Output::Send { number, operation } = output else { continue };
            sent.push(operation.clone());
            let reply = match operation {
                Operation::Join { .. } => continue,
                Operation::Renew(own) => Reply::Renewed { epoch: Epoch(1), version, nodes: vec![own] },
                Operation::Scan(_) => page_at(version, entries.to_vec()),
                Operation::ReadIce => Reply::Ice(None),
                Operation::Nodes => Reply::Nodes(vec![record("a", 1), record("b", 2)]),
                Operation::Claim { .. } => Reply::Claimed(Claimed::Granted),
                Operation::Reclaim { wanted, .. } => Reply::Reclaimed(vec![Claimed::Granted; wanted.len()]),
                Operation::Expect { expected, .. } => Reply::Expected(vec![Expectation::Pending; expected.len()]),
                Operation::Release(_) | Operation::Cancel { .. } => Reply::Done,
                other => panic!("{other:?}"),
            };
            node.membership.on_reply(number, reply, node.now);
        }
        waiting = node.outputs();
    }
    sent
}

fn taken() -> Change {
    Change::Claimed(vec![(id(), other(9), Arc::from("{}"))])
}

/// Releases the only claim. The answer names the version that this has made.
fn released(node: &mut Node, made: Version) {
    node.membership.release(&id(), &own(1), node.now);
    node.answer(&release(), Answer { reply: Reply::Done, named: Some(made) });
}

/// A node that has an id, at version 2.
fn holder() -> Node {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    node.membership.on_delta(&delta(2, Change::Claimed(vec![(id(), own(1), Arc::from("{}"))])), node.now);
    node
}

#[test]
fn a_registry_that_names_a_number_again_has_lost_writes() {
    let mut node = Node::joined(&[]);
    node.membership.on_delta(&delta(2, taken()), node.now);
    node.membership.on_delta(&delta(3, taken()), node.now);
    // It was rolled back to version 2, and has gone on: its number alone says nothing.
    node.membership.on_delta(&Delta { version: forked(3), after: 2, change: taken() }, node.now);
    assert!(renewed(&mut node, forked(3)));
}

#[test]
fn a_registry_that_has_as_many_versions_again_has_lost_writes() {
    for (version, loses) in [(version(2), false), (forked(2), true)] {
        let mut node = Node::joined(&[]);
        node.membership.on_delta(&delta(2, taken()), node.now);
        assert_eq!(renewed(&mut node, version), loses, "{version:?}");
    }
}

#[test]
fn a_change_that_follows_another_version_shows_that_the_registry_has_lost_writes() {
    for (after, loses) in [(2, false), (forked(2).stamp, true)] {
        let mut node = Node::joined(&[]);
        node.membership.on_delta(&delta(2, taken()), node.now);
        // The change that made version 2 again was lost on its way here.
        node.membership.on_delta(&Delta { version: version(3), after, change: taken() }, node.now);
        assert_eq!(renewed(&mut node, version(3)), loses, "after {after}");
    }
}

#[test]
fn a_change_of_this_node_that_the_registry_has_lost_is_noticed_also_where_it_was_lost_on_the_feed() {
    for (third, loses) in [(version(3), false), (forked(3), true)] {
        let mut node = holder();
        released(&mut node, version(3));
        // The change was lost on its way here. The registry was rolled back to version 2, and another node has made the third.
        node.membership.on_delta(&Delta { version: third, after: 2, change: Change::Announced }, node.now);
        assert_eq!(renewed(&mut node, third), loses, "{third:?}");
    }
}

#[test]
fn a_registry_that_is_behind_an_answer_has_lost_writes_also_where_the_change_was_lost_on_the_feed() {
    for (now, loses) in [(version(3), false), (version(2), true)] {
        let mut node = holder();
        released(&mut node, version(3));
        assert_eq!(renewed(&mut node, now), loses, "{now:?}");
    }
}

#[test]
fn an_answer_that_comes_behind_changes_is_compared_with_the_versions_before() {
    for (made, loses) in [(version(3), false), (forked(3), true)] {
        let mut node = holder();
        node.membership.release(&id(), &own(1), node.now);
        node.membership.on_delta(&delta(3, Change::Announced), node.now);
        node.membership.on_delta(&delta(4, Change::Announced), node.now);
        node.answer(&release(), Answer { reply: Reply::Done, named: Some(made) });
        assert_eq!(renewed(&mut node, version(4)), loses, "{made:?}");
    }
}

#[test]
fn an_answer_that_changes_nothing_shows_that_the_registry_was_empty() {
    for (now, loses) in [(version(2), false), (Version::default(), true)] {
        let mut node = holder();
        released(&mut node, now);
        // The engine was restored since.
        assert_eq!(renewed(&mut node, version(2)), loses, "{now:?}");
    }
}

#[test]
fn what_a_registry_that_has_lost_writes_says_of_a_holder_does_not_count() {
    for (now, counts) in [(version(1), true), (forked(1), false), (Version::default(), false)] {
        let mut node = Node::joined(&["cvd-1"]);
        node.claim(1);
        // In an old copy, the lease of each node has ended.
        let answer = Answer { reply: held(Duration::ZERO), named: Some(now) };
        let claim = Operation::Claim { wanted: wanted(1), expected: None, place: None };
        assert_eq!(node.answer(&claim, answer), []);
        let next = node.outputs();
        let sent: Vec<_> = next.iter().cloned().filter_map(operation).collect();
        assert_eq!((next.contains(&probe(1)), joins(&sent)), (counts, !counts), "{now:?}");
    }
}

#[test]
fn a_renewal_names_versions_that_changes_confirm_later() {
    for (second, loses) in [(version(2), false), (forked(2), true)] {
        let mut node = Node::joined(&[]);
        assert!(!renewed(&mut node, version(2)), "its change may come later");
        node.membership.on_delta(&Delta { version: second, after: 1, change: taken() }, node.now);
        assert_eq!(renewed(&mut node, second), loses, "{second:?}");
    }
}

#[test]
fn a_node_that_misses_changes_writes_again_what_the_registry_is_to_have_of_it() {
    // Among the versions that are missing, the engine may have lost one of this node.
    for is_missing in [true, false] {
        let mut node = holder();
        let (announced, details) = (DeviceId::new("cvd-7"), Arc::from("{}"));
        node.membership.announce(1, &[Expected { id: announced, details }], 10, node.now);
        let next = if is_missing { 4 } else { 3 };
        node.membership.on_delta(&delta(next, Change::Announced), node.now);
        let mut sent = answered(&mut node, version(next));
        for _ in 0..6 {
            node.pass(Duration::from_secs(1));
            sent.extend(answered(&mut node, version(next)));
        }
        let own_record = Operation::Join { node: record("a", 1), replaces: None };
        let cancels_all = Operation::Cancel { node: incarnation("a", 1), ids: vec![] };
        let count = |operation: &Operation| sent.iter().filter(|sent| *sent == operation).count();
        assert_eq!((count(&own_record), count(&cancels_all)), (usize::from(is_missing), usize::from(is_missing)));
        let reclaims = sent.iter().filter(|sent| matches!(sent, Operation::Reclaim { .. })).count();
        let expects = sent.iter().filter(|sent| matches!(sent, Operation::Expect { .. })).count();
        // The upkeep looks at them in each case.
        assert_eq!((reclaims, expects), if is_missing { (1, 3) } else { (1, 2) });
    }
}

#[test]
fn a_change_with_a_number_that_the_registry_does_not_have_is_not_believed_for_long() {
    let mut node = Node::joined(&[]);
    node.membership.on_delta(&delta(u64::MAX, taken()), node.now);
    assert!(renewed(&mut node, version(1)), "and no change of the registry would count any more");
}

#[test]
fn a_change_may_overtake_the_renewal_that_was_asked_for_before_it() {
    let mut node = Node::joined(&[]);
    node.pass(Duration::from_secs(1));
    node.membership.on_delta(&delta(2, taken()), node.now);
    node.answer(&Operation::Renew(incarnation("a", 1)), named(version(1)));
    assert!(!joins(&node.outputs().into_iter().filter_map(operation).collect::<Vec<_>>()));
    assert!(renewed(&mut node, version(1)), "the next one was asked for after it");
}

#[test]
fn a_registry_that_is_behind_a_change_is_noticed_before_it_has_as_many_versions_again() {
    let mut node = Node::joined(&[]);
    node.membership.on_delta(&delta(2, taken()), node.now);
    // It was rolled back to version 1. The change that has version 2 then may be lost on its way here.
    assert!(renewed(&mut node, version(1)));
}

#[test]
fn a_page_of_another_registry_is_not_taken_over() {
    let page =
        |epoch, version| Reply::Page { epoch: Epoch(epoch), version, cursor: 0, entries: vec![], unsigned: vec![] };
    // The engine is empty for the pass, or restored from an old copy.
    for (reply, loses) in [
        (Reply::NotAMember, true),
        (page(2, version(1)), true),
        (page(1, version(0)), true),
        (page(1, forked(1)), true),
        (page(1, version(1)), false),
    ] {
        let mut node = Node::joined(&["cvd-1"]);
        node.membership.on_gap(node.now);
        node.pass(Duration::ZERO);
        node.answer(&Operation::Scan(0), reply.clone());
        let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
        assert_eq!(joins(&sent), loses, "{reply:?}");
        assert_eq!(node.membership.directory().get(&id()).is_some(), loses, "{reply:?}");
    }
}

#[test]
fn id_whose_entry_no_node_has_signed_is_claimed_again_at_once() {
    let mut node = Node::joined(&["cvd-2"]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    node.membership.on_gap(node.now);
    node.pass(Duration::ZERO);
    let others = DeviceId::new("cvd-2");
    let unsigned = vec![id(), others.clone()];
    node.answer(
        &Operation::Scan(0),
        Reply::Page { epoch: Epoch(1), version: version(1), cursor: 0, entries: vec![], unsigned },
    );
    node.answer(&Operation::Read(id()), Reply::Entry(None));
    let reclaim = Operation::Reclaim { node: incarnation("a", 1), wanted: vec![wanted(1)] };
    let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
    assert!(sent.contains(&reclaim) && !sent.contains(&Operation::Read(others.clone())), "{sent:?}");
    // The entry of another node is known as before.
    assert_eq!(node.membership.directory().get(&others).map(|entry| &entry.registration), Some(&other(1)));
}

#[test]
fn id_that_was_given_up_without_the_engine_is_released_behind_the_next_pass() {
    let mut node = holder();
    node.membership.on_lost(node.now);
    node.membership.release(&id(), &own(1), node.now);
    node.rejoin();
    let entry = Entry { registration: own(1), details: Arc::from("{}"), version: 1 };
    let mut sent = Vec::new();
    for _ in 0..6 {
        node.pass(Duration::from_secs(1));
        sent.extend(answered_with(&mut node, version(1), &[(id(), entry.clone())]));
    }
    assert!(sent.contains(&release()), "{sent:?}");
}

#[test]
fn id_of_a_session_that_never_asked_for_it_is_not_released() {
    let mut node = Node::new(false);
    node.claim(1);
    node.membership.release(&id(), &own(1), node.now);
    node.join(Duration::from_secs(60));
    let mut sent = Vec::new();
    for _ in 0..12 {
        node.pass(Duration::from_secs(1));
        sent.extend(answered(&mut node, version(1)));
    }
    assert!(!sent.iter().any(|sent| matches!(sent, Operation::Release(_))), "{sent:?}");
}

fn release() -> Operation {
    Operation::Release(vec![(id(), own(1))])
}
