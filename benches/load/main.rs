//! Puts a load on a signaling server, and prints its cost for the server as one line of JSON.
//!
//! `load SCENARIO --port N --pid N [--client-port N --other-pid N] [--pairs N] [--payload BYTES] [--window N] [--idle N]
//! [--clients N] [--seconds S]`, where SCENARIO is `relay` (round trips client, device, client; `window` of them in flight, beside `idle` devices),
//! `sessions` (connect, offer, answer, 16 candidates, close), `registrations` (register and leave), `churn` (the memory
//! and cost after `clients` that connect and leave), `idle` (the memory of idle devices), or `storm` (`idle` devices that
//! dial at once over TLS and trust `--ca FILE`).
//! The CPU time is that of the process `pid`, and of `other-pid` if clients are on another node. It is more reliable than
//! throughput on a busy machine.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

mod options;
mod peer;
mod scenarios;
mod storm;
mod system;

use options::Options;

fn main() {
    // `cargo bench` passes no scenario: there is no server then.
    let Some(options) = Options::of(std::env::args().skip(1)) else { return };
    // A failed peer ends the process: the figures of the remaining peers would be wrong.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(1);
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let figures = runtime.block_on(async {
        match options.scenario.as_str() {
            "relay" => scenarios::relay(&options).await,
            "sessions" => scenarios::sessions(&options).await,
            "registrations" => scenarios::registrations(&options).await,
            "churn" => scenarios::churn(&options).await,
            "idle" => scenarios::idle(&options).await,
            "storm" => storm::storm(&options).await,
            other => panic!("there is no scenario {other}"),
        }
    });
    let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name:?}: {value:.3}")).collect();
    println!("{{{}}}", figures.join(", "));
}
