//! A load for a signaling server, and what it cost the server: one line of JSON.
//!
//! `load SCENARIO --port N --pid N [--pairs N] [--payload BYTES] [--window N] [--idle N] [--clients N] [--seconds S]`,
//! where SCENARIO is `relay` (round trips client, device, client; `window` of them in flight; `idle` devices beside),
//! `sessions` (connect, offer, answer, 16 candidates, close), `registrations` (register and leave), `churn` (what `clients`
//! that come and go leave behind), `idle` (memory of devices that say nothing).
//! CPU time is read from the system, for the process `pid`: it tells more than throughput on a machine that is not quiet.

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
mod system;

use options::Options;

fn main() {
    // As `cargo bench` calls it, there is nothing to put a load on.
    let Some(options) = Options::of(std::env::args().skip(1)) else { return };
    // A peer that fails ends all of it: figures of those that are left would be told as if they were of all.
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
            other => panic!("there is no scenario {other}"),
        }
    });
    let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name:?}: {value:.3}")).collect();
    println!("{{{}}}", figures.join(", "));
}
