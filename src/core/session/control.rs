//! The session of a control connection: it announces devices, and is notified when they register (docs/protocol.md
//! 5.2).

use std::sync::Arc;
use std::time::Instant;

use super::{Answer, Context, Session, Step};
use crate::core::preregistration::{DeviceMetadata, PreRegisterError, SharedText};
use crate::protocol::candidates::AddressRules;
use crate::protocol::control::{self, ControlMessage, PreRegister};
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, is_plain};

/// Session of a control connection. See [`Session`].
pub struct ControlSession {
    context: Context,
    left: bool,
}

impl ControlSession {
    /// Creates the session of a control connection. It has no deadline for its first message.
    pub fn new(context: Context) -> Self {
        Self { context, left: false }
    }

    fn pre_register(&self, message: &PreRegister) {
        let Context { preregistrations, hub, outbox, rules, .. } = &self.context;
        let is_valid = |name: &str| is_plain(name, rules.max_device_id);
        let is_group_valid = is_valid(&message.group_name) && is_valid(&message.owner);
        let (group_name, owner) = (SharedText::from(&*message.group_name), SharedText::from(&*message.owner));
        // One after the other into the answer: a packet may announce thousands of devices.
        let outcomes = message.devices.iter().map(|device| {
            if !is_group_valid {
                return (device.id.as_str(), Some("Invalid group_name"));
            }
            if !is_valid(&device.id) || !is_valid(&device.name) {
                return (device.id.as_str(), Some("Invalid device id"));
            }
            let id = hub.local_names().map_or_else(|| DeviceId::new(&device.id), |names| names.name_of(&device.id));
            if !is_valid(id.as_str()) {
                return (device.id.as_str(), Some("Invalid device id"));
            }
            let Ok(advertise) = AddressRules::parse(&device.advertise_address) else {
                return (device.id.as_str(), Some("Invalid advertise_address"));
            };
            let metadata = DeviceMetadata {
                group_name: group_name.clone(),
                owner: owner.clone(),
                name: SharedText::from(&*device.name),
                adb_port: device.adb_port,
                advertise: advertise.map(Arc::new),
            };
            let outcome =
                preregistrations.pre_register(&id, metadata, outbox, hub.device(&id).is_some(), rules.max_devices);
            (device.id.as_str(), outcome.err().map(PreRegisterError::text))
        });
        outbox.push(control::accepted(outcomes));
    }
}

impl Session for ControlSession {
    fn on_text(&mut self, text: &str, _: Instant) -> Step {
        if self.left {
            return Step::Done;
        }
        let refusal = match ControlMessage::parse(text) {
            Ok(ControlMessage::PreRegister(message)) => {
                self.pre_register(&message);
                return Step::Done;
            }
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

    fn on_answer(&mut self, _: Answer, _: Instant) -> Step {
        Step::Done
    }

    fn holds_texts(&self) -> bool {
        false
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
