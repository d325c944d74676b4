//! The session of a control connection: it announces devices, and is notified when they register (docs/protocol.md
//! 5.2).

use std::sync::Arc;
use std::time::Instant;

use super::{Answer, Context, Question, Session, Step};
use crate::core::cluster::registry::{Expectation, Expected};
use crate::core::preregistration::{DeviceMetadata, PreRegisterError, SharedText};
use crate::protocol::candidates::AddressRules;
use crate::protocol::control::{self, Announced, ControlMessage, PreRegister};
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, is_plain};

/// Session of a control connection. See [`Session`].
pub struct ControlSession {
    context: Context,
    /// Outcomes of a message, of which the registry of the cluster decides some.
    asked: Vec<Outcome>,
    left: bool,
}

/// Outcome for a device of a message.
struct Outcome {
    /// Id in the message.
    said: String,
    /// Id in the cluster, if the registry decides.
    asked: Option<DeviceId>,
    failure: Option<&'static str>,
}

impl ControlSession {
    /// Creates the session of a control connection. It has no deadline for its first message.
    pub fn new(context: Context) -> Self {
        Self { context, asked: Vec::new(), left: false }
    }

    /// Pre-registers the devices of a message. In a cluster, the registry decides on those that this node accepts.
    fn pre_register(&mut self, message: &PreRegister) -> Step {
        let is_clustered = self.context.rules.is_clustered;
        let is_valid = |name: &str| is_plain(name, self.context.rules.max_device_id);
        let is_group_valid = is_valid(&message.group_name) && is_valid(&message.owner);
        let (group_name, owner) = (SharedText::from(&*message.group_name), SharedText::from(&*message.owner));
        let mut expected = Vec::new();
        let mut outcome = |device: &Announced| {
            if !is_group_valid {
                return Err("Invalid group_name");
            }
            let (id, metadata) = self.announced(device, &group_name, &owner)?;
            let details = is_clustered.then(|| metadata.to_json());
            self.reserve(&id, metadata).map_err(PreRegisterError::text)?;
            expected.extend(details.map(|details| Expected { id: id.clone(), details: details.into() }));
            Ok(is_clustered.then_some(id))
        };
        let outcomes = message.devices.iter().map(|device| {
            let (asked, failure) = match outcome(device) {
                Ok(asked) => (asked, None),
                Err(failure) => (None, Some(failure)),
            };
            Outcome { said: device.id.clone(), asked, failure }
        });
        self.asked = outcomes.collect();
        if expected.is_empty() {
            self.answer(&[]);
            return Step::Done;
        }
        Step::Ask(Question::Announce(expected))
    }

    /// Returns the id of a device in the cluster, and its metadata.
    fn announced(
        &self,
        device: &Announced,
        group_name: &SharedText,
        owner: &SharedText,
    ) -> Result<(DeviceId, DeviceMetadata), &'static str> {
        let Context { hub, rules, .. } = &self.context;
        let is_valid = |name: &str| is_plain(name, rules.max_device_id);
        let id = hub.local_names().map_or_else(|| DeviceId::new(&device.id), |names| names.name_of(&device.id));
        if !is_valid(&device.id) || !is_valid(&device.name) || !is_valid(id.as_str()) {
            return Err("Invalid device id");
        }
        let advertise = AddressRules::parse(&device.advertise_address).map_err(|_| "Invalid advertise_address")?;
        let metadata = DeviceMetadata {
            group_name: group_name.clone(),
            owner: owner.clone(),
            name: SharedText::from(&*device.name),
            adb_port: device.adb_port,
            advertise: advertise.map(Arc::new),
        };
        Ok((id, metadata))
    }

    fn reserve(&self, id: &DeviceId, metadata: DeviceMetadata) -> Result<(), PreRegisterError> {
        let Context { preregistrations, hub, outbox, rules, .. } = &self.context;
        let is_registered = hub.device(id).is_some();
        if rules.is_clustered {
            preregistrations.reserve(id, metadata, outbox, is_registered, rules.max_devices)
        } else {
            preregistrations.pre_register(id, metadata, outbox, is_registered, rules.max_devices)
        }
    }

    /// Answers the message. `decided` has the outcome of each device that the registry was asked about.
    fn answer(&mut self, decided: &[Expectation]) {
        let Context { preregistrations, outbox, .. } = &self.context;
        let mut asked = std::mem::take(&mut self.asked);
        let by_registry = asked.iter_mut().filter(|outcome| outcome.asked.is_some());
        for (outcome, decided) in by_registry.zip(decided) {
            outcome.failure = PreRegisterError::of(*decided).map(PreRegisterError::text);
        }
        let reserved = |failed: bool| {
            asked.iter().filter(move |it| it.failure.is_some() == failed).filter_map(|it| it.asked.as_ref())
        };
        reserved(true).for_each(|id| preregistrations.refused(id, outbox));
        // One after the other into the answer: a packet may announce thousands of devices.
        outbox.push(control::accepted(asked.iter().map(|outcome| (outcome.said.as_str(), outcome.failure))));
        preregistrations.answered(reserved(false), outbox);
    }
}

impl Session for ControlSession {
    fn on_text(&mut self, text: &str, _: Instant) -> Step {
        if self.left {
            return Step::Done;
        }
        let refusal = match ControlMessage::parse(text) {
            Ok(ControlMessage::PreRegister(message)) => return self.pre_register(&message),
            Ok(ControlMessage::Unknown(name)) => Refusal::UnknownMessageType(name),
            Err(malformed) => malformed.into(),
        };
        self.context.refuse(&refusal);
        if refusal.close_code().is_some() {
            self.leave();
            return Step::Done;
        }
        Step::Refused
    }

    fn on_answer(&mut self, answer: Answer, _: Instant) -> Step {
        if let (Answer::Announced(decided), false) = (answer, self.left) {
            self.answer(&decided);
        }
        Step::Done
    }

    /// Further messages wait for the answer of the registry, as the answers have an order.
    fn holds_texts(&self) -> bool {
        !self.asked.is_empty()
    }

    fn on_recheck(&mut self, _: Instant) -> Step {
        Step::Done
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Cancels the pre-registrations that are still pending (docs/protocol.md 5.2.5).
    fn leave(&mut self) {
        self.left = true;
        self.context.preregistrations.cancel(&self.context.outbox);
    }

    fn disconnect(&mut self, refusal: &Refusal) {
        self.context.refuse(refusal);
        self.leave();
    }

    fn is_introduced(&self) -> bool {
        true
    }

    fn context(&self) -> &Context {
        &self.context
    }
}

impl Drop for ControlSession {
    fn drop(&mut self) {
        self.leave();
    }
}
