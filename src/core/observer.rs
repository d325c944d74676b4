//! The observer of the registry, and the queue of its events.
//!
//! Events are queued under the lock under which the registry changes, and delivered without it. So the observer sees the
//! changes in the order in which they happened, on any number of threads.

use std::collections::VecDeque;
use std::sync::Arc;

use super::device::{Client, Device};
use super::peer::Peer;
use super::waiting::Waiter;
use crate::protocol::DeviceId;
use crate::sync::{Mutex, Ordering};

/// Observer of devices and clients. Called without a lock held, except for [`Observer::recorded`].
///
/// The calls come one after the other, in the order of the changes, on the thread of any of the peers.
pub trait Observer: Send + Sync + 'static {
    /// A device has registered.
    fn device_registered(&self, _device: &Device) {}
    /// A device has left, and its clients with it.
    fn device_left(&self, _device: &Device) {}
    /// A client was connected to its device.
    fn client_connected(&self, _device: &Device, _client: &Client) {}
    /// A client has left.
    fn client_left(&self, _device: &Device, _client: &Client) {}
    /// A client waits for a device that is not registered.
    fn client_waiting(&self, _id: &DeviceId, _client: &Peer) {}
    /// A client waits no more: its device has registered, or it has left.
    fn client_stopped_waiting(&self, _id: &DeviceId, _client: &Peer) {}
    /// A node of the cluster, or a device of another node, may have come or gone.
    fn cluster_changed(&self) {}
    /// The journal has a new entry.
    ///
    /// Called often, and while locks of a peer are held: it must return soon and must not call back.
    fn recorded(&self) {}
}

/// Ignores all events.
impl Observer for () {}

/// A change of the registry.
enum Event {
    Registered(Arc<Device>),
    Left(Arc<Device>),
    ClientConnected(Arc<Device>, Arc<Client>),
    ClientLeft(Arc<Device>, Arc<Client>),
    Waiting(DeviceId, Arc<Peer>),
    StoppedWaiting(DeviceId, Arc<Peer>),
}

/// The events that the observer has not seen yet.
pub(super) struct Announcements {
    observer: Arc<dyn Observer>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// A thread delivers, and takes the events that others add meanwhile.
    delivering: bool,
}

impl Announcements {
    pub(super) fn new(observer: Arc<dyn Observer>) -> Self {
        Self { observer, queue: Mutex::default() }
    }

    /// Queues that a device has registered, for which these clients waited.
    pub(super) fn registered(&self, device: &Arc<Device>, waiting: &[Waiter]) {
        self.push(Event::Registered(Arc::clone(device)));
        for client in waiting {
            self.stopped_waiting(&device.id, &client.peer);
        }
    }

    /// Queues that a device has left, after its clients.
    pub(super) fn left(&self, device: &Arc<Device>, clients: &[Arc<Client>]) {
        for client in clients {
            self.client_left(device, client);
        }
        self.push(Event::Left(Arc::clone(device)));
    }

    /// Queues that a client was connected.
    pub(super) fn client_connected(&self, device: &Arc<Device>, client: &Arc<Client>) {
        self.push(Event::ClientConnected(Arc::clone(device), Arc::clone(client)));
    }

    /// Queues that a client has left, unless that was queued before.
    pub(super) fn client_left(&self, device: &Arc<Device>, client: &Arc<Client>) {
        // Under the lock: a caller that finds it queued may queue that the device has left next.
        let mut queue = self.queue.lock();
        if !client.left.swap(true, Ordering::AcqRel) {
            queue.events.push_back(Event::ClientLeft(Arc::clone(device), Arc::clone(client)));
        }
    }

    /// Queues that a client waits.
    pub(super) fn waiting(&self, id: &DeviceId, client: &Arc<Peer>) {
        self.push(Event::Waiting(id.clone(), Arc::clone(client)));
    }

    /// Queues that a client waits no more.
    pub(super) fn stopped_waiting(&self, id: &DeviceId, client: &Arc<Peer>) {
        self.push(Event::StoppedWaiting(id.clone(), Arc::clone(client)));
    }

    fn push(&self, event: Event) {
        self.queue.lock().events.push_back(event);
    }

    /// Delivers the queued events. Does nothing if another thread delivers: it takes them. No lock may be held.
    pub(super) fn deliver(&self) {
        {
            let mut queue = self.queue.lock();
            if queue.delivering {
                return;
            }
            queue.delivering = true;
        }
        // An observer that panics leaves the other events to the next call.
        let ends = EndsDelivery(self);
        while let Some(event) = self.next() {
            match event {
                Event::Registered(device) => self.observer.device_registered(&device),
                Event::Left(device) => self.observer.device_left(&device),
                Event::ClientConnected(device, client) => self.observer.client_connected(&device, &client),
                Event::ClientLeft(device, client) => self.observer.client_left(&device, &client),
                Event::Waiting(id, client) => self.observer.client_waiting(&id, &client),
                Event::StoppedWaiting(id, client) => self.observer.client_stopped_waiting(&id, &client),
            }
        }
        std::mem::forget(ends);
    }

    /// Takes the next event. Without one the delivery ends, under the same lock.
    fn next(&self) -> Option<Event> {
        let mut queue = self.queue.lock();
        let event = queue.events.pop_front();
        queue.delivering = event.is_some();
        event
    }
}

/// Ends a delivery when it is dropped.
struct EndsDelivery<'a>(&'a Announcements);

impl Drop for EndsDelivery<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().delivering = false;
    }
}
