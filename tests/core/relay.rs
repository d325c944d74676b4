//! The relay: the ledger and the journal, where faults drop copies or decide on several forwards at once.

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::faults::{Effect, Rule};
use cuttlefish_signaling::journal::{Filter, Outcome};
use proptest::collection::vec;
use proptest::prelude::*;

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
fn forward_whose_first_copy_is_dropped_is_counted_as_delivered() {
    let mut harness = forward_with_copy_dropped(Some(1));
    assert_eq!(harness.all_heard("d"), [client_msg(1, "1")]);
    let ledger = harness.balance();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.dropped), (1, 1, 0));
    assert_eq!(outcomes(&harness), [Outcome::Passed]);
}

#[test]
fn forward_with_both_copies_dropped_is_counted_once() {
    let mut harness = forward_with_copy_dropped(None);
    assert!(harness.all_heard("d").is_empty());
    let ledger = harness.balance();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.dropped), (1, 0, 1));
    assert_eq!(outcomes(&harness), [Outcome::Dropped]);
}

fn faults(harness: &Harness) -> Vec<String> {
    let filter = Filter { message_type: Some("forward".into()), ..Filter::default() };
    let entries = harness.relay.journal().unwrap().find(&filter, 0, usize::MAX);
    entries.iter().map(|entry| entry.faults.join("+")).collect()
}

#[test]
fn fault_is_named_on_the_forward_that_it_hit() {
    let mut harness = Harness::new(Config { journal: true, ..Config::default() });
    harness.registers("d", "x");
    harness.connects("c", "x");
    harness.all_heard("d");
    // Two forwards are released in the other order, so the first that the drop meets is the second that was sent.
    let reorder = harness.relay.arm(rule(Effect::Reorder { window: 2, hold: Duration::from_secs(1) }, None));
    let drop = harness.relay.arm(rule(Effect::Drop, Some(2)));
    harness.forwards("c", "1");
    harness.forwards("c", "2");
    assert_eq!(harness.all_heard("d"), [client_msg(1, "2")]);
    assert_eq!(faults(&harness), ["reorder+drop", "reorder"]);
    assert_eq!(outcomes(&harness), [Outcome::Dropped, Outcome::Passed]);
    // A fault that hits a forward when its time has come, or when another fault is removed, is named as well.
    harness.relay.disarm(drop, harness.now);
    harness.relay.arm(rule(Effect::Truncate(0.9), None));
    harness.forwards("c", "3");
    harness.now += Duration::from_secs(2);
    harness.releases();
    harness.forwards("c", "4");
    harness.relay.disarm(reorder, harness.now);
    assert_eq!(faults(&harness)[2..], ["reorder+truncate", "reorder+truncate"]);
}

#[test]
fn copies_that_are_held_and_lost_count_once() {
    let mut harness = Harness::new(Config { journal: true, ..Config::default() });
    harness.registers("d", "x");
    harness.connects("c", "x");
    harness.all_heard("d");
    harness.relay.arm(rule(Effect::Duplicate, None));
    harness.relay.arm(rule(Effect::Stall(None), Some(1)));
    let drop = harness.relay.arm(rule(Effect::Drop, None));
    harness.forwards("c", "1");
    // One copy is dropped, and the other one may still come.
    assert_eq!((outcomes(&harness), harness.balance().dropped), (vec![Outcome::Passed], 0));
    harness.relay.disarm(drop, harness.now);
    harness.forwards("c", "2");
    harness.relay.abandon();
    assert_eq!(outcomes(&harness), [Outcome::Gone, Outcome::Passed]);
    let ledger = harness.balance();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.dropped, ledger.gone), (2, 1, 0, 1));
    assert_eq!(harness.all_heard("d"), [client_msg(1, "2"), client_msg(1, "2")]);
}

/// A rule that holds back, duplicates or drops.
fn any_rule() -> impl Strategy<Value = Rule> {
    let effect = prop_oneof![
        3 => Just(Effect::Drop),
        3 => (1usize..5).prop_map(|window| Effect::Reorder { window, hold: Duration::from_millis(50) }),
        2 => Just(Effect::Duplicate),
        1 => Just(Effect::Stall(None)),
        1 => Just(Effect::Delay { by: Duration::from_millis(20), jitter: Duration::from_millis(10) }),
        1 => Just(Effect::Truncate(0.9)),
    ];
    (effect, proptest::option::of(1u64..6), proptest::option::of(1u64..4), 0.3..1.0f64)
        .prop_map(|(effect, nth, times, probability)| Rule { probability, times, ..rule(effect, nth) })
}

proptest! {
    /// The entry of a forward tells whether its receiver got it, whichever rules decide on several at once.
    #[test]
    fn outcome_in_the_journal_is_what_the_receiver_got(
        rules in vec(any_rule(), 1..5),
        steps in vec(0u8..4, 1..30),
        ends in any::<bool>(),
    ) {
        let mut harness = Harness::new(Config { journal: true, ..Config::default() });
        harness.registers("d", "x");
        harness.connects("c", "x");
        harness.all_heard("d");
        let armed: Vec<_> = rules.into_iter().map(|rule| harness.relay.arm(rule)).collect();
        let mut sent = 0;
        for step in steps {
            if step == 0 {
                harness.now += Duration::from_millis(25);
                harness.releases();
            } else {
                // A payload longer than what `truncate` cuts off.
                harness.forwards("c", &format!(r#""{sent:04}{}""#, "x".repeat(40)));
                sent += 1;
            }
        }
        if ends {
            harness.relay.abandon();
        } else {
            for id in armed {
                harness.relay.disarm(id, harness.now);
            }
        }
        harness.settle();
        let heard = harness.all_heard("d");
        let got = |number: usize| heard.iter().any(|text| text.contains(&format!("{number:04}x")));
        let outcomes = outcomes(&harness);
        prop_assert_eq!(outcomes.len(), sent);
        for (number, outcome) in outcomes.iter().enumerate() {
            prop_assert_eq!(*outcome == Outcome::Passed, got(number), "{}: {:?}", number, outcome);
        }
        let counted = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count() as u64;
        let ledger = harness.balance();
        prop_assert_eq!((counted(Outcome::Dropped), counted(Outcome::Gone)), (ledger.dropped, ledger.gone));
    }
}
