//! The WebSocket transport (RFC 6455): from an upgraded connection to the task that serves it.

mod adb;
mod blocking_io;
mod close;
mod echo;
mod frame_header;
mod io_buffer;
pub(in crate::server) mod open;
pub(in crate::server) mod proxied;
mod pump;
mod stream;
pub(in crate::server) mod transport;
mod watch;
