//! A transport in the words of the library, which are those of `std::io`. It is given what it is to read.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(in crate::server) struct BlockingIo<S> {
    pub(in crate::server) inner: S,
    /// Whom the transport wakes.
    pub(in crate::server) waker: Waker,
    /// What the library is to read next: of one frame, and no more.
    pub(in crate::server) lent: Bytes,
    /// The peer sends nothing any more.
    pub(in crate::server) is_eof: bool,
    /// Written before and not taken by the transport: it goes first.
    unsent: Bytes,
}

impl<S> BlockingIo<S> {
    pub(in crate::server) fn new(inner: S) -> Self {
        let (lent, unsent) = (Bytes::new(), Bytes::new());
        Self { inner, waker: Waker::noop().clone(), lent, is_eof: false, unsent }
    }
}

impl<S: AsyncRead + Unpin> BlockingIo<S> {
    pub(in crate::server) fn receive(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        pending_as_would_block(Pin::new(&mut self.inner).poll_read(&mut Context::from_waker(&self.waker), buffer))
    }
}

impl<S: AsyncWrite + Unpin> BlockingIo<S> {
    /// Has the transport take what it has not taken before.
    fn send_unsent(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let outcome = self.send(&unsent);
            self.unsent = unsent;
            self.unsent.advance(outcome?);
        }
        Ok(())
    }

    /// Sends this, as far as the transport takes it at once. The rest waits here.
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

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match pending_as_would_block(Pin::new(&mut self.inner).poll_write(&mut Context::from_waker(&self.waker), bytes))
        {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            outcome => outcome,
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

fn pending_as_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
