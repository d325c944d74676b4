//! A WebSocket for one task: tungstenite's frames, on whatever transport there is.
//!
//! tokio-tungstenite's own stream can be split between two tasks, and pays for that with two wakers for each connection
//! and four registrations for each message. A pump is one task and needs none of it. And one read takes all that has
//! come, into a buffer that all connections of a thread share, so that an idle one keeps only a small one of its own.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

/// As much as one read takes, in bytes.
const READ: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// The server's side of a WebSocket. What the library answers to pings and goodbyes goes out with the next flush.
pub(super) struct Frames<S> {
    socket: WebSocket<Transfer<S>>,
    /// The library reads no further.
    ended: bool,
    /// The library has read all that it was given, and waits for more.
    drained: bool,
    /// What was written last has gone out, or has room to wait.
    ready: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Begins with an upgraded connection; `read_ahead` is what was read from it before.
    pub(super) fn new(inner: S, read_ahead: Vec<u8>, settings: WebSocketConfig) -> Self {
        let transfer = Transfer {
            inner,
            waker: Waker::noop().clone(),
            lent: 0..0,
            ahead: Bytes::new(),
            came: 0,
            taken: read_ahead.len(),
        };
        let socket = WebSocket::from_partially_read(transfer, read_ahead, Role::Server, Some(settings));
        Self { socket, ended: false, drained: false, ready: true }
    }

    /// What it runs on.
    pub(super) fn transport(&mut self) -> &mut S {
        &mut self.socket.get_mut().inner
    }

    /// Bytes that came since this was asked last, as the peer sent them: fragments, pings and all.
    pub(super) fn take_came(&mut self) -> u32 {
        std::mem::take(&mut self.socket.get_mut().came)
    }

    fn woken_by(&mut self, cx: &Context<'_>) -> &mut WebSocket<Transfer<S>> {
        self.socket.get_mut().waker.clone_from(cx.waker());
        &mut self.socket
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Frames<S> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Every other poll finds nothing new, and that is found out sooner without the library.
        if self.drained && self.socket.can_read() {
            let filled = unless_blocked(self.woken_by(cx).get_mut().fill().map_err(Error::Io));
            if let Err(error) = ready!(filled) {
                self.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
        let next = unless_blocked(self.woken_by(cx).read());
        self.socket.get_mut().give_back();
        self.drained = match &next {
            Poll::Pending => true,
            Poll::Ready(Ok(message)) => self.socket.get_mut().has_all_back(message),
            Poll::Ready(Err(_)) => false,
        };
        let next = ready!(next);
        self.ended = next.is_err();
        Poll::Ready(match next {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            next => Some(next),
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Frames<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.ready {
            // What is written next may have to wait.
            self.woken_by(cx);
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        match unless_blocked(self.socket.write(message)) {
            Poll::Ready(outcome) => outcome,
            // It has been taken, and goes out with the next flush.
            Poll::Pending => {
                self.ready = false;
                Ok(())
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = ready!(unless_blocked(self.woken_by(cx).flush()));
        self.ready = true;
        Poll::Ready(match flushed {
            Err(Error::ConnectionClosed) => Ok(()),
            flushed => flushed,
        })
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(self.transport()).poll_shutdown(cx).map_err(Error::Io)
    }
}

/// What a client's frame takes at least that has so large a payload, in bytes (RFC 6455, 5.2).
fn framed(payload: usize) -> usize {
    payload
        + match payload {
            0..=125 => 6,
            126..=0xFFFF => 8,
            _ => 14,
        }
}

fn unless_blocked<T>(outcome: Result<T, Error>) -> Poll<Result<T, Error>> {
    match outcome {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}

/// A transport in the words of the library, which are those of `std::io`.
struct Transfer<S> {
    inner: S,
    /// Whom the transport wakes.
    waker: Waker,
    /// What was read and not asked for yet, while it is in the thread's buffer: until the end of [`Frames::poll_next`].
    lent: Range<usize>,
    /// What was read and not asked for yet, from then on.
    ahead: Bytes,
    came: u32,
    /// Bytes the library has taken and not made messages of, or more.
    taken: usize,
}

impl<S> Transfer<S> {
    /// Leaves the thread's buffer to other connections.
    fn give_back(&mut self) {
        if !self.lent.is_empty() {
            let lent = std::mem::take(&mut self.lent);
            self.ahead = SCRATCH.with_borrow(|scratch| Bytes::copy_from_slice(&scratch[lent]));
        }
    }

    /// Whether the library has nothing left with this message that it gives back. Of one in fragments it has taken more
    /// than is counted here: then nobody knows, and the library is asked.
    fn has_all_back(&mut self, message: &Message) -> bool {
        self.taken = self.taken.saturating_sub(framed(message.len()));
        self.taken == 0 && self.ahead.is_empty()
    }
}

impl<S: AsyncRead + Unpin> Transfer<S> {
    /// Reads what has come into the thread's buffer, which has to be free. Nothing is lent at the end of the stream.
    fn fill(&mut self) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut came = ReadBuf::new(scratch);
            done(Pin::new(&mut self.inner).poll_read(&mut Context::from_waker(&self.waker), &mut came))?;
            self.lent = 0..came.filled().len();
            self.came = self.came.saturating_add(u32::try_from(self.lent.len()).unwrap_or(u32::MAX));
            Ok(())
        })
    }
}

impl<S: AsyncRead + Unpin> Read for Transfer<S> {
    fn read(&mut self, wanted: &mut [u8]) -> io::Result<usize> {
        if !self.ahead.is_empty() {
            let part = self.ahead.split_to(wanted.len().min(self.ahead.len()));
            wanted[..part.len()].copy_from_slice(&part);
            self.taken += part.len();
            return Ok(part.len());
        }
        if self.lent.is_empty() {
            self.fill()?;
        }
        let part = self.lent.start..self.lent.end.min(self.lent.start + wanted.len());
        self.lent.start = part.end;
        self.taken += part.len();
        SCRATCH.with_borrow(|scratch| wanted[..part.len()].copy_from_slice(&scratch[part.clone()]));
        Ok(part.len())
    }
}

impl<S: AsyncWrite + Unpin> Write for Transfer<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        done(Pin::new(&mut self.inner).poll_write(&mut Context::from_waker(&self.waker), bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        done(Pin::new(&mut self.inner).poll_flush(&mut Context::from_waker(&self.waker)))
    }
}

fn done<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
