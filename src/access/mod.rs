//! Access control: connection limits, rates of requests, the origin policy, and hooks.

pub mod connection_limits;
pub mod hooks;
pub mod origin_policy;
pub mod request_rates;
