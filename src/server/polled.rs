//! Clients that poll (PROTOCOL.md 5.3): for each a mailbox between its requests and its session, which a porter serves.
//!
//! A message stays in the mailbox until the client has acknowledged it, by asking for a later one. Whoever stays away for
//! too long has left.

mod kept;
mod wire;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Shared;
use super::connection::unless_over;
use super::porter::Porter;
use crate::outbox::Outbox;
use crate::peer::Peer;
use crate::protocol::{DeviceId, Text, outbound};
use crate::refusal::Refusal;
use crate::session::ClientSession;
use kept::Kept;
use wire::PolledWire;

/// The bytes of a `client_msg` around its payload, at most: those of a client id of ten digits.
const MAX_ENVELOPE: usize = r#"{"message_type":"client_msg","client_id":2147483647,"payload":}"#.len();

/// The mailboxes of one server, by connection id.
#[derive(Default)]
pub(crate) struct Polled(Mutex<HashMap<String, Arc<Mailbox>>>);

/// What one client that polls has said, and what there is for it.
pub(super) struct Mailbox {
    shared: Arc<Shared>,
    device: DeviceId,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
    /// Told when there is more to fetch, or nothing any more.
    arrived: Notify,
}

#[derive(Default)]
struct State {
    said: VecDeque<String>,
    said_bytes: usize,
    /// What there is for the client.
    kept: Kept,
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
    /// The connection has ended, and all that there was has been fetched.
    Gone,
    /// The client asks for messages that it has acknowledged.
    Acknowledged {
        /// From which number on.
        start: u64,
        /// The number of the first that is kept.
        first: u64,
    },
    /// More was said than the session has taken yet.
    Full,
}

/// What a poll asks for.
pub(super) struct Wanted {
    /// From which number on; everything before it is acknowledged. `None` is from the first that there is.
    pub(super) start: Option<u64>,
    /// At most so many messages.
    pub(super) count: usize,
    /// How long to wait for the first of them.
    pub(super) wait: Duration,
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
        device: device.clone(),
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
struct Waits<'a> {
    mailbox: &'a Mailbox,
    /// [`Kept::unsent`] when it came.
    unsent: u64,
}

impl<'a> Waits<'a> {
    fn new(mailbox: &'a Mailbox) -> Self {
        let mut state = mailbox.state.lock();
        state.waiting += 1;
        Self { mailbox, unsent: state.kept.unsent() }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut state = self.mailbox.state.lock();
        state.waiting -= 1;
        // Once the session is over, only what is fetched for the first time keeps the rest.
        if state.life != Life::Ended || state.kept.unsent() > self.unsent {
            state.last_seen = Some(self.mailbox.shared.clock.now());
        }
        state.wake();
    }
}

impl Mailbox {
    /// Whether a payload fits a message to the device. Where the device has gone, the session says so.
    ///
    /// # Errors
    /// [`Refusal::ForwardTooLarge`].
    pub(super) fn check_size(&self, payload: &str) -> Result<(), Refusal> {
        let Some(device) = self.shared.hub.device(&self.device) else { return Ok(()) };
        let limit = device.peer.max_message;
        if payload.len() + MAX_ENVELOPE <= limit {
            return Ok(());
        }
        let Some(client) = device.client_with(&self.outbox) else { return Ok(()) };
        let size = outbound::client_msg(client.id, payload).len();
        if size > limit { Err(Refusal::ForwardTooLarge { size, limit }) } else { Ok(()) }
    }

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

    /// The messages that are wanted; acknowledges those before them. Where there are none, waits for them.
    pub(super) async fn fetch(&self, wanted: &Wanted) -> Result<Vec<Text>, Over> {
        let _waits = Waits::new(self);
        let fetched = async {
            loop {
                let arrived = self.arrived.notified();
                if let Some(done) = self.look(wanted) {
                    return done;
                }
                tokio::select! {
                    () = arrived => {}
                    () = self.shared.stopping.cancelled() => return Ok(Vec::new()),
                }
            }
        };
        match self.look(wanted) {
            Some(done) => done,
            None if wanted.wait.is_zero() => Ok(Vec::new()),
            None => self.shared.clock.timeout(wanted.wait, fetched).await.unwrap_or(Ok(Vec::new())),
        }
    }

    /// What there is, if it needs no waiting.
    fn look(&self, wanted: &Wanted) -> Option<Result<Vec<Text>, Over>> {
        let mut state = self.state.lock();
        let start = match state.start_of(wanted) {
            Ok(start) => start,
            Err(over) => return Some(Err(over)),
        };
        if start > state.kept.end() {
            return Some(Ok(Vec::new()));
        }
        state.kept.acknowledge(start, self.shared.relay.ledger());
        let found = state.kept.send(wanted.count, self.shared.relay.ledger());
        state.wake();
        (!found.is_empty() || wanted.count == 0).then_some(Ok(found))
    }

    /// What [`Mailbox::fetch`] would return now. Changes nothing.
    pub(super) fn peek(&self, wanted: &Wanted) -> Result<Vec<Text>, Over> {
        let state = self.state.lock();
        let start = state.start_of(wanted)?;
        Ok(state.kept.from(start, wanted.count).cloned().collect())
    }

    /// All there is, acknowledged as it goes out (the reference's way).
    pub(super) fn take_all(&self) -> Result<Vec<Text>, Over> {
        let mut state = self.state.lock();
        if state.life == Life::Closed || (state.life == Life::Ended && state.kept.is_empty()) {
            return Err(Over::Gone);
        }
        state.last_seen = Some(self.shared.clock.now());
        let found = state.kept.send(usize::MAX, self.shared.relay.ledger());
        let end = state.kept.end();
        state.kept.acknowledge(end, self.shared.relay.ledger());
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
                if let Some(text) = state.kept.pop() {
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
        state.kept.close(self.shared.relay.ledger());
        drop(state);
        self.arrived.notify_waiters();
    }
}

impl State {
    /// From which number on a poll gets messages.
    fn start_of(&self, wanted: &Wanted) -> Result<u64, Over> {
        if self.life == Life::Closed {
            return Err(Over::Gone);
        }
        self.kept.start_of(wanted, self.life == Life::Ended)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
