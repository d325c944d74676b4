//! A node of the world: its membership, its hub, and the sessions of its connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuttlefish_signaling::Config;
use cuttlefish_signaling::core::cluster::claim::{Outcome, Probe};
use cuttlefish_signaling::core::cluster::registry::{NodeRecord, Timing, Wanted};
use cuttlefish_signaling::core::cluster::{Incarnation, Membership, Registration};
use cuttlefish_signaling::driver::Driver;
use cuttlefish_signaling::hub::{Device, Hub};
use cuttlefish_signaling::outbox::{Budget, Outbox};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::relay::Relay;
use cuttlefish_signaling::session::{
    Answer, ClaimGuard, ClientSession, Context, DeviceSession, Question, Rules, Session, Step,
};
use tokio::sync::oneshot;

use crate::connection::{Connection, NodeEdge, Noticed, Notices};
use crate::event::Event;
use crate::locate::Search;
use crate::net::{LinkId, Net, Party};

/// Time for the device's answer to the ping of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A process of a node.
pub(crate) struct Node {
    pub(crate) party: Party,
    pub(crate) membership: Membership,
    pub(crate) incarnation: Incarnation,
    pub(crate) hub: Arc<Hub>,
    pub(crate) relay: Arc<Relay>,
    /// Of each context but for the peer and its outbox.
    shared: Context,
    budget: Arc<Budget>,
    rules_of_links: Arc<Rules>,
    replaces: bool,
    pub(crate) connections: BTreeMap<LinkId, Connection>,
    /// The devices that have asked for their id, until they give it up.
    pub(crate) sessions: BTreeMap<Registration, Claimant>,
    pub(crate) notices: Arc<Notices>,
    /// Probes for other nodes: who asks, and the pong of the device.
    probes: Vec<(Asker, oneshot::Receiver<()>, Duration)>,
    /// Clients that look for their device on other nodes.
    pub(crate) searches: BTreeMap<LinkId, Search>,
    /// Number of the present connection to the engine, if there is one.
    pub(crate) connection: Option<u64>,
    /// Whether the process is stopped.
    pub(crate) paused: bool,
    /// Devices that its control connection has announced, and has not heard of since.
    pub(crate) announced: BTreeMap<DeviceId, Announced>,
    last_registration: u64,
}

/// Announcement of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    /// The control connection has no answer yet.
    Asked(u64),
    Accepted,
}

/// A question of another node about a device of this one.
pub(crate) struct Asker {
    pub(crate) from: usize,
    pub(crate) number: u64,
    pub(crate) holder: Registration,
}

/// The session of a device that has asked for its id.
#[derive(Debug)]
pub(crate) struct Claimant {
    pub(crate) device: Arc<Device>,
    pub(crate) link: LinkId,
    pub(crate) state: SessionState,
    /// Holder that the directory named when it asked.
    pub(crate) known: Option<Registration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionState {
    Claiming,
    Granted,
    Unclaimed,
}

/// Reports that a claim is given up.
struct Release {
    claim: (DeviceId, Registration),
    notices: Arc<Notices>,
}

impl Drop for Release {
    fn drop(&mut self) {
        let (id, registration) = self.claim.clone();
        self.notices.released(id, registration);
    }
}

/// Settings of all nodes of a world.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) timing: Timing,
    /// Whether a device replaces the holder of its id without a question.
    pub(crate) replaces: bool,
    /// Whether a device that cannot be claimed is refused.
    pub(crate) holds: bool,
    pub(crate) device_wait: Option<Duration>,
}

impl Node {
    pub(crate) fn new(name: usize, start: u64, settings: &Settings, now: Instant) -> Self {
        let incarnation = Incarnation::new(&format!("node-{name}"), start).unwrap();
        let record = NodeRecord { incarnation: incarnation.clone(), details: Arc::from("{}") };
        let config = Config::default();
        let rules = Rules { is_clustered: true, device_wait_timeout: settings.device_wait, ..config.rules() };
        let budget = Budget::new(config.limits.backpressure.outbox_bounds());
        let hub = Arc::new(Hub::new(Arc::new(()), 100, || 1));
        let relay = Arc::new(Relay::new(None, config.held_bounds()));
        Self {
            party: Party::Node { node: name, start },
            membership: Membership::new(record, settings.timing.clone(), settings.holds, start, now),
            incarnation,
            rules_of_links: Arc::new(rules.of_upstream()),
            shared: Context {
                hub: Arc::clone(&hub),
                incidents: Arc::default(),
                timings: Arc::default(),
                relay: Arc::clone(&relay),
                preregistrations: Arc::default(),
                rules: Arc::new(rules),
                peer: Arc::new(Peer::anonymous(Role::Client)),
                outbox: Arc::new(Outbox::new(&budget)),
            },
            hub,
            relay,
            budget,
            replaces: settings.replaces,
            connections: BTreeMap::new(),
            sessions: BTreeMap::new(),
            notices: Arc::default(),
            probes: Vec::new(),
            searches: BTreeMap::new(),
            connection: None,
            paused: false,
            announced: BTreeMap::new(),
            last_registration: 0,
        }
    }

    /// Creates the context of a connection. `link` says that the other end is a node.
    pub(crate) fn context(&self, role: Role, link: bool) -> Context {
        let peer = Arc::new(Peer::anonymous(role));
        let outbox = Arc::new(Outbox::new(&self.budget));
        let rules = if link { &self.rules_of_links } else { &self.shared.rules };
        Context { rules: Arc::clone(rules), peer, outbox, ..self.shared.clone() }
    }

    // Connections -----------------------------------------------------------------------------------------------------

    /// Takes the connection of a device or a client.
    pub(crate) fn accept(&mut self, link: LinkId, party: Party, net: &Net) {
        let now = net.instant();
        if let Party::Device(_) = party {
            let session = DeviceSession::new(self.context(Role::Device, false), now);
            self.add(link, 1, Driver::new(session, true, now), Step::Done, net);
        } else {
            let session = ClientSession::new(self.context(Role::Client, false), now);
            self.add(link, 1, Driver::new(session, true, now), Step::Done, net);
        }
    }

    pub(crate) fn add(
        &mut self,
        link: LinkId,
        side: usize,
        driver: Driver<impl Session + 'static>,
        first: Step,
        net: &Net,
    ) {
        let connection = Connection::new(Box::new(driver), link, side, &self.notices);
        self.connections.insert(link, connection);
        self.drive(link, net, |driver, edge| driver.handle_step(first, edge));
    }

    /// Calls the driver of a connection, if it is there. Then there is something to do for it.
    pub(crate) fn drive(
        &mut self,
        link: LinkId,
        net: &Net,
        call: impl FnOnce(&mut Driver<dyn Session>, &mut NodeEdge),
    ) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        let mut edge = NodeEdge { now: net.instant(), asked: Vec::new() };
        call(&mut connection.driver, &mut edge);
        connection.asked.append(&mut edge.asked);
        self.notices.ready(link);
    }

    /// Does all that connections have to do now.
    pub(crate) fn settle(&mut self, net: &mut Net) {
        while let Some(Noticed { ready, released, opened }) = self.notices.take() {
            if let Some((id, registration)) = released {
                self.sessions.remove(&registration);
                self.membership.release(&id, &registration, net.instant());
            }
            if let Some((link, answer)) = opened {
                self.on_opened(link, answer, net);
            }
            if let Some(link) = ready {
                self.pump(link, net);
            }
        }
        self.answer_probes(net);
    }

    fn pump(&mut self, link: LinkId, net: &mut Net) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        let mut edge = NodeEdge { now: net.instant(), asked: std::mem::take(&mut connection.asked) };
        if !connection.pump(net, &mut edge) {
            return self.remove(link, net);
        }
        for question in edge.asked {
            self.on_question(link, question, net);
        }
    }

    /// Ends a connection, as where its task ends.
    pub(crate) fn remove(&mut self, link: LinkId, net: &mut Net) {
        // The question of a client that has left is dropped, with the connection that is being made for it.
        if let Some(Search { opening: Some(opening), .. }) = self.searches.remove(&link) {
            self.reset(opening, net);
        }
        if let Some(connection) = self.connections.remove(&link) {
            net.close(link, connection.side);
        }
    }

    fn on_question(&mut self, link: LinkId, question: Question, net: &mut Net) {
        match question {
            Question::DeviceInfo(device) => {
                // A hook takes its time.
                let pause = Duration::from_millis(net.rng.choice([0, 1, 50]).unwrap());
                net.at(net.now + pause, self.party, Event::DeviceInfo { link, device });
            }
            Question::Claim(device) => self.claim(link, device, net.instant()),
            Question::Locate { id, last } => self.locate(link, id, last, net),
            other => panic!("{other:?} is asked in no cluster"),
        }
    }

    // Claims ----------------------------------------------------------------------------------------------------------

    fn claim(&mut self, link: LinkId, device: Arc<Device>, now: Instant) {
        self.last_registration += 1;
        let registration = Registration::new(self.incarnation.clone(), self.last_registration);
        let id = device.id.clone();
        let release = Release { claim: (id.clone(), registration.clone()), notices: Arc::clone(&self.notices) };
        let Some(connection) = self.connections.get_mut(&link) else { return };
        connection.claim = Some((registration.clone(), ClaimGuard::new(release)));
        let known = self.membership.directory().get(&id).map(|entry| entry.registration.clone());
        let claimant = Claimant { device, link, state: SessionState::Claiming, known };
        self.sessions.insert(registration.clone(), claimant);
        self.membership.claim(Wanted { id, registration, details: Arc::from("{}") }, self.replaces, now);
    }

    /// Tells the session of a device the outcome of its claim.
    pub(crate) fn tell(&mut self, registration: &Registration, outcome: Outcome, net: &Net) {
        let Some(session) = self.sessions.get_mut(registration) else { return };
        let (link, id) = (session.link, session.device.id.clone());
        session.state = match outcome {
            Outcome::Granted => SessionState::Granted,
            Outcome::Unclaimed => SessionState::Unclaimed,
            Outcome::Refused | Outcome::Unavailable => session.state,
        };
        if matches!(outcome, Outcome::Granted | Outcome::Unclaimed) {
            // Its session tells the control connection of this node.
            self.announced.remove(&id);
        }
        let claim = self.connections.get_mut(&link).and_then(|connection| connection.claim.take());
        let Some((_, guard)) = claim else { return };
        let answer = match outcome {
            Outcome::Granted | Outcome::Unclaimed => Answer::Claimed(guard),
            Outcome::Refused => Answer::Refused(Refusal::AlreadyRegistered(id)),
            Outcome::Unavailable => Answer::Refused(Refusal::ClusterUnavailable(Role::Device)),
        };
        self.drive(link, net, |driver, edge| driver.handle_answer(answer, edge));
    }

    /// Ends the session of a device whose id another has.
    pub(crate) fn end(&mut self, registration: &Registration) {
        if let Some(session) = self.sessions.get(registration) {
            session.device.outbox.refuse(&Refusal::Replaced(session.device.id.clone()));
        }
    }

    // Probes ----------------------------------------------------------------------------------------------------------

    /// Finds out for another node whether a device of this one is alive.
    pub(crate) fn probe(&mut self, asker: Asker, net: &mut Net) {
        let (pong, until) = match self.sessions.get(&asker.holder) {
            Some(session) => (session.device.outbox.probe(), net.now + PROBE_TIMEOUT),
            // A receiver whose sender is gone.
            None => (oneshot::channel().1, net.now),
        };
        net.at(until, self.party, Event::ProbeOver);
        self.probes.push((asker, pong, until));
    }

    fn answer_probes(&mut self, net: &mut Net) {
        let mut at = 0;
        while let Some((_, pong, until)) = self.probes.get_mut(at) {
            let probe = match pong.try_recv() {
                Ok(()) => Probe::Alive,
                Err(oneshot::error::TryRecvError::Empty) if net.now < *until => {
                    at += 1;
                    continue;
                }
                Err(_) => Probe::Gone,
            };
            let (Asker { from, number, .. }, ..) = self.probes.swap_remove(at);
            let Party::Node { node, .. } = self.party else { return };
            net.later(Party::Engine, Event::ProbeAnswered { by: node, from, number, probe });
        }
    }
}
