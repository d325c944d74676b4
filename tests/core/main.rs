//! The core without sockets: protocol, sessions, hub, outbox.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]
#![allow(clippy::too_many_lines, clippy::large_futures, unreachable_pub, missing_docs)]

#[path = "../../fuzz/src/core.rs"]
mod fuzzed;
#[path = "../../fuzz/src/tokens.rs"]
mod fuzzed_tokens;
#[path = "../replay/mod.rs"]
mod replay;
#[path = "../transcript/mod.rs"]
mod transcript;

mod actors;
mod adb_port;
mod architecture;
mod backpressure;
mod candidates;
mod certificates;
mod citations;
mod client_ids;
mod cluster_settings;
mod connection_limits;
mod control;
mod control_api;
mod control_token;
mod dependencies;
mod device_list;
mod driver;
mod faults;
mod grants;
mod harness;
mod hub;
mod ice;
mod imports;
mod inbound;
mod journal;
mod jwt;
mod layers;
mod listen;
mod model;
mod nodes;
mod origin_policy;
mod outbox;
mod party;
mod payload;
mod peer;
mod preregistration;
mod properties;
mod proxied;
mod relay;
mod reload;
mod renewal;
mod request_rates;
mod schedules;
mod security;
mod seeds;
mod session;
mod sizes;
mod state_dir;
mod timings;
mod transcripts;
mod trusted_proxies;
