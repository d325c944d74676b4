//! Runs each scenario for a moment, with this server and with the bare relay, plain and over TLS.

use std::sync::Arc;

use cuttlefish_signaling::{Config, NoHooks, Running, Server, Tls};
use tokio::net::TcpListener;

use crate::options::Options;
use crate::tls::trusting;
use crate::{bare_relay, run};

/// The scenarios that both servers can run. Each scenario is here.
const BOTH: [&str; 8] = [
    "relay",
    "relay --window 3 --bursts 1",
    "relay --pairs 6 --per-device 3 --window 4 --payload 4000 --idle 2",
    "sessions",
    "registrations",
    "churn --clients 20",
    "idle --idle 2",
    "storm --idle 3",
];
/// The scenarios of this server alone.
const OURS: [&str; 2] = ["polled", "relay --pages 1"];

/// Runs all of them.
///
/// # Panics
/// A peer that fails ends the process, and so does a figure that is not a number.
pub async fn all() {
    let tls = Tls::self_signed(&["localhost".into()], None).unwrap();
    for tls in [None, Some(tls)] {
        let ca = tls.as_ref().and_then(Tls::authority_pem);
        // One after the other: a device keeps its id until it has left.
        for arguments in BOTH.iter().chain(&OURS) {
            let server = server(tls.clone());
            check(arguments, server.local_addr().port(), ca.as_deref()).await;
        }
        for arguments in BOTH {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (acceptor, ca) = tls.as_ref().map(|_| bare_relay::tls()).unzip();
            let relay = tokio::spawn(bare_relay::accept(listener, acceptor));
            check(arguments, port, ca.as_deref()).await;
            relay.abort();
        }
    }
}

fn server(tls: Option<Tls>) -> Running {
    let config = Config { port: 0, tls, journal: true, dashboard: true, ..Config::default() };
    Server::bind(config, Arc::new(NoHooks), Arc::new(())).unwrap().serve()
}

async fn check(arguments: &str, port: u16, ca: Option<&str>) {
    let own = format!(" --port {port} --pid {} --seconds 0.02", std::process::id());
    let few = if arguments.contains("--pairs") { "" } else { " --pairs 2" };
    let line = format!("{arguments}{few}{own}");
    let mut options = Options::of(line.split(' ').map(ToOwned::to_owned)).unwrap();
    options.tls = ca.map(|ca| trusting(ca.as_bytes()));
    let figures = run(&options).await;
    assert!(figures.len() > 1 && figures.iter().all(|(_, value)| value.is_finite()), "{line}: {figures:?}");
}
