//! Text to message: the envelope is read, the payload only delimited and validated. Knows no session and no state.
//!
//! Messages are flat and borrow from the text: the envelope has all the fields there are, each as the JSON it came in,
//! and the endpoint picks what it understands.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::MAX_DEPTH;
use super::ids::{ClientId, DeviceId};
use super::scan::{NotJson, Scanner};

/// Why a text is no message at all. What is a message, but says too little, is up to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not JSON by RFC 8259, or nested deeper than [`MAX_DEPTH`].
    Json,
    /// JSON, but no object, or one with a duplicate key or without a `message_type` that is a string.
    Envelope,
}

impl From<NotJson> for Malformed {
    fn from(_: NotJson) -> Self {
        Self::Json
    }
}

/// What a device can say. Fields that are missing or of a wrong type are `None`: the session has a word for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceMessage<'a> {
    /// `register`
    Register {
        /// The id, if it is a string that is not empty.
        device_id: Option<DeviceId>,
        /// The JSON text of the device info, `null` where there is none.
        device_info: &'a str,
        /// Where the device's own web server listens, if it says so (docs/protocol.md 5.1).
        device_port: Option<u16>,
    },
    /// `forward`
    Forward {
        /// The client meant, if it is a whole number in range.
        client_id: Option<ClientId>,
        /// The JSON text of the payload; `null` is a payload.
        payload: Option<&'a str>,
    },
    /// A `message_type` that devices do not use.
    Unknown(Cow<'a, str>),
}

/// What a client can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage<'a> {
    /// `connect`
    Connect {
        /// The id, if it is a string.
        device_id: Option<DeviceId>,
    },
    /// `forward`
    Forward {
        /// The JSON text of the payload; `null` is a payload.
        payload: Option<&'a str>,
    },
    /// A `message_type` that clients do not use.
    Unknown(Cow<'a, str>),
}

impl<'a> DeviceMessage<'a> {
    /// Reads what came in on `/register_device`.
    ///
    /// # Errors
    /// [`Malformed`] where the text is no message.
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
    /// Reads what came in on `/connect_client`.
    ///
    /// # Errors
    /// [`Malformed`] where the text is no message.
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

/// The body of a request by which a client polls (docs/protocol.md 5.3): each endpoint picks what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PollBody<'a> {
    /// The device to connect to, if it is a string.
    pub device_id: Option<DeviceId>,
    /// The polled connection meant, if it is a string.
    pub connection_id: Option<Cow<'a, str>>,
    /// The JSON text of the payload; `null` is a payload.
    pub payload: Option<&'a str>,
}

impl<'a> PollBody<'a> {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`Malformed`] where it is no JSON object, or one with a duplicate key.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let envelope = Envelope::parse(text)?;
        Ok(Self {
            device_id: envelope.device_id(),
            connection_id: envelope.connection_id.and_then(string),
            payload: envelope.payload,
        })
    }
}

/// A text that is a payload as it stands (docs/protocol.md 5.3, `WS /devices/{id}/connect`): any JSON value.
///
/// # Errors
/// [`Malformed::Json`].
pub fn bare_payload(text: &str) -> Result<&str, Malformed> {
    let mut scanner = Scanner::new(text, MAX_DEPTH - 1);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

/// Every field the protocol knows, as the JSON text it came in.
#[derive(Default)]
struct Envelope<'a> {
    message_type: Option<&'a str>,
    connection_id: Option<&'a str>,
    device_id: Option<&'a str>,
    device_info: Option<&'a str>,
    device_port: Option<&'a str>,
    client_id: Option<&'a str>,
    payload: Option<&'a str>,
    /// The other keys, so that duplicates among them are found; real peers send none.
    others: BTreeSet<Cow<'a, str>>,
    /// A key came twice, or is no text. Kept rather than raised at once: what is not JSON further on is told as such.
    is_flawed: bool,
}

impl<'a> Envelope<'a> {
    fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut scanner = Scanner::new(text, MAX_DEPTH);
        let mut envelope = Self::default();
        let is_object = scanner.begins_object();
        if is_object {
            scanner.members(|key, value| envelope.take(key, value))?;
        } else {
            scanner.value()?;
        }
        scanner.end()?;
        if is_object && !envelope.is_flawed { Ok(envelope) } else { Err(Malformed::Envelope) }
    }

    fn take(&mut self, key: &'a str, value: &'a str) {
        // As it stands: no name of the protocol has to be searched for escapes.
        if let Some(slot) = inner(key).and_then(|key| self.slot(key)) {
            self.is_flawed |= slot.replace(value).is_some();
            return;
        }
        let Some(key) = string(key) else {
            self.is_flawed = true;
            return;
        };
        self.is_flawed |= match self.slot(&key) {
            Some(slot) => slot.replace(value).is_some(),
            None => !self.others.insert(key),
        };
    }

    /// Where the value of a field belongs.
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
        self.message_type.and_then(string).ok_or(Malformed::Envelope)
    }

    fn device_id(&self) -> Option<DeviceId> {
        self.device_id.and_then(string).map(|id| DeviceId::new(&id))
    }
}

/// The text of a JSON string; `None` if the value is something else, or holds half of a surrogate pair.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = inner(json)?;
    if inner.contains('\\') {
        return serde_json::from_str::<String>(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// What is between the quotes of a JSON string, escapes and all.
fn inner(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}
