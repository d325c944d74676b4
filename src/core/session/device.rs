//! The session of a device: one `register`, then forwards to clients.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, ClaimGuard, Context, OnDuplicate, Question, Session, Step, deadline_after};
use crate::core::hub::Device;
use crate::core::preregistration::DeviceMetadata;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, DeviceId, DeviceMessage, Text, is_plain, outbound};

/// Pause after a failed renewal of a config. A hook that fails once may work the next time, and the credentials that the
/// device has still work for half of their time.
const RENEWAL_RETRY: Duration = Duration::from_secs(10);

/// Session of a device. See [`Session`].
pub struct DeviceSession {
    context: Context,
    state: State,
    /// Whether it is on the device socket. It may name the port of its own web server on this machine (docs/protocol.md
    /// 5.1.4), and has another id in the cluster (docs/protocol.md 5.4.9).
    is_local: bool,
    /// Messages in the outbox of the client of the last forward, after it.
    backlog: usize,
    /// Id that it has in the cluster, or wants to have, also after its end.
    named: Option<DeviceId>,
}

enum State {
    /// No message yet; the deadline is for the first one.
    New { deadline: Option<Instant> },
    /// Waits for its config. `generation` is that of the ICE servers when the config was requested.
    Configuring { id: DeviceId, local_id: Option<DeviceId>, info: Text, port: Option<u16>, generation: u64 },
    /// Waits for its id in the cluster (docs/protocol.md 5.4.2).
    Claiming(Box<Registration>),
    /// Waits for the result of the probe of the holder of its id (docs/protocol.md 4.1.13).
    AwaitingProbe(Box<Registration>),
    /// Registered in the hub.
    Registered(Registered),
    /// Left.
    Left,
}

struct Registration {
    device: Arc<Device>,
    config: Text,
    generation: u64,
    renew_at: Option<Instant>,
    /// Claim of its id in the cluster.
    claim: Option<ClaimGuard>,
}

struct Registered {
    device: Arc<Device>,
    generation: u64,
    /// Generation of the ICE servers in a renewal that was requested and not answered yet.
    renewing: Option<u64>,
    /// Time to renew the credentials in its config, or to try it again.
    renew_at: Option<Instant>,
    /// Claim of its id in the cluster, given up after the device has left the hub.
    _claim: Option<ClaimGuard>,
}

impl DeviceSession {
    /// Creates the session of a device that has just connected.
    pub fn new(context: Context, now: Instant) -> Self {
        let deadline = deadline_after(now, context.rules.first_message_timeout);
        Self { context, state: State::New { deadline }, is_local: false, backlog: 0, named: None }
    }

    /// Creates the session of a device on the device socket.
    pub fn over_packets(context: Context, now: Instant) -> Self {
        let mut session = Self::new(context, now);
        session.is_local = true;
        session
    }

    /// Refuses a message. A refusal that closes ends the registration at once, and further texts of the device are
    /// ignored.
    fn refuse(&mut self, refusal: Refusal) -> Step {
        let closes = refusal.close_code().is_some();
        if closes {
            self.unregister();
        }
        self.context.refuse(&refusal);
        match (closes, self.context.outbox.says_errors()) {
            (true, _) => Step::Done,
            (false, true) => Step::Refused,
            (false, false) => Step::Withheld(refusal),
        }
    }

    /// Removes the registration from the hub.
    fn unregister(&mut self) {
        if let State::Registered(registered) = std::mem::replace(&mut self.state, State::Left) {
            self.context.hub.unregister(&registered.device);
            self.context.preregistrations.left(&registered.device.id);
        }
    }

    /// Returns the name in the cluster of a device on a local socket, if it has another one there.
    fn name_of(&self, id: Option<&DeviceId>) -> Option<DeviceId> {
        let names = self.context.hub.local_names().filter(|_| self.is_local);
        Some(names?.name_of(id?.as_str()))
    }

    fn on_register(&mut self, id: Option<DeviceId>, name: Option<DeviceId>, info: &str, port: Option<u16>) -> Step {
        if let State::Registered(registered) = &self.state {
            let refusal = Refusal::AlreadyRegistered(registered.device.said_id().clone());
            return self.refuse(refusal);
        }
        let Some(id) = id else { return self.refuse(Refusal::RegisterWithoutId) };
        let max = self.context.rules.max_device_id;
        if !is_plain(id.as_str(), max) || name.as_ref().is_some_and(|name| name.as_str().len() > max) {
            return self.refuse(Refusal::InvalidDeviceId);
        }
        let (id, local_id) = match name {
            Some(name) => (name, Some(id)),
            None => (id, None),
        };
        self.named = Some(id.clone());
        if !self.context.peer.grant.covers(&id) {
            return self.refuse(Refusal::NotAuthorized(None));
        }
        let generation = self.context.hub.ice_generation();
        let info = outbound::device_info(info);
        self.state = State::Configuring { id: id.clone(), local_id, info, port, generation };
        Step::Ask(Question::Config { device_id: id })
    }

    /// Creates the device, which is not registered yet.
    fn device(&self, id: DeviceId, local_id: Option<DeviceId>, info: Text, port: Option<u16>) -> Arc<Device> {
        let Context { peer, outbox, preregistrations, .. } = &self.context;
        let metadata = preregistrations.metadata_of(&id);
        let mut device = Device::new(id, info, Arc::clone(peer), Arc::clone(outbox));
        (device.port, device.local_id) = (port.filter(|_| self.is_local), local_id);
        self.describe(&mut device, metadata);
        Arc::new(device)
    }

    /// Sets the data from the pre-registration of a device.
    fn describe(&self, device: &mut Device, metadata: Option<Arc<DeviceMetadata>>) {
        let Context { peer, rules, .. } = &self.context;
        let announced = metadata.as_ref().and_then(|metadata| metadata.advertise.as_ref());
        let advertise = announced.or(peer.grant.advertise.as_ref()).or(rules.advertise.as_ref()).cloned();
        device.metadata = metadata;
        device.advertise = advertise.filter(|rules| !rules.is_empty());
    }

    /// Takes over the pre-registration of another node, which came with the claim.
    fn adopt(&self, registration: &mut Registration, place: Arc<DeviceMetadata>) {
        let Context { peer, outbox, preregistrations, rules, .. } = &self.context;
        preregistrations.adopt(&registration.device.id, &place, rules.max_devices);
        let Device { id, local_id, info, port, .. } = &*registration.device;
        let mut device = Device::new(id.clone(), info.clone(), Arc::clone(peer), Arc::clone(outbox));
        (device.port, device.local_id) = (*port, local_id.clone());
        self.describe(&mut device, Some(place));
        registration.device = Arc::new(device);
    }

    /// Claims the id in the cluster, if the server is a node of one. Registers in the hub otherwise.
    fn claim(&mut self, registration: Box<Registration>, now: Instant) -> Step {
        if self.is_full(&registration) {
            return self.refuse(Refusal::TooManyDevices);
        }
        if !self.context.rules.is_clustered {
            return self.register(registration, None, now);
        }
        let device = Arc::clone(&registration.device);
        self.state = State::Claiming(registration);
        Step::Ask(Question::Claim(device))
    }

    /// Returns whether the server has no room for one more device.
    fn is_full(&self, registration: &Registration) -> bool {
        let Context { hub, rules, .. } = &self.context;
        hub.device_count() >= rules.max_devices && hub.device(&registration.device.id).is_none()
    }

    /// Registers in the hub. If another connection holds the id, replaces it or asks for a probe (docs/protocol.md
    /// 4.1.12 to 4.1.14).
    fn register(&mut self, registration: Box<Registration>, expected: Option<&Arc<Device>>, now: Instant) -> Step {
        if self.is_full(&registration) {
            return self.refuse(Refusal::TooManyDevices);
        }
        let hub = &self.context.hub;
        // A claim decides between two connections, whatever this node has.
        let replaces = self.context.rules.on_duplicate == OnDuplicate::Replace || registration.claim.is_some();
        let mut outcome = hub.register(&registration.device, &registration.config, expected);
        while let (Err(holder), true) = (&outcome, replaces) {
            outcome = hub.register(&registration.device, &registration.config, Some(&Arc::clone(holder)));
        }
        match outcome {
            Ok(()) => {
                let Registration { device, generation, renew_at, claim, .. } = *registration;
                let names = self.context.hub.local_names();
                let announced =
                    names.and_then(|names| names.id_of(&device.id)).map_or(device.id.clone(), DeviceId::new);
                self.context.preregistrations.registered(&device.id, &announced);
                self.state =
                    State::Registered(Registered { device, generation, renewing: None, renew_at, _claim: claim });
                self.renew_if_due(now)
            }
            Err(holder) => {
                self.state = State::AwaitingProbe(registration);
                Step::Ask(Question::Alive(holder))
            }
        }
    }

    fn on_forward(&mut self, text: &str, client: Option<ClientId>, payload: Option<&str>, now: Instant) -> Step {
        let refusal = match (&self.state, client, payload) {
            (State::Registered(registered), Some(client), Some(payload)) => {
                match self.context.relay.to_client(&registered.device, client, payload, now) {
                    Ok(backlog) => {
                        self.backlog = backlog;
                        return Step::Done;
                    }
                    // The WebRTC peers of a Cuttlefish device outlive a restart of the server, so it forwards to
                    // clients of before (docs/protocol.md 4.1.19).
                    Err(Refusal::UnknownClient(id)) if !self.context.outbox.says_errors() => {
                        registered.device.notify_left(id);
                        return Step::Done;
                    }
                    Err(refusal) => return self.refuse(refusal),
                }
            }
            (State::Registered(_), None, _) => Refusal::InvalidClientId,
            (State::Registered(_), _, None) => Refusal::DeviceForwardWithoutPayload,
            _ => Refusal::NotRegistered,
        };
        self.context.record_received(text, "forward", None);
        self.refuse(refusal)
    }

    /// Requests a new config if the ICE servers have changed, or its credentials are due for renewal.
    fn renew_if_due(&mut self, now: Instant) -> Step {
        let latest = self.context.hub.ice_generation();
        let State::Registered(registered) = &mut self.state else { return Step::Done };
        let expiring = registered.renew_at.is_some_and(|at| at <= now);
        if registered.renewing.is_some() || (registered.generation == latest && !expiring) {
            return Step::Done;
        }
        registered.renewing = Some(latest);
        registered.renew_at = None;
        Step::Ask(Question::Config { device_id: registered.device.id.clone() })
    }

    /// Handles the answer to a renewal.
    fn on_renewed(&mut self, mut registered: Registered, answer: Answer, now: Instant) -> Step {
        registered.generation = registered.renewing.take().unwrap_or(registered.generation);
        match answer {
            Answer::Config(config, good_for) => {
                registered.renew_at = deadline_after(now, good_for.map(|time| time / 2));
                self.context.outbox.push(config);
            }
            // After a failed renewal, the device keeps the config that it has until the next one.
            Answer::Refused(_) => registered.renew_at = deadline_after(now, Some(RENEWAL_RETRY)),
            _ => {}
        }
        self.state = State::Registered(registered);
        self.renew_if_due(now)
    }
}

impl Session for DeviceSession {
    fn on_text(&mut self, text: &str, now: Instant) -> Step {
        if matches!(self.state, State::Left) {
            return Step::Done;
        }
        match DeviceMessage::parse(text) {
            Ok(DeviceMessage::Forward { client_id, payload }) => self.on_forward(text, client_id, payload, now),
            Ok(DeviceMessage::Register { device_id, device_info, device_port }) => {
                let name = self.name_of(device_id.as_ref());
                self.context.record_received(text, "register", name.as_ref().or(device_id.as_ref()));
                self.on_register(device_id, name, device_info, device_port)
            }
            Ok(DeviceMessage::Unknown(name)) => {
                self.context.record_received(text, &name, None);
                self.refuse(Refusal::UnknownMessageType(name.into_owned()))
            }
            Err(malformed) => {
                self.context.record_received(text, "", None);
                self.refuse(malformed.into())
            }
        }
    }

    fn on_answer(&mut self, answer: Answer, now: Instant) -> Step {
        match (std::mem::replace(&mut self.state, State::Left), answer) {
            (State::Configuring { id, local_id, info, port, generation }, Answer::Config(config, good_for)) => {
                let device = self.device(id, local_id, info, port);
                let renew_at = deadline_after(now, good_for.map(|time| time / 2));
                self.claim(Box::new(Registration { device, config, generation, renew_at, claim: None }), now)
            }
            (State::Claiming(mut registration), Answer::Claimed(mut claim)) => {
                if let Some(place) = claim.place.take() {
                    self.adopt(&mut registration, place);
                }
                registration.claim = Some(claim);
                self.register(registration, None, now)
            }
            (State::AwaitingProbe(registration), Answer::Alive { holder, alive }) => {
                if alive {
                    return self.refuse(Refusal::AlreadyRegistered(registration.device.said_id().clone()));
                }
                self.register(registration, Some(&holder), now)
            }
            (State::Registered(registered), answer) => self.on_renewed(registered, answer, now),
            (State::Claiming(registration), Answer::Refused(Refusal::AlreadyRegistered(_))) => {
                self.refuse(Refusal::AlreadyRegistered(registration.device.said_id().clone()))
            }
            (State::Configuring { .. } | State::Claiming(_) | State::AwaitingProbe(_), Answer::Refused(refusal)) => {
                self.refuse(refusal)
            }
            (state, _) => {
                self.state = state;
                Step::Done
            }
        }
    }

    fn holds_texts(&self) -> bool {
        matches!(self.state, State::Configuring { .. } | State::Claiming(_) | State::AwaitingProbe(_))
    }

    fn backlog(&self) -> usize {
        self.backlog
    }

    fn on_recheck(&mut self, now: Instant) -> Step {
        if let State::New { deadline: Some(deadline) } = self.state
            && deadline <= now
        {
            return self.refuse(Refusal::FirstMessageTimeout);
        }
        self.renew_if_due(now)
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::New { deadline } => *deadline,
            State::Registered(registered) => registered.renew_at,
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
        let _closed = self.refuse(refusal.clone());
    }

    fn device_id(&self) -> Option<&DeviceId> {
        self.named.as_ref()
    }

    fn is_introduced(&self) -> bool {
        !matches!(self.state, State::New { .. })
    }

    fn context(&self) -> &Context {
        &self.context
    }
}

impl Drop for DeviceSession {
    fn drop(&mut self) {
        self.leave();
    }
}
