//! Serves `/echo` for the Autobahn test suite, after the server's own upgrade: `echo PORT [--tls]`. See `make autobahn`.

use std::sync::Arc;

use cuttlefish_signaling::{Config, Limits, NoHooks, Server, Tls};

/// Autobahn sends messages of up to 16 MiB.
const LARGEST: usize = 64 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().ok_or("echo PORT [--tls]")?.parse()?;
    let tls = match arguments.next().as_deref() {
        Some("--tls") => Some(Tls::self_signed(&["localhost".into(), "127.0.0.1".into()], None)?),
        _ => None,
    };
    let limits = Limits { max_message_size: LARGEST, ..Limits::default() };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let config = Config { port, tls, limits, echo: true, ..Config::default() };
        let _running = Server::bind(config, Arc::new(NoHooks), Arc::new(()))?.serve();
        tokio::signal::ctrl_c().await?;
        Ok(())
    })
}
