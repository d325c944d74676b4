//! The messages of the signaling protocol: parsed from text, and written as text. No state, no I/O.
//!
//! There are two WebSocket endpoints. Each text message is one JSON object (docs/protocol.md 1).
//!
//! | direction | message |
//! |---|---|
//! | device → server | `{"message_type":"register","device_id":STRING,"device_info":ANY}` |
//! | device → server | `{"message_type":"forward","client_id":INTEGER,"payload":ANY}` |
//! | server → device | `{"message_type":"config","ice_servers":[…]}` |
//! | server → device | `{"message_type":"client_msg","client_id":INTEGER,"payload":ANY}` |
//! | server → device | `{"message_type":"client_disconnected","client_id":INTEGER}` |
//! | server → custom device | `{"error":STRING}` |
//! | client → server | `{"message_type":"connect","device_id":STRING}` |
//! | client → server | `{"message_type":"forward","payload":ANY}` |
//! | server → client | `{"message_type":"config","ice_servers":[…]}` |
//! | server → client | `{"message_type":"device_info","device_info":ANY}` |
//! | server → client | `{"message_type":"device_msg","payload":ANY}` |
//! | server → client | `{"error":STRING}` |
//!
//! A Cuttlefish device gets no error, since errors break it: where the connection closes, it gets the close frame with
//! the error text as the reason (docs/protocol.md 4.1.1 to 4.1.6). Every other device is a custom device and gets the
//! error.
//!
//! [`inbound`] parses the messages of peers. [`outbound`] writes those of the server. [`control`] has the messages of
//! the control socket. [`refusal`] lists every error.
//!
//! A payload is never parsed on its way. It is borrowed from the text of its sender and copied once, byte for byte,
//! into the text for its receiver (docs/protocol.md 2.1).

pub mod candidates;
pub mod control;
pub mod ice;
mod ice_forms;
pub mod ids;
pub mod inbound;
pub mod outbound;
pub mod payload;
pub mod refusal;
pub mod role;
mod scan;

pub use ice::{IceError, IceServer, IceServers};
pub use ids::{ClientId, DeviceId, is_plain};
pub use inbound::{ClientMessage, DeviceMessage, Malformed, PollBody, ServerMessage};
pub use outbound::Text;
pub use role::Role;

/// Largest message for a WebSocket device, in bytes (docs/protocol.md 2.8).
///
/// A real device does not reassemble fragments, and loses the rest of a larger message.
pub const MAX_DEVICE_MESSAGE: usize = 65_536;

/// Greatest depth of arrays and objects in a message, the envelope included (docs/protocol.md 4.3.4).
pub const MAX_DEPTH: usize = 128;
