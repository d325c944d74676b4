//! Access control: connection limits, the origin policy, and hooks.

pub mod connection_limits;
pub mod hooks;
pub mod origin_policy;
