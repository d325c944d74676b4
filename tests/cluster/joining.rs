//! How a node joins, stays a member, and notices that it was gone.

use cuttlefish_signaling::core::cluster::claim::Probe;
use cuttlefish_signaling::core::cluster::output::Report;
use cuttlefish_signaling::core::cluster::registry::{Change, Claimed, Epoch, NodeRecord, Operation, Reply, Timing};
use cuttlefish_signaling::core::cluster::{Incarnation, Output, Registration};
use cuttlefish_signaling::protocol::DeviceId;
use std::sync::Arc;
use std::time::Duration;

use crate::driven::*;

#[test]
fn held_ids_are_reclaimed_before_anything_is_read() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    node.outputs();
    node.membership.on_lost(node.now);
    node.outputs();
    node.pass(Duration::from_secs(2));
    assert_eq!(node.outputs(), [Output::Connect]);
    node.membership.on_connected(node.now);
    let joined =
        Reply::Joined { epoch: Epoch(2), version: version(1), age: Duration::ZERO, nodes: vec![record("a", 1)] };
    node.answer(&Operation::Join { node: record("a", 1), replaces: None }, joined);
    let reclaim = Operation::Reclaim { node: incarnation("a", 1), wanted: vec![wanted(1)] };
    let sent: Vec<_> = node.outputs().into_iter().filter(|output| matches!(output, Output::Send { .. })).collect();
    assert!(matches!(&sent[..], [Output::Send { operation, .. }] if *operation == reclaim), "{sent:?}");
}

#[test]
fn a_node_that_was_paused_closes_the_connections_of_others_before_all_else() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    let sent = node.outputs();
    let [Output::Send { number, .. }] = sent[..] else { panic!("{sent:?}") };
    node.now += Duration::from_secs(60);
    node.membership.on_reply(number, Reply::Claimed(Claimed::Granted), node.now);
    let paused = Output::Report(Report::Paused(Duration::from_secs(60)));
    assert_eq!(node.outputs()[..3], [paused, Output::CloseProxied, Output::Disconnect]);
}

#[test]
fn an_operation_without_an_answer_ends_the_connection_and_is_repeated() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.outputs();
    node.pass(Duration::from_secs(1));
    assert!(node.outputs().contains(&Output::Disconnect));
    assert!(!node.membership.is_member());
}

#[test]
fn pauses_grow_while_the_engine_fails_after_each_join() {
    let mut node = Node::new(false);
    node.join(Duration::from_secs(60));
    let began = node.now;
    for _ in 0..20 {
        node.rejoin();
    }
    // Pauses of up to 50 ms would take a second at most.
    assert!(node.now - began > Duration::from_secs(5), "{:?}", node.now - began);
    // A member for the time of a renewal begins with the first pause again.
    node.pass_renewed(Duration::from_secs(1));
    node.membership.on_lost(node.now);
    assert!(node.membership.poll_timeout() - node.now <= Duration::from_millis(50));
}

#[test]
fn a_node_whose_name_another_has_asks_it_before_it_takes_the_name() {
    let mut node = Node::new(false);
    node.membership.handle_timeout(node.now);
    node.outputs();
    node.membership.on_connected(node.now);
    let earlier = record("a", 9);
    let name_held = Reply::NameHeld { node: earlier.clone(), lease: Duration::from_secs(4) };
    node.answer(&Operation::Join { node: record("a", 1), replaces: None }, name_held);
    assert_eq!(node.outputs(), [Output::Hello(earlier.clone())]);
    node.membership.on_hello(&earlier, Probe::Gone, node.now);
    let replaces = Some(incarnation("a", 9));
    let sent = node.outputs();
    let join = Operation::Join { node: record("a", 1), replaces };
    assert!(matches!(&sent[..], [Output::Send { operation, .. }] if *operation == join), "{sent:?}");
}

#[test]
fn a_node_whose_name_another_living_node_has_says_so_and_stays_out() {
    let mut node = Node::new(false);
    node.membership.handle_timeout(node.now);
    node.outputs();
    node.membership.on_connected(node.now);
    let twin = record("a", 9);
    let name_held = Reply::NameHeld { node: twin.clone(), lease: Duration::from_secs(4) };
    node.answer(&Operation::Join { node: record("a", 1), replaces: None }, name_held);
    node.outputs();
    node.membership.on_hello(&twin, Probe::Alive, node.now);
    assert_eq!(node.outputs(), [Output::Report(Report::NameTaken(twin)), Output::Disconnect]);
}

#[test]
fn upkeep_reclaims_what_is_held_and_releases_what_is_not() {
    let mut node = Node::joined(&[]);
    node.claim(1);
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    let stray = (DeviceId::new("cvd-2"), own(8));
    let change = Change::Claimed(vec![(stray.0.clone(), stray.1.clone(), Arc::from("{}"))]);
    node.membership.on_delta(&delta(2, change), node.now);
    node.outputs();
    node.pass_renewed(Duration::from_secs(5));
    let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
    let reclaim = Operation::Reclaim { node: incarnation("a", 1), wanted: vec![wanted(1)] };
    assert_eq!(sent[sent.len() - 2..], [reclaim, Operation::Release(vec![stray])]);
}

#[test]
fn the_devices_of_a_node_that_has_died_are_removed_once_it_does_not_answer() {
    let mut node = Node::joined(&["cvd-1"]);
    node.membership.on_delta(&delta(2, Change::Left(incarnation("b", 2))), node.now);
    let mut asked = false;
    for second in 0..66 {
        node.pass_renewed(Duration::from_secs(1));
        asked = node.outputs().contains(&Output::Hello(record("b", 2)));
        assert!(!asked || second >= 60, "after {second} s");
        if asked {
            break;
        }
    }
    assert!(asked);
    node.membership.on_hello(&record("b", 2), Probe::Unreachable, node.now);
    let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
    assert_eq!(sent, [Operation::Reap(incarnation("b", 2))]);
}

#[test]
fn the_devices_of_a_node_that_has_lost_only_the_engine_stay() {
    let mut node = Node::joined(&["cvd-1"]);
    node.membership.on_delta(&delta(2, Change::Left(incarnation("b", 2))), node.now);
    for _ in 0..66 {
        node.pass_renewed(Duration::from_secs(1));
    }
    node.outputs();
    node.membership.on_hello(&record("b", 2), Probe::Alive, node.now);
    assert_eq!(node.outputs(), []);
}

#[test]
fn the_record_of_a_node_comes_from_the_registry_and_not_from_a_change() {
    let mut node = Node::joined(&[]);
    node.membership.on_delta(&delta(2, Change::Joined(record("c", 3))), node.now);
    assert!(node.membership.nodes().record(&incarnation("c", 3)).is_none());
    node.answer(&Operation::Nodes, Reply::Nodes(vec![record("a", 1), record("c", 4)]));
    assert!(node.membership.nodes().record(&incarnation("c", 3)).is_none());
    assert!(node.membership.nodes().record(&incarnation("c", 4)).is_some());
    assert!(node.membership.nodes().is_live(&incarnation("c", 4)));
}

#[test]
fn a_node_whose_change_was_lost_is_found_by_the_next_renewal() {
    let mut node = Node::joined(&[]);
    node.pass(Duration::from_secs(1));
    let nodes = vec![incarnation("a", 1), incarnation("c", 3)];
    let renew = Operation::Renew(incarnation("a", 1));
    node.answer(&renew, Reply::Renewed { epoch: Epoch(1), version: version(1), nodes });
    node.answer(&Operation::Nodes, Reply::Nodes(vec![record("a", 1), record("c", 3)]));
    assert!(node.membership.nodes().record(&incarnation("c", 3)).is_some());
}

#[test]
fn the_record_of_a_node_is_read_again_once_it_has_a_lease_again() {
    let mut node = Node::joined(&[]);
    let only_own = vec![incarnation("a", 1)];
    let both = vec![incarnation("a", 1), incarnation("b", 2)];
    // The change of its record came while this node was away, and its next join makes none.
    for (nodes, reads) in [(both.clone(), false), (only_own, false), (both.clone(), true), (both, false)] {
        node.pass(Duration::from_secs(1));
        let renewed = Reply::Renewed { epoch: Epoch(1), version: version(1), nodes };
        node.answer(&Operation::Renew(incarnation("a", 1)), renewed);
        if reads {
            node.answer(&Operation::Nodes, Reply::Nodes(vec![record("a", 1), record("b", 2)]));
        }
        let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
        assert!(!sent.contains(&Operation::Nodes), "{sent:?}");
    }
}

/// Nodes that lose the engine in one moment.
const CROWD: u64 = 500;

/// Asserts that the acts of a crowd, which have these pauses, are spread over the whole of `most`.
fn assert_spread(pauses: &[Duration], most: Duration) {
    for tenth in 0..10 {
        let within = most.mul_f64(f64::from(tenth) / 10.0)..=most.mul_f64(f64::from(tenth + 1) / 10.0);
        let acts = pauses.iter().filter(|pause| within.contains(*pause)).count();
        assert!((pauses.len() / 20..pauses.len() / 5).contains(&acts), "{acts} within {within:?}");
    }
}

#[test]
fn a_crowd_of_nodes_that_loses_the_engine_comes_back_one_after_another() {
    let timing = Timing::default();
    for failures in [0, 2, 9] {
        let longest = timing.max_backoff.min(timing.backoff * 2_u32.pow(failures));
        let pause = |seed| {
            let mut node = Node::seeded(false, seed);
            node.join(Duration::from_secs(60));
            for _ in 0..failures {
                node.membership.on_lost(node.now);
                node.now = node.now.max(node.membership.poll_timeout());
                node.membership.handle_timeout(node.now);
            }
            node.membership.on_lost(node.now);
            node.membership.poll_timeout().saturating_duration_since(node.now)
        };
        assert_spread(&(0..CROWD).map(pause).collect::<Vec<_>>(), longest);
    }
}

#[test]
fn a_crowd_of_nodes_that_has_joined_again_does_not_read_the_registry_at_once() {
    let pause = |seed| {
        let mut node = Node::seeded(false, seed);
        node.join(Duration::from_secs(60));
        node.pass(Duration::ZERO);
        node.outputs();
        node.rejoin();
        let since = node.now;
        // A renewal would come first after the pause of one.
        while !node.outputs().into_iter().filter_map(operation).any(|sent| sent == Operation::Scan(0)) {
            node.now = node.membership.poll_timeout();
            node.membership.handle_timeout(node.now);
        }
        node.now - since
    };
    assert_spread(&(0..CROWD).map(pause).collect::<Vec<_>>(), Timing::default().renew);
}

#[test]
fn a_node_that_joins_for_the_first_time_reads_the_registry_at_once() {
    let mut node = Node::new(false);
    node.join(Duration::from_secs(60));
    node.pass(Duration::ZERO);
    assert!(node.outputs().into_iter().filter_map(operation).any(|sent| sent == Operation::Scan(0)));
}

#[test]
fn facts_that_change_are_put_into_the_registry_now_and_after_a_loss() {
    let mut node = Node::joined(&[]);
    node.membership.set_details(Arc::from("{1}"), node.now);
    let changed = NodeRecord { details: Arc::from("{1}"), ..record("a", 1) };
    let join = Operation::Join { node: changed, replaces: None };
    let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
    assert!(matches!(&sent[..], [only] if *only == join), "{sent:?}");
    node.membership.on_lost(node.now);
    node.pass(Duration::from_secs(2));
    node.membership.on_connected(node.now);
    let sent: Vec<_> = node.outputs().into_iter().filter_map(operation).collect();
    assert_eq!(sent, [join]);
}

#[test]
fn facts_that_change_while_the_node_joins_are_put_into_the_registry_after_that() {
    let mut node = Node::joined(&[]);
    node.membership.on_lost(node.now);
    node.pass(Duration::from_secs(2));
    node.membership.on_connected(node.now);
    node.membership.set_details(Arc::from("{1}"), node.now);
    let joined =
        Reply::Joined { epoch: Epoch(1), version: version(1), age: Duration::ZERO, nodes: vec![record("a", 1)] };
    let rest = node.answer(&Operation::Join { node: record("a", 1), replaces: None }, joined.clone());
    assert!(!rest.into_iter().any(|output| operation(output).is_some()), "an operation before the node is a member");
    let changed = NodeRecord { details: Arc::from("{1}"), ..record("a", 1) };
    let join = Operation::Join { node: changed.clone(), replaces: None };
    node.answer(&join, joined);
    // A join that names them already is followed by none.
    node.membership.on_lost(node.now);
    node.pass(Duration::from_secs(2));
    node.membership.on_connected(node.now);
    let joined = Reply::Joined { epoch: Epoch(1), version: version(2), age: Duration::ZERO, nodes: vec![changed] };
    node.answer(&join, joined);
    assert!(!node.outputs().into_iter().filter_map(operation).any(|sent| sent == join));
}

#[test]
fn records_are_read_again_with_the_registry_since_a_change_of_one_may_be_missing() {
    let mut node = Node::joined(&[]);
    node.membership.on_gap(node.now);
    node.pass(Duration::ZERO);
    let drains = NodeRecord { details: Arc::from("{1}"), ..record("b", 2) };
    node.answer(&Operation::Nodes, Reply::Nodes(vec![record("a", 1), drains.clone()]));
    assert_eq!(node.membership.nodes().record(&drains.incarnation), Some(&drains));
}

#[test]
fn text_forms_of_names_are_read_back_and_each_has_one() {
    let registration = Registration::new(incarnation("lab.7-x_y", 0x1f), 12);
    assert_eq!(registration.to_string(), "lab.7-x_y.000000000000001f/12");
    assert_eq!(Registration::parse(&registration.to_string()), Some(registration));
    for wrong in ["", "lab/1", "lab.1f/1", "lab.000000000000001F/1", "lab.000000000000001f/", "lab.000000000000001f/01"]
    {
        assert_eq!(Registration::parse(wrong), None, "{wrong:?}");
    }
    for wrong in ["", "a b", "a/b", &"n".repeat(65), "ü"] {
        assert_eq!(Incarnation::new(wrong, 1), None, "{wrong:?}");
    }
}

/// Returns whether an id without an entry counts as free.
fn is_absence_certain(node: &Node, epoch: u64, number: u64) -> bool {
    let renewed = Reply::Renewed { epoch: Epoch(epoch), version: version(number), nodes: vec![incarnation("a", 1)] };
    node.membership.is_absence_certain(node.membership.named_version(), &renewed, node.now)
}

#[test]
fn an_engine_that_does_not_know_this_node_says_of_no_device_that_it_is_not_there() {
    let node = Node::joined(&[]);
    assert!(is_absence_certain(&node, 1, 1));
    assert!(!is_absence_certain(&node, 2, 1), "another registry");
    assert!(!is_absence_certain(&node, 1, 0), "it has lost writes");
    assert!(!node.membership.is_absence_certain(version(1), &Reply::NotAMember, node.now), "it is empty");
}

#[test]
fn devices_may_be_missing_for_a_lease_in_a_registry_that_has_lost_writes() {
    for (epoch, number, loses) in [(2, 7, true), (1, 0, true), (1, 1, false)] {
        let mut node = Node::joined(&[]);
        node.membership.on_lost(node.now);
        node.pass(Duration::from_secs(2));
        node.outputs();
        node.membership.on_connected(node.now);
        let nodes = vec![record("a", 1)];
        let joined = Reply::Joined { epoch: Epoch(epoch), version: version(number), age: Duration::ZERO, nodes };
        node.answer(&Operation::Join { node: record("a", 1), replaces: None }, joined);
        assert_eq!(is_absence_certain(&node, epoch, number), !loses);
        node.now += Duration::from_secs(6);
        assert!(is_absence_certain(&node, epoch, number));
    }
}
