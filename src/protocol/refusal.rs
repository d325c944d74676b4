//! Every error that the server answers a peer with, in one table: its text and its close code.
//!
//! The texts are those of the reference server, so that tools that match on them keep working (docs/protocol.md 4).

use std::borrow::Cow;

use crate::protocol::outbound::{self, Text};
use crate::protocol::{ClientId, DeviceId, Malformed, Role};

/// Longest part of a peer's own text that an error repeats, in bytes.
///
/// An id may be long, and an error to a device must fit in one frame (docs/protocol.md 2.8) even if each byte is
/// escaped as six (`\u0000`).
const MAX_ECHO: usize = 1024;

/// Error that a peer is answered with.
///
/// [`Refusal::text`] is its text, [`Refusal::close_code`] says whether the connection closes. A client and a custom
/// device get the text as an error message. A Cuttlefish device gets it only as the close reason (docs/protocol.md
/// 4.1.2 to 4.1.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not JSON by RFC 8259, not UTF-8, or nested too deep (docs/protocol.md 4.3.3 and 4.3.4).
    InvalidJson,
    /// JSON, but not a message (docs/protocol.md 4.3.2).
    InvalidFormat,
    /// A binary message (docs/protocol.md 4.3.5).
    Binary,
    /// No `register` or `connect` in time (docs/protocol.md 4.3.8).
    FirstMessageTimeout,
    /// A `message_type` that this endpoint does not know (docs/protocol.md 4.3.1). The connection stays open.
    UnknownMessageType(String),
    /// A hook raised, timed out, or returned an invalid value (docs/protocol.md 4.3.15). Only the log has the details.
    HookFailed,
    /// A hook refused the peer, with a public reason or without one (docs/protocol.md 4.3.16). Also a device id outside
    /// the grant.
    NotAuthorized(Option<String>),
    /// The administrator closed the connection.
    EndedByOperator,
    /// The token or the grant of the peer has expired (docs/protocol.md 4.3.18).
    Expired,

    /// `register` without a device id (docs/protocol.md 4.1.9).
    RegisterWithoutId,
    /// `register` with a device id that is too long, or has control characters or line separators (docs/protocol.md
    /// 4.1.10).
    InvalidDeviceId,
    /// `register` with an id that is taken, or on a connection that has registered (docs/protocol.md 4.1.11 and
    /// 4.1.12).
    AlreadyRegistered(DeviceId),
    /// Another connection registered the id: `on_duplicate="replace"` (docs/protocol.md 4.1.14), or the holder answered
    /// no ping (docs/protocol.md 4.1.13).
    Replaced(DeviceId),
    /// A device's `forward` before `register` (docs/protocol.md 4.1.15).
    NotRegistered,
    /// A device's `forward` without a valid client id (docs/protocol.md 4.1.16).
    InvalidClientId,
    /// A device's `forward` without a payload (docs/protocol.md 4.1.17).
    DeviceForwardWithoutPayload,
    /// A device's `forward` to an id that was never given out (docs/protocol.md 4.1.19). The connection stays open.
    UnknownClient(ClientId),

    /// `connect` without a device id (docs/protocol.md 4.2.3).
    ConnectWithoutId,
    /// `connect` to a device that is not registered, and did not register within the wait (docs/protocol.md 4.2.2).
    DeviceNotFound(DeviceId),
    /// A second `connect` (docs/protocol.md 4.2.4).
    AlreadyConnected,
    /// A client's `forward` before it got `device_info` (docs/protocol.md 4.2.5).
    NotConnected,
    /// A client's `forward` without a payload (docs/protocol.md 4.2.6).
    ClientForwardWithoutPayload,
    /// A client's `forward` that does not fit in one message to its device (docs/protocol.md 2.8). The connection stays
    /// open.
    ForwardTooLarge {
        /// Length of the `client_msg` that would be sent, in bytes.
        size: usize,
        /// Longest message that the device takes, in bytes.
        limit: usize,
    },
    /// The registry of the cluster cannot be reached, so that a device cannot be claimed, or cannot be said to be missing
    /// (docs/protocol.md 5.4.5).
    ClusterUnavailable(Role),
    /// The device of this client has left (docs/protocol.md 4.2.7).
    DeviceDisconnected,
    /// The server has as many devices as `max_devices` allows.
    TooManyDevices,
    /// The device has as many clients as `max_clients_per_device` allows.
    TooManyClients(DeviceId),
    /// One party has as many clients of the device as its share of `max_clients_per_device` allows.
    TooManyClientsOf(DeviceId, Party),
    /// The device has a client, and this client or that one is the only one that it may have (docs/protocol.md 4.2.12).
    DeviceInUse(DeviceId),
    /// The peer sends faster than its rate limit allows.
    TooFast {
        /// Unit: messages, bytes, errors or pings.
        what: &'static str,
        /// Limit, in units per second.
        per_second: u32,
    },
    /// The device has no client id left: 2^31-1 were given out (docs/protocol.md 2.5).
    ClientIdsExhausted,
}

/// Beginning of an error before a quoted device id.
const TOO_MANY_CLIENTS: &str = "Connection failed: Too many clients of device '";

/// A party that may hold a share of a limit only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// An address; an IPv6 address counts by its /64.
    Address,
    /// An identity that `authorize` named.
    Identity,
    /// An HTTP connection, over which several polled clients may come.
    Connection,
}

impl Party {
    /// Returns the rest of an error behind a quoted id.
    const fn after_quote(self) -> &'static str {
        match self {
            Self::Address => "' from one address",
            Self::Identity => "' with one identity",
            Self::Connection => "' over one HTTP connection",
        }
    }
}

impl Refusal {
    /// Returns the text of the error.
    ///
    /// A client and a custom device get it in `{"error": …}`. It is also the reason of the close frame that follows; a
    /// Cuttlefish device gets only that (docs/protocol.md 4.1.3).
    pub fn text(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::InvalidJson => "Received Invalid JSON",
            Self::InvalidFormat => "Invalid message format",
            Self::Binary => "Received a binary message",
            Self::FirstMessageTimeout => "Timed out waiting for the first message",
            Self::HookFailed => "Internal error",
            Self::NotAuthorized(None) => "Not authorized",
            Self::EndedByOperator => "Disconnected by the server's operator",
            Self::Expired => "Authorization expired",
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
            Self::ClusterUnavailable(Role::Device) => "Registration failed: Cluster unavailable",
            Self::ClusterUnavailable(_) => "Connection failed: Cluster unavailable",
            Self::TooManyDevices => "Registration failed: Too many devices",
            Self::TooManyClients(id) => return echo(TOO_MANY_CLIENTS, id.as_str(), "'"),
            Self::DeviceInUse(id) => return echo("Connection failed: Device in use: '", id.as_str(), "'"),
            Self::TooManyClientsOf(id, party) => return echo(TOO_MANY_CLIENTS, id.as_str(), party.after_quote()),
            Self::TooFast { what, per_second } => {
                return Cow::Owned(format!("Too many {what}: at most {per_second} a second"));
            }
            Self::NotAuthorized(Some(reason)) => return echo("", reason, ""),
            Self::UnknownMessageType(name) => return echo("Unknown message type: ", name, ""),
            Self::AlreadyRegistered(id) => return echo("Device already registered: ", id.as_str(), ""),
            Self::Replaced(id) => return echo("Device replaced: ", id.as_str(), ""),
            Self::DeviceNotFound(id) => return echo("Connection failed: Device not found: '", id.as_str(), "'"),
            Self::UnknownClient(id) => return Cow::Owned(format!("Forward failed: Unknown client {id}")),
            Self::ForwardTooLarge { size, limit } => return too_large(*size, *limit),
        })
    }

    /// Returns the same refusal with the id that the peer has said.
    #[must_use]
    pub fn naming(self, id: &DeviceId) -> Self {
        match self {
            Self::TooManyClients(_) => Self::TooManyClients(id.clone()),
            Self::TooManyClientsOf(_, party) => Self::TooManyClientsOf(id.clone(), party),
            Self::DeviceInUse(_) => Self::DeviceInUse(id.clone()),
            other => other,
        }
    }

    /// Returns the error message, `{"error": …}`.
    pub fn message(&self) -> Text {
        outbound::error(&self.text())
    }

    /// Returns the WebSocket close code that follows (RFC 6455, 7.4.1); `None` if the connection stays open.
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::UnknownMessageType(_) | Self::UnknownClient(_) | Self::ForwardTooLarge { .. } => None,
            Self::DeviceDisconnected => Some(1000),
            Self::Binary => Some(1003),
            Self::InvalidJson => Some(1007),
            Self::HookFailed => Some(1011),
            Self::TooManyDevices
            | Self::TooManyClients(_)
            | Self::TooManyClientsOf(..)
            | Self::DeviceInUse(_)
            | Self::ClusterUnavailable(_) => Some(1013),
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

/// Builds the text of [`Refusal::ForwardTooLarge`].
fn too_large(size: usize, limit: usize) -> Cow<'static, str> {
    let what = "Forward failed: Message too large";
    Cow::Owned(format!("{what}: {size} bytes for the device, which takes at most {limit}"))
}

/// Builds an error text around text of a peer, which is cut to [`MAX_ECHO`].
fn echo(before: &str, words: &str, after: &str) -> Cow<'static, str> {
    if words.len() <= MAX_ECHO {
        return Cow::Owned(format!("{before}{words}{after}"));
    }
    let cut = (0..=MAX_ECHO).rev().find(|&at| words.is_char_boundary(at)).unwrap_or(0);
    Cow::Owned(format!("{before}{}…{after}", &words[..cut]))
}
