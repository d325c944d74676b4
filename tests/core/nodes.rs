//! Two nodes of a cluster without sockets: devices are on node A, clients on node B. The registry is the hub of A.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use cuttlefish_signaling::Config;
use cuttlefish_signaling::config::cluster::Cluster;
use cuttlefish_signaling::core::cluster::registry::Expectation;
use cuttlefish_signaling::core::upstream::{Link, Upstream};
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::{
    Answer, ClaimGuard, ClientSession, OnDuplicate, Question, Rules, Step, UpstreamSession,
};
use tokio::sync::oneshot;

use crate::harness::Harness;

/// The settings of a node.
pub fn node(config: Config) -> Config {
    let cluster = Cluster {
        engine: "redis://127.0.0.1:1".into(),
        name: "test".into(),
        node: "a".into(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        address: None,
        secrets: Vec::new(),
        ca: None,
        hold_on_outage: false,
        device_id_template: None,
        timing: cuttlefish_signaling::core::cluster::registry::Timing::default(),
    };
    Config { cluster: Some(cluster), ..config }
}

/// Two nodes, and the connections between them.
pub struct Nodes {
    pub a: Harness,
    pub b: Harness,
    on_duplicate: OnDuplicate,
    probe_timeout: Duration,
    /// The devices that hold a claim, by id.
    claims: BTreeMap<DeviceId, Weak<Device>>,
    /// Claims that wait for the holder to answer a ping: the claimant, its device, the ping, and the time of it.
    probing: Vec<(String, Arc<Device>, oneshot::Receiver<()>, Instant)>,
    /// Clients whose connection to A is being made: the answer, by the name of the client.
    opening: BTreeMap<String, Receiver<Answer>>,
    /// The clients whose connection has ended on A, and whose end B has heard.
    told: Vec<String>,
}

impl Nodes {
    pub fn new(config: Config) -> Self {
        let (on_duplicate, probe_timeout) = (config.on_duplicate, config.limits.probe_timeout);
        let config = node(config);
        Self {
            a: Harness::new(config.clone()),
            b: Harness::new(config),
            on_duplicate,
            probe_timeout,
            claims: BTreeMap::new(),
            probing: Vec::new(),
            opening: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// The node that has this peer.
    pub fn of(&mut self, name: &str) -> &mut Harness {
        if self.a.has(name) { &mut self.a } else { &mut self.b }
    }

    /// Does all that is to be done now, on both nodes and between them.
    pub fn settle(&mut self) {
        loop {
            self.a.settle();
            self.b.settle();
            let asked = self.a.asked.pop_front().map(|asked| (true, asked));
            if let Some((on_a, (name, question))) =
                asked.or_else(|| self.b.asked.pop_front().map(|asked| (false, asked)))
            {
                self.answer(on_a, &name, question);
            } else if !self.probed() && !self.opened() && !self.carried() {
                break;
            }
        }
    }

    fn answer(&mut self, on_a: bool, name: &str, question: Question) {
        match question {
            Question::Claim(device) => {
                let holder = self.claims.get(&device.id).and_then(Weak::upgrade);
                match holder.filter(|_| self.on_duplicate == OnDuplicate::Reject) {
                    Some(holder) => {
                        self.probing.push((name.to_owned(), device, holder.outbox.probe(), self.a.now));
                    }
                    None => self.grant(name, &device),
                }
            }
            Question::Announce(devices) => {
                let answer = Answer::Announced(vec![Expectation::Pending; devices.len()]);
                let node = if on_a { &mut self.a } else { &mut self.b };
                node.answers(name, answer);
            }
            Question::Locate { .. } if on_a => self.a.answers(name, Answer::Nowhere),
            Question::Locate { id, .. } if self.a.hub.device(&id).is_none() => self.b.answers(name, Answer::Nowhere),
            Question::Locate { id, .. } => self.connect(name, id),
            other => panic!("{other:?} is no question for the cluster"),
        }
    }

    /// The engine grants the id. The feed tells node B.
    fn grant(&mut self, name: &str, device: &Arc<Device>) {
        self.claims.insert(device.id.clone(), Arc::downgrade(device));
        self.a.answers(name, Answer::Claimed(ClaimGuard::new(Arc::clone(device))));
        self.b.hub.wake_waiting(&device.id);
    }

    /// Handles the answer of a holder to its ping, or the lack of one.
    fn probed(&mut self) -> bool {
        let (now, timeout) = (self.a.now, self.probe_timeout);
        let outcomes = self.probing.iter_mut().map(|(_, _, pong, asked)| match pong.try_recv() {
            Ok(()) => Some(true),
            Err(oneshot::error::TryRecvError::Closed) => Some(false),
            Err(oneshot::error::TryRecvError::Empty) => (*asked + timeout <= now).then_some(false),
        });
        let Some((at, alive)) = outcomes.enumerate().find_map(|(at, alive)| Some((at, alive?))) else { return false };
        let (name, device, _, _) = self.probing.remove(at);
        if alive {
            self.a.answers(&name, Answer::Refused(Refusal::AlreadyRegistered(device.id.clone())));
        } else {
            self.grant(&name, &device);
        }
        true
    }

    /// Connects a client of B to a device on A.
    fn connect(&mut self, name: &str, id: DeviceId) {
        let (answer, opened) = channel();
        let mut context = self.b.context(Peer::anonymous(Role::Client));
        context.rules = Arc::new(Rules::of_upstream(&context.rules));
        let link = Link::default();
        let (outbox, peer, ends, its_id) =
            (Arc::clone(&context.outbox), Arc::clone(&context.peer), link.clone(), id.clone());
        let stand_in =
            move |info| Answer::Away(Box::new(Upstream::new(Device::new(its_id, info, peer, outbox), &ends)));
        let on_opened = Box::new(move |opened: cuttlefish_signaling::session::Opened| {
            let _client_left = answer.send(opened.answer(stand_in));
        });
        let outbox = Arc::clone(&context.outbox);
        let client = Arc::clone(&self.b.peer(name).outbox);
        let session = UpstreamSession::new(context, link, client, on_opened);
        self.b.enters(&upstream(name), outbox, session, Step::Done);
        self.opening.insert(name.to_owned(), opened);
        // As the facts of the client between nodes have it.
        let grant = self.b.peer(name).driver.session().context().peer.grant.clone();
        let context = self.a.context(Peer { grant, ..Peer::anonymous(Role::Client) });
        let outbox = Arc::clone(&context.outbox);
        let (session, first) = ClientSession::of_node(context, id, self.a.now);
        self.a.enters(&proxied(name), outbox, session, first);
    }

    /// Passes the answer of A to a client that is being connected.
    fn opened(&mut self) -> bool {
        let ready = self.opening.iter().find_map(|(name, opened)| match opened.try_recv() {
            Ok(answer) => Some((name.clone(), answer)),
            Err(TryRecvError::Disconnected) => Some((name.clone(), Answer::Nowhere)),
            Err(TryRecvError::Empty) => None,
        });
        let Some((name, answer)) = ready else { return false };
        self.opening.remove(&name);
        if self.b.has(&name) {
            self.b.answers(&name, answer);
        }
        true
    }

    /// Carries a message, or the end of a connection, from one node to the other.
    fn carried(&mut self) -> bool {
        let names: Vec<_> =
            self.b.names().iter().filter_map(|name| Some(name.strip_prefix("up ")?.to_owned())).collect();
        names.iter().any(|name| self.carried_for(name))
    }

    fn carried_for(&mut self, name: &str) -> bool {
        if !self.a.has(&proxied(name)) {
            return false;
        }
        if let Some(text) = self.b.hears(&upstream(name)) {
            self.a.says(&proxied(name), &text);
            return true;
        }
        if let Some(text) = self.a.hears(&proxied(name)) {
            self.b.says(&upstream(name), &text);
            return true;
        }
        let end = self.b.peer(&upstream(name));
        if end.ended.is_some() || !end.driver.is_open() {
            self.a.leaves(&proxied(name));
            self.b.leaves(&upstream(name));
            self.told.retain(|told| told != name);
            return true;
        }
        if let Some(end) = self.a.peer(&proxied(name)).ended.clone()
            && !self.told.contains(&name.to_owned())
        {
            self.told.push(name.to_owned());
            match end {
                End::Close { code, reason } => self.b.closes(&upstream(name), code, &reason),
                End::Drop | End::Reset => {
                    self.a.leaves(&proxied(name));
                    self.b.leaves(&upstream(name));
                }
            }
            return true;
        }
        false
    }

    /// Both nodes are at rest: the books balance, and nothing is left.
    pub fn assert_at_rest(&mut self) {
        self.settle();
        for node in [&mut self.a, &mut self.b] {
            let left: Vec<_> = node.names();
            for name in left {
                node.leaves(&name);
            }
            assert!(node.balance().balances(), "{:?}", node.balance());
            assert_eq!(node.hub.connections(), 0);
            assert!(node.hub.devices().is_empty());
            assert_eq!(node.hub.waiting_count(), 0);
        }
        assert!(self.claims.values().all(|device| device.upgrade().is_none()), "a claim was not given up");
    }
}

/// The connection of a client to node A, on node B.
pub fn upstream(client: &str) -> String {
    format!("up {client}")
}

/// The same connection, on node A.
pub fn proxied(client: &str) -> String {
    format!("proxied {client}")
}
