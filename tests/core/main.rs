//! The core without sockets: words, sessions, hub, outbox.

#[path = "../transcript/mod.rs"]
mod transcript;

mod actors;
mod house;
mod hub;
mod ice;
mod inbound;
mod layers;
mod outbox;
mod properties;
mod sessions;
mod transcripts;
