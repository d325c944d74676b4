//! Text to message: the envelope is read, the payload only delimited and validated. Knows no session and no state.
//!
//! Messages are flat and borrow from the text. (`#[serde(tag = …)]` enums cannot carry a `&RawValue`: serde buffers
//! them. So the envelope is one visitor over all the fields there are, and the endpoint picks what it understands.)

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::MAX_DEPTH;
use super::ids::{ClientId, DeviceId};

/// Why a text is no message at all. What is a message, but says too little, is up to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not JSON by RFC 8259, or nested deeper than [`MAX_DEPTH`].
    Json,
    /// JSON, but no object, or one with a duplicate key or without a `message_type` that is a string.
    Envelope,
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
        /// Where the device's own web server listens, if it says so (PROTOCOL.md 5.1).
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
            "forward" => Self::Forward {
                client_id: envelope.client_id.and_then(|raw| ClientId::from_json(raw.get())),
                payload: envelope.payload.map(RawValue::get),
            },
            "register" => Self::Register {
                device_id: envelope.device_id().filter(|id| !id.as_str().is_empty()),
                device_info: envelope.device_info.map_or("null", RawValue::get),
                device_port: envelope.device_port.and_then(|raw| raw.get().parse().ok()),
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
            "forward" => Self::Forward { payload: envelope.payload.map(RawValue::get) },
            "connect" => Self::Connect { device_id: envelope.device_id() },
            _ => Self::Unknown(message_type),
        })
    }
}

/// The body of a request by which a client polls (PROTOCOL.md 5.3): each endpoint picks what it needs.
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
            connection_id: string(envelope.connection_id),
            payload: envelope.payload.map(RawValue::get),
        })
    }
}

/// A text that is a payload as it stands (PROTOCOL.md 5.3, `WS /devices/{id}/connect`): any JSON value.
///
/// # Errors
/// [`Malformed::Json`].
pub fn bare_payload(text: &str) -> Result<&str, Malformed> {
    if nests_deeper_than(text, MAX_DEPTH - 1) || serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err(Malformed::Json);
    }
    Ok(text.trim_matches([' ', '\t', '\r', '\n']))
}

/// Every field the protocol knows, as the JSON text it came in.
#[derive(Default)]
struct Envelope<'a> {
    message_type: Option<&'a RawValue>,
    connection_id: Option<&'a RawValue>,
    device_id: Option<&'a RawValue>,
    device_info: Option<&'a RawValue>,
    device_port: Option<&'a RawValue>,
    client_id: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    /// Kept rather than raised at once: text that is not JSON further on is still told as such.
    duplicate_key: bool,
}

impl<'a> Envelope<'a> {
    fn parse(text: &'a str) -> Result<Self, Malformed> {
        if nests_deeper_than(text, MAX_DEPTH) {
            return Err(Malformed::Json);
        }
        match serde_json::from_str::<Self>(text) {
            Ok(envelope) if envelope.duplicate_key => Err(Malformed::Envelope),
            Ok(envelope) => Ok(envelope),
            // The visitor stops at the first byte of what is no object: whether the rest is JSON is still open.
            Err(error) if error.is_data() && serde_json::from_str::<IgnoredAny>(text).is_ok() => {
                Err(Malformed::Envelope)
            }
            Err(_) => Err(Malformed::Json),
        }
    }

    fn message_type(&self) -> Result<Cow<'a, str>, Malformed> {
        string(self.message_type).ok_or(Malformed::Envelope)
    }

    fn device_id(&self) -> Option<DeviceId> {
        string(self.device_id).map(|id| DeviceId::new(&id))
    }
}

/// The text of a JSON string; `None` if the value is something else, or holds half of a surrogate pair.
fn string(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let json = raw?.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str::<String>(json).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        let mut others = HashSet::new();
        while let Some(key) = map.next_key::<Key>()? {
            let slot = match key {
                Key::MessageType => &mut envelope.message_type,
                Key::ConnectionId => &mut envelope.connection_id,
                Key::DeviceId => &mut envelope.device_id,
                Key::DeviceInfo => &mut envelope.device_info,
                Key::DevicePort => &mut envelope.device_port,
                Key::ClientId => &mut envelope.client_id,
                Key::Payload => &mut envelope.payload,
                Key::Other(key) => {
                    envelope.duplicate_key |= !others.insert(key);
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let again = slot.replace(map.next_value()?).is_some();
            envelope.duplicate_key |= again;
        }
        Ok(envelope)
    }
}

enum Key {
    MessageType,
    DeviceId,
    DeviceInfo,
    DevicePort,
    ClientId,
    ConnectionId,
    Payload,
    /// Owned, so that duplicates among them are found; real peers send none.
    Other(Box<str>),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
                Ok(match key {
                    "message_type" => Key::MessageType,
                    "device_id" => Key::DeviceId,
                    "device_info" => Key::DeviceInfo,
                    "device_port" => Key::DevicePort,
                    "client_id" => Key::ClientId,
                    "connection_id" => Key::ConnectionId,
                    "payload" => Key::Payload,
                    other => Key::Other(other.into()),
                })
            }
        }
        // Half of a surrogate pair in a key is JSON by its grammar, but no text: an error of data, not of syntax.
        deserializer.deserialize_identifier(KeyVisitor).map_err(D::Error::custom)
    }
}

/// Whether arrays and objects nest deeper than `limit` somewhere in a JSON text. `serde_json` bounds the depth of what
/// it builds, but not of a `RawValue`, and some peer's recursive parser will have to read it.
fn nests_deeper_than(text: &str, limit: usize) -> bool {
    let opening = |byte: &&u8| matches!(byte, b'{' | b'[');
    // As many opening brackets as that are rare in real messages, and counting them costs next to nothing.
    if text.as_bytes().iter().filter(opening).count() <= limit {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => drop(bytes.next()),
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}
