//! State and rules without I/O: registry, sessions, outboxes, and the path of a forward.

pub mod address;
pub mod aliases;
pub mod client_ids;
mod closing;
pub mod cluster;
mod delivery;
pub mod device;
pub mod device_list;
pub mod driver;
pub mod hub;
pub mod lane;
mod observer;
pub mod outbox;
pub mod party;
pub mod peer;
pub mod preregistration;
pub mod proxied;
pub mod relay;
pub mod session;
pub mod upstream;
pub mod waiting;
