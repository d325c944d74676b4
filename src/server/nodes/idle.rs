//! Connections to one other node that wait for the next request: those of polling clients, and those that a client has left.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection to another node.
pub(super) type NodeStream = TlsStream<TcpStream>;

/// Connections that have answered a request, or are about to, and the times when they began to.
#[derive(Default)]
pub(super) struct Idle(Mutex<Vec<(Instant, SendRequest<Full<Bytes>>)>>);

impl Idle {
    /// Takes a connection that has answered its request, and was last used within this time.
    pub(super) fn take(&self, fresh: Duration) -> Option<SendRequest<Full<Bytes>>> {
        let mut all = self.0.lock();
        all.retain(|(used, sender)| used.elapsed() < fresh && !sender.is_closed());
        let ready = all.iter().rposition(|(_, sender)| sender.is_ready())?;
        Some(all.swap_remove(ready).1)
    }

    /// Drops the connections that were not used for this time.
    pub(super) fn drop_old(&self, fresh: Duration) {
        self.0.lock().retain(|(used, sender)| used.elapsed() < fresh && !sender.is_closed());
    }

    /// Keeps a connection for the next request, which it can take once its response is read, unless `most` are kept.
    pub(super) fn put(&self, sender: SendRequest<Full<Bytes>>, most: usize) {
        let mut all = self.0.lock();
        if all.len() < most {
            all.push((Instant::now(), sender));
        }
    }
}

/// Connections whose WebSocket both sides have closed, and the times when they did. Those of before come first.
#[derive(Default)]
pub(super) struct Streams(Mutex<Vec<(Instant, NodeStream)>>);

impl Streams {
    /// Takes the connection that was last used, if that was within this time, and the other node has not closed it.
    pub(super) fn take(&self, fresh: Duration) -> Option<NodeStream> {
        let mut all = self.0.lock();
        drop_old(&mut all, fresh);
        while let Some((_, mut stream)) = all.pop() {
            if is_quiet(&mut stream) {
                return Some(stream);
            }
        }
        None
    }

    /// Drops the connections that were not used for this time.
    pub(super) fn drop_old(&self, fresh: Duration) {
        drop_old(&mut self.0.lock(), fresh);
    }

    /// Drops all.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Keeps a connection for the next client, unless `most` are kept.
    pub(super) fn put(&self, stream: NodeStream, most: usize, fresh: Duration) {
        let mut all = self.0.lock();
        drop_old(&mut all, fresh);
        if all.len() < most {
            all.push((Instant::now(), stream));
        }
    }
}

/// Drops the connections that were not used for this time.
fn drop_old(all: &mut Vec<(Instant, NodeStream)>, fresh: Duration) {
    let old = all.iter().take_while(|(used, _)| used.elapsed() >= fresh).count();
    drop(all.drain(..old));
}

/// Whether there is nothing to read, not even the end.
fn is_quiet(stream: &mut NodeStream) -> bool {
    let mut byte = [0];
    let cx = &mut Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}
