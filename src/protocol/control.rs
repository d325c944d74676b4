//! The words of the control socket (docs/protocol.md 5.2): devices are announced before they register.

use serde::Deserialize;

use super::Malformed;
use super::ids::DeviceId;
use super::inbound::bare_payload;
use super::outbound::{Text, quote};

/// `pre-register`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreRegister {
    /// The group of all of them.
    pub group_name: String,
    /// Whose they are.
    pub owner: String,
    /// The devices.
    pub devices: Vec<Announced>,
}

/// One device that is to come.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Announced {
    /// The id it will register.
    pub id: String,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// Where adb reaches it; 0 where nowhere.
    #[serde(default)]
    pub adb_port: u16,
}

/// What can be said on the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlMessage {
    /// `pre-register`
    PreRegister(PreRegister),
    /// A `message_type` that is not used there.
    Unknown(String),
}

#[derive(Deserialize)]
struct Envelope {
    message_type: String,
    #[serde(default)]
    group_name: String,
    #[serde(default)]
    owner: String,
    devices: Option<Vec<Announced>>,
}

impl ControlMessage {
    /// Reads what came in on the control socket.
    ///
    /// # Errors
    /// [`Malformed`]: no JSON, or no message; a `pre-register` needs devices, each of which needs an id.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        bare_payload(text)?;
        // A struct would be read from an array as well.
        let object = text.trim_start().starts_with('{').then_some(text).ok_or(Malformed::Envelope)?;
        let envelope: Envelope = serde_json::from_str(object).map_err(|_| Malformed::Envelope)?;
        if envelope.message_type != "pre-register" {
            return Ok(Self::Unknown(envelope.message_type));
        }
        let devices = envelope.devices.ok_or(Malformed::Envelope)?;
        if devices.iter().any(|device| device.id.is_empty()) {
            return Err(Malformed::Envelope);
        }
        Ok(Self::PreRegister(PreRegister { group_name: envelope.group_name, owner: envelope.owner, devices }))
    }
}

/// The answer to a `pre-register`: for each id why it is not expected, or that it is.
pub fn accepted<'a>(outcomes: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Text {
    let outcomes: Vec<_> = outcomes
        .map(|(id, failure)| {
            let status = if failure.is_some() { "failed" } else { "accepted" };
            outcome(id, status, failure.unwrap_or_default())
        })
        .collect();
    format!("[{}]", outcomes.join(",")).into()
}

/// A device that was expected has registered.
pub fn registered(id: &DeviceId) -> Text {
    outcome(id.as_str(), "registered", "").into()
}

fn outcome(id: &str, status: &str, message: &str) -> String {
    format!(r#"{{"id":{},"status":"{status}","message":{}}}"#, quote(id), quote(message))
}
