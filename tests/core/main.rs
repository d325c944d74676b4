//! The core without sockets: words, sessions, hub, outbox.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]
#![allow(clippy::too_many_lines, clippy::large_futures, unreachable_pub, missing_docs)]

#[path = "../transcript/mod.rs"]
mod transcript;

mod actors;
mod faults;
mod gate;
mod house;
mod hub;
mod ice;
mod inbound;
mod journal;
mod layers;
mod outbox;
mod policy;
mod properties;
mod sessions;
mod transcripts;
