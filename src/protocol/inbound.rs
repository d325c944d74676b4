//! Parses text into messages.
//!
//! The envelope is parsed. The payload is only validated and delimited. A message is flat and borrows from the text:
//! [`DeviceMessage`], [`ClientMessage`] and [`PollBody`] each take the fields that they know from one envelope.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::MAX_DEPTH;
use super::ids::{ClientId, DeviceId};
use super::scan::{NotJson, Scanner};

/// Reason why a text is not a message.
///
/// A message with missing or invalid fields is still a message: the session answers it with an error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not JSON by RFC 8259, or nested deeper than [`MAX_DEPTH`] (docs/protocol.md 4.3.3 and 4.3.4).
    Json,
    /// JSON, but no object, an object with a duplicate key, or without a string `message_type` (docs/protocol.md
    /// 4.3.2).
    Envelope,
}

impl From<NotJson> for Malformed {
    fn from(_: NotJson) -> Self {
        Self::Json
    }
}

/// Message of a device (docs/protocol.md 4.1).
///
/// A field is `None` if it is missing or of a wrong type. The session has an error for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceMessage<'a> {
    /// `register` (docs/protocol.md 1.4).
    Register {
        /// Device id, if it is a string that is not empty.
        device_id: Option<DeviceId>,
        /// JSON text of the device info; `null` if the message has none (docs/protocol.md 4.1.8).
        device_info: &'a str,
        /// TCP port of the device's own web server (docs/protocol.md 5.1.4).
        device_port: Option<u16>,
    },
    /// `forward` (docs/protocol.md 1.5).
    Forward {
        /// Client id, if it is a whole number in range (docs/protocol.md 4.1.16).
        client_id: Option<ClientId>,
        /// JSON text of the payload. `null` is a payload (docs/protocol.md 4.1.18).
        payload: Option<&'a str>,
    },
    /// Another `message_type` (docs/protocol.md 4.3.1).
    Unknown(Cow<'a, str>),
}

/// Message of a client (docs/protocol.md 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// `connect` (docs/protocol.md 1.10).
    Connect {
        /// Device id, if it is a string.
        device_id: Option<DeviceId>,
    },
    /// `forward` (docs/protocol.md 1.11).
    Forward {
        /// JSON text of the payload. `null` is a payload.
        payload: Option<&'a str>,
    },
    /// Another `message_type` (docs/protocol.md 4.3.1).
    Unknown(Cow<'a, str>),
}

impl<'a> DeviceMessage<'a> {
    /// Parses a text message of `/register_device` or a packet of the device socket.
    ///
    /// # Errors
    /// [`Malformed`] if the text is not a message.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let envelope = Envelope::parse(text)?;
        let message_type = envelope.message_type()?;
        Ok(match &*message_type {
            "forward" => {
                Self::Forward { client_id: envelope.client_id.and_then(ClientId::from_json), payload: envelope.payload }
            }
            "register" => Self::Register {
                device_id: envelope.device_id().filter(|id| !id.as_str().is_empty()),
                device_info: envelope.device_info.unwrap_or("null"),
                device_port: envelope.device_port.and_then(|raw| raw.parse().ok()),
            },
            _ => Self::Unknown(message_type),
        })
    }
}

impl<'a> ClientMessage<'a> {
    /// Parses a text message of `/connect_client`.
    ///
    /// # Errors
    /// [`Malformed`] if the text is not a message.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let envelope = Envelope::parse(text)?;
        let message_type = envelope.message_type()?;
        Ok(match &*message_type {
            "forward" => Self::Forward { payload: envelope.payload },
            "connect" => Self::Connect { device_id: envelope.device_id() },
            _ => Self::Unknown(message_type),
        })
    }
}

/// Body of a request of a polled client (docs/protocol.md 5.3.10 to 5.3.21). Each endpoint uses the fields that it
/// needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PollBody<'a> {
    /// Device id, if it is a string.
    pub device_id: Option<DeviceId>,
    /// Id of the polled connection, if it is a string.
    pub connection_id: Option<Cow<'a, str>>,
    /// JSON text of the payload. `null` is a payload.
    pub payload: Option<&'a str>,
}

impl<'a> PollBody<'a> {
    /// Parses the body of a request.
    ///
    /// # Errors
    /// [`Malformed`] if the body is not a JSON object, or has a duplicate key.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let envelope = Envelope::parse(text)?;
        Ok(Self {
            device_id: envelope.device_id(),
            connection_id: envelope.connection_id.and_then(string),
            payload: envelope.payload,
        })
    }
}

/// Message of another server, as a proxy reads it (docs/protocol.md 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage<'a> {
    /// `device_info`, with the JSON text of the device info.
    DeviceInfo(&'a str),
    /// `client_msg`.
    ClientMsg {
        /// Client id.
        client_id: ClientId,
        /// JSON text of the payload.
        payload: &'a str,
    },
    /// `client_disconnected`, with the id of the client.
    ClientDisconnected(ClientId),
    /// `device_msg`.
    DeviceMsg,
    /// A message without a type, such as an error.
    Untyped,
    /// Another message: its type.
    Other(Cow<'a, str>),
}

impl<'a> ServerMessage<'a> {
    /// Parses a message of another server. One whose fields are missing or wrong is [`ServerMessage::Other`].
    ///
    /// # Errors
    /// [`Malformed`] if the text is not a JSON object.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let envelope = Envelope::parse(text)?;
        let Some(message_type) = envelope.message_type.and_then(string) else {
            // The first message to a client whose request named its device has no type.
            return Ok(envelope.device_info.map_or(Self::Untyped, Self::DeviceInfo));
        };
        let client_id = envelope.client_id.and_then(ClientId::from_json);
        Ok(match (&*message_type, client_id, envelope.payload) {
            ("client_msg", Some(client_id), Some(payload)) => Self::ClientMsg { client_id, payload },
            ("client_disconnected", Some(client_id), _) => Self::ClientDisconnected(client_id),
            ("device_msg", _, Some(_)) => Self::DeviceMsg,
            ("device_info", ..) => Self::DeviceInfo(envelope.device_info.unwrap_or("null")),
            _ => Self::Other(message_type),
        })
    }
}

/// Returns the payload of a forward in any of its forms: a message with a type, or a text that is the payload. `None` if
/// it has none.
pub fn payload_in(text: &str) -> Option<&str> {
    match Envelope::parse(text) {
        Ok(Envelope { message_type: Some(_), payload, .. }) => payload,
        Ok(_) | Err(Malformed::Envelope) => bare_payload(text).ok(),
        Err(Malformed::Json) => None,
    }
}

/// Parses a text that is a whole payload: any JSON value (docs/protocol.md 5.3.8).
///
/// Returns the value without the white space around it.
///
/// # Errors
/// [`Malformed::Json`] if the text is not JSON, or nests too deep for an envelope around it.
pub fn bare_payload(text: &str) -> Result<&str, Malformed> {
    let mut scanner = Scanner::new(text, MAX_DEPTH - 1);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

/// Every field of the protocol, as JSON text.
#[derive(Default)]
struct Envelope<'a> {
    message_type: Option<&'a str>,
    connection_id: Option<&'a str>,
    device_id: Option<&'a str>,
    device_info: Option<&'a str>,
    device_port: Option<&'a str>,
    client_id: Option<&'a str>,
    payload: Option<&'a str>,
    /// Other keys, kept to find duplicates among them. Real peers send none.
    others: Option<BTreeSet<Cow<'a, str>>>,
    /// Set on a duplicate key, or a key that is not valid text.
    ///
    /// The error is reported at the end, since invalid JSON further on has precedence.
    is_invalid: bool,
}

impl<'a> Envelope<'a> {
    fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut scanner = Scanner::new(text, MAX_DEPTH);
        let mut envelope = Self::default();
        let is_object = scanner.begins_object();
        if is_object {
            scanner.members(|key, value| envelope.insert_field(key, value))?;
        } else {
            scanner.value()?;
        }
        scanner.end()?;
        if is_object && !envelope.is_invalid { Ok(envelope) } else { Err(Malformed::Envelope) }
    }

    fn insert_field(&mut self, key: &'a str, value: &'a str) {
        // The raw key is tried first: real peers write the names of the protocol without escapes.
        if let Some(slot) = inner(key).and_then(|key| self.slot(key)) {
            self.is_invalid |= slot.replace(value).is_some();
            return;
        }
        let Some(key) = string(key) else {
            self.is_invalid = true;
            return;
        };
        self.is_invalid |= match self.slot(&key) {
            Some(slot) => slot.replace(value).is_some(),
            None => !self.others.get_or_insert_default().insert(key),
        };
    }

    /// Returns the slot for the value of a field; `None` if the protocol has no such field.
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        Some(match key {
            "message_type" => &mut self.message_type,
            "connection_id" => &mut self.connection_id,
            "device_id" => &mut self.device_id,
            "device_info" => &mut self.device_info,
            "device_port" => &mut self.device_port,
            "client_id" => &mut self.client_id,
            "payload" => &mut self.payload,
            _ => return None,
        })
    }

    fn message_type(&self) -> Result<Cow<'a, str>, Malformed> {
        // The type of nearly all messages, as peers write it, need not be searched for escapes.
        if self.message_type == Some(r#""forward""#) {
            return Ok(Cow::Borrowed("forward"));
        }
        self.message_type.and_then(string).ok_or(Malformed::Envelope)
    }

    fn device_id(&self) -> Option<DeviceId> {
        self.device_id.and_then(string).map(|id| DeviceId::new(&id))
    }
}

/// Decodes a JSON string; `None` if the value is not a string, or has an unpaired surrogate.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = inner(json)?;
    if inner.bytes().any(|byte| byte == b'\\') {
        return serde_json::from_str::<String>(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Returns the text between the quotes of a JSON string, with its escapes.
fn inner(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}
