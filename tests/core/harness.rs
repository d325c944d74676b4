//! A server without sockets: peers are sessions and outboxes, [`Harness::settle`] is the transport, time is a number.

#[path = "harness/edge.rs"]
mod edge;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use cuttlefish_signaling::config::{Config, IceSource};
use cuttlefish_signaling::core::aliases::Aliases;
use cuttlefish_signaling::driver::{Closed, Driver, Edge, Output, Phase};
use cuttlefish_signaling::hub::Hub;
use cuttlefish_signaling::incidents::Incidents;
use cuttlefish_signaling::journal::{Journal, PeerJournal};
use cuttlefish_signaling::ledger::LedgerReading;
use cuttlefish_signaling::outbox::{Budget, End, Outbox};
use cuttlefish_signaling::peer::{Grant, Peer, Role};
use cuttlefish_signaling::preregistrations::PreRegistrations;
use cuttlefish_signaling::protocol::{DeviceId, IceServers};
use cuttlefish_signaling::relay::Relay;
use cuttlefish_signaling::session::{
    Answer, ClientSession, Context, ControlSession, DeviceSession, Question, Rules, Session, Step,
};
use cuttlefish_signaling::timings::Timings;
use tokio::sync::oneshot;

use self::edge::{FixedClock, Probe, TestEdge};

/// The time from which `unique` client ids are made.
pub const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);

/// The largest packet that the system takes.
const MAX_PACKET: usize = 212_960;

pub struct Harness {
    pub hub: Arc<Hub>,
    pub relay: Arc<Relay>,
    pub incidents: Arc<Incidents>,
    pub timings: Arc<Timings>,
    pub now: Instant,
    pub ice: Option<IceServers>,
    /// How long the credentials of a config are valid.
    pub good_for: Option<Duration>,
    /// Device info questions are left pending, as by a slow hook.
    pub hold_device_info: bool,
    /// Devices that open from now on are Cuttlefish's own: they hear no errors.
    pub cuttlefish: bool,
    pub preregistrations: Arc<PreRegistrations>,
    pub budget: Arc<Budget>,
    rules: Arc<Rules>,
    config: Config,
    peers: BTreeMap<String, Actor>,
    /// Questions for the cluster, each of this peer. The test answers them.
    pub asked: VecDeque<(String, Question)>,
    /// The devices for which configs were asked.
    pub configured: Vec<DeviceId>,
    /// Devices that the directory has on other nodes.
    pub elsewhere: Arc<Mutex<BTreeSet<DeviceId>>>,
}

/// A peer. It sends what the server reads; the rest waits in `unread`, as in the buffers of the system.
pub struct Actor {
    pub driver: Box<Driver<dyn Session>>,
    pub outbox: Arc<Outbox>,
    pub heard: VecDeque<String>,
    pub unread: VecDeque<String>,
    pub ended: Option<End>,
    /// It answers no ping.
    pub silent: bool,
    /// Pings that it got.
    pub pings: usize,
    probe: Option<Probe>,
    frozen: bool,
}

impl Harness {
    pub fn new(config: Config) -> Self {
        let client_ids = config.client_ids;
        let IceSource::Fixed(ice) = config.ice.clone() else { panic!("the core has no hooks: set fixed ICE servers") };
        let journal = config.journal.then(|| Arc::new(Journal::new(config.journal_bounds(), Box::new(FixedClock))));
        let (now, elsewhere) = (Instant::now(), Arc::new(Mutex::new(BTreeSet::new())));
        let known = Arc::clone(&elsewhere);
        let is_elsewhere = Box::new(move |id: &DeviceId| known.lock().unwrap().contains(id));
        let aliases = config.local_names().map(|names| Aliases { names, is_elsewhere });
        let hub = Hub::new(Arc::new(()), config.limits.max_devices, move || client_ids.first(UNIX_TIME));
        Self {
            budget: Budget::new(config.limits.backpressure.outbox_bounds()),
            hub: Arc::new(hub.with_aliases(aliases)),
            elsewhere,
            configured: Vec::new(),
            relay: Arc::new(Relay::new(journal, config.held_bounds())),
            incidents: Arc::default(),
            timings: Arc::default(),
            now,
            ice: Some(ice),
            good_for: None,
            hold_device_info: false,
            cuttlefish: false,
            preregistrations: Arc::default(),
            rules: Arc::new(config.rules()),
            config,
            peers: BTreeMap::new(),
            asked: VecDeque::new(),
        }
    }

    pub fn opens(&mut self, name: &str, role: Role) {
        self.opens_with(name, role, Grant::default());
    }

    pub fn opens_with(&mut self, name: &str, role: Role, grant: Grant) {
        let own = self.cuttlefish && role == Role::Device;
        let context = self.context(Peer { grant, hears_errors: !own, ..Peer::anonymous(role) });
        let (outbox, now) = (Arc::clone(&context.outbox), self.now);
        match role {
            Role::Device => self.enters(name, outbox, DeviceSession::new(context, now), Step::Done),
            _ => self.enters(name, outbox, ClientSession::new(context, now), Step::Done),
        }
    }

    /// A client whose request names the device.
    pub fn opens_at(&mut self, name: &str, id: &str) {
        let context = self.context(Peer::anonymous(Role::Client));
        let outbox = Arc::clone(&context.outbox);
        let (session, first) = ClientSession::of_device(context, DeviceId::new(id), self.now);
        self.enters(name, outbox, session, first);
    }

    /// A client of another node, which says the id in the cluster.
    pub fn opens_for_node(&mut self, name: &str, id: &str) {
        let context = self.context(Peer::anonymous(Role::Client));
        let outbox = Arc::clone(&context.outbox);
        let (session, first) = ClientSession::of_node(context, DeviceId::new(id), self.now);
        self.enters(name, outbox, session, first);
    }

    /// A device on the device socket.
    pub fn opens_over_packets(&mut self, name: &str) {
        let peer = Peer { hears_errors: false, max_message: MAX_PACKET, ..Peer::anonymous(Role::Device) };
        let context = self.context(peer);
        let (outbox, now) = (Arc::clone(&context.outbox), self.now);
        self.enters(name, outbox, DeviceSession::over_packets(context, now), Step::Done);
    }

    /// A connection to the control socket.
    pub fn opens_control(&mut self, name: &str) {
        let context = self.context(Peer::anonymous(Role::Device));
        let outbox = Arc::clone(&context.outbox);
        self.enters(name, outbox, ControlSession::new(context), Step::Done);
    }

    pub fn context(&self, peer: Peer) -> Context {
        let mut outbox = Outbox::new(&self.budget);
        if !peer.hears_errors {
            outbox = outbox.without_errors();
        }
        if let Some(journal) = self.relay.journal() {
            outbox = outbox.recorded(PeerJournal::new(Arc::clone(journal), peer.role));
        }
        Context {
            hub: Arc::clone(&self.hub),
            incidents: Arc::clone(&self.incidents),
            timings: Arc::clone(&self.timings),
            relay: Arc::clone(&self.relay),
            preregistrations: Arc::clone(&self.preregistrations),
            rules: Arc::clone(&self.rules),
            peer: Arc::new(peer),
            outbox: Arc::new(outbox),
        }
    }

    pub fn enters(&mut self, name: &str, outbox: Arc<Outbox>, session: impl Session + 'static, first: Step) {
        let actor = Actor {
            driver: Box::new(Driver::new(session, true, self.now)),
            outbox,
            heard: VecDeque::new(),
            unread: VecDeque::new(),
            ended: None,
            silent: false,
            pings: 0,
            probe: None,
            frozen: false,
        };
        assert!(self.peers.insert(name.to_owned(), actor).is_none(), "{name} is there already");
        self.drive(name, |driver, edge| driver.handle_step(first, edge));
        self.settle();
    }

    /// Calls the driver of a peer.
    fn drive<T>(&mut self, name: &str, call: impl FnOnce(&mut Driver<dyn Session>, &mut TestEdge<'_>) -> T) -> T {
        let (now, good_for, hold_device_info) = (self.now, self.good_for, self.hold_device_info);
        let peer = self.peers.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"));
        let Actor { driver, probe, .. } = peer;
        let (ice, asked, configured) = (self.ice.as_ref(), &mut self.asked, &mut self.configured);
        call(driver, &mut TestEdge { ice, good_for, hold_device_info, now, probe, name, asked, configured })
    }

    /// The peer sends a close frame.
    pub fn closes(&mut self, name: &str, code: u16, reason: &str) {
        self.drive(name, |driver, edge| {
            driver.handle_close_frame(code, reason);
            driver.handle_closed(Closed::Frame, edge);
        });
        self.settle();
    }

    pub fn has(&self, name: &str) -> bool {
        self.peers.contains_key(name)
    }

    pub fn peer(&mut self, name: &str) -> &mut Actor {
        self.peers.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    pub fn says(&mut self, name: &str, text: &str) {
        self.peer(name).unread.push_back(text.to_owned());
        self.settle();
    }

    pub fn says_binary(&mut self, name: &str) {
        self.peer(name).driver.handle_binary();
        self.settle();
    }

    pub fn freezes(&mut self, name: &str) {
        self.peer(name).frozen = true;
    }

    /// A frozen peer takes some messages.
    pub fn takes(&mut self, name: &str, messages: usize) {
        let cx = TaskContext::from_waker(Waker::noop());
        for _ in 0..messages {
            let output = self.drive(name, |driver, edge| driver.poll_output(&cx, true, edge));
            if let Poll::Ready(Output::Text(text)) = output {
                self.peer(name).heard.push_back(text.as_str().to_owned());
                self.drive(name, |driver, edge| driver.on_flushed(edge));
            }
        }
        self.settle();
    }

    pub fn thaws(&mut self, name: &str) {
        self.peer(name).frozen = false;
        self.drive(name, |driver, edge| driver.on_flushed(edge));
        self.settle();
    }

    pub fn leaves(&mut self, name: &str) {
        self.drive(name, |driver, edge| driver.handle_closed(Closed::Reset, edge));
        drop(self.peers.remove(name));
        self.settle();
    }

    pub fn after(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    /// The next message to the peer, if there is one.
    pub fn hears(&mut self, name: &str) -> Option<String> {
        self.peer(name).heard.pop_front()
    }

    pub fn balance(&self) -> LedgerReading {
        self.relay.ledger().read()
    }

    /// Answers a pending question.
    pub fn answers(&mut self, name: &str, answer: Answer) {
        self.drive(name, |driver, edge| driver.handle_answer(answer, edge));
        self.settle();
    }

    /// The peers whose connection has not ended.
    pub fn peers_here(&self) -> Vec<String> {
        let here = self.peers.iter().filter(|(_, peer)| peer.driver.phase() != Phase::Done && peer.ended.is_none());
        here.map(|(name, _)| name.clone()).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.peers.keys().cloned().collect()
    }

    /// Releases the forwards whose hold by a fault ends now; returns when the next ones are due.
    pub fn releases(&mut self) -> Option<Instant> {
        let next = self.relay.release(&TaskContext::from_waker(Waker::noop()), self.now);
        self.settle();
        next
    }

    /// Drains outboxes and answers probes until nothing changes, as the transports do.
    pub fn settle(&mut self) {
        while self.names().iter().any(|name| self.turn(name)) {}
    }

    fn turn(&mut self, name: &str) -> bool {
        let now = self.now;
        if self.reads(name) {
            return true;
        }
        let probe_timeout = self.config.limits.probe_timeout;
        let peer = self.peer(name);
        if let Some((holder, mut probe, asked)) = peer.probe.take() {
            let alive = match probe.try_recv() {
                Ok(()) => Some(true),
                Err(oneshot::error::TryRecvError::Closed) => Some(false),
                Err(oneshot::error::TryRecvError::Empty) => (asked + probe_timeout <= now).then_some(false),
            };
            match alive {
                Some(alive) => {
                    let answer = Answer::Alive { holder, alive };
                    self.drive(name, |driver, edge| driver.handle_answer(answer, edge));
                    return true;
                }
                None => peer.probe = Some((holder, probe, asked)),
            }
        }
        let room = !peer.frozen;
        if matches!(peer.driver.phase(), Phase::Closing(_) | Phase::Done) {
            return false;
        }
        let cx = TaskContext::from_waker(Waker::noop());
        let Poll::Ready(output) = self.drive(name, |driver, edge| driver.poll_output(&cx, room, edge)) else {
            if !room && self.peer(name).outbox.has_messages() {
                self.drive(name, |driver, edge| driver.on_blocked(edge));
            }
            return self.drive(name, |driver, edge| driver.handle_timeout(edge)).is_some();
        };
        let peer = self.peer(name);
        match output {
            Output::Text(text) => {
                peer.heard.push_back(text.as_str().to_owned());
                self.drive(name, |driver, edge| driver.on_flushed(edge));
            }
            Output::Ping if peer.silent => peer.pings += 1,
            Output::Ping => {
                peer.pings += 1;
                peer.driver.handle_input(now);
                peer.driver.handle_pong();
            }
            Output::Progress => {}
            Output::End(end) => peer.ended = Some(end),
        }
        true
    }

    /// Reads one text of the peer, if its driver wants to.
    fn reads(&mut self, name: &str) -> bool {
        let cx = TaskContext::from_waker(Waker::noop());
        if !self.drive(name, |driver, edge| driver.wants_read(&cx, edge)) {
            return false;
        }
        let Some(text) = self.peer(name).unread.pop_front() else { return false };
        self.drive(name, |driver, edge| {
            driver.handle_input(edge.now());
            driver.handle_text(&text, edge);
        });
        true
    }
}
