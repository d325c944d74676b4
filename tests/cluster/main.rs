//! Several nodes as one service, in one thread: a model of the engine, and a world of nodes whose every event comes
//! from one seeded queue.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(unreachable_pub)]

#[cfg(feature = "cluster")]
#[path = "../../fuzz/src/registry.rs"]
mod fuzzed;
#[path = "../../fuzz/src/nodes.rs"]
mod fuzzed_nodes;
#[path = "../replay/mod.rs"]
mod replay;

mod announcements;
mod announcing;
mod checks;
mod claims;
mod connection;
mod directory;
mod dispatch;
mod driven;
mod engine;
mod event;
#[cfg(feature = "cluster")]
mod farm;
mod faults;
mod joining;
mod listing;
mod locate;
mod lost_writes;
mod net;
mod node;
mod outputs;
mod patience;
mod peers;
mod queue;
mod received;
#[cfg(feature = "cluster")]
mod redis;
mod schedules;
mod shared_ice;
mod world;
