//! The acts that nodes put out, and the engine that executes operations.

use std::time::Duration;

use cuttlefish_signaling::core::cluster::Output;
use cuttlefish_signaling::core::cluster::output::Report;
use cuttlefish_signaling::core::cluster::registry::{Delta, Operation};

use crate::event::Event;
use crate::locate::index_of;
use crate::net::Party;
use crate::world::World;

impl World {
    /// Does the acts that a node puts out, and sets its timer.
    pub(crate) fn after(&mut self, index: usize) {
        while let Some(process) = &mut self.nodes[index] {
            process.settle(&mut self.net);
            let Some(output) = process.membership.poll_output() else { break };
            self.act(index, output);
        }
        if let Some(process) = &self.nodes[index] {
            let at = self.net.time_of(process.membership.poll_timeout()).max(self.net.now);
            if at < self.timers[index] {
                self.timers[index] = at;
                self.net.at(at, process.party, Event::Timer);
            }
        }
    }

    fn act(&mut self, index: usize, output: Output) {
        let Some(process) = &mut self.nodes[index] else { return };
        match output {
            Output::Connect => self.connect(index),
            Output::Disconnect => {
                process.connection = None;
                self.connections[index] = 0;
            }
            Output::Send { number, operation } => {
                if let Some(connection) = process.connection {
                    let joins = matches!(operation, Operation::Join { .. });
                    let event = Event::Operation { node: index, connection, number, operation };
                    self.net.at(self.net.now + Duration::from_micros(200), Party::Engine, event);
                    if joins {
                        self.drain_soon(index);
                    }
                }
            }
            Output::Hello(node) => {
                let to = index_of(node.incarnation.node());
                self.net.later(Party::Engine, Event::Hello { from: index, to, node });
            }
            Output::Probe { id, claimant, holder } => {
                let to = index_of(holder.incarnation().node());
                self.last_asked += 1;
                self.asked.insert(self.last_asked, (id, claimant, holder.clone()));
                self.net.later(Party::Engine, Event::Probe { from: index, to, number: self.last_asked, holder });
            }
            Output::Tell { registration, outcome } => {
                self.net.tell(|| format!("node {index}: {registration} {outcome:?}"));
                self.check_outcome(index, &registration, outcome);
                if let Some(process) = &mut self.nodes[index] {
                    process.tell(&registration, outcome, &self.net);
                }
            }
            Output::End { id, registration } => {
                self.net.tell(|| format!("node {index}: {id} {registration} ends"));
                self.check_end(index, &registration);
                if let Some(process) = &mut self.nodes[index] {
                    process.end(&registration);
                }
            }
            Output::Report(report) => {
                if report == Report::Joined {
                    self.joined_at[index].get_or_insert(self.net.now);
                }
                self.net.tell(|| format!("node {index}: {report:?}"));
            }
            Output::TellReplaced { holder, .. } => {
                let to = index_of(holder.incarnation().node());
                self.net.later(Party::Engine, Event::Replaced { from: index, to, holder });
            }
            Output::Appeared(ids) => ids.iter().for_each(|id| process.hub.wake_waiting(id)),
            Output::Place { registration, details } => self.check_place(index, &registration, &details),
            Output::Announced { number, outcomes } => self.on_announced(index, number, &outcomes),
            Output::Registered(id) => self.on_registered(index, &id),
            // No node of the world has any.
            Output::Ice(_) => {}
            Output::CloseProxied => process.reset_links(None, &mut self.net),
        }
    }

    fn connect(&mut self, node: usize) {
        let Some(party) = self.nodes[node].as_ref().map(|process| process.party) else { return };
        if !self.engine_up || self.net.has_cut(node, self.net.engine()) {
            return self.net.later(party, Event::Lost { connection: None });
        }
        self.last_connection += 1;
        self.connections[node] = self.last_connection;
        self.net.later(party, Event::Connected { connection: self.last_connection });
    }

    /// Breaks the connection of a node to the engine, which the node notices soon.
    pub(crate) fn break_connection(&mut self, node: usize) {
        let connection = std::mem::take(&mut self.connections[node]);
        if let Some(process) = self.nodes[node].as_ref().filter(|_| connection != 0) {
            self.net.later(process.party, Event::Lost { connection: Some(connection) });
        }
    }

    /// Executes an operation that has reached the engine.
    pub(crate) fn execute(&mut self, node: usize, connection: u64, number: u64, operation: &Operation) {
        let Some(party) = self.nodes[node].as_ref().map(|process| process.party) else { return };
        if !self.engine_up || self.connections[node] != connection || self.net.is_cut(party, Party::Engine) {
            return;
        }
        let (answer, changes) = self.engine.execute(operation, self.net.now);
        self.note_grants(operation, &answer.reply);
        self.note_look_up(number, operation);
        for delta in changes {
            self.publish(&delta);
        }
        self.send(node, Event::Reply { connection, number, answer });
    }

    fn publish(&mut self, delta: &Delta) {
        self.net.tell(|| format!("{delta:?}"));
        for node in 0..self.nodes.len() {
            let connection = self.connections[node];
            // A change is lost now and then, as where a queue is full. Mostly the node hears of that.
            let lost = if self.net.now >= self.lossless_until {
                self.net.rng.u8(..64) == 0
            } else {
                self.loss_rng.as_mut().is_some_and(|rng| rng.u8(..8) == 0)
            };
            let event = match lost {
                false => Event::Delta { connection, delta: delta.clone() },
                true if self.net.rng.bool() => Event::Gap { connection },
                true => continue,
            };
            if connection != 0 {
                self.send(node, event);
            }
        }
    }

    /// Sends from the engine to a node. One connection keeps its order.
    fn send(&mut self, node: usize, event: Event) {
        let Some(party) = self.nodes[node].as_ref().map(|process| process.party) else { return };
        if !self.net.is_cut(Party::Engine, party) {
            let pause = if self.slow { Duration::from_millis(700) } else { Duration::from_micros(300) };
            let arrival = (self.net.now + pause).max(self.arrivals[node]);
            self.arrivals[node] = arrival;
            self.net.at(arrival, party, event);
        }
    }
}
