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

// Layer 0: words.
pub mod protocol;
pub mod refusal;
// Layer 1: what is kept of one peer.
pub mod faults;
pub mod incidents;
pub mod journal;
pub mod ledger;
pub mod outbox;
pub mod peer;
pub mod rate;
mod sync;
// Layer 2: state and rules, without I/O and without a clock.
pub mod client_ids;
pub mod hub;
pub mod relay;
pub mod roster;
pub mod session;
// Layer 3: what is left to others to decide.
pub mod certificates;
pub mod config;
pub mod error;
pub mod gate;
pub mod hooks;
pub mod policy;
pub mod state_dir;
pub mod tls;
pub mod turn;
// Layer 4: sockets.
pub mod server;
// Layer 5: Python.
#[cfg(feature = "python")]
mod bindings;

pub use config::{Config, IceSource, Keepalive, Limits};
pub use error::{ConfigError, Error};
pub use hooks::{Hooks, NoHooks};
pub use server::{Running, Server};
pub use tls::Tls;
