//! The driver: questions, held texts, errors, and the end. The session is a script.

use std::time::Instant;

use cuttlefish_signaling::driver::{Driver, Edge};
use cuttlefish_signaling::outbox::{End, Outbox, OutboxBounds};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::{Answer, Question, Session, Step};

/// A session that asks a question on `ask`, is refused on `bad` and `withheld`, and records all calls.
struct Scripted {
    outbox: Outbox,
    asking: bool,
    log: Vec<String>,
}

impl Session for &mut Scripted {
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
        self.log.push("recheck".into());
        Step::Refused
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn leave(&mut self) {
        self.log.push("leave".into());
    }

    fn disconnect(&mut self, refusal: &Refusal) {
        self.log.push(format!("disconnect {}", refusal.text()));
        self.outbox.close(None, End::Drop);
    }

    fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn is_introduced(&self) -> bool {
        true
    }
}

/// An edge that answers at once or never, and ends the peer from the n-th error on.
#[derive(Default)]
struct ScriptedEdge {
    answers: bool,
    errors: usize,
    withheld: usize,
    allowed: usize,
}

impl Edge for ScriptedEdge {
    fn ask(&mut self, _: Question) -> Option<Answer> {
        self.answers.then_some(Answer::Refused(Refusal::HookFailed))
    }

    fn count_error(&mut self, withheld: Option<&Refusal>, _: Instant) -> Option<Refusal> {
        self.errors += 1;
        self.withheld += usize::from(withheld.is_some());
        (self.errors > self.allowed).then_some(Refusal::Binary)
    }
}

/// Runs texts through a driver, then calls `end`. Returns the calls of the session, the outbox and the edge.
fn run(edge: ScriptedEdge, texts: &[&str], end: impl FnOnce(&mut Driver<&mut Scripted>, &mut ScriptedEdge)) -> Run {
    let outbox = Outbox::new(OutboxBounds { messages: 10, bytes: 1000 });
    let (mut scripted, mut edge) = (Scripted { outbox, asking: false, log: Vec::new() }, edge);
    let mut driver = Driver::new(&mut scripted);
    for text in texts {
        driver.handle_text(text, Instant::now(), &mut edge);
    }
    end(&mut driver, &mut edge);
    Run { log: scripted.log, edge }
}

struct Run {
    log: Vec<String>,
    edge: ScriptedEdge,
}

fn answer() -> Answer {
    Answer::Refused(Refusal::HookFailed)
}

#[test]
fn immediate_answer_goes_back_before_the_next_text() {
    let edge = ScriptedEdge { answers: true, ..ScriptedEdge::default() };
    assert_eq!(run(edge, &["ask", "1"], |_, _| ()).log, ["ask", "answer", "1"]);
}

#[test]
fn texts_wait_for_a_pending_answer_and_follow_it_in_order() {
    let run = run(ScriptedEdge::default(), &["ask", "1", "2"], |driver, edge| {
        assert!(driver.holds_texts());
        driver.handle_answer(answer(), Instant::now(), edge);
        assert!(!driver.holds_texts());
    });
    assert_eq!(run.log, ["ask", "answer", "1", "2"]);
}

#[test]
fn held_text_that_asks_makes_the_rest_wait_again() {
    let run = run(ScriptedEdge::default(), &["ask", "1", "ask", "2"], |driver, edge| {
        driver.handle_answer(answer(), Instant::now(), edge);
        assert!(driver.holds_texts());
        assert!(driver.holds_enough(1, 1000), "one text still waits");
        assert!(!driver.holds_enough(2, 2), "its size is 1 byte");
    });
    assert_eq!(run.log, ["ask", "answer", "1", "ask"]);
}

#[test]
fn held_texts_are_full_by_number_or_by_bytes() {
    run(ScriptedEdge::default(), &["ask", "123", "45"], |driver, edge| {
        assert!(driver.holds_enough(2, 1000));
        assert!(!driver.holds_enough(3, 1000));
        assert!(driver.holds_enough(3, 5));
        assert!(!driver.holds_enough(3, 6));
        driver.handle_answer(answer(), Instant::now(), edge);
        assert!(!driver.holds_enough(1, 1));
    });
}

#[test]
fn errors_are_counted_withheld_ones_included() {
    let edge = ScriptedEdge { allowed: 9, ..ScriptedEdge::default() };
    let run = run(edge, &["bad", "good", "withheld"], |driver, edge| driver.handle_recheck(Instant::now(), edge));
    assert_eq!((run.edge.errors, run.edge.withheld), (3, 1));
    assert_eq!(run.log, ["bad", "good", "withheld", "recheck"]);
}

#[test]
fn too_many_errors_disconnect_the_peer_once() {
    let edge = ScriptedEdge { allowed: 1, ..ScriptedEdge::default() };
    let run = run(edge, &["bad", "bad", "bad"], |driver, _| driver.leave());
    let disconnect = format!("disconnect {}", Refusal::Binary.text());
    assert_eq!(run.log, ["bad", "bad", &disconnect, "bad", "leave"]);
}
