//! Puts a load on a signaling server, and prints its cost for the server as one line of JSON.
//!
//! `load SCENARIO --port N --pid N [--client-port N --other-pid N] [--ca FILE] [--pairs N] [--per-device N] [--payload BYTES]
//! [--window N] [--bursts 0|1] [--idle N] [--pages N] [--clients N] [--seconds S]`, where SCENARIO is `relay` (round trips
//! client, device, client; `window` of them in flight, begun one by one or with `bursts` at once, beside `idle` devices and
//! `pages` of the dashboard; `per-device` clients share a device), `polled` (the same, from clients that poll), `sessions`
//! (connect, offer, answer, 16 candidates, close), `registrations` (register and leave), `churn` (the memory and cost after
//! `clients` that connect and leave), `idle` (the memory of idle devices), or `storm` (`idle` devices that dial at once).
//! With `--ca FILE` all connections are TLS and trust this certificate.
//!
//! Without a scenario it runs each of them for a moment, with servers in its own process: a test of the program.
//!
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

#[path = "../peers/relay.rs"]
mod bare_relay;
mod check;
mod options;
mod pages;
mod peer;
mod polled;
mod scenarios;
mod storm;
mod system;
mod tls;

use options::Options;
use scenarios::Figures;

fn main() {
    let options = Options::of(std::env::args().skip(1));
    // A failed peer ends the process: the figures of the remaining peers would be wrong.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(1);
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(options) = options else { return runtime.block_on(check::all()) };
    let figures = runtime.block_on(run(&options));
    if let Some((name, value)) = figures.iter().find(|(_, value)| !value.is_finite()) {
        panic!("{name} is {value}: nothing was done in {:?}", options.seconds);
    }
    let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name:?}: {value:.3}")).collect();
    println!("{{{}}}", figures.join(", "));
}

async fn run(options: &Options) -> Figures {
    match options.scenario.as_str() {
        "relay" => scenarios::relay(options).await,
        "polled" => polled::polled(options).await,
        "sessions" => scenarios::sessions(options).await,
        "registrations" => scenarios::registrations(options).await,
        "churn" => scenarios::churn(options).await,
        "idle" => scenarios::idle(options).await,
        "storm" => storm::storm(options).await,
        other => panic!("there is no scenario {other}"),
    }
}
