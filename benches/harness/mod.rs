//! A device and its client in one hub, without sockets: the path of a forward between two sockets.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Instant;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::hub::Hub;
use cuttlefish_signaling::outbox::{Outbox, Outgoing};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{IceServers, Text};
use cuttlefish_signaling::relay::Relay;
use cuttlefish_signaling::session::{Answer, ClientSession, Context, DeviceSession, Question, Session, Step};

pub struct Harness {
    pub hub: Arc<Hub>,
    relay: Arc<Relay>,
    now: Instant,
}

/// A session and its outbox.
pub struct Party<S> {
    pub session: S,
    pub outbox: Arc<Outbox>,
}

impl Harness {
    pub fn new() -> Self {
        let hub = Arc::new(Hub::new(Arc::new(()), 16_384, || 1));
        Self { hub, relay: Arc::new(Relay::new(None, 10_000)), now: Instant::now() }
    }

    fn context(&self, role: Role) -> Context {
        let config = Config::default();
        Context {
            hub: Arc::clone(&self.hub),
            relay: Arc::clone(&self.relay),
            incidents: Arc::default(),
            preregistrations: Arc::default(),
            rules: Arc::new(config.rules()),
            outbox: Arc::new(Outbox::new(config.outbox_bounds())),
            peer: Arc::new(Peer::anonymous(role)),
        }
    }

    /// Creates a device that has registered.
    pub fn device(&self, id: &str) -> Party<DeviceSession> {
        let context = self.context(Role::Device);
        let outbox = Arc::clone(&context.outbox);
        let mut party = Party { session: DeviceSession::new(context, self.now), outbox };
        self.says(&mut party, &format!(r#"{{"message_type":"register","device_id":"{id}","device_info":{{}}}}"#));
        assert!(party.hears().is_some(), "a config");
        party
    }

    /// Creates a client that has got its device info.
    pub fn client(&self, id: &str) -> Party<ClientSession> {
        let context = self.context(Role::Client);
        let outbox = Arc::clone(&context.outbox);
        let mut party = Party { session: ClientSession::new(context, self.now), outbox };
        self.says(&mut party, &format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#));
        assert!(party.hears().is_some() && party.hears().is_some(), "a config and a device info");
        party
    }

    /// Passes a text to a session, and answers its questions.
    pub fn says<S: Session>(&self, party: &mut Party<S>, text: &str) {
        let mut step = party.session.on_text(text, self.now);
        while let Step::Ask(question) = step {
            let answer = match question {
                Question::Config { .. } => Answer::Config(IceServers::default().config(), None),
                Question::DeviceInfo(device) => Answer::DeviceInfo(device.info.clone()),
                Question::Alive(holder) => Answer::Alive { holder, alive: true },
            };
            step = party.session.on_answer(answer, self.now);
        }
    }
}

impl<S> Party<S> {
    /// Takes the next message from the outbox.
    pub fn hears(&self) -> Option<Text> {
        match self.outbox.poll_next(&TaskContext::from_waker(Waker::noop()), true) {
            Poll::Ready(Outgoing::Message { text, .. }) => Some(text),
            _ => None,
        }
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
