//! Serves `/echo` for the Autobahn test suite, after the server's own upgrade: `echo PORT [--tls]`. See `make autobahn`.

use std::sync::Arc;

use cuttlefish_signaling::{Backpressure, Config, Limits, NoHooks, Server, Tls};

/// Autobahn sends messages of up to 16 MiB.
const LARGEST: usize = 64 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().ok_or("echo PORT [--tls]")?.parse()?;
    let tls = match arguments.next().as_deref() {
        Some("--tls") => Some(Tls::self_signed(&["localhost".into(), "127.0.0.1".into()], None)?),
        _ => None,
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let _running = Server::bind(config(port, tls), Arc::new(NoHooks), Arc::new(()))?.serve();
        tokio::signal::ctrl_c().await?;
        Ok(())
    })
}

/// Returns the settings of a server that takes in Autobahn's largest messages.
fn config(port: u16, tls: Option<Tls>) -> Config {
    let backpressure = Backpressure { outbox_bytes: LARGEST, ..Backpressure::default() };
    let limits = Limits { max_message_size: LARGEST, backpressure, ..Limits::default() };
    Config { port, tls, limits, echo: true, ..Config::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program is run by hand, so its settings are checked here.
    #[tokio::test]
    async fn server_with_these_settings_starts() -> Result<(), Box<dyn std::error::Error>> {
        Server::bind(config(0, None), Arc::new(NoHooks), Arc::new(()))?;
        Ok(())
    }
}
