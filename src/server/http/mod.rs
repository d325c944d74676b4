//! HTTP/1.1: the routes and the upgrade to a WebSocket.
//!
//! Each error has the JSON body `{"error":…}` (docs/protocol.md 5.3.27).

mod access_log;
pub(in crate::server) mod audited;
pub(in crate::server) mod auth;
pub(in crate::server) mod cluster_listing;
pub(in crate::server) mod dashboard;
mod devices;
mod elsewhere;
pub(in crate::server) mod extract;
mod files;
mod listing;
pub(in crate::server) mod metrics;
mod nodes;
pub(in crate::server) mod origin;
pub(in crate::server) mod path;
pub(in crate::server) mod pieces;
pub(in crate::server) mod polled;
mod polling;
mod proxied;
mod proxy;
pub(in crate::server) mod rate;
mod reference;
pub(in crate::server) mod respond;
mod router;
pub(in crate::server) mod service;
mod state;
mod token;
pub(in crate::server) mod upgrade;
