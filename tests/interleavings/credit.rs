//! The wait for room in a device's outbox: no client is left asleep, and none is left in the line.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::hub::{Client, Device, Forwarded, Hub};
use cuttlefish_signaling::outbox::{CreditWait, End, OutboxBounds, Passage};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{ClientId, DeviceId, outbound};
use shuttle::future::block_on;
use shuttle::thread;

use super::{attach, bounded, hub, outbox, pump, register, under_all_schedules, waiting};

/// A client that sends `count` forwards, each with credit, as its session does.
fn send_with_credit(device: &Arc<Device>, client: &Arc<Client>, count: usize) -> thread::JoinHandle<usize> {
    let (device, client) = (Arc::clone(device), Arc::clone(client));
    thread::spawn(move || {
        let mut queued = 0;
        for _ in 0..count {
            if !device.outbox.may_queue(&client.share) {
                let waiting = CreditWait::new(&device.outbox, &client.share);
                block_on(poll_fn(|cx| waiting.poll(cx)));
            }
            let message = outbound::client_msg(client.id, "1");
            let pushed = device.push_to_device(&client, message, Passage::Direct, Instant::now());
            queued += usize::from(matches!(pushed, Forwarded::Queued(_)));
        }
        queued
    })
}

/// A device whose clients may queue one forward each, and all of them two.
fn narrow_device() -> (Arc<Hub>, Arc<Device>) {
    let size = outbound::client_msg(ClientId::new(1).unwrap(), "1").len();
    let bounds = OutboxBounds {
        window_messages: 1,
        high_water: 2 * size,
        low_water: size,
        ..Config::default().limits.backpressure.outbox_bounds()
    };
    let peer = Arc::new(Peer::anonymous(Role::Device));
    let device = Device::new(DeviceId::new("x"), outbound::device_info("null"), peer, bounded(bounds));
    let (hub, device) = (hub(), Arc::new(device));
    register(&hub, &device, None);
    (hub, device)
}

#[test]
fn waiting_clients_are_always_woken() {
    under_all_schedules(|| {
        let (hub, device) = narrow_device();
        let clients: Vec<_> = (0..3).map(|_| attach(&hub, &device, &outbox()).unwrap()).collect();
        let edge = {
            let device = Arc::clone(&device);
            thread::spawn(move || pump(&device.outbox))
        };
        // Shuttle reports a client that is left asleep as a deadlock.
        let sending: Vec<_> = clients.iter().map(|client| send_with_credit(&device, client, 2)).collect();
        let queued: usize = sending.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!((queued, device.outbox.waiting_clients()), (6, 0));
        device.outbox.close(None, End::Drop);
        let (heard, forwards) = edge.join().unwrap();
        assert_eq!((heard.len(), forwards), (7, 6), "a config and six forwards");
    });
}

#[test]
fn waiting_clients_are_woken_when_the_device_leaves() {
    under_all_schedules(|| {
        let (hub, device) = narrow_device();
        let clients: Vec<_> = (0..2).map(|_| attach(&hub, &device, &outbox()).unwrap()).collect();
        let sending: Vec<_> = clients.iter().map(|client| send_with_credit(&device, client, 2)).collect();
        let leaving = {
            let device = Arc::clone(&device);
            thread::spawn(move || {
                device.outbox.close_slow();
                device.outbox.drain()
            })
        };
        let queued: usize = sending.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(leaving.join().unwrap(), queued as u64);
        assert_eq!((device.outbox.waiting_clients(), clients[0].share.queued().messages), (0, 0));
    });
}

#[test]
fn client_that_gives_up_waiting_leaves_the_line() {
    under_all_schedules(|| {
        let (hub, device) = narrow_device();
        let client = attach(&hub, &device, &outbox()).unwrap();
        let message = outbound::client_msg(client.id, "1");
        device.push_to_device(&client, message, Passage::Direct, Instant::now());
        let giving_up = {
            let (device, client) = (Arc::clone(&device), Arc::clone(&client));
            thread::spawn(move || {
                let waiting = CreditWait::new(&device.outbox, &client.share);
                let _once = waiting.poll(&std::task::Context::from_waker(std::task::Waker::noop()));
            })
        };
        assert_eq!(waiting(&device.outbox).len(), 2, "a config and a forward");
        giving_up.join().unwrap();
        assert_eq!((device.outbox.waiting_clients(), client.share.queued().messages), (0, 0));
        assert!(device.outbox.may_queue(&client.share));
    });
}
