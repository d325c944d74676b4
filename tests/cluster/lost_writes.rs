//! How a node notices that the engine has lost writes: its registry is an old copy, or was empty for a while.

use cuttlefish_signaling::core::cluster::Output;
use cuttlefish_signaling::core::cluster::registry::{Change, Claimed, Delta, Epoch, NodeRecord, Operation, Reply};
use cuttlefish_signaling::protocol::DeviceId;
use std::sync::Arc;
use std::time::Duration;

use crate::driven::*;

/// The answer of the engine to a renewal, with this version.
fn named(version: u64) -> Reply {
    Reply::Renewed { epoch: Epoch(1), version, nodes: vec![incarnation("a", 1)] }
}

/// Lets a second pass. The engine answers the renewal with this version. Returns whether the node joins again.
fn renewed(node: &mut Node, version: u64) -> bool {
    node.pass(Duration::from_secs(1));
    answered(node, version).iter().any(|sent| matches!(sent, Operation::Join { .. }))
}

/// Answers all operations but a join, each renewal with this version. Returns them.
fn answered(node: &mut Node, version: u64) -> Vec<Operation> {
    let (mut waiting, mut sent) = (node.outputs(), Vec::new());
    while !waiting.is_empty() {
        for output in waiting {
            let Output::Send { number, operation } = output else { continue };
            sent.push(operation.clone());
            let reply = match operation {
                Operation::Join { .. } => continue,
                Operation::Renew(own) => Reply::Renewed { epoch: Epoch(1), version, nodes: vec![own] },
                Operation::Scan(_) => page(vec![]),
                Operation::ReadIce => Reply::Ice(None),
                Operation::Nodes => Reply::Nodes(vec![record("a", 1), record("b", 2)]),
                Operation::Claim { .. } => Reply::Claimed(Claimed::Granted),
                Operation::Release(_) => Reply::Done,
                other => panic!("{other:?}"),
            };
            node.membership.on_reply(number, reply, node.now);
        }
        waiting = node.outputs();
    }
    sent
}

fn taken(version: u64) -> Delta {
    Delta { version, change: Change::Claimed(vec![(id(), other(9), Arc::from("{}"))]) }
}

#[test]
fn a_registry_that_names_a_version_again_has_lost_writes() {
    let mut node = Node::joined(&[]);
    node.membership.on_delta(&taken(2), node.now);
    node.membership.on_delta(&taken(3), node.now);
    // It was rolled back to version 2, and has gone on: its version alone says nothing.
    node.membership.on_delta(&taken(3), node.now);
    assert!(renewed(&mut node, 3));
}

#[test]
fn a_change_with_a_version_that_the_registry_does_not_have_is_not_believed_for_long() {
    let mut node = Node::joined(&[]);
    node.membership.on_delta(&taken(u64::MAX), node.now);
    assert!(renewed(&mut node, 1), "and no change of the registry would count any more");
}

#[test]
fn a_change_may_overtake_the_renewal_that_was_asked_for_before_it() {
    let mut node = Node::joined(&[]);
    node.pass(Duration::from_secs(1));
    node.membership.on_delta(&taken(2), node.now);
    node.answer(&Operation::Renew(incarnation("a", 1)), named(1));
    assert!(!node.outputs().into_iter().filter_map(operation).any(|sent| matches!(sent, Operation::Join { .. })));
    assert!(renewed(&mut node, 1), "the next one was asked for after it");
}

#[test]
fn a_registry_that_is_behind_a_change_is_noticed_before_it_has_as_many_versions_again() {
    let mut node = Node::joined(&[]);
    node.membership.on_delta(&taken(2), node.now);
    // It was rolled back to version 1. The change that has version 2 then may be lost on its way here.
    assert!(renewed(&mut node, 1));
}

#[test]
fn a_registry_that_was_empty_for_a_pass_is_read_again() {
    for (reply, loses) in [
        (Reply::NotAMember, true),
        (Reply::Renewed { epoch: Epoch(2), version: 1, nodes: vec![] }, true),
        (named(0), true),
        (named(1), false),
    ] {
        let mut node = Node::joined(&["cvd-1"]);
        node.membership.on_gap(node.now);
        node.pass(Duration::ZERO);
        // The engine is empty now, and restored before the next renewal. The check follows the pages at once.
        node.answer(&Operation::Scan(0), page(vec![]));
        node.answer(&Operation::Renew(incarnation("a", 1)), reply.clone());
        let joins = node.outputs().into_iter().filter_map(operation).any(|sent| matches!(sent, Operation::Join { .. }));
        assert_eq!(joins, loses, "{reply:?}");
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
    node.answer(&Operation::Scan(0), Reply::Page { cursor: 0, entries: vec![], unsigned });
    node.answer(&Operation::Read(id()), Reply::Entry(None));
    let reclaim = Operation::Reclaim { node: incarnation("a", 1), wanted: vec![wanted(1)] };
    let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
    assert!(sent.contains(&reclaim) && !sent.contains(&Operation::Read(others.clone())), "{sent:?}");
    // The entry of another node is known as before.
    assert_eq!(node.membership.directory().get(&others).map(|entry| &entry.registration), Some(&other(1)));
}

#[test]
fn record_of_this_node_is_corrected_in_a_registry_that_has_an_old_one() {
    let old = NodeRecord { details: Arc::from("{0}"), ..record("a", 1) };
    // One whose lease has ended is not shown: the renewal behind the pass makes it count again.
    for (own, is_corrected) in [(Some(old), true), (None, true), (Some(record("a", 1)), false)] {
        let mut node = Node::joined(&[]);
        node.membership.on_gap(node.now);
        node.pass(Duration::ZERO);
        let records = own.clone().into_iter().chain([record("b", 2)]).collect();
        node.answer(&Operation::Nodes, Reply::Nodes(records));
        let join = Operation::Join { node: record("a", 1), replaces: None };
        let sent = node.outputs().into_iter().filter_map(operation).any(|sent| sent == join);
        assert_eq!(sent, is_corrected, "{own:?}");
    }
}

#[test]
fn id_that_was_given_up_is_released_again_by_the_next_two_upkeeps() {
    // An engine that is restored from an old copy has it again. The node may have missed its own change of that.
    for is_granted in [true, false] {
        let mut node = Node::joined(&[]);
        node.claim(1);
        if is_granted {
            node.claimed(None, Reply::Claimed(Claimed::Granted));
        }
        node.membership.release(&id(), &own(1), node.now);
        assert_eq!(releases(&mut node), [release()]);
        assert_eq!(releases_of_upkeeps(&mut node), [release(), release()], "granted: {is_granted}");
    }
}

#[test]
fn id_that_was_given_up_without_the_engine_is_released_with_it() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    node.membership.on_lost(node.now);
    node.membership.release(&id(), &own(1), node.now);
    assert_eq!(releases(&mut node), []);
    node.rejoin();
    assert_eq!(releases_of_upkeeps(&mut node), [release(), release()]);
}

#[test]
fn id_of_a_session_that_never_asked_for_it_is_not_released() {
    let mut node = Node::new(false);
    node.claim(1);
    node.membership.release(&id(), &own(1), node.now);
    node.join(Duration::from_secs(60));
    assert_eq!(releases_of_upkeeps(&mut node), []);
}

fn release() -> Operation {
    Operation::Release(vec![(id(), own(1))])
}

/// Lets the time of three upkeeps pass.
fn releases_of_upkeeps(node: &mut Node) -> Vec<Operation> {
    let second = |_| {
        node.pass(Duration::from_secs(1));
        releases(node)
    };
    (0..17).flat_map(second).collect()
}

fn releases(node: &mut Node) -> Vec<Operation> {
    answered(node, 1).into_iter().filter(|sent| matches!(sent, Operation::Release(_))).collect()
}
