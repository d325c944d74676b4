//! The byte streams that a WebSocket runs on: TCP, TLS over TCP, Unix sockets, and a pipe in memory for tests.

use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream as ClientTlsStream;

use crate::access::connection_limits::Permit;
use crate::server::peer_stream::PeerStream;
use crate::server::shared::Shared;
use crate::server::tls_stream::TlsStream;

/// A byte stream below a WebSocket.
pub(in crate::server) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether the transport sends an alert before it closes. If not, dropping it is enough.
    const SENDS_CLOSE_NOTIFY: bool;

    /// Whether this side has dialed: another node. It masks its frames, and reads frames without a mask, of any rate.
    const IS_CLIENT: bool = false;

    /// Stops watching the transport: the deadlines of the WebSocket apply from now on.
    fn upgraded(&mut self);

    /// Watches the transport again: it goes on with the next request of another node.
    fn watch_again(&mut self, _: &Arc<Shared>, _: &Arc<Permit>) {}

    /// Makes the drop send a RST and discard unsent data.
    fn reset_on_close(&self);

    /// Whether the peer has reset the transport. For a transport that is not read: a read would tell.
    fn was_reset(&self) -> bool;
}

impl Transport for PeerStream<TcpStream> {
    const SENDS_CLOSE_NOTIFY: bool = false;

    fn upgraded(&mut self) {
        self.upgraded();
    }

    fn reset_on_close(&self) {
        if let Err(error) = SockRef::from(self.inner()).set_linger(Some(Duration::ZERO)) {
            let what = "a connection cannot be reset, and ends as others do";
            tracing::warn!(event = "reset_failed", reason = %error, "{what}: {error}");
        }
    }

    fn was_reset(&self) -> bool {
        matches!(SockRef::from(self.inner()).take_error(), Ok(Some(_)) | Err(_))
    }
}

impl Transport for TlsStream<PeerStream<TcpStream>> {
    /// The alert `close_notify` (RFC 8446, 6.1).
    const SENDS_CLOSE_NOTIFY: bool = true;

    fn upgraded(&mut self) {
        self.inner_mut().upgraded();
    }

    fn watch_again(&mut self, shared: &Arc<Shared>, permit: &Arc<Permit>) {
        self.inner_mut().watch(shared, permit);
    }

    fn reset_on_close(&self) {
        self.inner().reset_on_close();
    }

    fn was_reset(&self) -> bool {
        self.inner().was_reset()
    }
}

impl Transport for ClientTlsStream<TcpStream> {
    const SENDS_CLOSE_NOTIFY: bool = true;

    const IS_CLIENT: bool = true;

    fn upgraded(&mut self) {}

    fn reset_on_close(&self) {
        if let Err(error) = SockRef::from(self.get_ref().0).set_linger(Some(Duration::ZERO)) {
            tracing::warn!(event = "reset_failed", reason = %error, "a connection to a node cannot be reset: {error}");
        }
    }

    fn was_reset(&self) -> bool {
        matches!(SockRef::from(self.get_ref().0).take_error(), Ok(Some(_)) | Err(_))
    }
}

impl Transport for PeerStream<UnixStream> {
    const SENDS_CLOSE_NOTIFY: bool = false;

    fn upgraded(&mut self) {
        self.upgraded();
    }

    /// A Unix socket has no RST. The kernel reports a close with unread data as a reset by itself.
    fn reset_on_close(&self) {}

    fn was_reset(&self) -> bool {
        matches!(SockRef::from(self.inner()).take_error(), Ok(Some(_)) | Err(_))
    }
}

impl Transport for PeerStream<DuplexStream> {
    const SENDS_CLOSE_NOTIFY: bool = false;

    fn upgraded(&mut self) {
        self.upgraded();
    }

    fn reset_on_close(&self) {}

    fn was_reset(&self) -> bool {
        false
    }
}
