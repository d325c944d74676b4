//! Faults: their effects and filters, how they combine, and that the ledger balances under all of them.

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::faults::{Effect, FaultStats, Rule, RuleId};
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::protocol::{ClientId, DeviceId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::actors::{client_msg, device_msg};
use crate::harness::Harness;

fn rule(effect: Effect) -> Rule {
    Rule { effect, to: None, device: None, client: None, payload_type: None, nth: None, probability: 1.0, times: None }
}

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// A device `d` with id `x` and its client `c`.
fn pair() -> Harness {
    let mut harness = Harness::new(Config::default());
    harness.registers("d", "x");
    harness.connects("c", "x");
    harness.all_heard("d");
    harness.all_heard("c");
    harness
}

/// The numbers that the device got as payloads.
fn numbers(harness: &mut Harness) -> Vec<u32> {
    let number = |text: String| text.split(r#""payload":"#).nth(1)?.trim_end_matches('}').parse().ok();
    harness.all_heard("d").into_iter().filter_map(number).collect()
}

fn sends(harness: &mut Harness, numbers: std::ops::Range<u32>) {
    for number in numbers {
        harness.forwards("c", &number.to_string());
        harness.settle();
    }
}

fn disarm(harness: &mut Harness, id: RuleId) -> FaultStats {
    let stats = harness.relay.disarm(id, harness.now).unwrap();
    harness.settle();
    stats
}

#[test]
fn dropped_forwards_are_not_delivered_and_are_counted() {
    let mut harness = pair();
    let id = harness.relay.arm(rule(Effect::Drop));
    sends(&mut harness, 0..3);
    assert_eq!(disarm(&mut harness, id), FaultStats { matched: 3, hits: 3, overran: 0 });
    sends(&mut harness, 3..5);
    assert_eq!(numbers(&mut harness), [3, 4]);
    let ledger = harness.balance();
    assert_eq!((ledger.accepted, ledger.delivered, ledger.dropped), (5, 2, 3));
    assert!(ledger.balances());
}

#[test]
fn rule_filters_select_forwards() {
    let typed = |name: &str| format!(r#"{{"type":"{name}","n":1}}"#);
    let mut harness = pair();
    harness.connects("c2", "x");
    harness.registers("e", "y");
    harness.connects("c3", "y");
    for name in ["c2", "c3", "e"] {
        harness.all_heard(name);
    }
    let drop = rule(Effect::Drop);
    let cases: [(Rule, [bool; 5]); 6] = [
        // To "x" of 1 and 2, to "y" of 1, to client 1 of "x", an offer to it.
        (Rule { to: Some(Role::Device), ..drop.clone() }, [true, true, true, false, false]),
        (Rule { to: Some(Role::Client), ..drop.clone() }, [false, false, false, true, true]),
        (Rule { device: Some(DeviceId::new("y")), ..drop.clone() }, [false, false, true, false, false]),
        (Rule { client: ClientId::new(2), ..drop.clone() }, [false, true, false, false, false]),
        (Rule { payload_type: Some("offer".into()), ..drop.clone() }, [false, false, false, false, true]),
        (drop, [true; 5]),
    ];
    for (rule, hit) in cases {
        let id = harness.relay.arm(rule);
        harness.forwards("c", &typed("answer"));
        harness.forwards("c2", &typed("answer"));
        harness.forwards("c3", &typed("answer"));
        harness.forwards_to("d", 1, &typed("ice-candidate"));
        harness.forwards_to("d", 1, &typed("offer"));
        let heard_d = harness.all_heard("d");
        let heard = [
            heard_d.contains(&client_msg(1, &typed("answer"))),
            heard_d.contains(&client_msg(2, &typed("answer"))),
            !harness.all_heard("e").is_empty(),
        ];
        let heard_c = harness.all_heard("c");
        let both =
            [heard_c.contains(&device_msg(&typed("ice-candidate"))), heard_c.contains(&device_msg(&typed("offer")))];
        let missed: Vec<bool> = heard.iter().chain(&both).map(|came| !came).collect();
        assert_eq!(missed, hit);
        let hits = hit.iter().filter(|hit| **hit).count() as u64;
        assert_eq!(disarm(&mut harness, id), FaultStats { matched: hits, hits, overran: 0 });
    }
}

#[test]
fn nth_times_and_probability_select_among_matches() {
    let mut harness = pair();
    let id = harness.relay.arm(Rule { nth: Some(2), ..rule(Effect::Drop) });
    sends(&mut harness, 0..4);
    assert_eq!(numbers(&mut harness), [0, 2, 3]);
    assert_eq!(disarm(&mut harness, id), FaultStats { matched: 4, hits: 1, overran: 0 });

    let id = harness.relay.arm(Rule { times: Some(2), ..rule(Effect::Drop) });
    sends(&mut harness, 0..4);
    assert_eq!(numbers(&mut harness), [2, 3]);
    assert_eq!(disarm(&mut harness, id).hits, 2);

    // The same seed gives the same result, another seed another.
    let sample = |seed| {
        let mut harness = pair();
        harness.relay.set_seed(seed);
        harness.relay.arm(Rule { probability: 0.5, ..rule(Effect::Drop) });
        sends(&mut harness, 0..100);
        numbers(&mut harness)
    };
    let first = sample(1);
    assert!((20..80).contains(&first.len()), "{first:?}");
    assert_eq!(first, sample(1));
    assert_ne!(first, sample(2));
}

#[test]
fn duplicate_is_delivered_twice_and_counted_once() {
    let mut harness = pair();
    harness.relay.arm(Rule { nth: Some(2), ..rule(Effect::Duplicate) });
    sends(&mut harness, 0..3);
    assert_eq!(numbers(&mut harness), [0, 1, 1, 2]);
    assert_eq!(harness.balance().delivered, 3);
    assert!(harness.balance().balances());
}

#[test]
fn truncated_message_has_the_requested_share_of_its_length() {
    let mut harness = pair();
    let whole = client_msg(1, r#""ööööööööö""#);
    for part in [0.0, 0.3, 0.5, 0.9, 0.99, 1.0] {
        let id = harness.relay.arm(rule(Effect::Truncate(part)));
        harness.forwards("c", r#""ööööööööö""#);
        let heard = harness.hears("d").unwrap();
        assert!(whole.starts_with(&heard) && heard.len() < whole.len(), "{part}: {heard}");
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(&heard).is_err());
        #[allow(clippy::cast_precision_loss)]
        let off = (heard.len() as f64 - whole.len() as f64 * part).abs();
        assert!(off <= 2.0, "{part}: {heard}");
        disarm(&mut harness, id);
    }
}

#[test]
fn delayed_forwards_keep_their_order_and_are_overtaken_by_others() {
    let mut harness = pair();
    let delay = Effect::Delay { by: ms(300), jitter: ms(200) };
    let to_device = Rule { to: Some(Role::Device), payload_type: None, ..rule(delay) };
    let id = harness.relay.arm(to_device);
    sends(&mut harness, 0..20);
    harness.forwards_to("d", 1, "7");
    assert_eq!(harness.all_heard("c"), [device_msg("7")], "the other direction is not delayed");
    assert_eq!(numbers(&mut harness), [] as [u32; 0]);
    let due = harness.releases().unwrap() - harness.now;
    assert!((ms(100)..=ms(500)).contains(&due), "{due:?}");
    harness.now += ms(501);
    assert_eq!(harness.releases(), None);
    assert_eq!(numbers(&mut harness), (0..20).collect::<Vec<_>>());
    sends(&mut harness, 20..22);
    assert_eq!(disarm(&mut harness, id).hits, 22);
    assert_eq!(numbers(&mut harness), [20, 21], "held forwards are released when the rule is disarmed");
}

#[test]
fn reorder_permutes_each_window_and_releases_all() {
    let mut harness = pair();
    harness.relay.arm(rule(Effect::Reorder { window: 3, hold: ms(500) }));
    sends(&mut harness, 0..7);
    let heard = numbers(&mut harness);
    assert_eq!(heard.len(), 6);
    for (window, all) in heard.chunks(3).zip([[0, 1, 2], [3, 4, 5]]) {
        let mut sorted = window.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, all);
        assert_ne!(window, all, "another order");
    }
    harness.now += ms(499);
    harness.releases();
    assert_eq!(numbers(&mut harness), [] as [u32; 0]);
    harness.now += ms(1);
    harness.releases();
    assert_eq!(numbers(&mut harness), [6]);
}

#[test]
fn stall_ends_on_its_own_or_when_disarmed() {
    let mut harness = pair();
    harness.relay.arm(rule(Effect::Stall(Some(ms(100)))));
    sends(&mut harness, 0..2);
    harness.now += ms(60);
    sends(&mut harness, 2..3);
    assert_eq!(harness.releases(), Some(harness.now + ms(40)));
    assert_eq!(numbers(&mut harness), [] as [u32; 0]);
    harness.now += ms(40);
    harness.releases();
    sends(&mut harness, 3..4);
    assert_eq!(numbers(&mut harness), [0, 1, 2, 3]);

    let mut harness = pair();
    let id = harness.relay.arm(rule(Effect::Stall(None)));
    sends(&mut harness, 0..3);
    harness.now += ms(1_000_000);
    assert_eq!(harness.releases(), None);
    assert_eq!(numbers(&mut harness), [] as [u32; 0]);
    disarm(&mut harness, id);
    assert_eq!(numbers(&mut harness), [0, 1, 2]);
}

#[test]
fn bandwidth_limits_bytes_per_second() {
    let mut harness = pair();
    let size = u32::try_from(client_msg(1, "0").len()).unwrap();
    harness.relay.arm(rule(Effect::Bandwidth(f64::from(size) * 10.0)));
    sends(&mut harness, 0..5);
    for number in 0..5 {
        harness.now += ms(99);
        harness.releases();
        assert_eq!(numbers(&mut harness), [] as [u32; 0]);
        harness.now += ms(1);
        harness.releases();
        assert_eq!(numbers(&mut harness), [number]);
    }
}

#[test]
fn disconnect_fault_closes_after_the_message_and_notifies_the_peer() {
    for (effect, end) in [(Effect::Disconnect(1011), End::close(1011, "fault")), (Effect::Reset, End::Reset)] {
        let mut harness = pair();
        harness.relay.arm(Rule { nth: Some(2), to: Some(Role::Client), ..rule(effect) });
        for payload in ["1", "2", "3"] {
            harness.forwards_to("d", 1, payload);
        }
        assert_eq!(harness.all_heard("c"), [device_msg("1"), device_msg("2")]);
        assert_eq!(harness.peer("c").ended, Some(end));
        assert_eq!(harness.all_heard("d").len(), 2, "client_disconnected: as it left, and for the forward behind it");
        assert!(harness.balance().balances());
    }
}

#[test]
fn rules_apply_in_the_order_they_were_armed() {
    let mut harness = pair();
    // A delayed forward is duplicated on its release, and one of the two copies is dropped.
    harness.relay.arm(rule(Effect::Delay { by: ms(10), jitter: ms(0) }));
    harness.relay.arm(rule(Effect::Duplicate));
    let drop = harness.relay.arm(Rule { nth: Some(2), ..rule(Effect::Drop) });
    sends(&mut harness, 0..2);
    assert_eq!(harness.relay.fault_stats(drop), Some(FaultStats::default()));
    harness.now += ms(10);
    harness.releases();
    assert_eq!(numbers(&mut harness), [0, 1, 1]);
    assert_eq!(harness.relay.fault_stats(drop), Some(FaultStats { matched: 4, hits: 1, overran: 0 }));
    assert_eq!(harness.relay.fault_stats(99), None);
    assert_eq!(harness.relay.disarm(99, harness.now), None);
}

#[test]
fn held_forwards_are_bounded_and_counted_as_gone_on_abandon() {
    let mut config = Config::default();
    config.limits.held_by_faults = 2;
    let mut harness = Harness::new(config);
    harness.registers("d", "x");
    harness.connects("c", "x");
    harness.all_heard("d");
    let id = harness.relay.arm(rule(Effect::Stall(None)));
    sends(&mut harness, 0..5);
    assert_eq!(numbers(&mut harness), [0; 0], "held are two; the others are lost, and overtake none");
    assert_eq!(harness.relay.fault_stats(id), Some(FaultStats { matched: 5, hits: 5, overran: 3 }));
    harness.relay.abandon();
    assert_eq!((harness.balance().dropped, harness.balance().gone), (3, 2));
    assert!(harness.balance().balances());
}

#[test]
fn held_forwards_are_gone_once_their_peer_has_left() {
    let mut harness = pair();
    let id = harness.relay.arm(rule(Effect::Stall(None)));
    harness.forwards("c", "1");
    harness.forwards_to("d", 1, "2");
    harness.leaves("c");
    disarm(&mut harness, id);
    let texts = harness.all_heard("d");
    assert!(!texts.is_empty() && texts.iter().all(|text| text.contains("client_disconnected")), "{texts:?}");
    assert_eq!(harness.balance().gone, 2);
    assert!(harness.balance().balances());
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        Just(Effect::Drop),
        Just(Effect::Duplicate),
        (0.0..1.0).prop_map(Effect::Truncate),
        (0..50_u64, 0..50_u64).prop_map(|(by, jitter)| Effect::Delay { by: ms(by), jitter: ms(jitter) }),
        (1..5_usize, 0..50_u64).prop_map(|(window, hold)| Effect::Reorder { window, hold: ms(hold) }),
        proptest::option::of(0..50_u64).prop_map(|time| Effect::Stall(time.map(ms))),
        (1.0..10_000.0).prop_map(Effect::Bandwidth),
        Just(Effect::Disconnect(1011)),
        Just(Effect::Reset),
    ]
}

prop_compose! {
    fn any_rule()(
        effect in effect(),
        to in proptest::option::of(prop_oneof![Just(Role::Device), Just(Role::Client)]),
        client in proptest::option::of(1..4_u32),
        nth in proptest::option::of(1..5_u64),
        probability in prop_oneof![Just(1.0), 0.0..1.0],
        times in proptest::option::of(0..4_u64),
    ) -> Rule {
        Rule { to, client: client.and_then(ClientId::new), nth, probability, times, ..rule(effect) }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Arm(Rule),
    Disarm(u64),
    ToDevice(usize),
    ToClient(u32),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => any_rule().prop_map(Act::Arm),
        1 => (1..8_u64).prop_map(Act::Disarm),
        5 => (0..3_usize).prop_map(Act::ToDevice),
        5 => (1..4_u32).prop_map(Act::ToClient),
        2 => (0..60_u64).prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// For all rules armed and disarmed: at rest the ledger balances, and without rules forwards pass unchanged.
    #[test]
    fn ledger_balances_under_any_faults(acts in vec(act(), 0..60)) {
        let mut harness = Harness::new(Config { journal: true, ..Config::default() });
        harness.registers("d", "x");
        for client in ["c1", "c2", "c3"] {
            harness.connects(client, "x");
        }
        for act in acts {
            match act {
                Act::Arm(rule) => drop(harness.relay.arm(rule)),
                Act::Disarm(id) => drop(harness.relay.disarm(id, harness.now)),
                Act::ToDevice(client) => harness.forwards(["c1", "c2", "c3"][client], "1"),
                Act::ToClient(id) => harness.forwards_to("d", id, "2"),
                Act::Wait(time) => {
                    harness.now += ms(time);
                    harness.releases();
                }
            }
        }
        for id in 1..100 {
            harness.relay.disarm(id, harness.now);
        }
        harness.settle();
        for name in ["d", "c1", "c2", "c3"] {
            harness.leaves(name);
        }
        prop_assert!(harness.balance().balances(), "{:?}", harness.balance());
        harness.registers("d9", "z");
        harness.connects("c9", "z");
        harness.all_heard("d9");
        harness.forwards("c9", "3");
        prop_assert_eq!(harness.all_heard("d9"), vec![client_msg(1, "3")]);
    }
}
