//! The server over real sockets, from Rust.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]
#![allow(clippy::too_many_lines, clippy::large_futures, unreachable_pub, missing_docs)]

#[path = "../../fuzz/src/server.rs"]
mod fuzzed;
#[path = "../replay/mod.rs"]
mod replay;
#[path = "../transcript/mod.rs"]
mod transcript;

mod adb;
mod backpressure;
mod clock;
mod cluster;
mod connection;
mod control;
mod dial;
mod draining;
mod handshake;
mod hostile;
mod keepalive;
mod listeners;
mod lists;
mod packets;
mod polled;
mod pressure;
mod raw_peer;
mod reload;
mod requests;
mod seeds;
mod seqpacket;
mod session_driver;
mod stopping;
mod storms;
mod tls;
mod transcripts;
mod unread;
mod viewers;
mod ws_stream;
