//! The session of a client: connect once, perhaps wait for the device, then forward to it.

use std::sync::Arc;
use std::time::Instant;

use super::{Answer, Context, Question, Session, Step, deadline_after};
use crate::core::hub::{Client, Device};
use crate::core::outbox::Outbox;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientMessage, DeviceId, inbound, outbound};

/// See [`Session`].
pub struct ClientSession {
    context: Context,
    state: State,
    framing: Framing,
}

/// How a client and the server speak to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// In messages: `connect` and `forward`, `config` and `device_info` (docs/protocol.md 4).
    Enveloped,
    /// The request has named the device, and each text is a payload (docs/protocol.md 5.3).
    Bare,
}

enum State {
    /// Nothing said yet; it has to be by then.
    New { deadline: Option<Instant> },
    /// Waits for its config.
    Configuring { id: DeviceId },
    /// Has its config and waits for the device to register.
    Waiting { id: DeviceId, deadline: Option<Instant> },
    /// The device is there; waits for what it may see of it.
    AwaitingDeviceInfo { device: Arc<Device>, deadline: Option<Instant> },
    /// Has its device info.
    Connected { device: Arc<Device>, client: Arc<Client> },
    /// Gone.
    Left,
}

impl ClientSession {
    /// A client that has just connected.
    pub fn new(context: Context, now: Instant) -> Self {
        let deadline = deadline_after(now, context.rules.first_message_timeout);
        Self { context, state: State::New { deadline }, framing: Framing::Enveloped }
    }

    /// A client whose request has named its device, and whose texts are payloads (docs/protocol.md 5.3). It gets no `config`,
    /// for which it asks `GET /infra_config`.
    pub fn of_device(context: Context, id: DeviceId, now: Instant) -> (Self, Step) {
        if let Some(peer_journal) = context.outbox.peer_journal() {
            peer_journal.concerns(&id);
        }
        let deadline = deadline_after(now, context.rules.device_wait_timeout);
        let mut session = Self { context, state: State::New { deadline }, framing: Framing::Bare };
        let step = session.find(id, deadline, now);
        (session, step)
    }

    /// Says no. A refusal that closes ends the session there and then, and whatever the peer had sent ahead.
    fn refuse(&mut self, refusal: &Refusal) -> Step {
        let closes = refusal.close_code().is_some();
        if closes {
            self.unregister();
        }
        self.context.refuse(refusal);
        if closes { Step::Done } else { Step::Refused }
    }

    /// Out of the hub, if it was in it.
    fn unregister(&mut self) {
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
        self.state = State::Configuring { id: id.clone() };
        Step::Ask(Question::Config { device_id: id })
    }

    /// Looks for the device, until the deadline. One that is not in the client's grant is looked for like any other, and
    /// never found: what is not allowed takes the way of what is not there.
    fn find(&mut self, id: DeviceId, deadline: Option<Instant>, now: Instant) -> Step {
        let Context { hub, peer, outbox, .. } = &self.context;
        let granted = peer.grant.covers(&id);
        let device = hub.device_or_wait(&id, outbox).filter(|_| granted);
        if let Some(device) = device {
            self.state = State::AwaitingDeviceInfo { device: Arc::clone(&device), deadline };
            return Step::Ask(Question::DeviceInfo(device));
        }
        let over = deadline.is_some_and(|deadline| deadline <= now);
        self.state = State::Waiting { id: id.clone(), deadline };
        if over {
            return self.refuse(&Refusal::DeviceNotFound(id));
        }
        Step::Done
    }

    fn on_forward(&mut self, text: &str, payload: Option<&str>, now: Instant) -> Step {
        let refusal = match (&self.state, payload) {
            (State::Connected { device, client }, Some(payload)) => {
                match self.context.relay.to_device(device, client, payload, now) {
                    Ok(()) => return Step::Done,
                    Err(refusal) => return self.refuse(&refusal),
                }
            }
            (State::Connected { .. }, None) => Refusal::ClientForwardWithoutPayload,
            _ => Refusal::NotConnected,
        };
        self.context.heard(text, "forward", None);
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
                    self.context.heard(text, "", None);
                    self.refuse(&malformed.into())
                }
            };
        }
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Forward { payload }) => self.on_forward(text, payload, now),
            Ok(ClientMessage::Connect { device_id }) => {
                self.context.heard(text, "connect", device_id.as_ref());
                self.on_connect(device_id)
            }
            Ok(ClientMessage::Unknown(name)) => {
                self.context.heard(text, &name, None);
                self.refuse(&Refusal::UnknownMessageType(name.into_owned()))
            }
            Err(malformed) => {
                self.context.heard(text, "", None);
                self.refuse(&malformed.into())
            }
        }
    }

    fn on_answer(&mut self, answer: Answer, now: Instant) -> Step {
        match (std::mem::replace(&mut self.state, State::Left), answer) {
            (State::Configuring { id }, Answer::Config(config, _)) => {
                self.context.outbox.push(config);
                let deadline = deadline_after(now, self.context.rules.device_wait_timeout);
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
                        Step::Done
                    }
                    // It left while its info was being looked at: as if it had not been there.
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

    fn on_recheck(&mut self, now: Instant) -> Step {
        match std::mem::replace(&mut self.state, State::Left) {
            State::New { deadline: Some(deadline) } if deadline <= now => self.refuse(&Refusal::FirstMessageTimeout),
            State::Waiting { id, deadline } => self.find(id, deadline, now),
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

    fn outbox(&self) -> &Outbox {
        &self.context.outbox
    }
}

impl Drop for ClientSession {
    fn drop(&mut self) {
        self.leave();
    }
}
