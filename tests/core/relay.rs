//! The relay: the ledger and the journal, where a fault drops one of two copies.

use cuttlefish_signaling::Config;
use cuttlefish_signaling::faults::{Effect, Rule};
use cuttlefish_signaling::journal::{Filter, Outcome};

use crate::actors::client_msg;
use crate::harness::Harness;

fn rule(effect: Effect, nth: Option<u64>) -> Rule {
    Rule { effect, to: None, device: None, client: None, payload_type: None, nth, probability: 1.0, times: None }
}

/// A device and its client, whose forwards are duplicated. Of the two copies of a forward the `nth` is dropped.
fn forward_with_copy_dropped(nth: Option<u64>) -> Harness {
    let mut harness = Harness::new(Config { journal: true, ..Config::default() });
    harness.registers("d", "x");
    harness.connects("c", "x");
    harness.all_heard("d");
    harness.relay.arm(rule(Effect::Duplicate, None));
    harness.relay.arm(rule(Effect::Drop, nth));
    harness.forwards("c", "1");
    harness
}

fn outcomes(harness: &Harness) -> Vec<Outcome> {
    let filter = Filter { message_type: Some("forward".into()), ..Filter::default() };
    harness.relay.journal().unwrap().find(&filter, 0, usize::MAX).iter().map(|entry| entry.outcome).collect()
}

#[test]
fn dropped_duplicate_is_not_counted_as_dropped() {
    let mut harness = forward_with_copy_dropped(Some(2));
    assert_eq!(harness.all_heard("d"), [client_msg(1, "1")]);
    let ledger = harness.balance();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.dropped), (1, 1, 0));
    assert_eq!(outcomes(&harness), [Outcome::Passed]);
}

#[test]
fn dropped_original_is_counted_as_dropped_though_its_duplicate_is_delivered() {
    let mut harness = forward_with_copy_dropped(Some(1));
    assert_eq!(harness.all_heard("d"), [client_msg(1, "1")]);
    let ledger = harness.balance();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.dropped), (1, 0, 1));
    assert_eq!(outcomes(&harness), [Outcome::Dropped]);
}

#[test]
fn forward_with_both_copies_dropped_is_counted_once() {
    let mut harness = forward_with_copy_dropped(None);
    assert!(harness.all_heard("d").is_empty());
    let ledger = harness.balance();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.dropped), (1, 0, 1));
}
