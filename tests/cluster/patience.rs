//! For how long a device waits for an engine that is away before its node admits it alone.

use cuttlefish_signaling::core::cluster::Output;
use cuttlefish_signaling::core::cluster::claim::Outcome;
use cuttlefish_signaling::core::cluster::registry::{Claimed, Reply};
use std::time::Duration;

use crate::driven::*;

#[test]
fn device_that_registers_after_the_wait_of_a_start_waits_for_the_join() {
    let mut node = Node::new(false);
    node.pass(Duration::from_secs(2));
    node.claim(1);
    node.pass(Duration::from_millis(1_999));
    // Until then it has connected, and has told the session nothing.
    node.join(Duration::from_secs(60));
    node.claimed(None, Reply::Claimed(Claimed::Granted));
    assert!(node.outputs().contains(&tell(1, Outcome::Granted)));
}

#[test]
fn node_that_does_not_join_serves_alone_after_the_wait_of_its_start_and_its_patience() {
    let mut node = Node::new(false);
    node.pass(Duration::from_secs(3));
    node.claim(1);
    node.pass(Duration::from_millis(999));
    assert_eq!(node.outputs(), [Output::Connect]);
    node.pass(Duration::from_millis(1));
    assert_eq!(node.outputs(), [tell(1, Outcome::Unclaimed)]);
    node.membership.claim(wanted(2), false, node.now);
    assert_eq!(node.outputs(), [tell(2, Outcome::Unclaimed)]);
}

#[test]
fn node_that_has_lost_its_engine_waits_the_patience_alone() {
    let mut node = Node::joined(&[]);
    node.membership.on_lost(node.now);
    node.pass(Duration::from_secs(2));
    node.outputs();
    node.claim(1);
    assert_eq!(node.outputs(), [tell(1, Outcome::Unclaimed)]);
}
