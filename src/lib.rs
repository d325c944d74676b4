//! A signaling server for Android Cuttlefish devices over WebRTC: devices register, clients connect, and the server
//! relays their opaque payloads. The core of the Python package `cuttlefish-signaling`, usable from Rust as it is.
//!
//! # The tour, bottom up
//!
//! ```text
//!             text in                     borrowed message                 push(text)
//!  socket ───────────────▶ session ───────────────────────▶ hub ───────────────▶ outbox ───────▶ socket
//!    edge                  sans-I/O       protocol words     state        never waits               edge
//! ```
//!
//! Read five files to understand the product: [`protocol`], [`session`], [`hub`], [`outbox`] and
//! `server/pump.rs`. Imports point down only; `tests/core/layers.rs` holds the house to that.
//!
//! ```
//! use std::sync::Arc;
//! use cuttlefish_signaling::{Config, NoHooks, Server};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let server = Server::bind(Config::default(), Arc::new(NoHooks), Arc::new(()))?;
//! let address = server.local_addr(); // listening already
//! let running = server.serve();
//! running.stop(std::time::Duration::from_secs(2)).await;
//! # Ok::<(), cuttlefish_signaling::Error>(()) }).unwrap();
//! ```
//!
//! It never looks into a payload and takes no part in the media. [`state_dir`] keeps a certificate on disk for those who
//! ask for it; nothing else is kept.

#![cfg_attr(not(feature = "python"), forbid(unsafe_code))]

// Layers, lowest first: each names only those above it in this list (ARCHITECTURE.md, "Layers").
pub mod access;
#[cfg(feature = "python")]
mod bindings;
pub mod config;
pub mod core;
pub mod observe;
pub mod protocol;
pub mod server;
mod sync;

pub use self::core::{client_ids, hub, outbox, peer, preregistration as preregistrations, relay, session};
pub use access::{connection_limits as gate, hooks, origin_policy as policy};
pub use config::{certificates, error, rate, state_dir, tls, turn};
pub use observe::{faults, incidents, journal, ledger};
pub use protocol::refusal;

pub use config::{Config, IceSource, Keepalive, Limits};
pub use error::{ConfigError, Error};
pub use hooks::{Hooks, NoHooks};
pub use server::{Running, Server};
pub use tls::Tls;
