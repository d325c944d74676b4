//! The faults of a world, and their end.

use std::time::Duration;

use crate::engine::Engine;
use crate::event::Event;
use crate::node::Node;
use crate::world::World;

/// Facts of a node that drains.
const DRAINS: &str = r#"{"draining":true}"#;

impl World {
    /// Marks the devices of a node as touched by a fault.
    pub(crate) fn disturb(&mut self, node: usize) {
        self.devices.iter_mut().filter(|device| device.node == node).for_each(|device| device.disturbed = true);
        self.disturbed_at[node] = self.net.now;
    }

    pub(crate) fn disturb_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.disturb(node));
    }

    /// Returns whether a fault is under way that touches this node.
    pub(crate) fn is_disturbed(&self, node: usize) -> bool {
        let cut = self.net.has_cut(node, self.net.engine());
        cut || self.slow || !self.engine_up || self.nodes[node].as_ref().is_some_and(|process| process.paused)
    }

    pub(crate) fn start_if_dead(&mut self, node: usize) {
        if self.nodes[node].is_none() {
            self.start(node);
        }
    }

    pub(crate) fn pause_some(&mut self, node: usize) {
        let seconds = [0.5, 4.0, 12.0, 70.0];
        let pause = Duration::from_secs_f64(self.net.rng.choice(seconds).unwrap());
        self.net.tell(|| format!("node {node} is paused for {pause:?}"));
        self.disturb(node);
        self.unmet_at[node] = self.net.now + pause;
        self.pause(node, pause);
    }

    /// A node is about to stop, and tells the others.
    pub(crate) fn drain(&mut self, node: usize) {
        let now = self.net.instant();
        let runs = |process: &&mut Node| !process.paused && &*process.membership.own_record().details != DRAINS;
        if let Some(process) = self.nodes[node].as_mut().filter(runs) {
            self.net.tell(|| format!("node {node} drains"));
            process.membership.set_details(DRAINS.into(), now);
            self.after(node);
        }
    }

    /// Lets a node begin to drain, at random, while the join is under way that it has just sent.
    pub(crate) fn drain_soon(&mut self, node: usize) {
        let (Some(process), Some(rng)) = (&self.nodes[node], &mut self.drain_rng) else { return };
        let pause = Duration::from_micros(rng.u64(..1_000));
        if rng.bool() {
            self.net.at(self.net.now + pause, process.party, Event::Drain);
        }
    }

    /// Cuts two nodes, or a node and the engine, from each other, in one direction or both. Or heals them.
    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        // The lease of a node protects its devices from others that cannot ask it, as long as it has the engine.
        let nodes = self.nodes.len();
        for place in [one, other].into_iter().filter(|place| *place < nodes) {
            if one.max(other) == self.net.engine() {
                self.disturb(place);
            }
            self.note_unmet(place);
        }
        if self.net.has_cut(one, other) {
            return self.heal_cut(one, other);
        }
        let ways = self.net.rng.u8(..3);
        self.net.tell(|| format!("{one} and {other} are cut: {ways}"));
        self.net.set_cut(one, other, ways != 1);
        self.net.set_cut(other, one, ways != 0);
        if one.max(other) < self.nodes.len() {
            self.watch(one, other);
            self.watch(other, one);
        }
    }

    /// Notes that others may have missed a node until now, or until the end of a pause that is under way.
    fn note_unmet(&mut self, node: usize) {
        self.unmet_at[node] = self.unmet_at[node].max(self.net.now);
    }

    fn heal_cut(&mut self, one: usize, other: usize) {
        self.net.set_cut(one, other, false);
        self.net.set_cut(other, one, false);
        if one.max(other) < self.nodes.len() {
            self.meet(one, other);
            self.note_unmet(one);
            self.note_unmet(other);
        }
        self.net.release();
    }

    pub(crate) fn fail_engine(&mut self) {
        self.disturb_all();
        self.engine_up = false;
        (0..self.nodes.len()).for_each(|node| self.break_connection(node));
    }

    /// The engine comes back: as it was, empty, or as it was at some time.
    pub(crate) fn restart_engine(&mut self) {
        self.fail_engine();
        self.engine_up = true;
        let way = self.net.rng.u8(..4);
        self.net.tell(|| format!("the engine is back: {way}"));
        match way {
            0 => self.new_engine(),
            1 => self.take_saved(),
            2 => self.saved = self.engine.clone(),
            _ => {}
        }
    }

    fn take_saved(&mut self) {
        self.engine = self.saved.clone();
        self.rolled_back_at = Some(self.net.now);
    }

    fn new_engine(&mut self) {
        let devices = self.engine.devices.iter();
        self.lost.extend(devices.map(|(id, entry)| (id.clone(), entry.registration.clone())));
        let epoch = self.net.rng.u64(..);
        self.engine = Engine::new(self.settings.timing.clone(), epoch, self.net.now);
        self.emptied_at = Some(self.net.now);
    }

    /// All data of the engine is deleted under the feet of the nodes.
    pub(crate) fn empty_engine(&mut self) {
        self.disturb_all();
        self.net.tell(|| "the engine is emptied".to_owned());
        self.new_engine();
    }

    /// Another engine takes over behind the same connections. It lacks the last writes.
    pub(crate) fn roll_back_engine(&mut self) {
        self.disturb_all();
        self.net.tell(|| "the engine is rolled back".to_owned());
        self.take_saved();
        self.lossless_until = self.net.now + Duration::from_secs(3);
    }

    pub(crate) fn slow_engine(&mut self) {
        self.disturb_all();
        self.slow ^= true;
    }

    /// Ends all faults. Dead nodes start, and what is half-open ends.
    pub(crate) fn heal(&mut self) {
        self.net.tell(|| "all faults end".to_owned());
        self.disturb_all();
        self.engine_up = true;
        self.slow = false;
        let places = self.net.engine();
        for (one, other) in (0..places).flat_map(|one| (one + 1..=places).map(move |other| (one, other))) {
            if self.net.has_cut(one, other) {
                self.heal_cut(one, other);
            }
        }
        for device in 0..self.devices.len() {
            if std::mem::take(&mut self.net.half_open[device]) && self.devices[device].over.is_none() {
                self.leave(self.devices[device].link, false);
            }
        }
        for node in 0..self.nodes.len() {
            self.start_if_dead(node);
            self.end_pause(node);
            self.after(node);
        }
    }
}
