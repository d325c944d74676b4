//! The listener for other nodes: a socket of its own, with mutual TLS.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::identity::Identity;
use super::node::Node;
use super::routes;
use crate::config::error::Error;
use crate::server::connection::Connection;
use crate::server::http::service::Service;

/// Connections that the kernel queues until the node accepts them.
const BACKLOG: i32 = 1024;

/// The pause after an attempt to accept that has failed: the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens for other nodes.
pub(super) struct NodeListener {
    socket: StdListener,
    /// Its address, with the port that the system has chosen.
    pub(super) address: SocketAddr,
    tls: Arc<ServerConfig>,
}

impl NodeListener {
    /// Listens. It needs no runtime.
    ///
    /// # Errors
    /// [`Error::Bind`] if the node cannot listen, [`Error::Tls`] if its certificate cannot be used.
    pub(super) fn bind(address: SocketAddr, identity: &Identity) -> Result<Self, Error> {
        let error = |source| Error::Bind { setting: "Cluster.listen", address: address.to_string(), source };
        let socket = listen_on(address).map_err(error)?;
        let bound = socket.local_addr().map_err(error)?;
        Ok(Self { socket, address: bound, tls: identity.server()? })
    }

    /// Accepts connections and spawns a task for each, until the server stops.
    pub(super) async fn accept(self, node: Arc<Node>) {
        let shared = Arc::clone(&node.shared);
        let listener = match TcpListener::from_std(self.socket) {
            Ok(listener) => listener,
            Err(error) => {
                let what = "cannot watch the socket for other nodes";
                return tracing::error!(event = "listener_failed", reason = %error, "{what}: {error}");
            }
        };
        let service = Service::Nodes(routes::router(&node));
        // The routes keep the node.
        drop(node);
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, address)) = accepted else {
                shared.timers.sleep(PAUSE).await;
                continue;
            };
            let limiter = &shared.limiters.nodes;
            while let Some(retry_at) = limiter.make_room(Instant::now()) {
                tokio::select! {
                    biased;
                    () = shared.stopping.cancelled() => return,
                    () = limiter.freed() => {}
                    () = shared.timers.sleep_until(retry_at) => {}
                }
            }
            let permit = limiter.acquire(address.ip(), Instant::now());
            if permit.turned_away.is_none() {
                let connection = Connection::new(Arc::clone(&shared), service.clone(), Some(address), permit);
                shared.spawn(connection.between_nodes(Arc::clone(&self.tls)).run(stream, true), Some(address));
            }
        }
    }
}

fn listen_on(address: SocketAddr) -> io::Result<StdListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
