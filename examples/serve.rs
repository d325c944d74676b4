//! Runs the server from Rust, without Python: `cargo run --release --example serve -- 8080`.

#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::{Config, NoHooks, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let bound = Server::bind(Config { port, ..Config::default() }, Arc::new(NoHooks), Arc::new(()))?;
    println!("listening on {}", bound.local_addr());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let server = bound.serve();
        tokio::signal::ctrl_c().await?;
        server.stop(Duration::from_secs(2)).await;
        Ok(())
    })
}
