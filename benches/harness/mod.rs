//! A device and its client in one hub, without sockets: the path of a forward between two sockets.

#![allow(dead_code, reason = "each benchmark uses a part")]

pub mod deferred_hooks;

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::driver::{Driver, Edge, Output};
use cuttlefish_signaling::faults::HeldBounds;
use cuttlefish_signaling::hub::Hub;
use cuttlefish_signaling::outbox::{Budget, Outbox};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{IceServers, Text};
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::relay::Relay;
use cuttlefish_signaling::session::{Answer, ClaimGuard, ClientSession, Context, DeviceSession, Question, Session};

pub struct Harness {
    pub hub: Arc<Hub>,
    relay: Arc<Relay>,
    budget: Arc<Budget>,
    now: Instant,
}

/// A connection: its driver, which the harness serves as a transport does.
pub struct Party<S: Session> {
    driver: Driver<S>,
    edge: InstantEdge,
}

/// Answers all questions at once, at a time that stands still.
struct InstantEdge(Instant);

impl Edge for InstantEdge {
    fn now(&mut self) -> Instant {
        self.0
    }

    fn ask(&mut self, question: Question) -> Option<Answer> {
        Some(match question {
            Question::Config { .. } => Answer::Config(IceServers::default().config(), None),
            Question::DeviceInfo(device) => Answer::DeviceInfo(device.info.clone()),
            Question::Alive(holder) => Answer::Alive { holder, alive: true },
            Question::Claim(_) => Answer::Claimed(ClaimGuard::new(())),
            Question::Locate { .. } => Answer::Nowhere,
            Question::Announce(_) => Answer::Announced(Vec::new()),
        })
    }

    fn count_error(&mut self, _: Option<&Refusal>) -> Option<Refusal> {
        None
    }
}

impl Harness {
    pub fn new() -> Self {
        let hub = Arc::new(Hub::new(Arc::new(()), 16_384, || 1));
        let relay = Relay::new(None, HeldBounds { messages: 10_000, bytes: 1 << 20 });
        let now = Instant::now();
        Self {
            hub,
            relay: Arc::new(relay),
            budget: Budget::new(Config::default().limits.backpressure.outbox_bounds()),
            now,
        }
    }

    fn context(&self, role: Role) -> Context {
        let config = Config::default();
        Context {
            hub: Arc::clone(&self.hub),
            relay: Arc::clone(&self.relay),
            incidents: Arc::default(),
            timings: Arc::default(),
            preregistrations: Arc::default(),
            rules: Arc::new(config.rules()),
            outbox: Arc::new(Outbox::new(&self.budget)),
            peer: Arc::new(Peer::anonymous(role)),
        }
    }

    fn party<S: Session>(&self, session: S) -> Party<S> {
        Party { driver: Driver::new(session, true, self.now), edge: InstantEdge(self.now) }
    }

    /// Creates a device that has registered.
    pub fn device(&self, id: &str) -> Party<DeviceSession> {
        let mut party = self.party(DeviceSession::new(self.context(Role::Device), self.now));
        party.says(&format!(r#"{{"message_type":"register","device_id":"{id}","device_info":{{}}}}"#));
        assert!(party.hears().is_some(), "a config");
        party
    }

    /// Creates a client that has got its device info.
    pub fn client(&self, id: &str) -> Party<ClientSession> {
        let mut party = self.party(ClientSession::new(self.context(Role::Client), self.now));
        party.says(&format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#));
        assert!(party.hears().is_some() && party.hears().is_some(), "a config and a device info");
        party
    }
}

impl<S: Session> Party<S> {
    /// Handles a text of the peer.
    pub fn says(&mut self, text: &str) {
        assert!(self.driver.wants_read(&TaskContext::from_waker(Waker::noop()), &mut self.edge));
        self.driver.handle_input(self.edge.0);
        self.driver.handle_text(text, &mut self.edge);
    }

    /// Takes the next message to the peer.
    pub fn hears(&mut self) -> Option<Text> {
        let cx = TaskContext::from_waker(Waker::noop());
        match self.driver.poll_output(&cx, true, &mut self.edge) {
            Poll::Ready(Output::Text(text)) => {
                self.driver.on_flushed(&mut self.edge);
                Some(text)
            }
            _ => None,
        }
    }

    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.driver.session().context().outbox
    }
}

/// Creates a payload of this size that looks like an offer: lines with escaped ends.
pub fn payload(bytes: usize) -> String {
    const AROUND: usize = r#"{"type":"offer","sdp":""}"#.len();
    const LINE: &str = r"a=rtpmap:96 VP8/90000\r\n";
    let room = bytes.saturating_sub(AROUND);
    let lines = LINE.repeat(room / LINE.len());
    format!(r#"{{"type":"offer","sdp":"{lines}{}"}}"#, "x".repeat(room - lines.len()))
}

pub fn client_forward(payload: &str) -> String {
    format!(r#"{{"message_type":"forward","payload":{payload}}}"#)
}

pub fn device_forward(payload: &str) -> String {
    format!(r#"{{"message_type":"forward","client_id":1,"payload":{payload}}}"#)
}
