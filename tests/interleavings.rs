//! Hub, relay and outbox under schedules that shuttle chooses: threads switch at every lock and atomic.
//! `make test-interleavings`; a failure prints the schedule for `shuttle::replay`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::faults::{Effect, Rule};
use cuttlefish_signaling::hub::{Client, Device, Hub, Waiter};
use cuttlefish_signaling::outbox::{Budget, End, Outbox, OutboxBounds, Outgoing, Passage};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{ClientId, DeviceId, outbound};
use cuttlefish_signaling::relay::Relay;
use shuttle::future::block_on;
use shuttle::thread;

#[path = "interleavings/cluster.rs"]
mod cluster;

#[path = "interleavings/credit.rs"]
mod credit;

#[path = "interleavings/events.rs"]
mod events;

/// Schedules of each kind per test.
const SCHEDULES: usize = 2_000;

/// Matches every forward.
const DROP: Rule = Rule {
    effect: Effect::Drop,
    to: None,
    device: None,
    client: None,
    payload_type: None,
    nth: None,
    probability: 1.0,
    times: None,
};

/// Runs the test under random schedules, and under PCT schedules, which find bugs that need few switches.
fn under_all_schedules(test: fn()) {
    shuttle::check_random(test, SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, 3);
}

fn outbox() -> Arc<Outbox> {
    bounded(Config::default().limits.backpressure.outbox_bounds())
}

fn bounded(bounds: OutboxBounds) -> Arc<Outbox> {
    Arc::new(Outbox::new(&Budget::new(bounds)))
}

fn device(name: &str) -> Arc<Device> {
    let peer = Arc::new(Peer::anonymous(Role::Device));
    Arc::new(Device::new(DeviceId::new(name), outbound::device_info(name), peer, outbox()))
}

fn hub() -> Arc<Hub> {
    Arc::new(Hub::new(Arc::new(()), 100, || 1))
}

fn register(hub: &Hub, device: &Arc<Device>, expected: Option<&Arc<Device>>) -> bool {
    hub.register(device, &outbound::config("[]"), expected).is_ok()
}

fn attach(hub: &Hub, device: &Arc<Device>, outbox: &Arc<Outbox>) -> Option<Arc<Client>> {
    hub.attach(device, device.info.clone(), &Arc::new(Peer::anonymous(Role::Client)), outbox, 100).unwrap()
}

/// Takes all messages until the end and sleeps in between, as a pump does. Returns the messages and the number of
/// forwards.
fn pump(outbox: &Outbox) -> (Vec<String>, u64) {
    let (mut heard, mut forwards) = (Vec::new(), 0);
    loop {
        match block_on(poll_fn(|cx| outbox.poll_next(cx, true))) {
            Outgoing::Message { text, forward, .. } => {
                heard.push(text.as_str().to_owned());
                forwards += u64::from(forward);
            }
            Outgoing::End(_) => return (heard, forwards),
            Outgoing::Ping => outbox.alive(),
            Outgoing::Recheck | Outgoing::Closing => {}
        }
    }
}

/// The messages that are queued now.
fn waiting(outbox: &Outbox) -> Vec<String> {
    let cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut heard = Vec::new();
    while let Poll::Ready(outgoing) = outbox.poll_next(&cx, true) {
        match outgoing {
            Outgoing::Message { text, .. } => heard.push(text.as_str().to_owned()),
            Outgoing::End(_) => break,
            _ => {}
        }
    }
    heard
}

#[test]
fn no_client_msg_follows_client_disconnected() {
    under_all_schedules(|| {
        let (hub, relay, device) = (hub(), Arc::new(Relay::new(None, Config::default().held_bounds())), device("x"));
        register(&hub, &device, None);
        let client = attach(&hub, &device, &outbox()).unwrap();
        let forwarding = {
            let (relay, device, client) = (Arc::clone(&relay), Arc::clone(&device), Arc::clone(&client));
            thread::spawn(move || {
                for payload in ["1", "2"] {
                    relay.to_device(&device, &client, payload, Instant::now()).unwrap();
                }
            })
        };
        let replying = {
            let (relay, device, client) = (Arc::clone(&relay), Arc::clone(&device), Arc::clone(&client));
            thread::spawn(move || relay.to_client(&device, client.id, "3", Instant::now()).unwrap())
        };
        hub.detach(&device, &client);
        forwarding.join().unwrap();
        replying.join().unwrap();
        let heard = waiting(&device.outbox);
        let notice = heard.iter().position(|text| text.contains("client_disconnected")).unwrap();
        assert!(!heard[notice..].iter().any(|text| text.contains("client_msg")), "{heard:?}");
    });
}

#[test]
fn id_has_one_holder_and_losers_unregister_nothing() {
    under_all_schedules(|| {
        let hub = hub();
        let holder = device("x");
        register(&hub, &holder, None);
        let newcomers: Vec<_> = (0..2)
            .map(|_| {
                let (hub, holder, newcomer) = (Arc::clone(&hub), Arc::clone(&holder), device("x"));
                thread::spawn(move || {
                    let registered = register(&hub, &newcomer, Some(&holder));
                    if !registered {
                        hub.unregister(&newcomer);
                    }
                    (newcomer, registered)
                })
            })
            .collect();
        hub.unregister(&holder);
        let came: Vec<_> = newcomers.into_iter().map(|thread| thread.join().unwrap()).collect();
        let registered: Vec<_> = came.iter().filter(|(_, registered)| *registered).collect();
        assert_eq!(registered.len(), 1, "exactly one of them can have taken its place");
        assert!(Arc::ptr_eq(&hub.device(&holder.id).unwrap(), &registered[0].0));
    });
}

#[test]
fn client_attached_while_its_device_leaves_is_disconnected() {
    under_all_schedules(|| {
        let (hub, device, client) = (hub(), device("x"), outbox());
        register(&hub, &device, None);
        let coming = {
            let (hub, device, client) = (Arc::clone(&hub), Arc::clone(&device), Arc::clone(&client));
            thread::spawn(move || attach(&hub, &device, &client).is_some())
        };
        hub.unregister(&device);
        let attached = coming.join().unwrap();
        assert_eq!(client.is_closed(), attached, "closed if and only if it was attached");
        assert!(device.clients().is_empty());
        let heard = waiting(&client);
        assert_eq!(heard.len(), if attached { 2 } else { 0 }, "device info, then the news: {heard:?}");
    });
}

#[test]
fn device_info_precedes_any_device_msg() {
    under_all_schedules(|| {
        let (hub, relay, device, client) =
            (hub(), Relay::new(None, Config::default().held_bounds()), device("x"), outbox());
        register(&hub, &device, None);
        let coming = {
            let (hub, device, client) = (Arc::clone(&hub), Arc::clone(&device), Arc::clone(&client));
            thread::spawn(move || attach(&hub, &device, &client).unwrap())
        };
        let known = relay.to_client(&device, ClientId::new(1).unwrap(), "1", Instant::now()).is_ok();
        let _client = coming.join().unwrap();
        let heard = waiting(&client);
        assert!(heard[0].contains("device_info"), "{heard:?}");
        assert_eq!(heard.len(), 1 + usize::from(known), "{heard:?}");
    });
}

#[test]
fn waiting_client_finds_its_device_or_is_woken() {
    under_all_schedules(|| {
        let (hub, waiter) = (hub(), outbox());
        let waiting = Waiter { peer: Arc::new(Peer::anonymous(Role::Client)), outbox: Arc::clone(&waiter) };
        let registering = {
            let hub = Arc::clone(&hub);
            thread::spawn(move || register(&hub, &device("x"), None))
        };
        let found = block_on(poll_fn(|cx| {
            if let Some(device) = hub.device_or_wait(&DeviceId::new("x"), &waiting, false) {
                return Poll::Ready(device);
            }
            match waiter.poll_next(cx, true) {
                Poll::Ready(_) => cx.waker().wake_by_ref(),
                Poll::Pending => {}
            }
            Poll::Pending
        }));
        assert_eq!(found.id.as_str(), "x");
        assert!(registering.join().unwrap());
        hub.stop_waiting(&found.id, &waiter);
        assert_eq!(hub.waiting_count(), 0);
    });
}

#[test]
fn connection_added_while_the_hub_closes_is_closed() {
    under_all_schedules(|| {
        let (hub, late) = (hub(), outbox());
        let coming = {
            let (hub, late) = (Arc::clone(&hub), Arc::clone(&late));
            thread::spawn(move || hub.add_connection(&late))
        };
        hub.close(&End::close(1001, "stop"));
        let _connection_id = coming.join().unwrap();
        assert!(late.is_closed());
    });
}

#[test]
fn outbox_delivers_in_order_or_counts_as_discarded() {
    under_all_schedules(|| {
        // Room for three messages.
        let outbox =
            bounded(OutboxBounds { bytes: 600, budget: 0, ..Config::default().limits.backpressure.outbox_bounds() });
        let pushing: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|name| {
                let outbox = Arc::clone(&outbox);
                thread::spawn(move || {
                    let message = |n: u8| outbound::device_msg(&format!("\"{name}{n}\""));
                    (0..3).filter(|n| outbox.push_forward(message(*n), Passage::Direct, Instant::now()).is_ok()).count()
                        as u64
                })
            })
            .collect();
        let edge = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || pump(&outbox))
        };
        let taken: u64 = pushing.into_iter().map(|thread| thread.join().unwrap()).sum();
        outbox.close(None, End::close(1000, "bye"));
        let (heard, delivered) = edge.join().unwrap();
        let discarded = outbox.drain();
        assert_eq!(taken, delivered + discarded);
        for name in ["a", "b"] {
            let of: Vec<_> = heard.iter().filter(|text| text.contains(&format!("\"{name}"))).collect();
            assert!(of.is_sorted(), "{heard:?}");
        }
        assert!(outbox.has_overflowed() || discarded == 0);
    });
}

#[test]
fn push_never_loses_the_wakeup() {
    under_all_schedules(|| {
        let outbox = outbox();
        let edge = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || block_on(poll_fn(|cx| outbox.poll_next(cx, true))))
        };
        outbox.push(outbound::device_msg("1"));
        // Shuttle reports a lost wakeup as a deadlock.
        assert!(matches!(edge.join().unwrap(), Outgoing::Message { .. }));
    });
}

#[test]
fn probe_fails_when_the_outbox_closes() {
    under_all_schedules(|| {
        let outbox = outbox();
        let edge_without_pongs = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(
                move || while !matches!(block_on(poll_fn(|cx| outbox.poll_next(cx, true))), Outgoing::End(_)) {},
            )
        };
        let ending = {
            let outbox = Arc::clone(&outbox);
            thread::spawn(move || outbox.close(None, End::Drop))
        };
        assert!(block_on(outbox.probe()).is_err());
        ending.join().unwrap();
        edge_without_pongs.join().unwrap();
    });
}

#[test]
fn ledger_balances_while_a_fault_is_armed_and_disarmed() {
    under_all_schedules(|| {
        let (hub, relay, device) = (hub(), Arc::new(Relay::new(None, Config::default().held_bounds())), device("x"));
        register(&hub, &device, None);
        let client = attach(&hub, &device, &outbox()).unwrap();
        let edge = {
            let (relay, device) = (Arc::clone(&relay), Arc::clone(&device));
            thread::spawn(move || {
                let (_, forwards) = pump(&device.outbox);
                relay.ledger().count_delivered(forwards);
                relay.ledger().count_gone(device.outbox.drain());
            })
        };
        let forwarding = {
            let (relay, device, client) = (Arc::clone(&relay), Arc::clone(&device), Arc::clone(&client));
            thread::spawn(move || {
                for payload in ["1", "2"] {
                    relay.to_device(&device, &client, payload, Instant::now()).unwrap();
                }
            })
        };
        let fault = relay.arm(DROP);
        relay.disarm(fault, Instant::now()).unwrap();
        device.outbox.close(None, End::Drop);
        forwarding.join().unwrap();
        edge.join().unwrap();
        let ledger = relay.ledger().read();
        assert!(ledger.balances() && ledger.accepted == 2, "{ledger:?}");
    });
}

#[test]
fn disarmed_fault_has_released_every_match() {
    under_all_schedules(|| {
        let (hub, relay, device) = (hub(), Arc::new(Relay::new(None, Config::default().held_bounds())), device("x"));
        register(&hub, &device, None);
        let client = attach(&hub, &device, &outbox()).unwrap();
        let fault = relay.arm(Rule { probability: 0.0, ..DROP });
        let forwarding = {
            let (relay, device) = (Arc::clone(&relay), Arc::clone(&device));
            thread::spawn(move || relay.to_device(&device, &client, "1", Instant::now()).unwrap())
        };
        let seen = relay.disarm(fault, Instant::now()).unwrap().matched;
        let through = waiting(&device.outbox).iter().filter(|text| text.contains("client_msg")).count();
        assert!(through as u64 >= seen, "{seen} seen, {through} let through");
        forwarding.join().unwrap();
    });
}
