//! Connections to one other node that wait for the next request: those of polling clients, and those that a client has left.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, Response};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection to another node.
pub(super) type NodeStream = TlsStream<TcpStream>;

type Sender = SendRequest<Full<Bytes>>;

/// Connections that have answered a request, or are about to, and the times when they began to.
#[derive(Default)]
pub(super) struct Idle(Mutex<Vec<(Instant, Sender)>>);

impl Idle {
    /// Sends a request over a connection that was last used within this time, and keeps it for the next one, unless `most`
    /// are kept. Gives the request back if none could take it.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        fresh: Duration,
        most: usize,
    ) -> ControlFlow<hyper::Result<Response<Incoming>>, Request<Full<Bytes>>> {
        while let Some(mut sender) = self.take(fresh) {
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.put(sender, most);
                    return ControlFlow::Break(Ok(response));
                }
                Err(mut failed) => match failed.take_message() {
                    // Nothing was sent: the connection was closed.
                    Some(again) => request = again,
                    None => return ControlFlow::Break(Err(failed.into_error())),
                },
            }
        }
        ControlFlow::Continue(request)
    }

    /// Takes a connection that has answered its request, and was last used within this time.
    fn take(&self, fresh: Duration) -> Option<Sender> {
        self.drop_old(fresh);
        let mut all = self.0.lock();
        let ready = all.iter().rposition(|(_, sender)| sender.is_ready())?;
        Some(all.swap_remove(ready).1)
    }

    /// Drops the connections that were not used for this time, or are closed.
    pub(super) fn drop_old(&self, fresh: Duration) {
        self.0.lock().retain(|(used, sender)| used.elapsed() < fresh && !sender.is_closed());
    }

    /// Keeps a connection for the next request, which it can take once its response is read, unless `most` are kept.
    pub(super) fn put(&self, sender: Sender, most: usize) {
        let mut all = self.0.lock();
        if all.len() < most {
            all.push((Instant::now(), sender));
        }
    }
}

/// Connections whose WebSocket both sides have closed, and the times when they did. Those of before come first.
pub(super) struct Streams<S = NodeStream>(Mutex<Vec<(Instant, S)>>);

impl<S> Default for Streams<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: AsyncRead + Unpin> Streams<S> {
    /// Takes the connection that was last used, if that was within this time, and the other node has not closed it.
    pub(super) fn take(&self, fresh: Duration) -> Option<S> {
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
    pub(super) fn put(&self, stream: S, most: usize, fresh: Duration) {
        let mut all = self.0.lock();
        drop_old(&mut all, fresh);
        if all.len() < most {
            all.push((Instant::now(), stream));
        }
    }
}

/// Drops the connections that were not used for this time.
fn drop_old<S>(all: &mut Vec<(Instant, S)>, fresh: Duration) {
    let old = all.iter().take_while(|(used, _)| used.elapsed() >= fresh).count();
    drop(all.drain(..old));
}

/// Whether there is nothing to read, not even the end.
fn is_quiet<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    let mut byte = [0];
    let cx = &mut Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use futures_util::FutureExt as _;
    use hyper::StatusCode;
    use hyper::client::conn::http1::{Connection, handshake};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use crate::server::nodes::idle::*;

    const LONG: Duration = Duration::from_secs(600);

    fn block_on(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    type Kept = Connection<TokioIo<DuplexStream>, Full<Bytes>>;

    /// Keeps a connection that is ready. Returns it, which does nothing until it is polled, and its other end.
    async fn keep(idle: &Idle) -> (Kept, DuplexStream) {
        let (own, other) = duplex(1 << 12);
        let (sender, mut connection) = handshake(TokioIo::new(own)).await.unwrap();
        assert!((&mut connection).now_or_never().is_none() && sender.is_ready());
        idle.put(sender, usize::MAX);
        (connection, other)
    }

    fn request() -> Request<Full<Bytes>> {
        Request::builder().uri("/polled").header("host", "node").body(Full::default()).unwrap()
    }

    /// Reads the head of a request. False if there is none.
    async fn has_request(other: &mut DuplexStream) -> bool {
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\n") {
            match other.read_u8().await {
                Ok(byte) => got.push(byte),
                Err(_) => return false,
            }
        }
        true
    }

    async fn serves(mut other: DuplexStream) {
        while has_request(&mut other).await {
            other.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    }

    #[test]
    fn request_is_repeated_where_the_connection_was_lost_before_it_was_sent() {
        block_on(async {
            let idle = Idle::default();
            let (good, other) = keep(&idle).await;
            tokio::spawn(serves(other));
            tokio::spawn(good);
            let (lost, other) = keep(&idle).await;
            drop(other);
            // It notices its end only now that the request is there.
            tokio::spawn(lost);
            let ControlFlow::Break(Ok(response)) = idle.send(request(), LONG, 8).await else { panic!("not repeated") };
            assert_eq!(response.status(), StatusCode::NO_CONTENT);
            assert_eq!(idle.0.lock().len(), 1, "the one that has answered is kept");
        });
    }

    #[test]
    fn request_is_given_back_where_all_connections_are_lost() {
        block_on(async {
            let idle = Idle::default();
            for _ in 0..2 {
                let (lost, other) = keep(&idle).await;
                drop(other);
                tokio::spawn(lost);
            }
            let ControlFlow::Continue(back) = idle.send(request(), LONG, 8).await else { panic!("an answer") };
            assert_eq!((back.uri().path(), idle.0.lock().len()), ("/polled", 0));
        });
    }

    #[test]
    fn request_that_was_sent_is_not_repeated() {
        block_on(async {
            let idle = Idle::default();
            let (other_connection, mut unused) = keep(&idle).await;
            tokio::spawn(other_connection);
            let (connection, mut other) = keep(&idle).await;
            tokio::spawn(connection);
            // The node of the device may have begun to serve it.
            tokio::spawn(async move { assert!(has_request(&mut other).await) });
            assert!(matches!(idle.send(request(), LONG, 8).await, ControlFlow::Break(Err(_))));
            assert!(has_request(&mut unused).now_or_never().is_none());
        });
    }

    #[test]
    fn connection_that_is_old_busy_or_one_too_many_is_not_used() {
        block_on(async {
            let idle = Idle::default();
            let (busy, _other) = keep(&idle).await;
            tokio::spawn(busy);
            let mut sender = idle.take(LONG).unwrap();
            let answer = sender.try_send_request(request());
            idle.put(sender, 1);
            assert!(idle.take(LONG).is_none(), "it has not answered yet");
            let (_connection, _end) = keep(&idle).await;
            assert!(idle.take(Duration::ZERO).is_none());
            assert_eq!(idle.0.lock().len(), 0, "both are old");
            let (_connection, _end) = keep(&idle).await;
            let sender = idle.take(LONG).unwrap();
            idle.put(sender, 0);
            assert_eq!(idle.0.lock().len(), 0, "as many are kept as the settings allow");
            drop(answer);
        });
    }

    fn left(streams: &Streams<DuplexStream>) -> DuplexStream {
        let (own, other) = duplex(64);
        streams.put(own, usize::MAX, LONG);
        other
    }

    #[test]
    fn stream_with_input_behind_the_close_frame_or_at_its_end_is_not_used() {
        block_on(async {
            let streams = Streams::default();
            let mut quiet = left(&streams);
            for input in [&b"HTTP/1.1 101 Switching Protocols\r\n"[..], b"\x81", b"\0"] {
                left(&streams).write_all(input).await.unwrap();
            }
            // Input whose sender is there still, and an end without input.
            let mut late = left(&streams);
            late.write_all(b"late").await.unwrap();
            drop(left(&streams));
            streams.take(LONG).unwrap().write_all(b"next").await.unwrap();
            let mut got = [0; 4];
            quiet.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"next", "the quiet one was taken");
            assert!(streams.take(LONG).is_none() && streams.0.lock().is_empty(), "the others were dropped");
        });
    }

    #[test]
    fn streams_are_used_again_while_they_are_fresh_and_until_they_are_cleared() {
        let streams = Streams::default();
        let ends: Vec<_> = (0..3).map(|_| left(&streams)).collect();
        streams.put(duplex(64).0, 3, LONG);
        assert_eq!(streams.0.lock().len(), 3, "as many are kept as the settings allow");
        streams.drop_old(LONG);
        assert_eq!(streams.0.lock().len(), 3);
        streams.drop_old(Duration::ZERO);
        assert!(streams.0.lock().is_empty());
        drop(ends);
        let _ends: Vec<_> = (0..2).map(|_| left(&streams)).collect();
        assert!(streams.take(Duration::ZERO).is_none());
        let _ends: Vec<_> = (0..2).map(|_| left(&streams)).collect();
        streams.clear();
        assert!(streams.take(LONG).is_none());
    }
}
