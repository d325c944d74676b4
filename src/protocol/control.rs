//! Messages of the control socket, over which devices are announced before they register (docs/protocol.md 5.2).

use serde::Deserialize;

use super::Malformed;
use super::ids::DeviceId;
use super::inbound::bare_payload;
use super::outbound::{Text, quote};

/// `pre-register`: announces devices (docs/protocol.md 5.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreRegister {
    /// Group of all these devices; empty if the message names none.
    pub group_name: String,
    /// Owner of all these devices; empty if the message names none.
    pub owner: String,
    /// Devices to announce.
    pub devices: Vec<Announced>,
}

/// One announced device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Announced {
    /// Device id that it will register. Never empty.
    pub id: String,
    /// Display name; empty if the message has none.
    #[serde(default)]
    pub name: String,
    /// TCP port of adb; 0 if the message has none.
    #[serde(default)]
    pub adb_port: u16,
    /// Addresses at which clients reach it, each `INNER=OUTER`; empty if the message has none.
    #[serde(default)]
    pub advertise_address: Vec<String>,
}

/// Message of a control connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlMessage {
    /// `pre-register`
    PreRegister(PreRegister),
    /// Another `message_type`.
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
    /// Parses one packet of the control socket.
    ///
    /// # Errors
    /// - [`Malformed::Json`]: the text is not JSON, or nests deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    /// - [`Malformed::Envelope`]: the JSON is not a message, or a `pre-register` without `devices`, or a device has no
    ///   id or an empty one.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        bare_payload(text)?;
        // Serde would also read the struct from an array.
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

/// Writes the answer to a `pre-register` (docs/protocol.md 5.2.3).
///
/// `outcomes` has the id of each device, with the error text if the device was not accepted.
pub fn accepted<'a>(outcomes: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Text {
    let mut answer = String::from("[");
    for (nth, (id, failure)) in outcomes.enumerate() {
        let status = if failure.is_some() { "failed" } else { "accepted" };
        answer.push_str(if nth == 0 { "" } else { "," });
        answer.push_str(&outcome(id, status, failure.unwrap_or_default()));
    }
    answer.push(']');
    answer.into()
}

/// Writes the news that an announced device has registered (docs/protocol.md 5.2.4).
pub fn registered(id: &DeviceId) -> Text {
    outcome(id.as_str(), "registered", "").into()
}

fn outcome(id: &str, status: &str, message: &str) -> String {
    format!(r#"{{"id":{},"status":"{status}","message":{}}}"#, quote(id), quote(message))
}
