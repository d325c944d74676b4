//! A world of nodes and one engine. One seed decides all that happens, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use cuttlefish_signaling::core::cluster::Registration;
use cuttlefish_signaling::core::cluster::registry::{Entry, Timing};
use cuttlefish_signaling::protocol::DeviceId;

use crate::engine::Engine;
use crate::event::Event;
use crate::net::{Frame, Net, Queued};
use crate::node::{Node, Settings};
use crate::peers::{Client, Device};

/// An id that the engine has granted.
pub(crate) struct Grant {
    pub(crate) at: Duration,
    /// Whether the claim named a holder that was gone.
    pub(crate) replaces: bool,
}

pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) settings: Settings,
    pub(crate) nodes: Vec<Option<Node>>,
    /// Events for processes that are stopped.
    pub(crate) held: Vec<Vec<Queued>>,
    starts: Vec<u64>,
    /// The next timeout of the membership, by node.
    pub(crate) timers: Vec<Duration>,
    pub(crate) engine: Engine,
    pub(crate) engine_up: bool,
    pub(crate) saved: Engine,
    pub(crate) slow: bool,
    /// Until then, no change is lost without [`World::loss_rng`]: one may hide that the engine has lost writes.
    pub(crate) lossless_until: Duration,
    /// Connections to the engine, by node: messages of others are lost.
    pub(crate) connections: Vec<u64>,
    pub(crate) last_connection: u64,
    /// Arrival of the last message of the engine, by node.
    pub(crate) arrivals: Vec<Duration>,
    /// Questions between nodes that have no answer: the claim that waits for it.
    pub(crate) asked: BTreeMap<u64, (DeviceId, Registration, Registration)>,
    pub(crate) last_asked: u64,
    /// Number of times at which two nodes have met again after a cut or a pause.
    pub(crate) met: Vec<Vec<u64>>,
    /// Decides what is announced, so that it changes no other decision of a seed.
    pub(crate) control_rng: fastrand::Rng,
    /// Decides which nodes drain, and when. No node does in a world without it.
    pub(crate) drain_rng: Option<fastrand::Rng>,
    /// Decides which changes are lost right behind a loss of writes. None is in a world without it.
    pub(crate) loss_rng: Option<fastrand::Rng>,
    pub(crate) last_announcement: u64,
    /// The last grant of each id to each registration.
    pub(crate) grants: BTreeMap<(DeviceId, Registration), Grant>,
    pub(crate) devices: Vec<Device>,
    pub(crate) clients: Vec<Client>,
    /// Time of the last fault that has touched a node.
    pub(crate) disturbed_at: Vec<Duration>,
    /// Time at which a cut from another node, or a pause, has begun or ended.
    pub(crate) unmet_at: Vec<Duration>,
    /// Ids whose holder in the registry was on a node that was killed, and the time of that.
    pub(crate) orphaned_at: BTreeMap<DeviceId, Duration>,
    /// Time at which the engine last came back as it had been before.
    pub(crate) rolled_back_at: Option<Duration>,
    /// Time at which the engine last lost all that it had.
    pub(crate) emptied_at: Option<Duration>,
    /// Devices that an engine had when it was emptied.
    pub(crate) lost: BTreeMap<DeviceId, Registration>,
    /// Time at which the process of a node first was a member.
    pub(crate) joined_at: Vec<Option<Duration>>,
    /// Forwards that nodes which are gone have delivered.
    pub(crate) delivered_before: u64,
}

impl World {
    /// Creates the world of a seed. `told` keeps its story.
    pub(crate) fn new(seed: u64, count: usize, told: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let timing = Timing::default();
        let engine = Engine::new(timing.clone(), rng.u64(..), Duration::ZERO);
        let settings = Settings {
            timing,
            replaces: rng.u8(..4) == 0,
            holds: rng.u8(..4) == 0,
            device_wait: rng.choice([None, Some(0), Some(5), Some(60)]).flatten().map(Duration::from_secs),
        };
        let mut world = Self {
            net: Net::new(rng, count, told),
            settings,
            nodes: (0..count).map(|_| None).collect(),
            held: (0..count).map(|_| Vec::new()).collect(),
            starts: vec![0; count],
            timers: vec![Duration::MAX; count],
            saved: engine.clone(),
            engine,
            engine_up: true,
            slow: false,
            lossless_until: Duration::ZERO,
            connections: vec![0; count],
            last_connection: 0,
            arrivals: vec![Duration::ZERO; count],
            asked: BTreeMap::new(),
            last_asked: 0,
            met: vec![vec![0; count]; count],
            control_rng: fastrand::Rng::with_seed(!seed),
            drain_rng: None,
            loss_rng: None,
            last_announcement: 0,
            grants: BTreeMap::new(),
            devices: Vec::new(),
            clients: Vec::new(),
            disturbed_at: vec![Duration::ZERO; count],
            unmet_at: vec![Duration::ZERO; count],
            orphaned_at: BTreeMap::new(),
            rolled_back_at: None,
            emptied_at: None,
            lost: BTreeMap::new(),
            joined_at: vec![None; count],
            delivered_before: 0,
        };
        for node in 0..count {
            world.start(node);
        }
        world
    }

    /// Starts the process of a node.
    pub(crate) fn start(&mut self, node: usize) {
        self.starts[node] = self.net.rng.u64(1..);
        self.timers[node] = Duration::MAX;
        self.joined_at[node] = None;
        self.nodes[node] = Some(Node::new(node, self.starts[node], &self.settings, self.net.instant()));
        self.meet_all(node);
        self.after(node);
    }

    /// Kills the process of a node. Its connections break.
    pub(crate) fn kill(&mut self, node: usize) {
        let Some(process) = self.nodes[node].take() else { return };
        self.net.tell(|| format!("node {node} is killed"));
        self.connections[node] = 0;
        for queued in std::mem::take(&mut self.held[node]) {
            self.drop_void(queued);
        }
        for (link, connection) in &process.connections {
            self.net.send(*link, connection.side, Frame::Reset);
            self.net.close(*link, connection.side);
        }
        let own = |entry: &Entry| *entry.registration.incarnation() == process.incarnation;
        let held = self.engine.devices.iter().filter(|(_, entry)| own(entry)).map(|(id, _)| (id.clone(), self.net.now));
        self.orphaned_at.extend(held);
        let relay = std::sync::Arc::clone(&process.relay);
        drop(process);
        self.check_ledger(node, &relay);
        self.delivered_before += relay.ledger().read().delivered;
    }

    /// Stops a process for some time. Its events wait.
    pub(crate) fn pause(&mut self, node: usize, pause: Duration) {
        if let Some(process) = &mut self.nodes[node] {
            process.paused = true;
            let party = process.party;
            self.net.at(self.net.now + pause, party, Event::Wake);
            (0..self.nodes.len()).filter(|other| *other != node).for_each(|other| self.watch(other, node));
        }
    }

    /// Lets a process that is stopped go on.
    pub(crate) fn end_pause(&mut self, node: usize) {
        if let Some(process) = &self.nodes[node] {
            self.net.at(self.net.now, process.party, Event::Wake);
        }
    }

    /// Lets a node notice that it has not heard another for some time.
    pub(crate) fn watch(&mut self, by: usize, of: usize) {
        let Some(process) = &self.nodes[by] else { return };
        let (party, met) = (process.party, self.met[by][of]);
        let silence = self.settings.timing.pause + Duration::from_millis(self.net.rng.u64(..2_000));
        self.net.at(self.net.now + silence, party, Event::Silence { by, of, met });
    }

    /// Notes that two nodes hear each other again.
    pub(crate) fn meet(&mut self, one: usize, other: usize) {
        self.met[one][other] += 1;
        self.met[other][one] += 1;
    }

    /// Lets a node that goes on, or that has started again, hear all others that are not cut from it.
    fn meet_all(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            self.meet(node, other);
            if self.net.has_cut(node, other) {
                self.watch(node, other);
                self.watch(other, node);
            }
        }
    }

    /// Does all that happens until `until`.
    pub(crate) fn run(&mut self, until: Duration) {
        while let Some((at, queued)) = self.net.queue.pop(until) {
            self.net.now = at;
            self.happen(queued);
        }
        self.net.now = until;
    }

    fn happen(&mut self, queued: Queued) {
        let Some(queued) = self.net.park(queued) else { return };
        let Some((node, start)) = queued.process else { return self.outside(queued.event) };
        let Some(process) = self.nodes[node].as_mut().filter(|_| self.starts[node] == start) else {
            return self.drop_void(queued);
        };
        if matches!(queued.event, Event::Wake) {
            process.paused = false;
            self.meet_all(node);
            for queued in std::mem::take(&mut self.held[node]) {
                self.net.queue.push(self.net.now, Queued { held: true, ..queued });
            }
            return;
        }
        if process.paused {
            return self.held[node].push(queued);
        }
        self.at_node(node, queued.at, queued.event);
        self.after(node);
    }

    /// Drops an event for a process that is gone.
    fn drop_void(&mut self, queued: Queued) {
        if let Event::Frame { link, side, frame } = queued.event {
            self.net.lose(&frame);
            // The system of a process that is gone answers with a reset.
            if !matches!(frame, Frame::Reset) && !self.net.is_closed(link, 1 - side) {
                self.net.send(link, side, Frame::Reset);
            }
        }
    }
}
