//! Backpressure without sockets: credit, water marks, the budget, and slow consumers. Arbitrary schedules are in `schedules`.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::{Duration, Instant};

use cuttlefish_signaling::faults::{Effect, Rule};
use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::outbox::{Budget, CreditWait, MESSAGE_OVERHEAD, Outbox, OutboxBounds, Passage, Share};
use cuttlefish_signaling::protocol::{DeviceId, Text};
use cuttlefish_signaling::{Config, Limits};

use crate::actors::{client_disconnected, client_msg, device_msg, error};
use crate::harness::Harness;

/// A device and its clients, which have heard their device info.
pub fn pair(config: Config, clients: &[&str]) -> Harness {
    let mut harness = Harness::new(config);
    harness.registers("d", "x");
    for client in clients {
        harness.connects(client, "x");
        harness.all_heard(client);
    }
    harness.all_heard("d");
    harness
}

pub fn config(change: impl FnOnce(&mut Limits)) -> Config {
    let mut config = Config::default();
    change(&mut config.limits);
    config
}

/// A payload that makes a `client_msg` of client 1 to 9 as long as this.
fn payload(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length - client_msg(1, "\"\"").len()))
}

pub fn waiting(harness: &Harness) -> usize {
    harness.hub.device(&DeviceId::new("x")).map_or(0, |device| device.outbox.waiting_clients())
}

#[test]
fn client_waits_at_its_window_and_goes_on_in_order() {
    let mut harness = pair(Config::default(), &["c"]);
    harness.freezes("d");
    for n in 0..1000 {
        harness.forwards("c", &n.to_string());
    }
    assert_eq!((harness.balance().accepted, waiting(&harness)), (64, 1));
    harness.takes("d", 31);
    assert_eq!(harness.balance().accepted, 64 + 31);
    harness.thaws("d");
    let expected: Vec<_> = (0..1000).map(|n| client_msg(1, &n.to_string())).collect();
    assert_eq!(harness.all_heard("d"), expected);
    assert_eq!((harness.balance().delivered, waiting(&harness)), (1000, 0));
}

#[test]
fn window_in_bytes_is_reached_by_few_large_messages() {
    let mut harness = pair(Config::default(), &["c"]);
    harness.freezes("d");
    for _ in 0..9 {
        harness.forwards("c", &payload(20_000));
    }
    assert_eq!(harness.balance().accepted, 4, "three are below 64 KiB, and one more is taken");
    harness.thaws("d");
    assert_eq!(harness.balance().delivered, 9);
}

#[test]
fn honest_client_waits_for_one_window_of_a_flooding_one() {
    let mut harness = pair(Config::default(), &["flooder", "honest"]);
    harness.freezes("d");
    for n in 0..5000 {
        harness.forwards("flooder", &n.to_string());
    }
    harness.forwards("honest", r#""hello""#);
    harness.takes("d", 65);
    assert_eq!(harness.all_heard("d").last(), Some(&client_msg(2, r#""hello""#)));
    harness.thaws("d");
    assert_eq!(harness.balance().delivered, 5001);
}

#[test]
fn congested_device_takes_one_forward_of_each_client_and_resumes_them_in_order() {
    let names: Vec<_> = (1..=9).map(|n| format!("c{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let config = config(|limits| {
        limits.backpressure.device_high_water = 100_000;
        limits.backpressure.device_low_water = 50_000;
    });
    let mut harness = pair(config, &names);
    harness.freezes("d");
    for name in &names {
        for _ in 0..3 {
            harness.forwards(name, &payload(30_000));
        }
    }
    // Two clients fill it; each of the others may queue one forward, since it has none.
    assert_eq!((harness.balance().accepted, waiting(&harness)), (3 + 1 + 7, 9));
    harness.takes("d", 8);
    assert_eq!(harness.balance().accepted, 11 + 5, "90,000 bytes are above low water: one each of those with none");
    harness.thaws("d");
    assert_eq!((harness.balance().delivered, waiting(&harness)), (27, 0));
}

/// Counts how often a task is woken, and in which order several are.
struct Turn(Arc<Mutex<Vec<&'static str>>>, &'static str);

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().push(self.1);
    }
}

#[test]
fn clients_are_woken_at_half_a_window_and_at_low_water_in_the_order_in_which_they_came() {
    let bounds = OutboxBounds {
        high_water: 3000,
        low_water: 1000,
        window_messages: 4,
        ..Config::default().limits.backpressure.outbox_bounds()
    };
    let now = Instant::now();
    let outbox = Arc::new(Outbox::new(&Budget::new(bounds)));
    let (here, woken) = (AtomicBool::new(true), Arc::new(Mutex::new(Vec::new())));
    let push = |share: &Arc<Share>, size: usize| {
        outbox.push_forward_while(Text::from("x".repeat(size)), Passage::Direct, now, &here, share).unwrap();
    };
    let wait = |waiting: &CreditWait, name| {
        let waker = Waker::from(Arc::new(Turn(Arc::clone(&woken), name)));
        waiting.poll(&TaskContext::from_waker(&waker))
    };
    let take = || drop(outbox.poll_next(&TaskContext::from_waker(Waker::noop()), true));
    let [small, large, third] = [(); 3].map(|()| Arc::<Share>::default());
    for _ in 0..4 {
        push(&small, 10);
    }
    let first = CreditWait::new(&outbox, &small);
    assert!(wait(&first, "small").is_pending());
    take();
    assert_eq!(*woken.lock().unwrap(), [""; 0], "three of four are left");
    take();
    assert_eq!(*woken.lock().unwrap(), ["small"]);
    assert!(wait(&first, "small").is_ready());
    for share in [&large, &third, &large] {
        push(share, 1500);
    }
    let (second, last) = (CreditWait::new(&outbox, &third), CreditWait::new(&outbox, &large));
    woken.lock().unwrap().clear();
    assert!(
        wait(&second, "third").is_pending() && wait(&last, "large").is_pending() && wait(&first, "small").is_pending()
    );
    // Another waker of a client that waits does not cost it its place.
    assert!(wait(&second, "third").is_pending());
    take();
    take();
    assert_eq!(*woken.lock().unwrap(), ["small"], "it has nothing queued, and may queue one");
    for _ in 0..3 {
        take();
    }
    assert_eq!(*woken.lock().unwrap(), ["small", "third", "large"]);
    drop((first, second, last));
    assert_eq!(outbox.waiting_clients(), 0);
}

#[test]
fn waiting_client_that_leaves_leaves_the_line() {
    let mut harness = pair(Config::default(), &["c", "other"]);
    harness.freezes("d");
    for client in ["c", "other"] {
        for _ in 0..100 {
            harness.forwards(client, "1");
        }
    }
    assert_eq!(waiting(&harness), 2);
    harness.leaves("c");
    assert_eq!(waiting(&harness), 1);
    let device = harness.hub.device(&DeviceId::new("x")).unwrap();
    harness.leaves("d");
    assert_eq!(device.outbox.waiting_clients(), 0);
    assert_eq!(harness.all_heard("other"), [error("Device disconnected")]);
    assert!(harness.balance().balances());
}

#[test]
fn device_is_never_paused_and_its_client_borrows_while_it_takes_bytes() {
    let mut harness = pair(Config::default(), &["c"]);
    harness.freezes("c");
    for second in 0..50_u64 {
        for _ in 0..10 {
            harness.forwards_to("d", 1, &payload(20_000));
        }
        harness.peer("c").driver.on_bytes_written(1);
        harness.settle();
        harness.after(Duration::from_millis(999));
        assert_eq!(harness.balance().accepted, (second + 1) * 10);
    }
    let queued = 500 * (device_msg(&payload(20_000)).len() + MESSAGE_OVERHEAD);
    assert_eq!(harness.budget.borrowed(), queued - 4 * 1024 * 1024);
    harness.after(Duration::from_millis(1));
    assert!(harness.peer("c").outbox.has_overflowed(), "it has taken nothing for a second");
    assert_eq!(harness.budget.borrowed(), 0);
    assert_eq!(harness.all_heard("d"), [client_disconnected(1)]);
    harness.leaves("c");
    assert!(harness.balance().balances());
}

#[test]
fn budget_closes_the_borrower_with_the_oldest_message_and_no_device() {
    let config = config(|limits| {
        limits.max_message_size = 70_000;
        limits.backpressure.outbox_bytes = 70_000;
        limits.backpressure.outbox_budget = 200_000;
    });
    let mut harness = pair(config, &["small", "old", "young"]);
    for client in ["d", "small", "old", "young"] {
        harness.freezes(client);
    }
    harness.forwards_to("d", 1, &payload(60_000));
    harness.after(Duration::from_millis(500));
    for _ in 0..3 {
        harness.forwards_to("d", 2, &payload(60_000));
    }
    harness.forwards("small", "1");
    harness.after(Duration::from_millis(700));
    for _ in 0..2 {
        harness.forwards_to("d", 3, &payload(60_000));
    }
    let closed = |harness: &mut Harness, peer| harness.peer(peer).outbox.is_closed();
    assert!(!closed(&mut harness, "old"));
    harness.forwards_to("d", 3, &payload(60_000));
    assert!(closed(&mut harness, "old") && !closed(&mut harness, "young") && !closed(&mut harness, "small"));
    assert!(!closed(&mut harness, "d") && harness.budget.borrowed() <= 200_000);
    assert_eq!(harness.incidents.of(Incident::SlowConsumer), 1);
    harness.thaws("d");
    assert_eq!(harness.all_heard("d"), [client_msg(1, "1"), client_disconnected(2)]);
}

#[test]
fn peer_whose_oldest_message_is_older_than_a_minute_is_closed() {
    let mut harness = pair(Config::default(), &["c"]);
    harness.freezes("c");
    harness.forwards_to("d", 1, "1");
    for _ in 0..12 {
        assert!(!harness.peer("c").outbox.is_closed());
        harness.after(Duration::from_secs(5));
        harness.peer("c").driver.on_bytes_written(1);
        harness.settle();
    }
    harness.after(Duration::from_secs(1));
    assert!(harness.peer("c").outbox.has_overflowed());
}

#[test]
fn client_disconnected_is_queued_once_at_a_time_for_each_id() {
    let mut harness = pair(Config::default(), &["c", "other"]);
    harness.leaves("c");
    harness.leaves("other");
    assert_eq!(harness.all_heard("d").len(), 2);
    harness.freezes("d");
    for _ in 0..50 {
        harness.forwards_to("d", 1, "0");
        harness.forwards_to("d", 2, "0");
    }
    harness.thaws("d");
    assert_eq!(harness.all_heard("d"), [client_disconnected(1), client_disconnected(2)]);
    harness.forwards_to("d", 1, "0");
    assert_eq!(harness.all_heard("d"), [client_disconnected(1)], "again, once the first was taken");
}

#[test]
fn stall_holds_no_credit_and_its_release_never_overflows() {
    let config = config(|limits| {
        limits.max_message_size = 70_000;
        limits.backpressure.outbox_bytes = 70_000;
        limits.backpressure.outbox_budget = 0;
        limits.backpressure.held_by_faults_bytes = 500_000;
    });
    let mut harness = pair(config, &["c"]);
    let stall = Rule {
        effect: Effect::Stall(None),
        to: None,
        device: None,
        client: None,
        payload_type: None,
        nth: None,
        probability: 1.0,
        times: None,
    };
    let stall = harness.relay.arm(stall);
    for _ in 0..200 {
        harness.forwards("c", "1");
        harness.forwards_to("d", 1, "2");
    }
    assert_eq!(harness.balance().accepted, 400, "its sender is not paused");
    for _ in 0..10 {
        harness.forwards_to("d", 1, &payload(60_000));
    }
    assert_eq!(harness.relay.fault_stats(stall).unwrap().overran, 2, "bytes are bounded: two are dropped");
    for peer in ["c", "d"] {
        harness.freezes(peer);
    }
    harness.relay.disarm(stall, harness.now).unwrap();
    harness.settle();
    assert!(!harness.peer("c").outbox.is_closed() && harness.budget.borrowed() == 0);
    for peer in ["c", "d"] {
        harness.thaws(peer);
    }
    assert_eq!((harness.balance().delivered, harness.balance().dropped), (408, 2));
}

#[test]
fn keepalive_counts_only_time_in_which_the_server_reads() {
    let limits = |limits: &mut Limits| limits.write_timeout = Duration::from_secs(1000);
    let mut harness = pair(config(limits), &["c"]);
    harness.freezes("d");
    for _ in 0..100 {
        harness.forwards("c", "1");
    }
    // The client answers no ping, since its pongs are behind texts that are not read.
    harness.peer("c").silent = true;
    for _ in 0..5 {
        harness.after(Duration::from_secs(10));
    }
    assert!(harness.peer("c").pings >= 5, "pings of the server go on");
    harness.takes("d", 64);
    for _ in 0..14 {
        harness.after(Duration::from_secs(1));
        assert!(harness.peers_here().contains(&"c".to_owned()), "it has the whole time from then on");
    }
    harness.after(Duration::from_secs(1));
    assert!(!harness.peers_here().contains(&"c".to_owned()));
}

#[test]
fn bounds_that_contradict_each_other_are_refused() {
    let refused = |change: fn(&mut Limits)| config(change).validate().unwrap_err().to_string();
    let small = refused(|limits| limits.backpressure.outbox_bytes = limits.max_message_size - 1);
    assert!(small.contains("outbox_bytes") && small.contains("max_message_size, which is 262144"), "{small}");
    let upside_down =
        refused(|limits| limits.backpressure.device_low_water = limits.backpressure.device_high_water + 1);
    assert!(upside_down.contains("device_low_water"), "{upside_down}");
    let huge = refused(|limits| limits.max_message_size = usize::MAX);
    assert!(huge.contains("max_message_size") && huge.contains("67108864"), "{huge}");
    let none = refused(|limits| limits.backpressure.client_window_messages = 0);
    assert!(none.contains("client_window_messages"), "{none}");
}
