//! The listening socket and its accept loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::connection;
use super::http::service::Routes;
use super::shared::Shared;
use crate::access::hooks::Hooks;
use crate::config::Config;
use crate::config::tls::Tls;

/// Connections that the kernel queues until the server accepts them.
const BACKLOG: i32 = 4096;

/// Creates the listening socket. It needs no runtime.
pub(super) fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // `SO_REUSEADDR` allows a port that another server has just left. A port that another socket listens on stays
    // taken.
    socket.set_reuse_address(true)?;
    if matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified()) {
        socket.set_only_v6(false)?;
    }
    // Signaling messages are small and latency matters. Accepted sockets inherit the option.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts connections and spawns a task for each, until the server stops.
pub(super) async fn accept(shared: Arc<Shared>, routes: Routes, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot watch the listening socket: {error}"),
    };
    if is_exposed(&shared.config, &*shared.hooks) {
        tracing::warn!(
            "listening on {} without `authorize`: whoever reaches it may register devices and use all of them",
            shared.config.host
        );
    }
    let tls = shared.config.tls.as_ref().map(|tls| TlsAcceptor::from(tls.server_config()));
    let mut backoff = Backoff::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                backoff.pause = Duration::ZERO;
                let permit = shared.limiter.acquire(address.ip().to_canonical(), Instant::now());
                let service = routes.service(permit.turned_away);
                let connection = connection::Connection::new(Arc::clone(&shared), service, address, permit);
                shared.spawn(connection.run(stream, tls.clone()), Some(address));
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => tokio::select! {
                () = shared.stopping.cancelled() => return,
                () = shared.timers.sleep(backoff.next(&error)) => {}
            },
        }
    }
}

/// The pause between failed attempts to accept.
///
/// The process is out of descriptors or memory. Both return when a connection ends.
#[derive(Default)]
struct Backoff {
    /// The last pause; zero after a success.
    pause: Duration,
    /// The time of the last warning. At most one line a second is logged.
    last_warned: Option<Instant>,
}

impl Backoff {
    /// Logs the failure, and returns the next pause: 10 ms, doubled with each failure, at most 1 s.
    fn next(&mut self, error: &io::Error) -> Duration {
        self.pause = (self.pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
        if self.last_warned.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            self.last_warned = Some(Instant::now());
            tracing::warn!("cannot accept connections, trying again and again: {error}");
        }
        self.pause
    }
}

/// Whether the error concerns only the connection that was about to be accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Whether other machines can reach the server without authentication.
pub(super) fn is_exposed(config: &Config, hooks: &dyn Hooks) -> bool {
    let asks = hooks.authenticates() || config.tls.as_ref().is_some_and(Tls::asks_clients);
    !config.host.is_loopback() && !asks
}
