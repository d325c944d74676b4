//! Access control: connection limits, rates of requests, the origin policy, adb ports, hooks, tokens.

pub mod adb;
pub mod connection_limits;
pub mod hooks;
pub mod jwt;
pub mod origin_policy;
pub mod request_rates;
pub mod trusted_proxies;
