//! The session of a client: one `connect`, a wait for the device if configured, then forwards.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use super::{Answer, Context, Question, Session, Step, deadline_after};
use crate::core::hub::{Client, Device, Waiter};
use crate::core::outbox::CreditWait;
use crate::observe::timings::since;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientMessage, DeviceId, inbound, is_plain, outbound};

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
}

/// Form of the messages between a client and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// With an envelope: `connect` and `forward`, `config` and `device_info` (docs/protocol.md 1).
    Enveloped,
    /// Without one: the request names the device, and each text is a payload (docs/protocol.md 5.3.7 and 5.3.8).
    Bare,
}

enum State {
    /// No message yet; the deadline is for the first one.
    New { deadline: Option<Instant> },
    /// Waits for its config. A client that has waited for its device keeps the deadline of that wait.
    Configuring { id: DeviceId, wait: Wait },
    /// Has its config and waits for the device to register.
    Waiting { id: DeviceId, deadline: Option<Instant> },
    /// The device is registered; waits for its device info as this client may see it.
    AwaitingDeviceInfo { device: Arc<Device>, deadline: Option<Instant> },
    /// Has the device info.
    Connected { device: Arc<Device>, client: Arc<Client> },
    /// Left.
    Left,
}

/// Wait of a client for its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// It has not begun.
    Begins,
    /// It goes on until the deadline.
    Continues(Option<Instant>),
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
            peer_journal.concerns(&id);
        }
        let deadline = deadline_after(now, context.rules.device_wait_timeout);
        let mut session = Self::with(context, deadline, Framing::Bare);
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
            State::Waiting { id, .. } => self.context.hub.stop_waiting(&id, &self.context.outbox),
            State::Connected { device, client } => self.context.hub.detach(&device, &client),
            _ => {}
        }
    }

    fn on_connect(&mut self, id: Option<DeviceId>) -> Step {
        if !matches!(self.state, State::New { .. }) {
            return self.refuse(&Refusal::AlreadyConnected);
        }
        let Some(id) = id else { return self.refuse(&Refusal::ConnectWithoutId) };
        self.configure(id, Wait::Begins)
    }

    /// Requests a config.
    fn configure(&mut self, id: DeviceId, wait: Wait) -> Step {
        self.generation = self.context.hub.ice_generation();
        self.state = State::Configuring { id: id.clone(), wait };
        Step::Ask(Question::Config { device_id: id })
    }

    /// Looks for the device that the client waits for. If it has come, and the ICE servers of the client are outdated, the
    /// client gets a new config first (docs/protocol.md 4.2.10).
    fn find_after_wait(&mut self, id: DeviceId, deadline: Option<Instant>, now: Instant) -> Step {
        let step = self.find(id.clone(), deadline, now);
        let has_come = matches!(self.state, State::AwaitingDeviceInfo { .. });
        let expiring = self.renew_at.is_some_and(|at| at <= now);
        let outdated = expiring || self.generation != self.context.hub.ice_generation();
        if has_come && outdated && self.framing == Framing::Enveloped {
            return self.configure(id, Wait::Continues(deadline));
        }
        step
    }

    /// Looks for the device, until the deadline.
    ///
    /// A device outside the client's grant takes the same steps and is never found, so that a client cannot tell it
    /// from one that does not exist.
    fn find(&mut self, id: DeviceId, deadline: Option<Instant>, now: Instant) -> Step {
        let Context { hub, peer, outbox, rules, .. } = &self.context;
        // No device can register such an id. It is not waited for, since the text may be long.
        let can_register = !id.as_str().is_empty() && is_plain(id.as_str(), rules.max_device_id);
        let over = deadline.is_some_and(|deadline| deadline <= now) || !can_register;
        let device = if over {
            hub.device(&id).filter(|_| peer.grant.covers(&id))
        } else {
            hub.device_or_wait(&id, &Waiter { peer: Arc::clone(peer), outbox: Arc::clone(outbox) })
        };
        if let Some(device) = device {
            self.state = State::AwaitingDeviceInfo { device: Arc::clone(&device), deadline };
            return Step::Ask(Question::DeviceInfo(device));
        }
        self.state = State::Waiting { id: id.clone(), deadline };
        if over {
            return self.refuse(&Refusal::DeviceNotFound(id));
        }
        self.waits_since.get_or_insert(now);
        Step::Done
    }

    /// Forwards a payload of a polled client. The answer to its request carries the refusal.
    ///
    /// # Errors
    /// [`Refusal::NotConnected`], and those of [`Relay::to_device`](crate::core::relay::Relay::to_device).
    pub fn forward(&mut self, payload: &str, now: Instant) -> Result<(), Refusal> {
        let outcome = match &self.state {
            State::Connected { device, client } => self.context.relay.to_device(device, client, payload, now),
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
            (State::Connected { .. }, None) => Refusal::ClientForwardWithoutPayload,
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
        if self.framing == Framing::Bare {
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
                self.context.record_received(text, "connect", device_id.as_ref());
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
                let deadline = match wait {
                    Wait::Begins => deadline_after(now, self.context.rules.device_wait_timeout),
                    Wait::Continues(deadline) => deadline,
                };
                self.find(id, deadline, now)
            }
            (State::AwaitingDeviceInfo { device, deadline }, Answer::DeviceInfo(info)) => {
                let Context { hub, peer, outbox, rules, .. } = &self.context;
                let info = match self.framing {
                    Framing::Enveloped => info,
                    Framing::Bare => outbound::bare_device_info(outbound::info_of(&info)),
                };
                match hub.attach(&device, info, peer, outbox, rules.max_clients_per_device) {
                    Ok(Some(client)) => {
                        self.state = State::Connected { device, client };
                        if let Some(waits_since) = self.waits_since.take() {
                            self.context.timings.observe_device_wait(since(waits_since, now));
                        }
                        Step::Done
                    }
                    // The device left while a hook filtered its info, so the client looks for it again.
                    Ok(None) => self.find(device.id.clone(), deadline, now),
                    Err(refusal) => self.refuse(&refusal),
                }
            }
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
        matches!(self.state, State::Configuring { .. } | State::AwaitingDeviceInfo { .. })
    }

    fn poll_credit(&mut self, cx: &TaskContext<'_>) -> Poll<()> {
        let State::Connected { device, client } = &self.state else { return Poll::Ready(()) };
        if !device.outbox.may_queue(&client.share) {
            let wait = self.credit_wait.get_or_insert_with(|| CreditWait::new(&device.outbox, &client.share));
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
