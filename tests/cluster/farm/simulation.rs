//! A farm of many nodes on one engine: an hour of churn, nodes that are lost, and an engine that comes back empty.
//!
//! The engine is a queue with measured costs. Three nodes have real directories; of the others only their calls count.

use std::time::Duration;

use cuttlefish_signaling::core::cluster::registry::{Change, Entry};
use cuttlefish_signaling::core::cluster::{Directory, Incarnation, Registration};
use cuttlefish_signaling::protocol::DeviceId;

use super::costs::Costs;
use super::shape::{Load, Shape};
use crate::queue::Queue;

/// Devices of one call.
const BATCH: usize = 512;
/// Nodes whose directories are real. They are not lost.
pub(crate) const DIRECTORIES: usize = 3;
const LEASE: Duration = Duration::from_secs(6);
const SETTLE: Duration = Duration::from_secs(3);
/// Time between a node and the engine.
const NETWORK: Duration = Duration::from_micros(200);
/// Bytes of one device in a change.
pub(crate) const ENTRY_BYTES: u64 = 190;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A device leaves, and boots.
    Reboot(usize),
    /// A device registers, since this time.
    Claim(usize, Duration),
    Renew(usize),
    Confirm(usize),
    Lose,
    Restart(usize),
    EngineLost,
    EngineBack,
    Rejoin(usize),
    Page(usize, usize),
}

struct Node {
    incarnation: Incarnation,
    is_up: bool,
    lease_end: Duration,
}

/// A device, and its entry in the registry.
struct Device {
    id: DeviceId,
    /// Registration of its session.
    session: Option<Registration>,
    entry: Option<(Registration, u64)>,
    has_timer: bool,
}

pub(crate) struct Farm {
    pub(crate) shape: Shape,
    costs: Costs,
    rng: fastrand::Rng,
    now: Duration,
    queue: Queue<Event>,
    nodes: Vec<Node>,
    devices: Vec<Device>,
    directories: Vec<Directory>,
    version: u64,
    born: Duration,
    engine_up: bool,
    /// Time at which the engine has done all that was asked of it.
    idle_at: Duration,
    last_number: u64,
    scanning: usize,
    pub(crate) load: Load,
    /// Load before the engine was lost.
    pub(crate) steady: Load,
    /// Times from a registration to its entry in the directories, in µs.
    pub(crate) findable: Vec<u64>,
    /// Time from the loss of the engine until all is reclaimed, and until all directories are complete.
    pub(crate) reclaimed: Option<Duration>,
    pub(crate) complete: Option<Duration>,
    /// Load of the recovery.
    pub(crate) recovery: Load,
}

impl Farm {
    pub(crate) fn new(shape: Shape, costs: Costs) -> Self {
        let incarnation = |node: usize| Incarnation::new(&format!("host-{node}"), 1).unwrap();
        let node = |node| Node { incarnation: incarnation(node), is_up: true, lease_end: LEASE };
        let device = |device: usize| Device {
            id: DeviceId::new(&format!(
                "host-{}-cvd-{}",
                device / shape.devices_per_node,
                device % shape.devices_per_node
            )),
            session: None,
            entry: None,
            has_timer: false,
        };
        let mut farm = Self {
            shape,
            costs,
            rng: fastrand::Rng::with_seed(7),
            now: Duration::ZERO,
            queue: Queue::new(),
            nodes: (0..shape.nodes).map(node).collect(),
            devices: (0..shape.nodes * shape.devices_per_node).map(device).collect(),
            directories: (0..DIRECTORIES).map(|_| Directory::default()).collect(),
            version: 0,
            born: Duration::ZERO,
            engine_up: true,
            idle_at: Duration::ZERO,
            last_number: 0,
            scanning: 0,
            load: Load::default(),
            steady: Load::default(),
            findable: Vec::new(),
            reclaimed: None,
            complete: None,
            recovery: Load::default(),
        };
        farm.begin();
        farm
    }

    /// All devices are registered, and all directories have read the registry.
    fn begin(&mut self) {
        for node in 0..self.shape.nodes {
            for device in self.devices_of(node) {
                let registration = self.next_registration(node);
                self.devices[device].session = Some(registration);
            }
            self.hold(self.devices_of(node).collect());
            let (renew, confirm) = (self.within(Duration::from_secs(1)), self.within(Duration::from_secs(5)));
            self.queue.push(renew, Event::Renew(node));
            self.queue.push(confirm, Event::Confirm(node));
        }
        for device in 0..self.devices.len() {
            self.plan_reboot(device);
        }
        self.queue.push(self.shape.loss, Event::Lose);
        self.queue.push(self.shape.failover, Event::EngineLost);
        self.load = Load::default();
    }

    pub(crate) fn run(&mut self) {
        while let Some((at, event)) = self.queue.pop(self.shape.time) {
            self.now = at;
            self.happen(event);
        }
        if self.has_recovered() {
            self.check();
        }
    }

    pub(crate) fn has_recovered(&self) -> bool {
        self.reclaimed.is_some() && self.complete.is_some()
    }

    /// The directories are the registry, and each session has its entry, but for those that are under way.
    fn check(&self) {
        let registered = self.devices.iter().filter(|device| device.entry.is_some()).count();
        for directory in &self.directories {
            assert!(directory.is_complete());
            assert_eq!(directory.len(), registered);
            for Device { id, entry, .. } in &self.devices {
                let known = directory.get(id).map(|entry| &entry.registration);
                assert_eq!(known, entry.as_ref().map(|(registration, _)| registration), "{id}");
            }
        }
    }

    fn devices_of(&self, node: usize) -> std::ops::Range<usize> {
        node * self.shape.devices_per_node..(node + 1) * self.shape.devices_per_node
    }

    /// Returns a random time from now on, at most this much later.
    fn within(&mut self, time: Duration) -> Duration {
        self.now + time.mul_f64(self.rng.f64())
    }

    fn next_registration(&mut self, node: usize) -> Registration {
        self.last_number += 1;
        Registration::new(self.nodes[node].incarnation.clone(), self.last_number)
    }

    /// Plans the end of a device's stay, which is random without memory.
    fn plan_reboot(&mut self, device: usize) {
        if !std::mem::replace(&mut self.devices[device].has_timer, true) {
            let stay = self.shape.stay.mul_f64(-(1.0 - self.rng.f64()).ln());
            self.queue.push(self.now + stay, Event::Reboot(device));
        }
    }

    // The engine ------------------------------------------------------------------------------------------------------

    /// Executes an operation that costs this many µs. Returns the time of its answer.
    fn call(&mut self, name: &'static str, cost: f64) -> Duration {
        let cost = Duration::from_secs_f64(cost / 1e6);
        self.idle_at = self.idle_at.max(self.now + NETWORK) + cost;
        self.load.cpu += cost;
        *self.load.calls.entry(name).or_default() += 1;
        self.idle_at + NETWORK
    }

    fn change(&mut self, change: Change, entries: usize) {
        self.version += 1;
        self.load.changes += 1;
        self.load.bytes += entries as u64 * ENTRY_BYTES * self.shape.nodes as u64;
        let delta = crate::driven::delta(self.version, change);
        for directory in &mut self.directories {
            directory.apply(&delta);
        }
    }

    /// Enters the sessions of these devices, of one node.
    fn hold(&mut self, devices: Vec<usize>) {
        let version = self.version + 1;
        let mut entries = Vec::new();
        for device in devices {
            let device = &mut self.devices[device];
            let Some(session) = &device.session else { continue };
            device.entry = Some((session.clone(), version));
            entries.push((device.id.clone(), session.clone(), "{}".into()));
        }
        let count = entries.len();
        self.change(Change::Claimed(entries), count);
    }

    fn remove(&mut self, devices: &[usize]) {
        for batch in devices.chunks(BATCH) {
            let ids: Vec<_> = batch.iter().map(|device| self.devices[*device].id.clone()).collect();
            for device in batch {
                self.devices[*device].entry = None;
            }
            self.change(Change::Released(ids), batch.len());
        }
    }

    // Events ----------------------------------------------------------------------------------------------------------

    fn happen(&mut self, event: Event) {
        match event {
            Event::Reboot(device) => self.reboot(device),
            Event::Claim(device, since) => self.claim(device, since),
            Event::Renew(node) => {
                if self.engine_up && self.nodes[node].is_up {
                    self.call("renew", self.costs.renew.at(self.shape.nodes));
                    self.nodes[node].lease_end = self.now + LEASE;
                }
                self.queue.push(self.now + Duration::from_secs(1), Event::Renew(node));
            }
            Event::Confirm(node) => {
                if self.engine_up && self.nodes[node].is_up {
                    self.call("confirm 512", self.costs.confirm.at(self.shape.nodes));
                }
                self.queue.push(self.now + Duration::from_secs(5), Event::Confirm(node));
            }
            Event::Lose => self.lose(),
            Event::Restart(node) => self.restart(node),
            Event::EngineLost => {
                self.steady = std::mem::take(&mut self.load);
                self.engine_up = false;
                self.queue.push(self.now + Duration::from_secs(2), Event::EngineBack);
            }
            Event::EngineBack => self.engine_back(),
            Event::Rejoin(node) => self.rejoin(node),
            Event::Page(node, from) => self.page(node, from),
        }
    }

    fn reboot(&mut self, device: usize) {
        self.devices[device].has_timer = false;
        // A device of a node that is lost has no session.
        if self.devices[device].session.take().is_some() {
            if self.engine_up {
                self.call("release", self.costs.release.at(self.shape.nodes));
                self.remove(&[device]);
            }
            let boot = self.now + Duration::from_secs(30).mul_f64(1.0 + self.rng.f64());
            self.queue.push(boot, Event::Claim(device, boot));
        }
    }

    fn claim(&mut self, device: usize, since: Duration) {
        let node = device / self.shape.devices_per_node;
        let again = self.now + Duration::from_secs(1);
        let settling = self.now < self.born + SETTLE && self.born > Duration::ZERO;
        if !self.engine_up || !self.nodes[node].is_up || settling {
            return self.queue.push(again, Event::Claim(device, since));
        }
        let done = self.call("claim", self.costs.claim.at(self.shape.nodes));
        if self.devices[device].entry.is_some() {
            // Its own earlier session, which the node knows to be gone.
            self.call("claim", self.costs.claim.at(self.shape.nodes));
        }
        self.devices[device].session = Some(self.next_registration(node));
        self.hold(vec![device]);
        self.findable.push(u64::try_from(done.saturating_sub(since).as_micros()).unwrap());
        self.plan_reboot(device);
    }

    /// A node is lost with its devices, and is back after ten seconds.
    fn lose(&mut self) {
        let node = self.rng.usize(DIRECTORIES..self.shape.nodes);
        self.nodes[node].is_up = false;
        self.queue.push(self.now + Duration::from_secs(10), Event::Restart(node));
        if self.now + self.shape.loss + Duration::from_secs(30) < self.shape.time {
            self.queue.push(self.now + self.shape.loss, Event::Lose);
        }
    }

    fn restart(&mut self, node: usize) {
        if !self.engine_up {
            return self.queue.push(self.now + Duration::from_secs(1), Event::Restart(node));
        }
        self.last_number += 1;
        self.nodes[node].incarnation = Incarnation::new(&format!("host-{node}"), self.last_number).unwrap();
        self.nodes[node].is_up = true;
        let held: Vec<_> = self.devices_of(node).filter(|device| self.devices[*device].entry.is_some()).collect();
        self.call("join", self.costs.nodes.at(self.shape.nodes));
        for _ in 0..held.len().div_ceil(BATCH) {
            self.call("remove 512", self.costs.remove.at(self.shape.nodes));
        }
        self.remove(&held);
        // Each node reads the records of all nodes, for there is a new one.
        for _ in 0..self.shape.nodes {
            self.call("nodes", self.costs.nodes.at(self.shape.nodes));
        }
        for device in self.devices_of(node) {
            if self.devices[device].session.take().is_some() {
                let back = self.within(Duration::from_secs(10));
                self.queue.push(back, Event::Claim(device, back));
            }
        }
        self.pages_of(node);
    }

    // Recovery --------------------------------------------------------------------------------------------------------

    /// The engine is back, and empty.
    fn engine_back(&mut self) {
        self.load = Load::default();
        (self.engine_up, self.version, self.born) = (true, 0, self.now);
        self.idle_at = self.now;
        self.devices.iter_mut().for_each(|device| device.entry = None);
        for node in 0..self.shape.nodes {
            let at = self.within(Duration::from_secs(1));
            self.queue.push(at, Event::Rejoin(node));
        }
    }

    fn rejoin(&mut self, node: usize) {
        self.call("join", self.costs.nodes.at(self.shape.nodes));
        if node < DIRECTORIES {
            self.directories[node].reset(crate::driven::version(self.version));
        }
        let held: Vec<_> = self.devices_of(node).filter(|device| self.devices[*device].session.is_some()).collect();
        for batch in held.chunks(BATCH).filter(|_| self.nodes[node].is_up).map(<[usize]>::to_vec).collect::<Vec<_>>() {
            let done = self.call("reclaim 512", self.costs.reclaim.at(self.shape.nodes));
            self.hold(batch);
            self.reclaimed = Some(self.reclaimed.unwrap_or_default().max(done.saturating_sub(self.shape.failover)));
        }
        self.pages_of(node);
    }

    /// Lets a node read the registry, once all have reclaimed their devices.
    fn pages_of(&mut self, node: usize) {
        self.scanning += 1;
        let settled = (self.born + SETTLE).max(self.now);
        let at = settled + Duration::from_secs(1).mul_f64(self.rng.f64());
        self.queue.push(at, Event::Page(node, 0));
    }

    fn page(&mut self, node: usize, from: usize) {
        let done = self.call("page", self.costs.page.at(self.shape.nodes));
        let to = (from + BATCH).min(self.devices.len());
        if node < DIRECTORIES {
            if from == 0 {
                self.directories[node].begin_scan();
            }
            let entry = |device: &Device| {
                let (registration, version) = device.entry.clone()?;
                Some((device.id.clone(), Entry { registration, details: "{}".into(), version }))
            };
            self.directories[node].page(self.devices[from..to].iter().filter_map(entry).collect());
        }
        self.load.bytes += (to - from) as u64 * ENTRY_BYTES;
        if to < self.devices.len() {
            return self.queue.push(done, Event::Page(node, to));
        }
        if node < DIRECTORIES {
            self.directories[node].end_scan();
        }
        self.scanning -= 1;
        if self.scanning == 0 && self.born > Duration::ZERO && self.complete.is_none() {
            self.complete = Some(done.saturating_sub(self.shape.failover));
            self.recovery = std::mem::take(&mut self.load);
        }
    }
}
