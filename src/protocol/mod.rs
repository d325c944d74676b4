//! The words of the signaling protocol: text in, borrowed messages out, and back. No state, no I/O.
//!
//! Two WebSocket endpoints, one JSON object per text message:
//!
//! | direction | message |
//! |---|---|
//! | device → server | `{"message_type":"register","device_id":STRING,"device_info":ANY}` |
//! | device → server | `{"message_type":"forward","client_id":INTEGER,"payload":ANY}` |
//! | server → device | `{"message_type":"config","ice_servers":[…]}` |
//! | server → device | `{"message_type":"client_msg","client_id":INTEGER,"payload":ANY}` |
//! | server → device | `{"message_type":"client_disconnected","client_id":INTEGER}` |
//! | client → server | `{"message_type":"connect","device_id":STRING}` |
//! | client → server | `{"message_type":"forward","payload":ANY}` |
//! | server → client | `{"message_type":"config","ice_servers":[…]}` |
//! | server → client | `{"message_type":"device_info","device_info":ANY}` |
//! | server → client | `{"message_type":"device_msg","payload":ANY}` |
//! | server → either | `{"error":STRING}` |
//!
//! What comes in is parsed by [`inbound`], what goes out is written by [`outbound`]. A payload is never looked into:
//! it is borrowed from the text it came in and copied once, byte for byte, into the text that goes out.

pub mod control;
pub mod ice;
pub mod ids;
pub mod inbound;
pub mod outbound;
pub mod payload;
pub mod refusal;
pub mod role;
mod scan;

pub use ice::{IceError, IceServer, IceServers};
pub use ids::{ClientId, DeviceId, is_plain};
pub use inbound::{ClientMessage, DeviceMessage, Malformed, PollBody};
pub use outbound::Text;
pub use role::Role;

/// The largest message a real device can take: it does not reassemble frames and loses what lies beyond, in bytes
/// (docs/protocol.md 2.8).
pub const MAX_DEVICE_MESSAGE: usize = 65_536;

/// How deep arrays and objects may nest in a message, the envelope included (docs/protocol.md 4.3.4).
pub const MAX_DEPTH: usize = 128;
