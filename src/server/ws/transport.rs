//! The byte streams that a WebSocket runs on: TCP, TLS over TCP, Unix sockets, and a pipe in memory for tests.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A byte stream below a WebSocket.
pub(in crate::server) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether the transport sends an alert before it closes. If not, dropping it is enough.
    const SENDS_CLOSE_NOTIFY: bool;

    /// Makes the drop send a RST and discard unsent data.
    fn reset_on_close(&self);
}

impl Transport for TcpStream {
    const SENDS_CLOSE_NOTIFY: bool = false;

    fn reset_on_close(&self) {
        if let Err(error) = SockRef::from(self).set_linger(Some(Duration::ZERO)) {
            tracing::warn!("a connection cannot be reset, and ends as others do: {error}");
        }
    }
}

impl Transport for TlsStream<TcpStream> {
    /// The alert `close_notify` (RFC 8446, 6.1).
    const SENDS_CLOSE_NOTIFY: bool = true;

    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

impl Transport for UnixStream {
    const SENDS_CLOSE_NOTIFY: bool = false;

    /// A Unix socket has no RST. The kernel reports a close with unread data as a reset by itself.
    fn reset_on_close(&self) {}
}

impl Transport for DuplexStream {
    const SENDS_CLOSE_NOTIFY: bool = false;

    fn reset_on_close(&self) {}
}
