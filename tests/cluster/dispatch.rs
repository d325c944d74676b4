//! The events of the world: at a node, and between nodes and the engine.

use std::time::Duration;

use cuttlefish_signaling::core::cluster::claim::Probe;
use cuttlefish_signaling::core::cluster::registry::Reply;
use cuttlefish_signaling::session::Answer;

use crate::event::Event;
use crate::locate::index_of;
use crate::net::{Frame, Party, Queued};
use crate::node::{Asker, Node};
use crate::world::World;

/// Time for the answer of another node.
const NODE_TIMEOUT: Duration = Duration::from_secs(4);

impl World {
    /// Handles an event at a node that runs.
    pub(crate) fn at_node(&mut self, index: usize, at: Duration, event: Event) {
        let (now, net) = (self.net.instant(), &mut self.net);
        let Some(node) = &mut self.nodes[index] else { return };
        match event {
            // Set to an earlier time since.
            Event::Timer if self.timers[index] != at => {}
            Event::Timer => {
                self.timers[index] = Duration::MAX;
                node.membership.handle_timeout(now);
            }
            Event::Silence { by, of, met } if self.met[by][of] == met => node.reset_links(Some(of), net),
            Event::Greeted { node: record, probe } => node.membership.on_hello(&record, probe, now),
            Event::Probed { number, probe } => {
                if let Some((id, claimant, holder)) = self.asked.remove(&number) {
                    net.tell(|| format!("node {index}: {holder} of {id} is {probe:?} for {claimant}"));
                    node.membership.on_probe(&id, &claimant, &holder, probe, now);
                }
            }
            Event::Drain => self.drain(index),
            Event::LookAgain { id } => node.hub.wake_waiting(&id),
            Event::OpenOver { client, link } => node.on_open_over(client, link, net),
            Event::ReadOver { client } => node.on_read_over(client, net),
            Event::LinkTimer { .. } | Event::Writable { .. } | Event::Frame { .. } | Event::DeviceInfo { .. } => {
                self.at_connection(index, at, event);
            }
            event => self.hear_engine(index, event),
        }
    }

    /// Handles an event of one connection of a node.
    fn at_connection(&mut self, index: usize, at: Duration, event: Event) {
        let net = &mut self.net;
        let Some(node) = &mut self.nodes[index] else { return };
        let ready = match event {
            Event::LinkTimer { link } => match node.connections.get_mut(&link).filter(|it| it.timer == at) {
                Some(connection) => {
                    connection.timer = Duration::MAX;
                    link
                }
                None => return,
            },
            Event::Frame { link, side, frame } => {
                if !net.arrive(link, side, frame) {
                    return;
                }
                link
            }
            Event::Writable { link } => link,
            Event::DeviceInfo { link, device } => {
                let answer = Answer::DeviceInfo(device.info.clone());
                return node.drive(link, net, |driver, edge| driver.handle_answer(answer, edge));
            }
            _ => return,
        };
        node.notices.ready(ready);
    }

    /// Handles an event of the connection between a node and the engine.
    fn hear_engine(&mut self, index: usize, event: Event) {
        let now = self.net.instant();
        let Some(node) = &mut self.nodes[index] else { return };
        let current = node.connection;
        match event {
            Event::Connected { connection } => {
                node.connection = Some(connection);
                node.membership.on_connected(now);
            }
            Event::Lost { connection } if connection == current || connection.is_none() => {
                node.connection = None;
                node.membership.on_lost(now);
            }
            Event::Reply { connection, number, answer } if current == Some(connection) => match answer.reply {
                Reply::Entry(entry) if Node::is_search(number) => {
                    node.on_read(number, entry.as_ref(), &mut self.net);
                }
                reply if Node::is_search(number) => node.on_renewed(number, &reply, &self.net),
                _ => node.membership.on_reply(number, answer, now),
            },
            Event::Delta { connection, delta } if current == Some(connection) => node.membership.on_delta(&delta, now),
            Event::Gap { connection } if current == Some(connection) => node.membership.on_gap(now),
            _ => {}
        }
    }

    /// Handles an event outside the processes.
    pub(crate) fn outside(&mut self, event: Event) {
        match event {
            Event::Frame { link, side, frame } => self.at_peer(link, side, frame),
            Event::Operation { node, connection, number, operation } => {
                self.execute(node, connection, number, &operation);
            }
            Event::Probe { from, to, number, holder } => self.on_probe(from, to, number, holder),
            Event::ProbeAnswered { by, from, number, probe } if !self.is_cut(by, from) => {
                self.at_process(from, Event::Probed { number, probe });
            }
            Event::Hello { from, to, node } => {
                let reached = !self.is_cut(from, to) && !self.is_cut(to, from);
                let probe = match self.nodes[to].as_ref().filter(|process| reached && !process.paused) {
                    Some(process) if process.incarnation == node.incarnation => Probe::Alive,
                    Some(_) => Probe::Gone,
                    None => Probe::Unreachable,
                };
                let pause = if probe == Probe::Unreachable { NODE_TIMEOUT } else { self.net.latency() };
                self.at_process_after(pause, from, Event::Greeted { node, probe });
            }
            Event::Replaced { from, to, holder } if !self.is_cut(from, to) => {
                if let Some(process) = self.nodes[to].as_mut().filter(|process| !process.paused) {
                    process.end(&holder);
                    self.after(to);
                }
            }
            Event::Open { link, incarnation, id } => self.on_open(link, incarnation, id),
            _ => {}
        }
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        let party = |node| Party::Node { node, start: 0 };
        self.net.is_cut(party(from), party(to))
    }

    fn at_process(&mut self, node: usize, event: Event) {
        let pause = self.net.latency();
        self.at_process_after(pause, node, event);
    }

    fn at_process_after(&mut self, pause: Duration, node: usize, event: Event) {
        if let Some(process) = &self.nodes[node] {
            self.net.at(self.net.now + pause, process.party, event);
        }
    }

    /// A node asks another whether a device of it is alive.
    fn on_probe(
        &mut self,
        from: usize,
        to: usize,
        number: u64,
        holder: cuttlefish_signaling::core::cluster::Registration,
    ) {
        self.at_process_after(NODE_TIMEOUT, from, Event::Probed { number, probe: Probe::Unreachable });
        if self.is_cut(from, to) {
            return;
        }
        match &mut self.nodes[to] {
            Some(process) if process.paused => {}
            Some(process) if process.incarnation == *holder.incarnation() => {
                process.probe(Asker { from, number, holder }, &mut self.net);
                self.after(to);
            }
            // Another start of the node: it does not have the device.
            Some(_) => self.net.later(Party::Engine, Event::ProbeAnswered { by: to, from, number, probe: Probe::Gone }),
            None => self.at_process(from, Event::Probed { number, probe: Probe::Unreachable }),
        }
    }

    /// A node asks another for a connection to a device.
    fn on_open(
        &mut self,
        link: usize,
        incarnation: cuttlefish_signaling::core::cluster::Incarnation,
        id: cuttlefish_signaling::protocol::DeviceId,
    ) {
        let to = index_of(incarnation.node());
        let from = self.net.links[link].halves[0].party;
        let Party::Node { node, .. } = from else { return };
        if self.is_cut(node, to) {
            return;
        }
        match &mut self.nodes[to] {
            Some(process) if process.paused => {
                let event = Event::Open { link, incarnation, id };
                self.held[to].push(Queued { at: self.net.now, process: None, held: false, event });
            }
            Some(process) if process.incarnation == incarnation => {
                process.accept_from_node(link, id, &mut self.net);
                self.after(to);
            }
            // No process, or another one.
            _ => self.net.later(from, Event::Frame { link, side: 0, frame: Frame::Reset }),
        }
    }
}
