//! A bare relay to compare with: tokio-tungstenite and two maps, without JSON parser, bounds, checks or counters.
//!
//! The difference to the server is the cost of those. Usage: `bare_relay [CA] PORT`. With CA it speaks TLS, and writes
//! the certificate that a client has to trust there.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod relay;

use tokio::net::TcpListener;

fn main() {
    // `cargo bench` passes no port: there is nothing to do.
    let Some(port) = std::env::args().next_back().and_then(|port| port.parse::<u16>().ok()) else { return };
    let tls = std::env::args().nth(1).filter(|_| std::env::args().len() > 2).map(|ca| {
        let (acceptor, trusted) = relay::tls();
        std::fs::write(ca, trusted).unwrap();
        acceptor
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        relay::accept(TcpListener::bind(("127.0.0.1", port)).await.unwrap(), tls).await;
    });
}
