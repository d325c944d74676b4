//! The network of the world: connections with delays, cuts and pauses, and the queue of all events.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::queue::Queue;

/// Number of a connection.
pub(crate) type LinkId = usize;

/// Messages on their way to one end of a connection, and those that it has not read: the buffers of TCP.
const WINDOW: usize = 6;

/// A party of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// A device, which is outside the nodes.
    Device(usize),
    /// A client, which is outside the nodes.
    Client(usize),
    /// One start of a node.
    Node {
        node: usize,
        start: u64,
    },
    Engine,
}

/// Message on a connection.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Text {
        text: String,
        /// Whether a node counts it as a forward that it has delivered.
        forward: bool,
    },
    Ping,
    Pong,
    Close {
        code: u16,
        reason: String,
    },
    /// The connection is lost.
    Reset,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Half {
    pub(crate) party: Party,
    /// Time of the last arrival: a connection keeps its order.
    arrival: Duration,
    /// Texts that are on their way to this end, or not read.
    queued: usize,
    unread: VecDeque<Frame>,
    /// Messages that a cut keeps from this end.
    parked: VecDeque<Frame>,
    closed: bool,
}

/// A connection. Side 0 has opened it, side 1 is a node.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) halves: [Half; 2],
}

/// Event with the process that handles it.
pub(crate) struct Queued {
    /// Time for which it was queued. It happens later if its process was stopped then.
    pub(crate) at: Duration,
    /// Node whose process handles the event, and the start of it. An event for an earlier start is void.
    pub(crate) process: Option<(usize, u64)>,
    /// Whether it has waited for a process that was stopped: a cut does not keep it any more.
    pub(crate) held: bool,
    pub(crate) event: Event,
}

/// Forwards that nodes have counted as delivered, by their fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) sent: u64,
    pub(crate) arrived: u64,
    /// Dropped when a connection broke.
    pub(crate) lost: u64,
}

/// Payloads of a device for one client that its node has taken: all of them follow the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

pub(crate) struct Net {
    pub(crate) rng: fastrand::Rng,
    base: Instant,
    pub(crate) now: Duration,
    pub(crate) queue: Queue<Queued>,
    pub(crate) links: Vec<Link>,
    /// Devices whose connection is half-open.
    pub(crate) half_open: Vec<bool>,
    /// Whether a message from one to the other is kept: nodes, then the engine.
    cut: Vec<Vec<bool>>,
    pub(crate) carried: Carried,
    /// Payloads of devices that their nodes have taken, by device and number of the client.
    pub(crate) taken: BTreeMap<(u64, u64), Taken>,
    /// Story of this world, if it is told.
    log: Option<Vec<String>>,
}

impl Net {
    pub(crate) fn new(rng: fastrand::Rng, nodes: usize, told: bool) -> Self {
        Self {
            rng,
            base: Instant::now(),
            now: Duration::ZERO,
            queue: Queue::new(),
            links: Vec::new(),
            half_open: Vec::new(),
            cut: vec![vec![false; nodes + 1]; nodes + 1],
            carried: Carried::default(),
            taken: BTreeMap::new(),
            log: told.then(Vec::new),
        }
    }

    /// Returns the time as the nodes read it.
    pub(crate) fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// Returns a time of a node as one of the world.
    pub(crate) fn time_of(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    pub(crate) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:?} {}", self.now, line()));
        }
    }

    /// Returns all that has happened, if it is told.
    pub(crate) fn story(&self) -> String {
        self.log.as_ref().map(|log| log.join("\n")).unwrap_or_default()
    }

    pub(crate) fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.u64(100..5_000))
    }

    pub(crate) fn at(&mut self, at: Duration, party: Party, event: Event) {
        let process = match party {
            Party::Node { node, start } => Some((node, start)),
            _ => None,
        };
        let at = at.max(self.now);
        self.queue.push(at, Queued { at, process, held: false, event });
    }

    pub(crate) fn later(&mut self, party: Party, event: Event) {
        let pause = self.latency();
        self.at(self.now + pause, party, event);
    }

    // Cuts ------------------------------------------------------------------------------------------------------------

    fn place(&self, party: Party) -> Option<usize> {
        match party {
            Party::Node { node, .. } => Some(node),
            Party::Engine => Some(self.cut.len() - 1),
            Party::Device(_) | Party::Client(_) => None,
        }
    }

    /// Returns whether messages of one party are kept from the other.
    pub(crate) fn is_cut(&self, from: Party, to: Party) -> bool {
        let half_open = |party| matches!(party, Party::Device(device) if self.half_open[device]);
        if half_open(from) || half_open(to) {
            return true;
        }
        matches!((self.place(from), self.place(to)), (Some(from), Some(to)) if self.cut[from][to])
    }

    /// Cuts a way, or heals it. The number of nodes is the engine.
    pub(crate) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from][to] = cut;
    }

    pub(crate) fn has_cut(&self, one: usize, other: usize) -> bool {
        self.cut[one][other] || self.cut[other][one]
    }

    pub(crate) fn engine(&self) -> usize {
        self.cut.len() - 1
    }

    /// Lets the messages that cuts have kept go on, where there is no cut any more.
    pub(crate) fn release(&mut self) {
        for link in 0..self.links.len() {
            for side in 0..2 {
                let (from, to) = (self.links[link].halves[1 - side].party, self.links[link].halves[side].party);
                if self.links[link].halves[side].parked.is_empty() || self.is_cut(from, to) {
                    continue;
                }
                for frame in std::mem::take(&mut self.links[link].halves[side].parked) {
                    self.at(self.now, to, Event::Frame { link, side, frame });
                }
            }
        }
    }

    // Connections -----------------------------------------------------------------------------------------------------

    pub(crate) fn open(&mut self, from: Party, to: Party) -> LinkId {
        let half = |party| Half {
            party,
            arrival: Duration::ZERO,
            queued: 0,
            unread: VecDeque::new(),
            parked: VecDeque::new(),
            closed: false,
        };
        self.links.push(Link { halves: [half(from), half(to)] });
        let link = self.links.len() - 1;
        self.tell(|| format!("link {link} from {from:?} to {to:?}"));
        self.links.len() - 1
    }

    /// Returns the party at the other end.
    pub(crate) fn other(&self, link: LinkId, side: usize) -> Party {
        self.links[link].halves[1 - side].party
    }

    pub(crate) fn has_room(&self, link: LinkId, side: usize) -> bool {
        self.links[link].halves[1 - side].queued < WINDOW
    }

    /// Sends a message from one end of a connection to the other.
    pub(crate) fn send(&mut self, link: LinkId, from: usize, frame: Frame) {
        let pause = self.latency();
        let to = self.other(link, from);
        self.tell(|| format!("link {link} to {to:?}: {frame:?}"));
        if let Frame::Text { forward: true, .. } = frame {
            self.carried.sent += 1;
        }
        let half = &mut self.links[link].halves[1 - from];
        if half.closed {
            return self.lose(&frame);
        }
        half.queued += usize::from(matches!(frame, Frame::Text { .. }));
        half.arrival = half.arrival.max(self.now + pause);
        let (at, party) = (half.arrival, half.party);
        self.at(at, party, Event::Frame { link, side: 1 - from, frame });
    }

    /// Keeps a message that a cut keeps from its end, and those behind it. Returns any other event.
    pub(crate) fn park(&mut self, mut queued: Queued) -> Option<Queued> {
        let Event::Frame { link, side, frame } = queued.event else { return Some(queued) };
        let [from, to] = [1 - side, side].map(|side| self.links[link].halves[side].party);
        let cut = self.is_cut(from, to);
        let half = &mut self.links[link].halves[side];
        if !half.closed && !queued.held && (cut || !half.parked.is_empty()) {
            half.parked.push_back(frame);
            return None;
        }
        queued.event = Event::Frame { link, side, frame };
        Some(queued)
    }

    /// Handles the arrival of a message at one end. Returns whether it is there.
    pub(crate) fn arrive(&mut self, link: LinkId, side: usize, frame: Frame) -> bool {
        let half = &mut self.links[link].halves[side];
        if half.closed {
            self.lose(&frame);
            return false;
        }
        half.unread.push_back(frame);
        true
    }

    /// Takes the next message that has arrived.
    pub(crate) fn take(&mut self, link: LinkId, side: usize) -> Option<Frame> {
        let half = &mut self.links[link].halves[side];
        let frame = half.unread.pop_front()?;
        if let Frame::Text { forward, .. } = &frame {
            self.carried.arrived += u64::from(*forward);
            half.queued -= 1;
            if half.queued + 1 == WINDOW {
                let writer = self.links[link].halves[1 - side].party;
                self.later(writer, Event::Writable { link });
            }
        }
        Some(frame)
    }

    /// Returns whether the connection is lost: behind all that has arrived, but known at once.
    pub(crate) fn is_reset(&self, link: LinkId, side: usize) -> bool {
        matches!(self.links[link].halves[side].unread.back(), Some(Frame::Reset))
    }

    /// Closes one end. All that comes to it from now on is lost.
    pub(crate) fn close(&mut self, link: LinkId, side: usize) {
        let half = &mut self.links[link].halves[side];
        half.closed = true;
        for frame in half.unread.drain(..).chain(half.parked.drain(..)).collect::<Vec<_>>() {
            self.lose(&frame);
        }
    }

    pub(crate) fn is_closed(&self, link: LinkId, side: usize) -> bool {
        self.links[link].halves[side].closed
    }

    /// Counts a message for a process that is gone.
    pub(crate) fn lose(&mut self, frame: &Frame) {
        if let Frame::Text { forward, .. } = frame {
            self.carried.lost += u64::from(*forward);
        }
    }
}
