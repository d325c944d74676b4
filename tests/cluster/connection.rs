//! One end of a connection in a node: a driver with its session, and what carries its messages.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use cuttlefish_signaling::core::cluster::Registration;
use cuttlefish_signaling::driver::{Closed, Driver, Edge, Expired, Output};
use cuttlefish_signaling::outbox::End;
use cuttlefish_signaling::protocol::{DeviceId, outbound};
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::{Answer, ClaimGuard, Question, Session};
use parking_lot::Mutex;

use crate::net::{Frame, LinkId, Net, Party, Taken};
use crate::peers::numbers;

/// Events that callbacks report to the node. There is one lock for all: the node looks after each event of the world.
#[derive(Default)]
pub(crate) struct Notices(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    ready: Vec<LinkId>,
    released: Vec<(DeviceId, Registration)>,
    opened: Vec<(LinkId, Option<Answer>)>,
}

/// At most one notice of each kind.
pub(crate) struct Noticed {
    pub(crate) ready: Option<LinkId>,
    pub(crate) released: Option<(DeviceId, Registration)>,
    pub(crate) opened: Option<(LinkId, Option<Answer>)>,
}

impl Notices {
    /// Reports that a connection has something to do.
    pub(crate) fn ready(&self, link: LinkId) {
        self.0.lock().ready.push(link);
    }

    /// Reports that the guard of a claim was dropped.
    pub(crate) fn released(&self, id: DeviceId, registration: Registration) {
        self.0.lock().released.push((id, registration));
    }

    /// Reports the answer for a client whose connection to another node was opened. None says that it has failed.
    pub(crate) fn opened(&self, link: LinkId, answer: Option<Answer>) {
        self.0.lock().opened.push((link, answer));
    }

    /// Takes the last notice of each kind. None if there is no notice at all.
    pub(crate) fn take(&self) -> Option<Noticed> {
        let mut pending = self.0.lock();
        let (ready, released, opened) = (pending.ready.pop(), pending.released.pop(), pending.opened.pop());
        let any = ready.is_some() || released.is_some() || opened.is_some();
        any.then_some(Noticed { ready, released, opened })
    }
}

/// Wakes a connection.
struct LinkWaker {
    link: LinkId,
    notices: Arc<Notices>,
}

impl Wake for LinkWaker {
    fn wake(self: Arc<Self>) {
        self.notices.ready(self.link);
    }
}

/// Answers what a server without hooks answers at once, and keeps the other questions.
pub(crate) struct NodeEdge {
    pub(crate) now: Instant,
    pub(crate) asked: Vec<Question>,
}

impl Edge for NodeEdge {
    fn now(&mut self) -> Instant {
        self.now
    }

    fn ask(&mut self, question: Question) -> Option<Answer> {
        if let Question::Config { .. } = question {
            return Some(Answer::Config(outbound::config("[]"), None));
        }
        self.asked.push(question);
        None
    }

    fn count_error(&mut self, _: Option<&Refusal>) -> Option<Refusal> {
        None
    }
}

/// One end of a connection.
pub(crate) struct Connection {
    pub(crate) driver: Box<Driver<dyn Session>>,
    link: LinkId,
    /// Its side of the link.
    pub(crate) side: usize,
    waker: Waker,
    /// Time of the timer that is set.
    pub(crate) timer: Duration,
    /// Questions that wait for the node.
    pub(crate) asked: Vec<Question>,
    /// Whether the other end is told of the end.
    ended: bool,
    /// Claim of the device that the engine has not decided.
    pub(crate) claim: Option<(Registration, ClaimGuard)>,
}

impl Connection {
    pub(crate) fn new(driver: Box<Driver<dyn Session>>, link: LinkId, side: usize, notices: &Arc<Notices>) -> Self {
        let waker = Waker::from(Arc::new(LinkWaker { link, notices: Arc::clone(notices) }));
        Self { driver, link, side, waker, timer: Duration::MAX, asked: Vec::new(), ended: false, claim: None }
    }

    /// Does all that can be done now. Returns false if the connection is over.
    pub(crate) fn pump(&mut self, net: &mut Net, edge: &mut NodeEdge) -> bool {
        while self.step(net, edge) {}
        if !self.driver.is_open() {
            return false;
        }
        if let Some(at) = self.driver.poll_timeout().map(|at| net.time_of(at).max(net.now))
            && at < self.timer
        {
            self.timer = at;
            let party = net.links[self.link].halves[self.side].party;
            net.at(at, party, crate::event::Event::LinkTimer { link: self.link });
        }
        true
    }

    fn step(&mut self, net: &mut Net, edge: &mut NodeEdge) -> bool {
        let waker = self.waker.clone();
        let cx = Context::from_waker(&waker);
        if net.is_reset(self.link, self.side) {
            self.driver.handle_closed(Closed::Reset, edge);
            return false;
        }
        if self.driver.wants_read(&cx, edge)
            && let Some(frame) = net.take(self.link, self.side)
        {
            let payload = self.payload_of_device(&frame, net);
            let before = self.taken();
            self.read(frame, edge);
            if let Some([device, number, at]) = payload.filter(|_| self.taken() > before) {
                let taken = net.taken.entry((device, number)).or_insert(Taken { first: at, count: 0 });
                taken.count += 1;
            }
            return true;
        }
        if !self.driver.is_open() {
            return false;
        }
        let room = net.has_room(self.link, self.side);
        match self.driver.poll_output(&cx, room, edge) {
            Poll::Ready(output) => {
                self.write(output, net, edge);
                true
            }
            Poll::Pending => {
                if !room && self.driver.outbox().has_messages() {
                    self.driver.on_blocked(edge);
                }
                let Some(expired) = self.driver.handle_timeout(edge) else {
                    self.driver.on_pending();
                    return false;
                };
                if expired == Expired::Close && !self.ended {
                    // The task drops its transport: what has no room in it is lost.
                    net.send(self.link, self.side, Frame::Reset);
                }
                true
            }
        }
    }

    /// Returns the numbers in a payload, if a device sends it.
    fn payload_of_device(&self, frame: &Frame, net: &Net) -> Option<[u64; 3]> {
        let (Frame::Text { text, .. }, Party::Device(_)) = (frame, net.other(self.link, self.side)) else {
            return None;
        };
        let message: serde_json::Value = serde_json::from_str(text).unwrap();
        (message["message_type"] == "forward").then(|| numbers(&message["payload"]))
    }

    /// Returns how many forwards its node has taken and has to deliver.
    fn taken(&self) -> u64 {
        let books = self.driver.session().context().relay.ledger().read();
        books.accepted - books.refused - books.gone
    }

    fn read(&mut self, frame: Frame, edge: &mut NodeEdge) {
        self.driver.handle_input(edge.now);
        match frame {
            Frame::Text { text, .. } => self.driver.handle_text(&text, edge),
            Frame::Pong => self.driver.handle_pong(),
            Frame::Close { code, reason } => {
                self.driver.handle_close_frame(code, &reason);
                self.driver.handle_closed(Closed::Frame, edge);
            }
            Frame::Ping | Frame::Reset => {}
        }
    }

    fn write(&mut self, output: Output, net: &mut Net, edge: &mut NodeEdge) {
        self.ended |= matches!(output, Output::End(_));
        let frame = match output {
            Output::Text(text) => {
                let delivered =
                    |driver: &Driver<dyn Session>| driver.session().context().relay.ledger().read().delivered;
                let before = delivered(&self.driver);
                self.driver.on_flushed(edge);
                let forward = delivered(&self.driver) > before;
                Frame::Text { text: text.as_str().to_owned(), forward }
            }
            Output::Ping => Frame::Ping,
            Output::Progress => return,
            Output::End(End::Close { code, reason }) => Frame::Close { code, reason: reason.into_owned() },
            Output::End(End::Drop | End::Reset) => Frame::Reset,
        };
        net.send(self.link, self.side, frame);
    }
}
