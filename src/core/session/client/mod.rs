//! The session of a client: one `connect`, a wait for the device if configured, then forwards.

mod search;

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use super::{Answer, Context, Question, Session, Step, deadline_after};
use crate::core::hub::{Client, Device};
use crate::core::outbox::CreditWait;
use crate::core::upstream::Upstream;
use crate::observe::timings::since;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientMessage, DeviceId, Text, inbound, is_plain, outbound};

/// Time that a client of another node waits for a device that is about to register on this one.
const WAIT_FOR_NODE: Duration = Duration::from_secs(2);

/// Session of a client. See [`Session`].
pub struct ClientSession {
    context: Context,
    state: State,
    framing: Framing,
    /// Generation of the ICE servers when its latest config was requested.
    generation: u64,
    /// Time from which the credentials in that config are too old for a client that has waited.
    renew_at: Option<Instant>,
    /// Place in the line for room in the device's outbox.
    credit_wait: Option<CreditWait>,
    /// Messages in that outbox after the last forward.
    backlog: usize,
    /// Time from which it has waited for its device, until it has the device info.
    waits_since: Option<Instant>,
    /// Device that it wants, also after its end.
    wanted: Option<DeviceId>,
}

/// Form of the messages between a client and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// With an envelope: `connect` and `forward`, `config` and `device_info` (docs/protocol.md 1).
    Enveloped,
    /// Without one: the request names the device, and each text is a payload (docs/protocol.md 5.3.7 and 5.3.8).
    Bare,
    /// Between nodes: as [`Framing::Bare`], for a client of another node, which renders the device info itself.
    Node,
}

enum State {
    /// No message yet; the deadline is for the first one.
    New { deadline: Option<Instant> },
    /// Waits for its config. A client that has waited for its device keeps the deadline of that wait.
    Configuring { id: DeviceId, wait: Wait },
    /// Has its config and waits for the device to register.
    Waiting { id: DeviceId, deadline: Option<Instant> },
    /// Waits to hear which other node has the device.
    Locating(Search),
    /// The device is registered, here or on another node; waits for its device info as this client may see it.
    AwaitingDeviceInfo { id: DeviceId, device: Arc<Device>, upstream: Option<Box<Upstream>>, deadline: Option<Instant> },
    /// Has the device info.
    Connected { device: Arc<Device>, client: Arc<Client> },
    /// Has the device info of a device on another node.
    Proxied(Box<Upstream>),
    /// Left.
    Left,
}

/// Wait of a client for its device.
enum Wait {
    /// It has not begun.
    Begins,
    /// It goes on until the deadline.
    Continues(Option<Instant>),
    /// It is over: the device was found on another node.
    Found(Box<Upstream>, Option<Instant>),
}

/// A question for the node of the device.
struct Search {
    id: DeviceId,
    deadline: Option<Instant>,
    /// Whether the client is among those that the hub wakes.
    waits: bool,
    /// Whether it was woken since the question.
    woken: bool,
    /// Whether the client waits no longer.
    last: bool,
}

impl ClientSession {
    /// Creates the session of a client that has just connected.
    pub fn new(context: Context, now: Instant) -> Self {
        let deadline = deadline_after(now, context.rules.first_message_timeout);
        Self::with(context, deadline, Framing::Enveloped)
    }

    /// Creates the session of a client whose request names its device, and whose texts are payloads (docs/protocol.md
    /// 5.3.7 and 5.3.8).
    ///
    /// It gets no `config`: `GET /infra_config` has it (docs/protocol.md 5.3.1).
    pub fn of_device(context: Context, id: DeviceId, now: Instant) -> (Self, Step) {
        if let Some(peer_journal) = context.outbox.peer_journal() {
            peer_journal.concerns(&context.hub.resolve(&id));
        }
        let deadline = deadline_after(now, context.rules.device_wait_timeout);
        let mut session = Self::with(context, deadline, Framing::Bare);
        session.wants(&id);
        let step = session.find(id, deadline, now);
        (session, step)
    }

    /// Creates the session of a client of another node, and connects it. It gets the unfiltered device info and no
    /// `config`, since its own node has both from its hooks.
    pub fn of_node(context: Context, id: DeviceId, now: Instant) -> (Self, Step) {
        let deadline = now.checked_add(WAIT_FOR_NODE);
        let mut session = Self::with(context, deadline, Framing::Node);
        session.wants(&id);
        let step = session.find(id, deadline, now);
        (session, step)
    }

    fn with(context: Context, deadline: Option<Instant>, framing: Framing) -> Self {
        let state = State::New { deadline };
        Self {
            context,
            state,
            framing,
            generation: 0,
            renew_at: None,
            credit_wait: None,
            backlog: 0,
            waits_since: None,
            wanted: None,
        }
    }

    /// Refuses a message. A refusal that closes ends the session at once, and further texts of the peer are ignored.
    fn refuse(&mut self, refusal: &Refusal) -> Step {
        let closes = refusal.close_code().is_some();
        if closes {
            self.unregister();
        }
        self.context.refuse(refusal);
        if closes { Step::Done } else { Step::Refused }
    }

    /// Removes the session from the hub.
    fn unregister(&mut self) {
        self.credit_wait = None;
        match std::mem::replace(&mut self.state, State::Left) {
            State::Waiting { id, .. } | State::Locating(Search { id, .. }) => {
                self.context.hub.stop_waiting(&id, &self.context.outbox);
            }
            State::Connected { device, client } => self.context.hub.detach(&device, &client),
            _ => {}
        }
    }

    fn on_connect(&mut self, id: Option<DeviceId>) -> Step {
        if !matches!(self.state, State::New { .. }) {
            return self.refuse(&Refusal::AlreadyConnected);
        }
        let Some(id) = id else { return self.refuse(&Refusal::ConnectWithoutId) };
        self.wants(&id);
        self.configure(id, Wait::Begins)
    }

    /// Notes the device that the client wants. No device can have an invalid id, whose text may be long.
    fn wants(&mut self, id: &DeviceId) {
        let Context { hub, rules, .. } = &self.context;
        let is_valid = is_plain(id.as_str(), rules.max_device_id);
        self.wanted = is_valid.then(|| if self.framing == Framing::Node { id.clone() } else { hub.resolve(id) });
    }

    /// Requests a config.
    fn configure(&mut self, id: DeviceId, wait: Wait) -> Step {
        self.generation = self.context.hub.ice_generation();
        let device_id = self.context.hub.resolve(&id);
        self.state = State::Configuring { id, wait };
        Step::Ask(Question::Config { device_id })
    }

    /// Connects the client to a device of this node.
    fn attach(
        &mut self,
        id: DeviceId,
        device: &Arc<Device>,
        info: Text,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Step {
        let Context { hub, peer, outbox, rules, .. } = &self.context;
        let most = if rules.one_client_per_device { 1 } else { rules.max_clients_per_device };
        match hub.attach(device, self.rendered(info), peer, outbox, most) {
            Ok(Some(client)) => {
                self.state = State::Connected { device: Arc::clone(device), client };
                self.has_its_device(now);
                Step::Done
            }
            // The device left while a hook filtered its info, so the client looks for it again.
            Ok(None) => self.find(id, deadline, now),
            Err(Refusal::TooManyClients(_)) if rules.one_client_per_device => self.refuse(&Refusal::DeviceInUse(id)),
            Err(refusal) => self.refuse(&refusal.naming(&id)),
        }
    }

    /// Returns the device info in the framing of the client.
    fn rendered(&self, info: Text) -> Text {
        match self.framing {
            Framing::Enveloped | Framing::Node => info,
            Framing::Bare => outbound::bare_device_info(outbound::info_of(&info)),
        }
    }

    /// Records for how long the client has waited for its device.
    fn has_its_device(&mut self, now: Instant) {
        if let Some(waits_since) = self.waits_since.take() {
            self.context.timings.observe_device_wait(since(waits_since, now));
        }
    }

    /// Forwards a payload of a polled client. The answer to its request carries the refusal.
    ///
    /// # Errors
    /// [`Refusal::NotConnected`], and those of [`Relay::to_device`](crate::core::relay::Relay::to_device).
    pub fn forward(&mut self, payload: &str, now: Instant) -> Result<(), Refusal> {
        let outcome = match &self.state {
            State::Connected { device, client } => self.context.relay.to_device(device, client, payload, now),
            State::Proxied(upstream) => Ok(upstream.forward(&self.context.relay, payload, now)),
            _ => Err(Refusal::NotConnected),
        };
        outcome.map(|_| ()).inspect_err(|refusal| self.context.record_refusal(refusal))
    }

    fn on_forward(&mut self, text: &str, payload: Option<&str>, now: Instant) -> Step {
        let refusal = match (&self.state, payload) {
            (State::Connected { device, client }, Some(payload)) => {
                match self.context.relay.to_device(device, client, payload, now) {
                    Ok(backlog) => {
                        self.backlog = backlog;
                        return Step::Done;
                    }
                    Err(refusal) => return self.refuse(&refusal),
                }
            }
            (State::Proxied(upstream), Some(payload)) => {
                self.backlog = upstream.forward(&self.context.relay, payload, now);
                return Step::Done;
            }
            (State::Connected { .. } | State::Proxied(_), None) => Refusal::ClientForwardWithoutPayload,
            _ => Refusal::NotConnected,
        };
        self.context.record_received(text, "forward", None);
        self.refuse(&refusal)
    }
}

impl Session for ClientSession {
    fn on_text(&mut self, text: &str, now: Instant) -> Step {
        if matches!(self.state, State::Left) {
            return Step::Done;
        }
        if self.framing != Framing::Enveloped {
            return match inbound::bare_payload(text) {
                Ok(payload) => self.on_forward(text, Some(payload), now),
                Err(malformed) => {
                    self.context.record_received(text, "", None);
                    self.refuse(&malformed.into())
                }
            };
        }
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Forward { payload }) => self.on_forward(text, payload, now),
            Ok(ClientMessage::Connect { device_id }) => {
                let meant = device_id.as_ref().map(|id| self.context.hub.resolve(id));
                self.context.record_received(text, "connect", meant.as_ref());
                self.on_connect(device_id)
            }
            Ok(ClientMessage::Unknown(name)) => {
                self.context.record_received(text, &name, None);
                self.refuse(&Refusal::UnknownMessageType(name.into_owned()))
            }
            Err(malformed) => {
                self.context.record_received(text, "", None);
                self.refuse(&malformed.into())
            }
        }
    }

    fn on_answer(&mut self, answer: Answer, now: Instant) -> Step {
        match (std::mem::replace(&mut self.state, State::Left), answer) {
            (State::Configuring { id, wait }, Answer::Config(config, good_for)) => {
                self.context.outbox.push(config);
                self.renew_at = deadline_after(now, good_for.map(|time| time / 2));
                match wait {
                    Wait::Begins => self.find(id, deadline_after(now, self.context.rules.device_wait_timeout), now),
                    Wait::Continues(deadline) => self.find(id, deadline, now),
                    Wait::Found(upstream, deadline) => {
                        self.meet(id, Arc::clone(upstream.device()), Some(upstream), deadline, now)
                    }
                }
            }
            (State::AwaitingDeviceInfo { id, device, upstream, deadline }, Answer::DeviceInfo(info)) => {
                match upstream {
                    None => self.attach(id, &device, info, deadline, now),
                    Some(upstream) => self.attach_away(upstream, info, deadline, now),
                }
            }
            (State::Locating(search), answer) => self.on_located(search, answer, now),
            (State::Configuring { .. } | State::AwaitingDeviceInfo { .. }, Answer::Refused(refusal)) => {
                self.refuse(&refusal)
            }
            (state, _) => {
                self.state = state;
                Step::Done
            }
        }
    }

    fn holds_texts(&self) -> bool {
        matches!(self.state, State::Configuring { .. } | State::Locating(_) | State::AwaitingDeviceInfo { .. })
    }

    fn poll_credit(&mut self, cx: &TaskContext<'_>) -> Poll<()> {
        let (outbox, share) = match &self.state {
            State::Connected { device, client } => (&device.outbox, &client.share),
            State::Proxied(upstream) => (&upstream.device().outbox, upstream.share()),
            _ => return Poll::Ready(()),
        };
        if !outbox.may_queue(share) {
            let wait = self.credit_wait.get_or_insert_with(|| CreditWait::new(outbox, share));
            ready!(wait.poll(cx));
        }
        if self.credit_wait.is_some() {
            // The client goes on, and leaves its place in the line.
            self.credit_wait = None;
        }
        Poll::Ready(())
    }

    fn backlog(&self) -> usize {
        self.backlog
    }

    fn on_recheck(&mut self, now: Instant) -> Step {
        match std::mem::replace(&mut self.state, State::Left) {
            State::New { deadline: Some(deadline) } if deadline <= now => self.refuse(&Refusal::FirstMessageTimeout),
            State::Waiting { id, deadline } => self.find_after_wait(id, deadline, now),
            State::Locating(search) => {
                self.state = State::Locating(Search { woken: true, ..search });
                Step::Done
            }
            state => {
                self.state = state;
                Step::Done
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::New { deadline } | State::Waiting { deadline, .. } => *deadline,
            _ => None,
        }
    }

    fn leave(&mut self) {
        if !matches!(self.state, State::Left) {
            self.context.outbox.peer_left();
        }
        self.unregister();
    }

    fn disconnect(&mut self, refusal: &Refusal) {
        let _closed = self.refuse(refusal);
    }

    fn device_id(&self) -> Option<&DeviceId> {
        self.wanted.as_ref()
    }

    fn is_introduced(&self) -> bool {
        !matches!(self.state, State::New { .. })
    }

    fn context(&self) -> &Context {
        &self.context
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        self.leave();
    }
}
