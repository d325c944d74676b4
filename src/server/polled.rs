//! Clients that poll (PROTOCOL.md 5.3): for each a mailbox between its requests and its session, which a porter serves.
//!
//! A message stays in the mailbox until the client has acknowledged it, by asking for a later one. Whoever stays away for
//! too long has left.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Shared;
use super::connection::unless_over;
use super::porter::{Came, Porter, Wire};
use crate::outbox::{End, Outbox};
use crate::peer::Peer;
use crate::protocol::{DeviceId, Text, outbound};
use crate::refusal::Refusal;
use crate::session::ClientSession;

/// The mailboxes of one server, by connection id.
#[derive(Default)]
pub(crate) struct Polled(Mutex<HashMap<String, Arc<Mailbox>>>);

/// What one client that polls has said, and what there is for it.
pub(super) struct Mailbox {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
    /// Told when there is more to fetch, or nothing any more.
    arrived: Notify,
}

#[derive(Default)]
struct State {
    said: VecDeque<String>,
    said_bytes: usize,
    /// What there is for the client, and whether it has to be booked once it is fetched.
    kept: VecDeque<(Text, bool)>,
    kept_bytes: usize,
    /// The number of the first of them.
    first: u64,
    /// Requests that are waiting now.
    waiting: usize,
    last_seen: Option<Instant>,
    /// Whoever asked for the connection has gone before it was there.
    hung_up: bool,
    life: Life,
    waker: Option<Waker>,
}

/// How far a mailbox is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Life {
    /// Its client has no device info yet, and does not know its id.
    #[default]
    Opening,
    /// In use.
    Open,
    /// Its session is over; what there is can still be fetched.
    Ended,
    /// The books are closed: nothing is fetched any more.
    Closed,
}

/// Why nothing can be fetched, or said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The connection has ended, or is not known.
    Gone,
    /// More was said than the session has taken yet.
    Full,
}

impl Polled {
    /// The mailbox of this connection.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Mailbox>> {
        self.0.lock().get(id).cloned()
    }
}

/// A connection for a client that polls, once it has its device info; `Err` is why it has none.
///
/// Returns its id and its first message, `{"device_info":…}`.
pub(super) async fn connect(shared: &Arc<Shared>, peer: Peer, device: DeviceId) -> Result<(String, Text), Refused> {
    let id = new_id().ok_or(Refused::Failed)?;
    let context = shared.context(peer);
    let mailbox = Arc::new(Mailbox {
        shared: Arc::clone(shared),
        outbox: Arc::clone(&context.outbox),
        state: Mutex::new(State { last_seen: Some(shared.clock.now()), ..State::default() }),
        arrived: Notify::new(),
    });
    {
        let mut all = shared.polled.0.lock();
        if all.len() >= shared.config.limits.max_polled {
            return Err(Refused::Full);
        }
        all.insert(id.clone(), Arc::clone(&mailbox));
    }
    let listed = Listed { id: id.clone(), mailbox: Arc::clone(&mailbox) };
    let (session, first) = ClientSession::of_device(context.clone(), device.clone(), shared.clock.now());
    let porter = Porter::new(Arc::clone(shared), &context, session, first, PolledWire(Arc::clone(&mailbox)));
    let address = context.peer.address;
    drop(shared.spawn(Box::pin(live(porter, listed)), address));
    // Whoever gives up before it is connected has left.
    let mut caller = HangsUp(Some(Arc::clone(&mailbox)));
    // A request that waits does not tell whether somebody still does: it waits as long as a client may stay away.
    let first = shared.clock.timeout(shared.config.limits.polled_timeout, mailbox.first_message()).await;
    let info = match first {
        Some(Some(info)) => info,
        Some(None) => return Err(Refused::of(&mailbox)),
        None => return Err(Refused::By(Refusal::DeviceNotFound(device))),
    };
    caller.0 = None;
    Ok((id, info))
}

/// Why there is no polled connection.
pub(super) enum Refused {
    /// The session says why.
    By(Refusal),
    /// The server stops.
    Stopping,
    /// There are too many.
    Full,
    /// There is no randomness to be had.
    Failed,
}

impl Refused {
    fn of(mailbox: &Mailbox) -> Self {
        mailbox.outbox.refusal().map_or(Self::Stopping, Self::By)
    }
}

/// 128 bits from the system's random source: whoever knows it is the client.
fn new_id() -> Option<String> {
    let mut secret = [0; 16];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut secret).ok()?;
    Some(secret.iter().fold(String::with_capacity(32), |mut id, byte| {
        let _infallible = write!(id, "{byte:02x}");
        id
    }))
}

/// A polled connection's task: as long as it lives, and then as long as what it has heard can be fetched.
async fn live(porter: Porter<PolledWire, ClientSession>, listed: Listed) {
    let mailbox = Arc::clone(&listed.mailbox);
    let shared = &mailbox.shared;
    if unless_over(shared, Box::pin(porter)).await.is_none() {
        return;
    }
    mailbox.end();
    while let Some(left) = mailbox.time_left(shared.clock.now()) {
        let refused = mailbox.state.lock().life == Life::Closed;
        if refused || shared.clock.timeout(left, shared.stopping.cancelled()).await.is_some() {
            return;
        }
    }
}

/// A place in the list; once dropped, the books of its mailbox are closed.
struct Listed {
    id: String,
    mailbox: Arc<Mailbox>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.mailbox.shared.polled.0.lock().remove(&self.id);
        self.mailbox.close();
    }
}

/// Ends a connection whose caller has gone before it was told of it.
struct HangsUp(Option<Arc<Mailbox>>);

impl Drop for HangsUp {
    fn drop(&mut self) {
        if let Some(mailbox) = &self.0 {
            let mut state = mailbox.state.lock();
            state.hung_up = true;
            state.wake();
        }
    }
}

/// A request that waits: its client is there for as long.
struct Waits<'a>(&'a Mailbox);

impl<'a> Waits<'a> {
    fn new(mailbox: &'a Mailbox) -> Self {
        mailbox.state.lock().waiting += 1;
        Self(mailbox)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waiting -= 1;
        state.last_seen = Some(self.0.shared.clock.now());
        state.wake();
    }
}

impl Mailbox {
    /// The client says a payload.
    pub(super) fn say(&self, payload: String) -> Result<(), Over> {
        let mut state = self.state.lock();
        if state.life != Life::Open {
            return Err(Over::Gone);
        }
        let limits = &self.shared.config.limits;
        if state.said.len() >= limits.outbox_messages || state.said_bytes + payload.len() > limits.outbox_bytes {
            return Err(Over::Full);
        }
        state.said_bytes += payload.len();
        state.last_seen = Some(self.shared.clock.now());
        state.said.push_back(payload);
        state.wake();
        Ok(())
    }

    /// What there is from number `start` on, at most `count` messages, and acknowledges what comes before. Where there is
    /// nothing, waits for it.
    pub(super) async fn fetch(&self, start: u64, count: usize, wait: Duration) -> Result<Vec<Text>, Over> {
        let _waits = Waits::new(self);
        let fetched = async {
            loop {
                let arrived = self.arrived.notified();
                if let Some(done) = self.look(start, count) {
                    return done;
                }
                tokio::select! {
                    () = arrived => {}
                    () = self.shared.stopping.cancelled() => return Ok(Vec::new()),
                }
            }
        };
        match self.look(start, count) {
            Some(done) => done,
            None if wait.is_zero() => Ok(Vec::new()),
            None => self.shared.clock.timeout(wait, fetched).await.unwrap_or(Ok(Vec::new())),
        }
    }

    /// What there is, if it needs no waiting.
    fn look(&self, start: u64, count: usize) -> Option<Result<Vec<Text>, Over>> {
        let mut state = self.state.lock();
        let end = state.first + state.kept.len() as u64;
        if state.life == Life::Closed || (state.life == Life::Ended && start >= end) {
            return Some(Err(Over::Gone));
        }
        if start > end || count == 0 {
            return Some(Ok(Vec::new()));
        }
        state.acknowledge(start, &self.shared);
        state.wake();
        let found: Vec<_> = state.kept.iter_mut().take(count).map(|kept| fetched(kept, &self.shared)).collect();
        (!found.is_empty()).then_some(Ok(found))
    }

    /// All there is, acknowledged as it goes out (the reference's way).
    pub(super) fn take_all(&self) -> Result<Vec<Text>, Over> {
        let mut state = self.state.lock();
        if state.life == Life::Closed || (state.life == Life::Ended && state.kept.is_empty()) {
            return Err(Over::Gone);
        }
        state.last_seen = Some(self.shared.clock.now());
        let found = state.kept.iter_mut().map(|kept| fetched(kept, &self.shared)).collect();
        let end = state.first + state.kept.len() as u64;
        state.acknowledge(end, &self.shared);
        state.wake();
        Ok(found)
    }

    /// The device info; `None` where the connection ends without.
    async fn first_message(&self) -> Option<Text> {
        let _waits = Waits::new(self);
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.state.lock();
                if state.life != Life::Opening {
                    return None;
                }
                if let Some((text, _)) = state.kept.pop_front() {
                    state.kept_bytes -= text.len();
                    state.life = Life::Open;
                    return Some(text);
                }
            }
            arrived.await;
        }
    }

    /// Why the connection has ended, where the server has ended it.
    pub(super) fn why(&self) -> Option<Cow<'static, str>> {
        let overflowed = || self.outbox.has_overflowed().then_some(Cow::Borrowed("Slow consumer"));
        self.outbox.refusal().map(|refusal| refusal.text()).or_else(overflowed)
    }

    /// Its session is over. Of one that was refused nobody knows the id: there is nothing to fetch.
    fn end(&self) {
        let mut state = self.state.lock();
        state.life = match state.life {
            Life::Opening | Life::Closed => Life::Closed,
            Life::Open | Life::Ended => Life::Ended,
        };
        drop(state);
        self.arrived.notify_waiters();
    }

    /// For how long the client may stay away yet; `None` once it was too long.
    fn time_left(&self, now: Instant) -> Option<Duration> {
        let due = self.due()?;
        (due > now).then(|| due - now)
    }

    /// When the client is given up: a request that waits is as good as one that has just come.
    fn due(&self) -> Option<Instant> {
        let state = self.state.lock();
        let seen = if state.waiting > 0 { self.shared.clock.now() } else { state.last_seen? };
        seen.checked_add(self.shared.config.limits.polled_timeout)
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.life = Life::Closed;
        let never_fetched = state.kept.drain(..).filter(|(_, due)| *due).count() as u64;
        drop(state);
        self.shared.relay.ledger().lose(never_fetched);
        self.arrived.notify_waiters();
    }
}

/// A message on its way out; booked the first time.
fn fetched((text, due): &mut (Text, bool), shared: &Shared) -> Text {
    shared.relay.ledger().deliver(u64::from(std::mem::take(due)));
    text.clone()
}

impl State {
    /// The client has everything before this number.
    fn acknowledge(&mut self, start: u64, shared: &Shared) {
        while self.first < start
            && let Some((text, due)) = self.kept.pop_front()
        {
            // Acknowledged without having been fetched: a client that counts wrong. It has had its chance.
            shared.relay.ledger().lose(u64::from(due));
            self.kept_bytes -= text.len();
            self.first += 1;
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The porter's end of a mailbox.
struct PolledWire(Arc<Mailbox>);

impl Wire for PolledWire {
    fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Came> {
        let mut state = self.0.state.lock();
        if let Some(text) = state.said.pop_front() {
            state.said_bytes -= text.len();
            return Poll::Ready(Came::Text(text));
        }
        if state.hung_up {
            return Poll::Ready(Came::Gone);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_send(&mut self, cx: &mut TaskContext<'_>, text: &Text, forward: bool) -> Poll<io::Result<()>> {
        // What ends a connection is told by the answer to the next request, and not a message of the device.
        if outbound::type_of(text) == "error" {
            return Poll::Ready(Ok(()));
        }
        let limits = &self.0.shared.config.limits;
        let mut state = self.0.state.lock();
        if state.kept.len() >= limits.outbox_messages || state.kept_bytes + text.len() > limits.outbox_bytes {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.kept_bytes += text.len();
        state.kept.push_back((text.clone(), forward));
        drop(state);
        self.0.arrived.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, _: &End) {
        self.0.end();
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.due()
    }
}
