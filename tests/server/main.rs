//! The server over real sockets, from Rust.

#[path = "../transcript/mod.rs"]
mod transcript;

mod dial;
mod handshake;
mod keepalive;
mod pressure;
mod stopping;
mod tls;
mod transcripts;
