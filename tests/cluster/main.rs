//! Several nodes as one service, in one thread: a model of the engine, and a world of nodes whose every event comes
//! from one seeded queue.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod claims;
mod directory;
mod driven;
mod engine;
mod event;
mod joining;
mod node;
mod queue;
#[cfg(feature = "cluster")]
mod redis;
mod schedules;
mod world;
