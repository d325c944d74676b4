//! The hub: ownership, ids, waiting clients, observers, and many threads at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::TryRecvError;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::hub::{Client, Device, Found, Hub, Observer, Waiter};
use cuttlefish_signaling::outbox::{Budget, End, Outbox, Outgoing};
use cuttlefish_signaling::peer::{Grant, Peer, Role};
use cuttlefish_signaling::protocol::{ClientId, DeviceId, outbound};
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::relay::Relay;

fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(&Budget::new(Config::default().limits.backpressure.outbox_bounds())))
}

fn device(id: &str) -> Arc<Device> {
    let peer = Arc::new(Peer::anonymous(Role::Device));
    Arc::new(Device::new(DeviceId::new(id), outbound::device_info("null"), peer, outbox()))
}

fn drain(outbox: &Outbox) -> Vec<String> {
    let cx = Context::from_waker(Waker::noop());
    let mut heard = Vec::new();
    while let Poll::Ready(Outgoing::Message { text, .. }) = outbox.poll_next(&cx, true) {
        heard.push(text.as_str().to_owned());
    }
    heard
}

#[derive(Default)]
struct Counts {
    devices: AtomicUsize,
    clients: AtomicUsize,
    devices_left: AtomicUsize,
    clients_left: AtomicUsize,
}

struct Counting(Arc<Counts>);

impl Observer for Counting {
    fn device_registered(&self, _: &Device) {
        self.0.devices.fetch_add(1, Ordering::Relaxed);
    }
    fn device_left(&self, _: &Device) {
        self.0.devices_left.fetch_add(1, Ordering::Relaxed);
    }
    fn client_connected(&self, _: &Device, _: &Client) {
        self.0.clients.fetch_add(1, Ordering::Relaxed);
    }
    fn client_left(&self, _: &Device, _: &Client) {
        self.0.clients_left.fetch_add(1, Ordering::Relaxed);
    }
}

/// The id of a new client of this device.
fn next_id(hub: &Hub, device: &Arc<Device>) -> u32 {
    let peer = Arc::new(Peer::anonymous(Role::Client));
    let client =
        hub.attach(device, device.info.clone(), &peer, &outbox(), 100).unwrap().expect("a device that is there");
    client.id.get()
}

fn register(hub: &Hub, id: &str, expected: Option<&Arc<Device>>) -> Arc<Device> {
    let device = device(id);
    hub.register(&device, &outbound::config("[]"), expected).unwrap();
    device
}

fn is_unknown(device: &Device, id: u32) -> bool {
    matches!(device.find(ClientId::new(id).unwrap()), Found::Never)
}

#[test]
fn client_ids_continue_after_a_device_leaves_or_is_replaced() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let first = register(&hub, "x", None);
    assert_eq!([next_id(&hub, &first), next_id(&hub, &first)], [1, 2]);
    hub.unregister(&first);
    let second = register(&hub, "x", None);
    assert_eq!(next_id(&hub, &second), 3);
    let third = register(&hub, "x", Some(&second));
    let fourth = register(&hub, "x", Some(&third));
    assert_eq!(next_id(&hub, &fourth), 4, "the third had no client");
    assert!(matches!(fourth.find(ClientId::new(1).unwrap()), Found::Left), "an id of an earlier registration");
    assert!(is_unknown(&fourth, 5) && is_unknown(&fourth, 0));
    assert_eq!(next_id(&hub, &register(&hub, "y", None)), 1, "each device has its own");
}

#[test]
fn unique_client_ids_begin_at_the_time_of_day_unless_larger_ones_were_given() {
    let now = Arc::new(AtomicU32::new(1_000));
    let clock = Arc::clone(&now);
    let hub = Hub::new(Arc::new(()), 100, move || clock.load(Ordering::Relaxed));
    let first = register(&hub, "x", None);
    assert_eq!([next_id(&hub, &first), next_id(&hub, &first)], [1_000, 1_001]);
    assert!(is_unknown(&first, 999) && is_unknown(&first, 1));
    now.store(2_000, Ordering::Relaxed);
    let second = register(&hub, "x", Some(&first));
    assert_eq!(next_id(&hub, &second), 2_000);
    assert!(is_unknown(&second, 1_999), "between the registrations");
    assert!(matches!(second.find(ClientId::new(1_001).unwrap()), Found::Left));
    now.store(7, Ordering::Relaxed);
    assert_eq!(next_id(&hub, &register(&hub, "x", Some(&second))), 2_001, "the clock was turned back");
}

#[test]
fn last_client_ids_are_kept_for_max_devices() {
    let hub = Hub::new(Arc::new(()), 2, || 1);
    for id in ["a", "b", "c"] {
        let device = register(&hub, id, None);
        assert_eq!(next_id(&hub, &device), 1);
        hub.unregister(&device);
    }
    let ids: Vec<_> = ["c", "b", "a"].map(|id| next_id(&hub, &register(&hub, id, None))).into();
    assert_eq!(ids, [2, 2, 1], "the one that left first is forgotten");
}

#[test]
fn failed_registration_cannot_unregister_the_holder() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let config = outbound::config("[]");
    let (holder, loser) = (device("cvd-1"), device("cvd-1"));
    hub.register(&holder, &config, None).unwrap();
    assert!(Arc::ptr_eq(&hub.register(&loser, &config, None).unwrap_err(), &holder));
    hub.unregister(&loser);
    assert!(Arc::ptr_eq(&hub.device(&holder.id).unwrap(), &holder));
    assert_eq!(drain(&loser.outbox), [""; 0], "no config without a registration");
    hub.unregister(&holder);
    assert!(hub.device(&holder.id).is_none());
}

#[test]
fn only_the_expected_holder_is_replaced() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let config = outbound::config("[]");
    let (a, b, c) = (device("x"), device("x"), device("x"));
    hub.register(&a, &config, None).unwrap();
    hub.register(&b, &config, Some(&a)).unwrap();
    assert!(hub.register(&c, &config, Some(&a)).is_err(), "the one expected is gone already");
    assert!(a.outbox.is_closed());
    assert!(!b.outbox.is_closed());
}

#[test]
fn each_arrival_and_departure_is_observed_once() {
    let counts = Arc::new(Counts::default());
    let hub = Hub::new(Arc::new(Counting(Arc::clone(&counts))), 100, || 1);
    let device = device("x");
    hub.register(&device, &outbound::config("[]"), None).unwrap();
    let peer = Arc::new(Peer::anonymous(Role::Client));
    let clients: Vec<_> =
        (0..3).map(|_| hub.attach(&device, device.info.clone(), &peer, &outbox(), 10_000).unwrap().unwrap()).collect();
    assert_eq!(clients.iter().map(|client| client.id.get()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(hub.client_count(), 3);
    hub.detach(&device, &clients[0]);
    hub.detach(&device, &clients[0]);
    assert_eq!(hub.client_count(), 2);
    hub.unregister(&device);
    assert_eq!(hub.client_count(), 0);
    hub.detach(&device, &clients[1]);
    hub.unregister(&device);
    let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    assert_eq!((read(&counts.devices), read(&counts.devices_left)), (1, 1));
    assert_eq!((read(&counts.clients), read(&counts.clients_left)), (3, 3));
    assert!(hub.attach(&device, device.info.clone(), &peer, &outbox(), 10_000).unwrap().is_none(), "it has left");
}

#[test]
fn closed_hub_closes_present_and_late_connections() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let early = outbox();
    let connection_id = hub.add_connection(&early);
    hub.close(&End::close(1001, "stop"));
    assert!(early.is_closed());
    let late = outbox();
    let late_id = hub.add_connection(&late);
    assert!(late.is_closed(), "sent away at once, and known until it has gone");
    assert_eq!(hub.connections(), 2);
    hub.remove_connection(connection_id);
    hub.remove_connection(late_id);
    assert_eq!(hub.connections(), 0);
}

#[test]
fn waiting_client_is_woken_once_and_can_stop_waiting() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let cx = Context::from_waker(Waker::noop());
    let (waiter, leaver) = (outbox(), outbox());
    let id = DeviceId::new("late");
    let wait = |outbox: &Arc<Outbox>| {
        let peer = Arc::new(Peer::anonymous(Role::Client));
        hub.device_or_wait(&id, &Waiter { peer, outbox: Arc::clone(outbox) }, false)
    };
    assert!(wait(&waiter).is_none());
    assert!(wait(&waiter).is_none());
    assert!(wait(&leaver).is_none());
    assert_eq!(hub.waiting_count(), 2);
    hub.stop_waiting(&id, &leaver);
    assert_eq!(hub.waiting_count(), 1);
    hub.register(&device("late"), &outbound::config("[]"), None).unwrap();
    assert_eq!(waiter.poll_next(&cx, true), Poll::Ready(Outgoing::Recheck));
    assert_eq!(waiter.poll_next(&cx, true), Poll::Pending);
    assert_eq!(leaver.poll_next(&cx, true), Poll::Pending);
}

/// Two clients connect at the same time, of which one or both are exclusive. In each round exactly one is connected.
#[test]
fn of_two_clients_at_once_exactly_one_gets_the_device() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let device = register(&hub, "x", None);
    let start = std::sync::Barrier::new(2);
    let attach = |exclusive| {
        let grant = Grant { exclusive, ..Grant::default() };
        let peer = Arc::new(Peer { grant, ..Peer::anonymous(Role::Client) });
        start.wait();
        hub.attach(&device, device.info.clone(), &peer, &outbox(), 10)
    };
    for round in 0..500 {
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| attach(round % 2 == 0));
            (attach(true), other.join().unwrap())
        });
        let winner = match (one, other) {
            (Ok(Some(winner)), Err(refusal)) | (Err(refusal), Ok(Some(winner))) => {
                assert_eq!(refusal, Refusal::DeviceInUse(DeviceId::new("x")));
                winner
            }
            outcome => panic!("round {round}: {outcome:?}"),
        };
        assert_eq!(device.client_count(), 1);
        hub.detach(&device, &winner);
    }
}

/// Clients connect, forward and leave on some threads while the device forwards on another. Each side gets only its own
/// messages, and the device nothing of a client after `client_disconnected`.
#[test]
fn forwards_keep_their_order_across_threads() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let device = device("x");
    hub.register(&device, &outbound::config("[]"), None).unwrap();
    let (relay, now) = (Relay::new(None, Config::default().held_bounds()), Instant::now());
    let peer = Arc::new(Peer::anonymous(Role::Client));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let outbox = outbox();
                    let client = hub.attach(&device, device.info.clone(), &peer, &outbox, 10_000).unwrap().unwrap();
                    for payload in ["1", "2", "3"] {
                        relay.to_device(&device, &client, payload, now).unwrap();
                    }
                    hub.detach(&device, &client);
                    relay.to_device(&device, &client, "\"late\"", now).unwrap();
                    let heard = drain(&outbox);
                    assert_eq!(heard[0], r#"{"message_type":"device_info","device_info":null}"#);
                    assert!(
                        heard[1..]
                            .iter()
                            .all(|text| *text == format!(r#"{{"message_type":"device_msg","payload":{}}}"#, client.id))
                    );
                }
            });
        }
        scope.spawn(|| {
            for round in 0..2000_u32 {
                let id = cuttlefish_signaling::protocol::ClientId::new(round % 800 + 1).unwrap();
                let _unknown_yet = relay.to_client(&device, id, &id.to_string(), now);
            }
        });
    });
    assert_eq!(hub.client_count(), 0);
    let heard = drain(&device.outbox);
    assert!(!heard.iter().any(|text| text.contains("late")));
    for id in 1..=800 {
        let of: Vec<_> = heard
            .iter()
            .filter(|text| {
                text.contains(&format!(r#""client_id":{id}"#)) && {
                    let rest = text.split(r#""client_id":"#).nth(1).unwrap();
                    rest.starts_with(&format!("{id},")) || rest.starts_with(&format!("{id}}}"))
                }
            })
            .collect();
        let forwards: Vec<_> = of.iter().take_while(|text| text.contains("client_msg")).collect();
        assert_eq!(forwards.len(), 3, "{of:?}");
        assert!(of[3..].iter().all(|text| text.contains("client_disconnected")), "{of:?}");
        assert!(of.len() > 3);
    }
}

#[test]
fn wake_all_sessions_waits_for_every_connection() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let cx = Context::from_waker(Waker::noop());
    let connections = [outbox(), outbox()];
    for connection in &connections {
        hub.add_connection(connection);
    }
    let done = hub.wake_all_sessions();
    for connection in &connections {
        assert_eq!(done.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(connection.poll_next(&cx, true), Poll::Ready(Outgoing::Recheck));
        connection.rechecked();
    }
    assert_eq!(done.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn close_wakes_the_session_of_a_closing_connection() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let cx = Context::from_waker(Waker::noop());
    let leaving = outbox();
    hub.add_connection(&leaving);
    leaving.close(None, End::close(1000, "first"));
    assert_eq!(leaving.poll_next(&cx, true), Poll::Ready(Outgoing::Closing));
    hub.close(&End::close(1001, "stop"));
    assert_eq!(leaving.poll_next(&cx, true), Poll::Ready(Outgoing::Recheck));
    assert_eq!(leaving.poll_next(&cx, true), Poll::Ready(Outgoing::End(End::close(1000, "first"))));
}

#[test]
fn traffic_counts_queued_forwards_of_device_and_client() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let device = register(&hub, "x", None);
    let peer = Arc::new(Peer::anonymous(Role::Client));
    let attach = || hub.attach(&device, device.info.clone(), &peer, &outbox(), 100).unwrap().unwrap();
    let (first, second) = (attach(), attach());
    let (relay, now) = (Relay::new(None, Config::default().held_bounds()), Instant::now());
    relay.to_device(&device, &first, "1", now).unwrap();
    relay.to_device(&device, &second, "2", now).unwrap();
    relay.to_client(&device, second.id, "3", now).unwrap();
    assert_eq!((device.traffic.read(), first.traffic.read(), second.traffic.read()), ((2, 1), (1, 0), (1, 1)));
}

#[test]
fn devices_and_clients_are_listed_in_order() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let device = ["b", "a", "c"].map(|id| register(&hub, id, None)).into_iter().next().unwrap();
    assert_eq!(hub.devices().iter().map(|device| device.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let ids: Vec<_> = (0..8).map(|_| next_id(&hub, &device)).collect();
    assert_eq!(device.clients().iter().map(|client| client.id.get()).collect::<Vec<_>>(), ids);
}

#[test]
fn forward_to_a_device_that_has_left_is_gone() {
    let hub = Hub::new(Arc::new(()), 100, || 1);
    let device = register(&hub, "x", None);
    let peer = Arc::new(Peer::anonymous(Role::Client));
    let client = hub.attach(&device, device.info.clone(), &peer, &outbox(), 100).unwrap().unwrap();
    hub.unregister(&device);
    drain(&device.outbox);
    let relay = Relay::new(None, Config::default().held_bounds());
    relay.to_device(&device, &client, "1", Instant::now()).unwrap();
    assert_eq!((relay.ledger().read().accepted, relay.ledger().read().gone), (1, 1));
    assert!(drain(&device.outbox).is_empty());
}
