//! Every "no" a peer can hear, in one table: the text, and whether and how the connection closes. Layer 0.
//!
//! Texts are those of the reference server, so that tools that match on them keep working (docs/protocol.md 4).

use std::borrow::Cow;

use crate::protocol::outbound::{self, Text};
use crate::protocol::{ClientId, DeviceId, Malformed};

/// How much of a peer's own text an error repeats, in bytes: an id may be long, and what goes to a device must fit
/// one frame even with every byte escaped sixfold.
const MAX_ECHO: usize = 1024;

/// A refusal. [`Refusal::text`] is what the peer hears, [`Refusal::close_code`] what becomes of its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not JSON (RFC 8259), not UTF-8, or nested too deep.
    InvalidJson,
    /// JSON, but not a message.
    InvalidFormat,
    /// A binary message.
    Binary,
    /// Neither register nor connect in time.
    FirstMessageTimeout,
    /// A `message_type` that this endpoint does not know.
    UnknownMessageType(String),
    /// A hook raised, hung or returned rubbish. Details are in the log only.
    HookFailed,
    /// A hook said no, in public words or in none.
    NotAuthorized(Option<String>),
    /// Ended by whoever runs the server.
    EndedByOperator,

    /// `register` without a device id.
    RegisterWithoutId,
    /// `register` with a device id that is too long, or has control characters or line separators in it.
    InvalidDeviceId,
    /// `register` for an id that is taken, or on a socket that has registered.
    AlreadyRegistered(DeviceId),
    /// Somebody else registered the id (`on_duplicate="replace"`, or the holder looked dead).
    Replaced(DeviceId),
    /// A device's `forward` before `register`.
    NotRegistered,
    /// A device's `forward` without a usable client id.
    InvalidClientId,
    /// A device's `forward` without a payload.
    DeviceForwardWithoutPayload,
    /// A device's `forward` to an id that was never given out.
    UnknownClient(ClientId),

    /// `connect` without a device id.
    ConnectWithoutId,
    /// `connect` to a device that is not there, the wait included.
    DeviceNotFound(DeviceId),
    /// A second `connect`.
    AlreadyConnected,
    /// A client's `forward` before it had `device_info`.
    NotConnected,
    /// A client's `forward` without a payload.
    ClientForwardWithoutPayload,
    /// A client's `forward` that would not fit one frame of a device, in bytes as it would be delivered.
    ForwardTooLarge {
        /// What it would have come to.
        size: usize,
        /// What a device takes.
        limit: usize,
    },
    /// The device of this client is gone.
    DeviceDisconnected,
    /// There are as many devices as the server takes.
    TooManyDevices,
    /// There are as many clients of that device as the server takes.
    TooManyClients(DeviceId),
    /// The peer sends faster than it may: so many of these a second.
    TooFast {
        /// Messages, bytes, errors or pings.
        what: &'static str,
        /// How many it may send.
        per_second: u32,
    },
    /// The device has given out every client id there is (2^31-1 of them).
    ClientIdsExhausted,
}

impl Refusal {
    /// What the peer hears in `{"error": …}`.
    pub fn text(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::InvalidJson => "Received Invalid JSON",
            Self::InvalidFormat => "Invalid message format",
            Self::Binary => "Received a binary message",
            Self::FirstMessageTimeout => "Timed out waiting for the first message",
            Self::HookFailed => "Internal error",
            Self::NotAuthorized(None) => "Not authorized",
            Self::EndedByOperator => "Disconnected by the server's operator",
            Self::RegisterWithoutId => "Missing device id in registration request",
            Self::InvalidDeviceId => "Invalid device id",
            Self::NotRegistered => "Forward failed: Device not registered",
            Self::InvalidClientId => "Forward failed: Missing or invalid client id",
            Self::DeviceForwardWithoutPayload => "Forward failed: Missing payload",
            Self::ConnectWithoutId => "Invalid connection request: Missing device id",
            Self::AlreadyConnected => "Attempt to connect to multiple devices over same websocket",
            Self::NotConnected => "Forward failed: No device associated to client",
            Self::ClientForwardWithoutPayload => "Forward failed: No payload present in message",
            Self::DeviceDisconnected => "Device disconnected",
            Self::ClientIdsExhausted => "Connection failed: Device has no client ids left",
            Self::TooManyDevices => "Registration failed: Too many devices",
            Self::TooManyClients(id) => {
                return echo("Connection failed: Too many clients of device '", id.as_str(), "'");
            }
            Self::TooFast { what, per_second } => {
                return Cow::Owned(format!("Too many {what}: at most {per_second} a second"));
            }
            Self::NotAuthorized(Some(reason)) => return echo("", reason, ""),
            Self::UnknownMessageType(name) => return echo("Unknown message type: ", name, ""),
            Self::AlreadyRegistered(id) => return echo("Device already registered: ", id.as_str(), ""),
            Self::Replaced(id) => return echo("Device replaced: ", id.as_str(), ""),
            Self::DeviceNotFound(id) => return echo("Connection failed: Device not found: '", id.as_str(), "'"),
            Self::UnknownClient(id) => return Cow::Owned(format!("Forward failed: Unknown client {id}")),
            Self::ForwardTooLarge { size, limit } => {
                return Cow::Owned(format!(
                    "Forward failed: Message too large: {size} bytes for the device, which takes at most {limit}"
                ));
            }
        })
    }

    /// The `error` message.
    pub fn message(&self) -> Text {
        outbound::error(&self.text())
    }

    /// The WebSocket close code that follows (RFC 6455, 7.4.1), or `None` where the connection stays open.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::UnknownMessageType(_) | Self::UnknownClient(_) | Self::ForwardTooLarge { .. } => None,
            Self::DeviceDisconnected => Some(1000),
            Self::Binary => Some(1003),
            Self::InvalidJson => Some(1007),
            Self::HookFailed => Some(1011),
            Self::TooManyDevices | Self::TooManyClients(_) => Some(1013),
            _ => Some(1008),
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Json => Self::InvalidJson,
            Malformed::Envelope => Self::InvalidFormat,
        }
    }
}

/// A text with a peer's own words in it, those cut to [`MAX_ECHO`].
fn echo(before: &str, words: &str, after: &str) -> Cow<'static, str> {
    if words.len() <= MAX_ECHO {
        return Cow::Owned(format!("{before}{words}{after}"));
    }
    let cut = (0..=MAX_ECHO).rev().find(|&at| words.is_char_boundary(at)).unwrap_or(0);
    Cow::Owned(format!("{before}{}…{after}", &words[..cut]))
}
