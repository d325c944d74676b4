//! Adapts an async transport to [`std::io::Read`] and [`std::io::Write`], which tungstenite needs.
//!
//! Reads come from [`BlockingIo::lent`], writes go to the transport. `Poll::Pending` becomes
//! [`WouldBlock`](io::ErrorKind::WouldBlock).
//!
//! tokio-tungstenite has such an adapter too, for a stream that two tasks can share. It needs two wakers for each
//! connection and four registrations for each message. A pump is one task, so one waker is enough here.
//! [`stream`](super::stream) has the figures.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The adapter.
pub(in crate::server) struct BlockingIo<S> {
    /// The async transport.
    pub(in crate::server) inner: S,
    /// The waker of the task that owns the transport.
    pub(in crate::server) waker: Waker,
    /// The bytes that tungstenite reads next. They belong to one frame.
    pub(in crate::server) lent: Bytes,
    /// The peer has closed its sending side.
    pub(in crate::server) is_eof: bool,
    /// The number of bytes that the transport has taken, until it is asked for.
    pub(in crate::server) written: usize,
    /// Bytes that the transport has not taken yet. They go before all others.
    unsent: Bytes,
}

impl<S> BlockingIo<S> {
    /// Wraps a transport.
    pub(in crate::server) fn new(inner: S) -> Self {
        let (lent, unsent) = (Bytes::new(), Bytes::new());
        Self { inner, waker: Waker::noop().clone(), lent, is_eof: false, written: 0, unsent }
    }

    /// Returns the transport, unless it has ended, or bytes wait here.
    pub(in crate::server) fn into_idle(self) -> Option<S> {
        (!self.is_eof && self.lent.is_empty() && self.unsent.is_empty()).then_some(self.inner)
    }
}

impl<S: AsyncRead + Unpin> BlockingIo<S> {
    /// Polls the transport for bytes into a buffer, past tungstenite.
    pub(in crate::server) fn poll_receive(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(&mut Context::from_waker(&self.waker), buffer)
    }
}

impl<S: AsyncWrite + Unpin> BlockingIo<S> {
    /// Writes `unsent` until it is empty or the transport blocks.
    #[inline]
    fn send_unsent(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() { Ok(()) } else { self.retry_unsent() }
    }

    #[cold]
    fn retry_unsent(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let outcome = self.send(&unsent);
            self.unsent = unsent;
            self.unsent.advance(outcome?);
        }
        Ok(())
    }

    /// Writes `bytes` as far as the transport takes them now. The rest becomes `unsent`.
    pub(in crate::server) fn send_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let outcome = self.send_unsent();
        let mut sent = 0;
        let outcome = outcome.and_then(|()| {
            while sent < bytes.len() {
                sent += self.send(&bytes[sent..])?;
            }
            Ok(())
        });
        if sent < bytes.len() {
            self.unsent = [&*self.unsent, &bytes[sent..]].concat().into();
        }
        outcome
    }

    /// Writes once. A write of 0 bytes is an error.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match pending_as_would_block(Pin::new(&mut self.inner).poll_write(&mut Context::from_waker(&self.waker), bytes))
        {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            outcome => {
                self.written += outcome.as_ref().unwrap_or(&0);
                outcome
            }
        }
    }
}

impl<S> Read for BlockingIo<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.lent.is_empty() && !self.is_eof {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let chunk = self.lent.split_to(out.len().min(self.lent.len()));
        out[..chunk.len()].copy_from_slice(&chunk);
        Ok(chunk.len())
    }
}

impl<S: AsyncWrite + Unpin> Write for BlockingIo<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send_unsent()?;
        self.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_unsent()?;
        pending_as_would_block(Pin::new(&mut self.inner).poll_flush(&mut Context::from_waker(&self.waker)))
    }
}

/// Turns `Poll::Pending` into [`WouldBlock`](io::ErrorKind::WouldBlock).
fn pending_as_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
