//! The membership of this node: which operation the engine is asked next, and what its answers mean. Sans-I/O.
//!
//! The caller connects, sends and probes as [`Membership::poll_output`] says, and passes in what happens. It gives the
//! time with each event, and calls [`Membership::handle_timeout`] at [`Membership::poll_timeout`].
//!
//! Safety does not rest on the lease: a registration is unique, and the engine alone decides which one holds an id. The
//! lease decides only for how long a newcomer waits for a holder whose node cannot be asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claim::Probe;
use super::claims::Claims;
use super::directory::Directory;
use super::names::{Incarnation, Registration};
use super::nodes::Nodes;
use super::output::{Output, Report};
use super::registry::{Answer, Change, Delta, Epoch, NodeRecord, Operation, Reply, Timing, Version};
use super::upkeep::{Announcements, SharedIce, Upkeep};
use crate::protocol::DeviceId;

/// State of the connection to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not connected. The next attempt is at this time.
    Away(Instant),
    /// A connection is being made.
    Connecting,
    /// The engine was asked to let this node in, or the holder of its name was asked whether it is alive.
    Joining,
    /// The registry has this node.
    Member,
}

/// Operation without an answer yet.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) sent: Instant,
    /// Greatest number of a version that was known then.
    pub(super) known: u64,
    pub(super) asked: Asked,
}

/// Purpose of an operation.
#[derive(Debug)]
pub(super) enum Asked {
    /// With the facts of this node that it names.
    Join(Arc<str>),
    Renew,
    /// With the other holder that the directory names.
    Claim(DeviceId, Registration, Option<Registration>),
    Reclaim(Vec<(DeviceId, Registration)>),
    Read(DeviceId),
    Page,
    Reap(Incarnation),
    Nodes,
    Ice,
    SetIce(Option<Arc<str>>),
    SealIce,
    /// Each device with the number of its announcement, and the number that is told the outcomes; a repeated one has none.
    Expect(Vec<(DeviceId, u64)>, Option<u64>),
    /// An operation whose answer says nothing new.
    Other,
}

/// The membership of one node.
#[derive(Debug)]
pub struct Membership {
    pub(super) node: NodeRecord,
    pub(super) timing: Timing,
    pub(super) directory: Directory,
    pub(super) claims: Claims,
    pub(super) upkeep: Upkeep,
    state: State,
    pub(super) nodes: Nodes,
    pub(super) epoch: Option<Epoch>,
    pub(super) ice: SharedIce,
    pub(super) announcements: Announcements,
    /// Version that the last renewal named. The changes up to it have arrived by the next one.
    pub(super) named: Version,
    renew_at: Instant,
    scan_at: Instant,
    /// Time of the last event: a long silence means that this process was paused.
    last: Instant,
    /// Time since which there is no engine.
    pub(super) away_since: Instant,
    failures: u32,
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    pub(super) last_number: u64,
    outputs: VecDeque<Output>,
    rng: fastrand::Rng,
}

impl Membership {
    /// Creates the membership of a node that is about to connect. `seed` is for the jitter of its pauses.
    pub fn new(node: NodeRecord, timing: Timing, hold_without_engine: bool, seed: u64, now: Instant) -> Self {
        Self {
            node,
            directory: Directory::default(),
            claims: Claims::new(hold_without_engine),
            upkeep: Upkeep::new(now + timing.upkeep, now),
            timing,
            state: State::Away(now),
            nodes: Nodes::default(),
            epoch: None,
            ice: SharedIce::default(),
            announcements: Announcements::default(),
            named: Version::default(),
            renew_at: now,
            scan_at: now,
            last: now,
            away_since: now,
            failures: 0,
            in_flight: BTreeMap::new(),
            last_number: 0,
            outputs: VecDeque::new(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Returns the copy of the registry.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns whether the registry has this node, as far as is known.
    pub fn is_member(&self) -> bool {
        self.state == State::Member
    }

    /// Returns the nodes that are known.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Returns the next act.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the time of the next [`Membership::handle_timeout`].
    pub fn poll_timeout(&self) -> Instant {
        let state = match self.state {
            State::Away(retry_at) => retry_at,
            State::Member if self.directory.needs_scan() => self.renew_at.min(self.scan_at),
            State::Member => self.renew_at,
            // Each has an operation in flight, or a connection attempt that the caller ends.
            State::Connecting | State::Joining => self.last + self.timing.renew,
        };
        let silent = self.in_flight.values().next().map(|oldest| oldest.sent + self.timing.operation);
        let upkeep = self.is_member().then_some(self.upkeep.next);
        [silent, upkeep, self.claims.timeout()].into_iter().flatten().fold(state, Instant::min)
    }

    /// Handles the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        if self.in_flight.values().next().is_some_and(|oldest| oldest.sent + self.timing.operation <= now) {
            self.output(Output::Report(Report::EngineSilent));
            self.disconnect(now);
        }
        match self.state {
            State::Away(retry_at) if retry_at <= now => {
                self.state = State::Connecting;
                self.output(Output::Connect);
            }
            State::Member => self.on_member_time(now),
            _ => {}
        }
        self.claims_on_time(now);
    }

    /// Handles a connection to the engine, with the feed.
    pub fn on_connected(&mut self, now: Instant) {
        self.wake(now);
        if self.state == State::Connecting {
            self.join(None, now);
        }
    }

    /// Handles the loss of the connection, or an attempt that has failed.
    pub fn on_lost(&mut self, now: Instant) {
        self.wake(now);
        if !matches!(self.state, State::Away(_)) {
            self.output(Output::Report(Report::EngineLost));
            self.go_away(now);
        }
    }

    /// Handles a change of the feed.
    pub fn on_delta(&mut self, delta: &Delta, now: Instant) {
        self.wake(now);
        if !self.is_member() || !self.directory.apply(delta) {
            return;
        }
        match &delta.change {
            Change::Claimed(entries) => {
                self.expected_came(entries.iter().map(|(id, holder, _)| (id, holder.incarnation())));
                let appeared = entries.iter().map(|(id, ..)| id.clone()).collect();
                for (id, registration, _) in entries {
                    if self.claims.held(id).is_some_and(|own| own != registration) {
                        self.read(id, now);
                    }
                }
                self.output(Output::Appeared(appeared));
            }
            Change::Released(ids) => self.on_released(ids, now),
            // A change is not signed. The record of a node is, and decides which process counts as one.
            Change::Joined(_) => self.read_nodes(now),
            Change::Left(node) => self.nodes.left(node),
            Change::Ice => self.look_for_ice(now),
            Change::Announced => {}
        }
    }

    /// Handles changes that were lost on their way here.
    pub fn on_gap(&mut self, now: Instant) {
        self.wake(now);
        self.directory.miss();
    }

    /// Handles the answer of a node that [`Output::Hello`] asked.
    pub fn on_hello(&mut self, node: &NodeRecord, probe: Probe, now: Instant) {
        self.wake(now);
        if node.incarnation.node() != self.node.incarnation.node() {
            if probe == Probe::Unreachable || probe == Probe::Gone {
                self.reap(&node.incarnation, now);
            }
            return;
        }
        if self.state != State::Joining || !self.in_flight.is_empty() {
            return;
        }
        match probe {
            Probe::Gone => self.join(Some(node.incarnation.clone()), now),
            Probe::Alive => {
                self.output(Output::Report(Report::NameTaken(node.clone())));
                self.retry_at(now + self.timing.lease);
            }
            // Its lease ends, unless it lives.
            Probe::Unreachable => self.retry_at(now + self.timing.renew),
        }
    }

    /// Handles the answer of the engine to an operation. The answer to an operation before a loss is ignored.
    pub fn on_reply(&mut self, number: u64, answer: impl Into<Answer>, now: Instant) {
        self.wake(now);
        let Some((sent, asked, reply)) = self.take_answer(number, answer.into()) else { return };
        match (asked, reply) {
            (Asked::Join(named), Reply::Joined { epoch, version, age, nodes }) => {
                self.on_joined(epoch, version, age, &nodes, now);
                self.correct_record(&named, now);
            }
            (Asked::Join(_), Reply::NameHeld { node, lease }) => self.on_name_held(node, lease, now),
            (Asked::Renew, Reply::Renewed { epoch, version, nodes }) => {
                self.on_renewed(epoch, version, nodes, sent, now);
            }
            (Asked::Claim(id, registration, known), Reply::Claimed(claimed)) if !self.is_stale(&claimed) => {
                self.on_claimed(&id, &registration, known, claimed, now);
            }
            (Asked::Claim(id, registration, _), Reply::Claimed(_) | Reply::NotAMember) => {
                self.claims.lose(&id, &registration, self.waits_until(now));
                self.on_forgotten(now);
            }
            (Asked::Reclaim(wanted), Reply::Reclaimed(claimed)) => self.on_reclaimed(wanted, claimed, now),
            (Asked::Read(id), Reply::Entry(entry)) => self.on_entry(&id, entry.as_ref(), now),
            // An engine may be emptied for a pass, and restored before the next renewal.
            (Asked::Page, Reply::Page { epoch, .. }) if self.has_lost(epoch) => self.on_forgotten(now),
            (Asked::Page, Reply::Page { cursor, entries, unsigned, .. }) => {
                self.on_page(cursor, entries, unsigned, now);
            }
            (Asked::Reap(node), Reply::Reaped { more }) => self.on_reaped(&node, more, now),
            (Asked::Nodes, Reply::Nodes(records)) => self.on_nodes(&records),
            (Asked::Ice, Reply::Ice(servers)) => self.on_ice(servers, now),
            (Asked::SetIce(servers), Reply::Done) => self.on_ice_set(servers.as_ref()),
            (Asked::Expect(ids, number), Reply::Expected(outcomes)) => self.on_expected(ids, number, outcomes, now),
            (Asked::SealIce, Reply::Done) => self.on_sealed(number),
            (Asked::Other, _) => {}
            (_, Reply::NotAMember) => self.on_forgotten(now),
            // An engine that answers another question than it was asked.
            _ => self.disconnect(now),
        }
        self.look_for_signed(now);
    }

    fn on_joined(&mut self, epoch: Epoch, version: Version, age: Duration, nodes: &[NodeRecord], now: Instant) {
        let first = self.note_registry(epoch, now);
        self.state = State::Member;
        (self.epoch, self.named) = (Some(epoch), version);
        self.nodes.reset(nodes);
        self.directory.reset(version);
        self.renew_at = now + self.timing.renew;
        // After a loss all nodes read the registry, and not all at once. A new one is first filled by all nodes.
        let jitter = if first { Duration::ZERO } else { self.timing.renew.mul_f64(self.rng.f64()) };
        self.scan_at = now + jitter + self.timing.settle.saturating_sub(age);
        self.output(Output::Report(Report::Joined));
        self.forget_announcements(now);
        self.reclaim_all(now);
        self.claims_on_engine(now);
        self.announce_all(now);
    }

    fn on_renewed(&mut self, epoch: Epoch, version: Version, nodes: Vec<Incarnation>, sent: Instant, now: Instant) {
        if self.has_lost(epoch) {
            return self.on_forgotten(now);
        }
        self.directory.check(self.named);
        (self.named, self.failures) = (version, 0);
        self.renew_at = sent + self.timing.renew;
        if self.nodes.renewed(nodes) {
            self.read_nodes(now);
        }
    }

    fn on_member_time(&mut self, now: Instant) {
        if self.renew_at <= now && !self.is_asking(|asked| matches!(asked, Asked::Renew)) {
            self.renew_at = now + self.timing.renew;
            self.renew(now);
        }
        if self.scan_at <= now && self.directory.needs_scan() {
            self.read_registry(now);
        }
        self.do_upkeep(now);
    }

    /// Joins again: the registry has no lease of this node.
    pub(super) fn on_forgotten(&mut self, now: Instant) {
        if self.state == State::Member {
            self.output(Output::Report(Report::Forgotten));
            self.away_since = now;
            self.doubt_absence(now);
            self.lose_claims(now);
            self.join(None, now);
        }
    }

    pub(super) fn join(&mut self, replaces: Option<Incarnation>, now: Instant) {
        self.state = State::Joining;
        let asked = Asked::Join(Arc::clone(&self.node.details));
        self.send(Operation::Join { node: self.node.clone(), replaces }, asked, now);
    }

    pub(super) fn send(&mut self, operation: Operation, asked: Asked, now: Instant) {
        self.last_number += 1;
        let known = self.directory.greatest_number();
        self.in_flight.insert(self.last_number, InFlight { sent: now, known, asked });
        self.output(Output::Send { number: self.last_number, operation });
    }

    /// Returns whether there is no answer yet to an operation with this purpose.
    pub(super) fn is_asking(&self, purpose: impl Fn(&Asked) -> bool) -> bool {
        self.in_flight.values().any(|sent| purpose(&sent.asked))
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Notices a pause of the process before anything else is done.
    pub(super) fn wake(&mut self, now: Instant) {
        let silence = now.saturating_duration_since(self.last);
        self.last = now;
        if silence >= self.timing.pause {
            self.output(Output::Report(Report::Paused(silence)));
            self.output(Output::CloseProxied);
            if !matches!(self.state, State::Away(_)) {
                self.disconnect(now);
            }
        }
    }

    fn disconnect(&mut self, now: Instant) {
        self.output(Output::Disconnect);
        self.go_away(now);
    }

    /// Waits for the next attempt: up to the pause of the backoff, at random. A renewal begins it again, and no join.
    fn go_away(&mut self, now: Instant) {
        if self.is_member() {
            self.away_since = now;
        }
        let longest = self.timing.max_backoff.min(self.timing.backoff * 2_u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        let pause = longest.mul_f64(self.rng.f64());
        self.state = State::Away(now + pause);
        self.lose_claims(now);
    }

    /// Drops the connection, and begins again at this time.
    fn retry_at(&mut self, at: Instant) {
        self.output(Output::Disconnect);
        self.in_flight.clear();
        self.state = State::Away(at);
    }
}
