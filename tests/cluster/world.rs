//! A world of nodes and one engine. One seed decides all that happens, and when.

use std::time::{Duration, Instant};

use cuttlefish_signaling::core::cluster::claim::{Outcome, Probe};
use cuttlefish_signaling::core::cluster::registry::{Delta, Timing};
use cuttlefish_signaling::core::cluster::{Output, Registration};

use crate::engine::Engine;
use crate::event::Event;
use crate::node::{Node, SessionState};
use crate::queue::Queue;

/// Time for the answer of another node.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);

struct Queued {
    /// Time for which it was queued. It happens later if its process was stopped then.
    at: Duration,
    /// Start of the node for which the event is. An event for an earlier start is void.
    start: u64,
    event: Event,
}

#[allow(clippy::struct_excessive_bools)]
pub(crate) struct World {
    pub(crate) rng: fastrand::Rng,
    pub(crate) timing: Timing,
    base: Instant,
    pub(crate) now: Duration,
    queue: Queue<Queued>,
    /// Events for processes that are stopped.
    held: Vec<Vec<Queued>>,
    pub(crate) nodes: Vec<Option<Node>>,
    starts: Vec<u64>,
    pub(crate) engine: Engine,
    pub(crate) engine_up: bool,
    pub(crate) saved: Engine,
    /// Connections by node: messages of others are lost.
    connections: Vec<u64>,
    last_connection: u64,
    /// Arrival of the last message of the engine, by node.
    arrivals: Vec<Duration>,
    /// The next timeout, by node.
    timers: Vec<Duration>,
    /// Nodes that the engine does not reach, without either end noticing.
    pub(crate) cut_from_engine: Vec<bool>,
    /// Pairs of nodes that do not reach each other.
    pub(crate) cut: Vec<(usize, usize)>,
    pub(crate) slow: bool,
    pub(crate) replaces: bool,
    hold: bool,
    /// Story of this world, if it is told.
    log: Option<Vec<String>>,
}

impl World {
    /// Creates the world of a seed. `told` keeps its story.
    pub(crate) fn new(seed: u64, count: usize, told: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let timing = Timing::default();
        let engine = Engine::new(timing.clone(), rng.u64(..), Duration::ZERO);
        let replaces = rng.u8(..4) == 0;
        let mut world = Self {
            hold: rng.u8(..4) == 0,
            rng,
            timing,
            base: Instant::now(),
            now: Duration::ZERO,
            queue: Queue::new(),
            held: (0..count).map(|_| Vec::new()).collect(),
            nodes: (0..count).map(|_| None).collect(),
            starts: vec![0; count],
            saved: engine.clone(),
            engine,
            engine_up: true,
            connections: vec![0; count],
            last_connection: 0,
            arrivals: vec![Duration::ZERO; count],
            timers: vec![Duration::MAX; count],
            cut_from_engine: vec![false; count],
            cut: Vec::new(),
            slow: false,
            replaces,
            log: told.then(Vec::new),
        };
        for node in 0..count {
            world.start(node);
        }
        world
    }

    /// Returns the time as the nodes read it.
    pub(crate) fn instant(&self) -> Instant {
        self.base + self.now
    }

    /// Starts the process of a node.
    pub(crate) fn start(&mut self, node: usize) {
        self.starts[node] = self.rng.u64(1..);
        self.timers[node] = Duration::MAX;
        self.nodes[node] = Some(Node::new(node, self.starts[node], &self.timing, self.hold, self.instant()));
        self.after(node);
    }

    /// Kills the process of a node. Its connections break.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
        self.held[node].clear();
        self.connections[node] = 0;
    }

    /// Stops a process for some time. Its events wait.
    pub(crate) fn pause(&mut self, node: usize, pause: Duration) {
        if let Some(process) = &mut self.nodes[node] {
            process.paused = true;
            self.at(self.now + pause, node, Event::Wake { node });
        }
    }

    /// Lets a process that is stopped go on.
    pub(crate) fn end_pause(&mut self, node: usize) {
        self.at(self.now, node, Event::Wake { node });
    }

    /// Does what a node wants after an act of a device.
    pub(crate) fn poke(&mut self, node: usize) {
        self.after(node);
    }

    /// Breaks the connection of a node to the engine, which the node notices soon.
    pub(crate) fn break_connection(&mut self, node: usize) {
        let connection = self.connections[node];
        if connection != 0 {
            self.connections[node] = 0;
            self.later(node, Event::Lost { node, connection: Some(connection) });
        }
    }

    /// Marks the sessions of a node as touched by a fault.
    pub(crate) fn disturb(&mut self, node: usize) {
        if let Some(node) = &mut self.nodes[node] {
            node.sessions.values_mut().for_each(|session| session.disturbed = true);
        }
    }

    /// Returns whether a fault is under way that touches this node.
    pub(crate) fn is_disturbed(&self, node: usize) -> bool {
        let cut = self.cut.iter().any(|(a, b)| *a == node || *b == node);
        cut || self.slow || !self.engine_up || self.cut_from_engine[node]
    }

    /// Does all that happens until `until`.
    pub(crate) fn run(&mut self, until: Duration) {
        while let Some((at, queued)) = self.queue.pop(until) {
            self.now = at;
            self.happen(queued);
        }
        self.now = until;
    }

    fn happen(&mut self, queued: Queued) {
        let Some(node) = queued.event.node() else { return self.at_engine_or_node(queued.event) };
        if self.starts[node] != queued.start {
            return;
        }
        let Some(process) = &mut self.nodes[node] else { return };
        if matches!(queued.event, Event::Wake { .. }) {
            process.paused = false;
            for held in std::mem::take(&mut self.held[node]) {
                self.queue.push(self.now, held);
            }
            return;
        }
        if process.paused {
            return self.held[node].push(queued);
        }
        let now = self.base + self.now;
        let current = process.connection;
        match queued.event {
            // Set to an earlier time since.
            Event::Timer { .. } if self.timers[node] != queued.at => return,
            Event::Timer { .. } => {
                self.timers[node] = Duration::MAX;
                process.membership.handle_timeout(now);
            }
            Event::Connected { connection, .. } => {
                process.connection = Some(connection);
                process.membership.on_connected(now);
            }
            Event::Lost { connection, .. } if connection == current || connection.is_none() => {
                process.connection = None;
                process.membership.on_lost(now);
            }
            Event::Reply { connection, number, reply, .. } if current == Some(connection) => {
                process.membership.on_reply(number, reply, now);
            }
            Event::Delta { connection, delta, .. } if current == Some(connection) => {
                process.membership.on_delta(&delta, now);
            }
            Event::Probed { id, claimant, holder, probe, .. } => {
                process.membership.on_probe(&id, &claimant, &holder, probe, now);
            }
            Event::Greeted { node, probe, .. } => process.membership.on_hello(&node, probe, now),
            _ => {}
        }
        self.after(node);
    }

    /// Handles an event that is not for the membership of a node.
    fn at_engine_or_node(&mut self, event: Event) {
        match event {
            Event::Operation { node, connection, number, operation } => {
                if !self.engine_up || self.connections[node] != connection || self.cut_from_engine[node] {
                    return;
                }
                let (reply, changes) = self.engine.execute(&operation, self.now);
                for delta in changes {
                    self.publish(&delta);
                }
                self.send(node, Event::Reply { node, connection, number, reply });
            }
            Event::Probe { from, to, id, claimant, holder } => {
                let asked = self.ask(from, to, |node| {
                    if node.incarnation == *holder.incarnation() { node.probe(&holder) } else { Probe::Gone }
                });
                self.answer(from, asked, |probe| Event::Probed { from, id, claimant, holder, probe });
            }
            Event::Hello { from, to, node } => {
                let asked = self.ask(from, to, |process| {
                    if process.incarnation == node.incarnation { Probe::Alive } else { Probe::Gone }
                });
                self.answer(from, asked, |probe| Event::Greeted { from, node, probe });
            }
            _ => {}
        }
    }

    /// Asks a node. It is unreachable while it is cut off, dead, or stopped for longer than the others wait.
    fn ask(&self, from: usize, to: usize, ask: impl FnOnce(&Node) -> Probe) -> Probe {
        if self.cut.contains(&(from.min(to), from.max(to))) {
            return Probe::Unreachable;
        }
        match &self.nodes[to] {
            Some(node) if !node.paused => ask(node),
            _ => Probe::Unreachable,
        }
    }

    fn answer(&mut self, from: usize, probe: Probe, event: impl FnOnce(Probe) -> Event) {
        let pause = if probe == Probe::Unreachable { NODE_TIMEOUT } else { self.latency() };
        self.at(self.now + pause, from, event(probe));
    }

    fn publish(&mut self, delta: &Delta) {
        for node in 0..self.nodes.len() {
            let connection = self.connections[node];
            // A change is lost now and then, as where a queue is full.
            if connection != 0 && self.rng.u8(..64) != 0 {
                self.send(node, Event::Delta { node, connection, delta: delta.clone() });
            }
        }
    }

    /// Sends from the engine to a node. One connection keeps its order.
    fn send(&mut self, node: usize, event: Event) {
        if !self.cut_from_engine[node] {
            let pause = if self.slow { Duration::from_millis(700) } else { Duration::from_micros(300) };
            // A connection keeps the order.
            let arrival = (self.now + pause).max(self.arrivals[node]);
            self.arrivals[node] = arrival;
            self.at(arrival, node, event);
        }
    }

    /// Does the acts that a node puts out, and sets its timer.
    fn after(&mut self, index: usize) {
        let now = self.instant();
        while let Some(process) = &mut self.nodes[index] {
            let Some(output) = process.membership.poll_output() else { break };
            self.act(index, output, now);
        }
        if let Some(process) = &self.nodes[index] {
            let at = process.membership.poll_timeout().saturating_duration_since(self.base).max(self.now);
            if at < self.timers[index] {
                self.timers[index] = at;
                self.at(at, index, Event::Timer { node: index });
            }
        }
    }

    fn act(&mut self, index: usize, output: Output, now: Instant) {
        let Some(process) = &mut self.nodes[index] else { return };
        match output {
            Output::Connect => self.connect(index),
            Output::Disconnect => {
                process.connection = None;
                self.connections[index] = 0;
            }
            Output::Send { number, operation } => {
                if let Some(connection) = process.connection {
                    let pause = Duration::from_micros(200);
                    self.at(self.now + pause, index, Event::Operation { node: index, connection, number, operation });
                }
            }
            Output::Hello(node) => {
                let to = index_of(node.incarnation.node());
                self.later(index, Event::Hello { from: index, to, node });
            }
            Output::Probe { id, claimant, holder } => {
                let to = index_of(holder.incarnation().node());
                self.later(index, Event::Probe { from: index, to, id, claimant, holder });
            }
            Output::Tell { registration, outcome } => {
                self.tell(|| format!("node {index}: {registration} {outcome:?}"));
                self.check_grant(index, &registration, outcome);
                if let Some(process) = &mut self.nodes[index] {
                    process.tell(&registration, outcome, now);
                }
            }
            Output::End { id, registration } => {
                self.tell(|| format!("node {index}: {id} {registration} ends"));
                self.check_end(index, &registration);
                if let Some(process) = &mut self.nodes[index] {
                    process.leave(&registration, now);
                }
            }
            Output::Report(report) => self.tell(|| format!("node {index}: {report:?}")),
            Output::TellReplaced { .. } | Output::Appeared(_) | Output::CloseProxied => {}
        }
    }

    fn connect(&mut self, node: usize) {
        if !self.engine_up || self.cut_from_engine[node] {
            return self.later(node, Event::Lost { node, connection: None });
        }
        self.last_connection += 1;
        let connection = self.last_connection;
        self.connections[node] = connection;
        self.later(node, Event::Connected { node, connection });
    }

    /// No device that is alive and reachable loses its id to a newcomer, nor does another hold it beside it.
    fn check_grant(&self, index: usize, registration: &Registration, outcome: Outcome) {
        let Some(process) = &self.nodes[index] else { return };
        let Some(session) = process.sessions.get(registration) else { return };
        if outcome != Outcome::Granted || self.replaces {
            return;
        }
        for node in self.nodes.iter().flatten() {
            for (id, other, holder) in node.registered() {
                let beside = *id == session.id && other != registration && holder.state == SessionState::Granted;
                let lost = beside && holder.alive && !holder.disturbed;
                assert!(!lost, "{other} has {id} when {registration} gets it\n{}", self.story());
            }
        }
    }

    fn check_end(&self, index: usize, registration: &Registration) {
        let Some(process) = &self.nodes[index] else { return };
        let Some(session) = process.sessions.get(registration) else { return };
        let kept = session.alive && !session.disturbed && !self.replaces;
        assert!(!kept, "{registration} of {} ends although it is alive and reachable\n{}", session.id, self.story());
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:?} {}", self.now, line()));
        }
    }

    /// Returns all that has happened, if it is told.
    pub(crate) fn story(&self) -> String {
        self.log.as_ref().map(|log| log.join("\n")).unwrap_or_default()
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.u64(100..5_000))
    }

    fn later(&mut self, node: usize, event: Event) {
        let pause = self.latency();
        self.at(self.now + pause, node, event);
    }

    fn at(&mut self, at: Duration, node: usize, event: Event) {
        let at = at.max(self.now);
        self.queue.push(at, Queued { at, start: self.starts[node], event });
    }
}

fn index_of(name: &str) -> usize {
    name.trim_start_matches("node-").parse().unwrap()
}
