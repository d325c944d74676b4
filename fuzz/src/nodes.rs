//! Target of another node of a cluster: its headers, its facts and its messages.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::core::cluster::registry::NodeRecord;
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::core::upstream::{Link, Upstream};
use cuttlefish_signaling::driver::{Closed, Driver, Edge, Output};
use cuttlefish_signaling::hub::{Device, Hub};
use cuttlefish_signaling::outbox::{Budget, End, Outbox};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::relay::Relay;
use cuttlefish_signaling::server::cluster::client_facts::ClientFacts;
use cuttlefish_signaling::server::cluster::details::NodeDetails;
use cuttlefish_signaling::server::cluster::forwards::may_be_passed_on;
use cuttlefish_signaling::session::{Answer, Context, Opened, Question, Session, Step, UpstreamSession};
use serde_json::value::RawValue;

/// Reads any bytes as each part of what another node sends. Texts of its WebSocket are divided by zero bytes.
pub fn nodes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    facts(text);
    record(text);
    path(text);
    if let Some(registration) = Registration::parse(text) {
        assert_eq!(registration.to_string(), text, "each registration has one text");
    }
    messages(text.split('\0'));
}

/// Facts of a client are read as a whole or not at all, and are the same when they are passed on.
pub fn facts(header: &str) {
    let Some(facts) = ClientFacts::parse(header) else { return };
    let again = facts.to_header();
    let Ok(text) = again.to_str() else { panic!("{again:?} is no text") };
    // In ASCII, facts may be longer than a header can be.
    assert!(ClientFacts::parse(text).is_none_or(|read| read == facts), "{header:?}");
    let peer = facts.into_peer();
    assert_eq!(peer.role, Role::Client);
    if let Some(identity) = peer.grant.identity.as_deref() {
        assert!(is_json(identity), "{identity:?}");
    }
    peer.grant.covers(&DeviceId::new("cvd-1"));
}

/// Facts of a node are the same when they are written again.
pub fn record(details: &str) {
    let Some(incarnation) = Incarnation::new("a", 7) else { panic!("no name") };
    let record = |details: &str| NodeRecord { incarnation: incarnation.clone(), details: details.into() };
    let Some(read) = NodeDetails::of(&record(details)) else { return };
    let again = NodeDetails::of(&record(&read.to_json()));
    assert!(again.is_none_or(|again| again == read), "{details:?}");
}

/// A request that is passed on is one of a client about a device or a polled connection.
pub fn path(path: &str) {
    if may_be_passed_on(path) {
        let of_clients = ["/forward", "/poll_messages", "/polled_connections/", "/devices/"];
        assert!(of_clients.iter().any(|prefix| path.starts_with(prefix)), "{path:?}");
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Whatever a node sends on the connection of a client, the client gets JSON, the ledger balances, and the client's end is
/// told once.
pub fn messages<'a>(texts: impl Iterator<Item = &'a str>) {
    let (context, client) = contexts();
    let (link, (report, told), mut answers) = (Link::default(), channel(), Vec::new());
    let (upstream, outbox) = (link.clone(), Arc::clone(&context.outbox));
    let on_opened = move |opened: Opened| {
        let found = |info| {
            let device = Device::new(DeviceId::new("cvd-1"), info, Arc::new(Peer::anonymous(Role::Device)), outbox);
            Answer::Away(Box::new(Upstream::new(device, &upstream)))
        };
        assert!(report.send(opened.answer(found)).is_ok(), "there is a receiver until the end");
    };
    let (relay, now) = (Arc::clone(&context.relay), Instant::now());
    let session = UpstreamSession::new(context, link, Arc::clone(&client.outbox), Box::new(on_opened));
    let mut driver = Driver::new(session, false, now);
    let mut edge = NoEdge(now);
    for text in texts {
        driver.handle_text(text, &mut edge);
        answers.extend(told.try_iter());
        if let Some(Answer::Away(upstream)) = answers.first() {
            upstream.start();
        }
    }
    driver.handle_closed(Closed::Reset, &mut edge);
    drop(driver);
    answers.extend(told.try_iter());
    assert!(answers.len() <= 1, "the client is told twice");
    drop(answers);
    drain(client, &mut edge);
    let books = relay.ledger().read();
    assert!(books.balances(), "{books:?}");
}

/// Writes all that a client is sent.
fn drain(context: Context, edge: &mut NoEdge) {
    context.outbox.close(None, End::Drop);
    let mut driver = Driver::new(Reader(context), false, edge.0);
    let cx = std::task::Context::from_waker(std::task::Waker::noop());
    while let std::task::Poll::Ready(output) = driver.poll_output(&cx, true, edge) {
        match output {
            Output::Text(text) => {
                assert!(is_json(text.as_str()), "a client is sent {text:?}");
                driver.on_flushed(edge);
            }
            Output::End(_) => break,
            Output::Ping | Output::Progress => {}
        }
    }
}

/// The contexts of the connection to the other node, and of its client.
fn contexts() -> (Context, Context) {
    let config = Config::default();
    let budget = Budget::new(config.limits.backpressure.outbox_bounds());
    let context = || Context {
        hub: Arc::new(Hub::new(Arc::new(()), 100, || 1)),
        incidents: Arc::default(),
        timings: Arc::default(),
        relay: Arc::new(Relay::new(None, config.held_bounds())),
        preregistrations: Arc::default(),
        rules: Arc::new(config.rules().of_upstream()),
        peer: Arc::new(Peer::anonymous(Role::Client)),
        outbox: Arc::new(Outbox::new(&budget)),
    };
    let node = context();
    let client = Context { relay: Arc::clone(&node.relay), ..context() };
    (node, client)
}

/// The session of a client that only reads.
struct Reader(Context);

impl Session for Reader {
    fn on_text(&mut self, _: &str, _: Instant) -> Step {
        Step::Done
    }

    fn on_answer(&mut self, _: Answer, _: Instant) -> Step {
        Step::Done
    }

    fn holds_texts(&self) -> bool {
        false
    }

    fn on_recheck(&mut self, _: Instant) -> Step {
        Step::Done
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn leave(&mut self) {}

    fn disconnect(&mut self, _: &Refusal) {}

    fn context(&self) -> &Context {
        &self.0
    }

    fn is_introduced(&self) -> bool {
        true
    }
}

struct NoEdge(Instant);

impl Edge for NoEdge {
    fn now(&mut self) -> Instant {
        self.0
    }

    fn ask(&mut self, _: Question) -> Option<Answer> {
        None
    }

    fn count_error(&mut self, _: Option<&Refusal>) -> Option<Refusal> {
        None
    }
}
