//! A signaling server for Android Cuttlefish devices over WebRTC.
//!
//! Devices register, clients connect, and the server relays the opaque payloads between them. This crate is the core of
//! the Python package `cuttlefish-signaling`; a Rust program can use it without Python. The protocol is specified in
//! `docs/protocol.md`.
//!
//! # The path of a message
//!
//! ```text
//!             text in                     borrowed message                 push(text)
//!  socket ───────────────▶ session ───────────────────────▶ hub ───────────────▶ outbox ───────▶ socket
//!   server                 sans-I/O       protocol types      registry            never waits     server
//! ```
//!
//! # Layers
//!
//! A layer imports only from the layers below it. `tests/core/layers.rs` checks this.
//!
//! | layer | module | contents |
//! |---|---|---|
//! | 7 | `bindings` (feature `python`) | the Python extension module; the only layer with Python in it |
//! | 6 | [`server`] | listener, TLS, HTTP, WebSocket, local sockets, timers |
//! | 5 | [`access`] | connection limits, origin policy, hooks |
//! | 4 | [`config`] | settings and their checks, certificates, TURN credentials, rates |
//! | 3 | [`core`] | sans-I/O state and rules: registry, sessions, outboxes, relay |
//! | 2 | [`observe`] | counters, journal, fault injection |
//! | 1 | [`protocol`] | messages: parse, validate, write |
//! | 0 | `sync` | locks and atomics that a test can schedule |
//!
//! # Six files to read
//!
//! 1. `src/protocol/mod.rs` ([`protocol`]): the messages.
//! 2. `src/core/session/mod.rs` ([`session`]) and its folder: the rules for one peer.
//! 3. `src/core/hub.rs` ([`hub`]): the registry of devices and connections.
//! 4. `src/core/relay.rs` ([`relay`]): the path of a forward, with ledger, journal and faults.
//! 5. `src/core/outbox/mod.rs` ([`outbox`]): the bounded queue of one peer.
//! 6. `src/core/driver/mod.rs` ([`driver`]): one connection, from its first input to its end.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//! use cuttlefish_signaling::{Config, NoHooks, Server};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let server = Server::bind(Config::default(), Arc::new(NoHooks), Arc::new(()))?;
//! let address = server.local_addr(); // the socket already listens
//! let running = server.serve();
//! running.stop(std::time::Duration::from_secs(2)).await;
//! # Ok::<(), cuttlefish_signaling::Error>(()) }).unwrap();
//! ```
//!
//! # Limits
//!
//! The server takes no part in the media. It never interprets a payload when it relays it. It keeps no state on disk,
//! except a certificate in [`state_dir`] where the settings ask for it.

#![cfg_attr(not(feature = "python"), forbid(unsafe_code))]

// The modules in alphabetical order. The layers are in the table above and in ARCHITECTURE.md, "Layers".
pub mod access;
#[cfg(feature = "python")]
mod bindings;
pub mod config;
pub mod core;
pub mod observe;
pub mod protocol;
pub mod server;
mod sync;

pub use self::core::{client_ids, driver, hub, outbox, peer, preregistration as preregistrations, relay, session};
pub use access::{connection_limits as gate, hooks, origin_policy as policy};
pub use config::ice_command::IceCommand;
pub use config::{certificates, error, listen, rate, renewal, state_dir, tls, turn};
pub use observe::{faults, incidents, journal, ledger, timings};
pub use protocol::refusal;

pub use config::{Adb, Backpressure, Config, IceSource, Keepalive, Limits};
pub use error::{ConfigError, Error};
pub use hooks::{Hooks, NoHooks};
pub use server::{Drain, Running, Server};
pub use tls::Tls;
