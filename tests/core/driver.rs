//! The driver of a connection: questions, texts that wait, errors, the end, deadlines, and the books.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use cuttlefish_signaling::Config;
use cuttlefish_signaling::driver::{Closed, Driver, Edge, Expired, Output, Phase};
use cuttlefish_signaling::hub::Hub;
use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::outbox::{Budget, End, Outbox, Passage};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{DeviceId, Text};
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::relay::Relay;
use cuttlefish_signaling::session::{Answer, Context, Question, Session, Step};

/// A session that asks a question on `ask`, is refused on `bad` and `withheld`, and records all calls.
struct Scripted {
    context: Context,
    asking: bool,
    deadline: Option<Instant>,
    log: Vec<String>,
}

impl Session for Scripted {
    fn on_text(&mut self, text: &str, _: Instant) -> Step {
        self.log.push(text.to_owned());
        match text {
            "ask" => {
                self.asking = true;
                Step::Ask(Question::Config { device_id: DeviceId::new("x") })
            }
            "bad" => Step::Refused,
            "withheld" => Step::Withheld(Refusal::Binary),
            _ => Step::Done,
        }
    }

    fn on_answer(&mut self, _: Answer, _: Instant) -> Step {
        self.asking = false;
        self.log.push("answer".into());
        Step::Done
    }

    fn holds_texts(&self) -> bool {
        self.asking
    }

    fn on_recheck(&mut self, _: Instant) -> Step {
        self.deadline = None;
        self.log.push("recheck".into());
        Step::Refused
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn leave(&mut self) {
        self.log.push("leave".into());
    }

    fn disconnect(&mut self, refusal: &Refusal) {
        self.log.push(format!("disconnect {}", refusal.text()));
        self.context.outbox.close(None, End::close(1008, "scripted"));
    }

    fn context(&self) -> &Context {
        &self.context
    }

    fn is_introduced(&self) -> bool {
        true
    }
}

/// An edge that answers at once or never, and ends the peer from the n-th error on. Its clock is a number.
struct ScriptedEdge {
    now: Instant,
    answers: bool,
    errors: usize,
    withheld: usize,
    allowed: usize,
}

impl Edge for ScriptedEdge {
    fn now(&mut self) -> Instant {
        self.now
    }

    fn ask(&mut self, _: Question) -> Option<Answer> {
        self.answers.then_some(Answer::Refused(Refusal::HookFailed))
    }

    fn count_error(&mut self, withheld: Option<&Refusal>) -> Option<Refusal> {
        self.errors += 1;
        self.withheld += usize::from(withheld.is_some());
        (self.errors > self.allowed).then_some(Refusal::Binary)
    }
}

/// A driver, its edge, and the parts of the server that they change.
struct Rig {
    driver: Driver<Scripted>,
    edge: ScriptedEdge,
    context: Context,
}

impl Rig {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = Instant::now();
        let context = Context {
            hub: Arc::new(Hub::new(Arc::new(()), 10, || 1)),
            relay: Arc::new(Relay::new(None, config.held_bounds())),
            incidents: Arc::default(),
            timings: Arc::default(),
            preregistrations: Arc::default(),
            rules: Arc::new(config.rules()),
            outbox: Arc::new(Outbox::new(&Budget::new(config.limits.backpressure.outbox_bounds()))),
            peer: Arc::new(Peer::anonymous(Role::Client)),
        };
        let session = scripted(&context);
        let edge = ScriptedEdge { now, answers: false, errors: 0, withheld: 0, allowed: 9 };
        Self { driver: Driver::new(session, true, now), edge, context }
    }

    fn says(&mut self, texts: &[&str]) {
        for text in texts {
            self.driver.handle_text(text, &mut self.edge);
        }
    }

    fn answers(&mut self) {
        self.driver.handle_answer(Answer::Refused(Refusal::HookFailed), &mut self.edge);
        self.reads();
    }

    fn reads(&mut self) -> bool {
        self.driver.wants_read(&TaskContext::from_waker(Waker::noop()), &mut self.edge)
    }

    fn log(&self) -> &[String] {
        &self.driver.session().log
    }

    fn output(&mut self, room: bool) -> Poll<Output> {
        self.driver.poll_output(&TaskContext::from_waker(Waker::noop()), room, &mut self.edge)
    }

    fn after(&mut self, time: Duration) -> Option<Expired> {
        self.edge.now += time;
        self.driver.handle_timeout(&mut self.edge)
    }

    fn left(&self) -> Option<Duration> {
        self.driver.poll_timeout().map(|due| due.saturating_duration_since(self.edge.now))
    }

    /// Queues a forward for the peer, as the relay does.
    fn forward(&self, text: &str) {
        self.context.relay.ledger().count_accepted();
        self.context.outbox.push_forward(Text::from(text.to_owned()), Passage::Direct, self.edge.now).unwrap();
    }
}

fn scripted(context: &Context) -> Scripted {
    Scripted { context: context.clone(), asking: false, deadline: None, log: Vec::new() }
}

const S: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn immediate_answer_goes_back_before_the_next_text() {
    let mut rig = Rig::new();
    rig.edge.answers = true;
    rig.says(&["ask", "1"]);
    assert_eq!(rig.log(), ["ask", "answer", "1"]);
}

#[test]
fn texts_wait_for_a_pending_answer_and_follow_it_in_order() {
    let mut rig = Rig::new();
    rig.says(&["ask", "1", "2"]);
    assert_eq!(rig.log(), ["ask"]);
    rig.answers();
    assert_eq!(rig.log(), ["ask", "answer", "1", "2"]);
}

#[test]
fn held_text_that_asks_makes_the_rest_wait_again() {
    let mut rig = Rig::new();
    rig.says(&["ask", "1", "ask", "2"]);
    rig.answers();
    assert_eq!(rig.log(), ["ask", "answer", "1", "ask"]);
    rig.answers();
    assert_eq!(rig.log(), ["ask", "answer", "1", "ask", "answer", "2"]);
}

#[test]
fn errors_are_counted_withheld_ones_included() {
    let mut rig = Rig::new();
    rig.says(&["bad", "good", "withheld"]);
    assert_eq!((rig.edge.errors, rig.edge.withheld), (2, 1));
}

#[test]
fn too_many_errors_disconnect_the_peer_once() {
    let mut rig = Rig::new();
    rig.edge.allowed = 1;
    rig.says(&["bad", "bad", "bad"]);
    let disconnect = format!("disconnect {}", Refusal::Binary.text());
    assert_eq!(rig.log(), ["bad", "bad", &disconnect, "bad"]);
}

#[test]
fn close_flushes_then_waits_for_the_peers_close_frame() {
    let mut rig = Rig::new();
    rig.forward("1");
    rig.driver.refuse(&Refusal::Binary);
    assert_eq!(rig.output(false), Poll::Ready(Output::Progress), "the session leaves although there is no room");
    assert_eq!(rig.log(), [&format!("disconnect {}", Refusal::Binary.text()), "leave"]);
    assert_eq!((rig.output(false), rig.left()), (Poll::Pending, Some(S(5))));
    assert_eq!(rig.output(true), Poll::Ready(Output::Text(Text::from("1".to_owned()))));
    assert_eq!(rig.output(true), Poll::Ready(Output::End(End::close(1008, "scripted"))));
    assert!(matches!(rig.driver.phase(), Phase::Closing(_)));
    rig.driver.on_flushed(&mut rig.edge);
    assert_eq!(rig.context.relay.ledger().read().delivered, 1);
    assert_eq!(rig.after(S(4)), None);
    rig.driver.handle_close_complete();
    assert!(matches!(rig.driver.phase(), Phase::ShuttingDown(_)));
    assert_eq!(rig.after(S(1)), Some(Expired::Close), "one deadline for all of the end");
    assert_eq!(rig.driver.phase(), Phase::Done);
}

#[test]
fn stop_shortens_the_wait_for_the_peers_close_frame() {
    let mut rig = Rig::new();
    rig.driver.handle_closed(Closed::Frame, &mut rig.edge);
    assert_eq!(rig.left(), Some(S(5)));
    rig.edge.now += S(1);
    rig.driver.shorten_close(&mut rig.edge);
    assert_eq!(rig.left(), Some(Duration::from_millis(250)));
    rig.edge.now += Duration::from_millis(100);
    rig.driver.shorten_close(&mut rig.edge);
    assert_eq!(rig.left(), Some(Duration::from_millis(150)), "only once");
}

#[test]
fn fin_and_reset_end_the_session_at_once() {
    for (closed, done) in [(Closed::Fin, false), (Closed::Reset, true)] {
        let mut rig = Rig::new();
        rig.driver.handle_closed(closed, &mut rig.edge);
        assert_eq!((rig.log(), rig.driver.phase() == Phase::Done), (&["leave".to_owned()][..], done));
    }
}

#[test]
fn end_counts_behind_held_texts_and_a_reset_at_once() {
    for closed in [Closed::Frame, Closed::Fin] {
        let mut rig = Rig::new();
        rig.says(&["ask", "1", "2"]);
        rig.driver.handle_closed(closed, &mut rig.edge);
        rig.forward("to the peer");
        assert!(!rig.reads(), "there is nothing more to read");
        assert_eq!((rig.log(), rig.driver.phase()), (&["ask".to_owned()][..], Phase::Open));
        assert_eq!(rig.output(true).is_pending(), closed == Closed::Frame, "a text cannot follow a close frame");
        rig.answers();
        assert_eq!(rig.log(), ["ask", "answer", "1", "2", "leave"]);
        assert_eq!(matches!(rig.driver.phase(), Phase::Closing(_)), closed == Closed::Frame);
        assert!(!rig.driver.is_open());
    }
    let mut rig = Rig::new();
    rig.says(&["ask", "1"]);
    rig.driver.handle_closed(Closed::Fin, &mut rig.edge);
    rig.driver.handle_closed(Closed::Reset, &mut rig.edge);
    assert_eq!((rig.log(), rig.driver.phase()), (&["ask".to_owned(), "leave".to_owned()][..], Phase::Done));
}

#[test]
fn violation_closes_and_counts_once() {
    let mut rig = Rig::new();
    rig.driver.handle_violation(End::message_too_big());
    rig.driver.handle_violation(End::message_too_big());
    assert_eq!(rig.context.incidents.of(Incident::Misbehaved), 1);
    assert!(rig.context.outbox.is_closed());
}

#[test]
fn peer_that_takes_nothing_for_write_timeout_is_a_slow_consumer() {
    let mut rig = Rig::new();
    rig.forward("1");
    assert!(matches!(rig.output(true), Poll::Ready(Output::Text(_))));
    rig.driver.on_blocked(&mut rig.edge);
    rig.edge.now += S(9);
    rig.driver.handle_input(rig.edge.now);
    rig.driver.on_blocked(&mut rig.edge);
    assert_eq!(rig.left(), Some(S(1)), "the time runs from the first call");
    rig.driver.on_bytes_written(1);
    rig.driver.on_blocked(&mut rig.edge);
    assert_eq!(rig.left(), Some(S(10)), "a byte is progress");
    rig.driver.handle_input(rig.edge.now + S(5));
    assert_eq!(rig.after(S(10)), Some(Expired::Write));
    assert_eq!(rig.output(false), Poll::Ready(Output::Progress));
    assert_eq!(rig.context.incidents.of(Incident::SlowConsumer), 1);
    drop(rig.driver);
    let ledger = rig.context.relay.ledger().read();
    assert!(ledger.balances() && ledger.gone == 1, "{ledger:?}");
}

#[test]
fn timeout_is_computed_again_only_when_it_may_be_an_earlier_one() {
    let mut config = Config::default();
    (config.keepalive.interval, config.keepalive.timeout) = (Some(S(5)), S(60));
    let mut rig = Rig::with(config);
    let mut is_new = |change: &dyn Fn(&mut Rig)| {
        rig.driver.has_new_timeout();
        change(&mut rig);
        rig.driver.has_new_timeout()
    };
    assert!(!is_new(&|rig| rig.driver.handle_input(rig.edge.now)));
    assert!(!is_new(&|rig| rig.says(&["forward"])));
    assert!(is_new(&|rig| rig.says(&["bad"])), "a session may have another deadline after a step");
    assert!(is_new(&|rig| rig.driver.delay_reading(rig.edge.now + S(1))));
    assert!(is_new(&|rig| {
        assert_eq!((rig.after(S(1)), rig.after(S(4))), (Some(Expired::Delay), Some(Expired::Ping)));
        rig.driver.handle_input(rig.edge.now);
        assert_eq!(rig.left(), Some(S(5)), "before the time for the pong would be over");
    }));
    assert!(is_new(&|rig| rig.driver.on_blocked(&mut rig.edge)));
    assert!(is_new(&|_| ()), "what others queue changes the deadline of a blocked peer");
    assert!(is_new(&|rig| rig.driver.on_flushed(&mut rig.edge)));
    assert!(!is_new(&|_| ()));
    assert!(is_new(&|rig| rig.driver.handle_closed(Closed::Fin, &mut rig.edge)));
}

#[test]
fn silent_peer_is_pinged_then_dropped() {
    let mut rig = Rig::new();
    assert_eq!(rig.left(), Some(S(10)));
    assert_eq!(rig.after(S(10)), Some(Expired::Ping));
    assert_eq!(rig.output(true), Poll::Ready(Output::Ping));
    assert_eq!(rig.left(), Some(S(5)));
    rig.driver.handle_input(rig.edge.now);
    assert_eq!(rig.left(), Some(S(10)), "any input is an answer");
    assert_eq!((rig.after(S(10)), rig.after(S(5))), (Some(Expired::Ping), Some(Expired::Pong)));
    assert_eq!((rig.driver.phase(), rig.context.incidents.of(Incident::Silent)), (Phase::Done, 1));
    assert!(rig.context.outbox.is_closed(), "the server has ended the connection, the peer has not left");
    assert_eq!(rig.log(), ["leave"]);
}

#[test]
fn session_deadline_rechecks_and_counts_its_error() {
    let rig = Rig::new();
    let session = Scripted { deadline: Some(rig.edge.now + S(1)), ..scripted(&rig.context) };
    let mut rig = Rig { driver: Driver::new(session, true, rig.edge.now), ..rig };
    assert_eq!((rig.after(S(0)), rig.after(S(1))), (None, Some(Expired::Session)));
    assert_eq!((rig.log(), rig.edge.errors), (&["recheck".to_owned()][..], 1));
}

#[test]
fn pong_and_transports_without_pings_answer_probes() {
    let (mut rig, other) = (Rig::new(), Rig::new());
    let mut probe = rig.context.outbox.probe();
    assert_eq!(rig.output(true), Poll::Ready(Output::Ping));
    assert!(probe.try_recv().is_err());
    rig.driver.handle_pong();
    assert_eq!(probe.try_recv(), Ok(()));
    let mut rig = Rig { driver: Driver::new(scripted(&other.context), false, rig.edge.now), ..other };
    let mut probe = rig.context.outbox.probe();
    assert_eq!((rig.output(true), rig.left()), (Poll::Ready(Output::Progress), None));
    assert_eq!(probe.try_recv(), Ok(()));
}

#[test]
fn waiters_are_released_when_nothing_is_left_to_do_and_on_drop() {
    let mut rig = Rig::new();
    let done = rig.context.hub.wake_all_sessions();
    let pending = std::sync::mpsc::TryRecvError::Empty;
    assert_eq!(rig.output(false), Poll::Ready(Output::Progress));
    assert_eq!(done.try_recv(), Err(pending));
    rig.driver.on_pending();
    assert!(done.try_recv().is_err_and(|error| error != pending));
    let done = rig.context.hub.wake_all_sessions();
    assert_eq!(done.try_recv(), Err(pending));
    drop(rig.driver);
    assert!(done.try_recv().is_err_and(|error| error != pending));
    assert_eq!(rig.context.hub.connections(), 0);
}
