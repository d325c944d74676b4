//! A WebSocket for one task, in two lanes. A text in one frame, which is what peers send and are sent, is read where it
//! lies and written where it goes out. Whatever else there is (parts, pings, goodbyes, long messages and broken rules) is
//! the library's, and so is every judgement on it.
//!
//! tokio-tungstenite's own stream can be split between two tasks, and pays for that with two wakers for each connection
//! and four registrations for each message. A pump is one task and needs none of it.

use std::io::{self, Write};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::blocking_io::BlockingIo;
use super::frame_header::{self, Head};
use super::io_buffer::IoBuffer;
use crate::protocol::Text;
use crate::server::ws::close;

/// What has come of a frame is kept, in bytes, to be read again with the rest of it. Where more has come, the frame is the
/// library's, which does not go over it again: a peer that sends byte by byte is not to cost more than its bytes.
const READ_AGAIN: usize = 4 * 1024;

/// What waits to be written together, in bytes, before it goes out.
const WRITE_TOGETHER: usize = 64 * 1024;

/// What a peer has sent.
pub(in crate::server) enum Received<'buffer> {
    /// A text that came in one frame.
    Text(&'buffer str),
    /// What came by way of the library.
    Message(Message),
}

/// Whose turn it is with what was read.
enum Next {
    /// Ours: a whole text.
    Text([u8; 4], Range<usize>),
    /// The library's: so many bytes.
    Library(usize),
    /// The peer's: not enough has come.
    Peer,
}

/// The server's side of a WebSocket.
#[allow(clippy::struct_excessive_bools, reason = "each is something of its own that a lane has to know")]
pub(in crate::server) struct WebSocketStream<S> {
    library: WebSocket<BlockingIo<S>>,
    /// What was read and not looked at, until the next poll.
    ahead: Bytes,
    /// Bytes of the library's frame that are still to come.
    owed: u64,
    /// The library has the first parts of a message.
    in_parts: bool,
    /// The longest text, in bytes.
    longest: usize,
    /// Bytes that came since somebody asked.
    came: u32,
    /// Nothing is read any more.
    ended: bool,
    /// What was written last has gone out, or has room to wait.
    ready: bool,
    /// The library may have something to write: a pong, a goodbye.
    library_speaks: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// Begins with an upgraded connection; `read_ahead` is what was read from it before.
    pub(in crate::server) fn new(inner: S, read_ahead: Bytes, settings: WebSocketConfig) -> Self {
        Self {
            longest: settings.max_message_size.unwrap_or(usize::MAX),
            library: WebSocket::from_raw_socket(BlockingIo::new(inner), Role::Server, Some(settings)),
            ahead: read_ahead,
            owed: 0,
            in_parts: false,
            came: 0,
            ended: false,
            ready: true,
            library_speaks: false,
        }
    }

    /// What it runs on.
    pub(in crate::server) fn transport(&mut self) -> &mut S {
        &mut self.library.get_mut().inner
    }

    /// Bytes that came since this was asked last, as the peer sent them: fragments, pings and all.
    pub(in crate::server) fn take_came(&mut self) -> u32 {
        std::mem::take(&mut self.came)
    }

    fn woken_by(&mut self, cx: &Context<'_>) -> &mut BlockingIo<S> {
        let io_adapter = self.library.get_mut();
        io_adapter.waker.clone_from(cx.waker());
        io_adapter
    }

    // Reading ---------------------------------------------------------------------------------------------------------

    /// The next thing that the peer has sent; `None` where nothing comes any more.
    pub(in crate::server) fn poll_read<'buffer>(
        &mut self,
        cx: &Context<'_>,
        buffer: &'buffer mut IoBuffer,
    ) -> Poll<Option<Result<Received<'buffer>, Error>>> {
        self.woken_by(cx);
        while !self.ended {
            match self.next(buffer) {
                Next::Text(mask, place) => return Poll::Ready(Some(self.text(mask, place, buffer))),
                Next::Library(bytes) => {
                    self.library.get_mut().lent = Bytes::copy_from_slice(buffer.take(bytes));
                    // Where it wants more, that may be on the page already; behind a goodbye there is no more.
                    if let Poll::Ready(received) = self.ask_library() {
                        return Poll::Ready(received.map(|received| received.map(Received::Message)));
                    }
                    if !self.library.can_read() {
                        return Poll::Pending;
                    }
                }
                Next::Peer => {
                    if let Err(error) = ready!(unless_blocked(self.fill(buffer).map_err(Error::Io))) {
                        self.ended = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    /// Keeps what is left on the page, at the end of a poll.
    pub(in crate::server) fn keep(&mut self, buffer: &IoBuffer) {
        if !buffer.unread().is_empty() {
            self.ahead = [buffer.unread(), &self.ahead].concat().into();
        }
    }

    fn next(&mut self, buffer: &IoBuffer) -> Next {
        let unread = buffer.unread();
        if self.library.get_ref().is_at_end || !self.library.can_read() {
            return Next::Library(0);
        }
        if self.owed == 0 {
            let Some(head) = Head::parse(unread) else { return Next::Peer };
            if !self.in_parts
                && let Some((mask, place)) = head.whole_text(self.longest)
            {
                if place.end <= unread.len() {
                    return Next::Text(mask, place);
                }
                if unread.len() < READ_AGAIN {
                    return Next::Peer;
                }
            }
            self.owed = head.frame();
            self.in_parts = head.goes_on().unwrap_or(self.in_parts);
        } else if unread.is_empty() {
            return Next::Peer;
        }
        let part = usize::try_from(self.owed).map_or(unread.len(), |owed| owed.min(unread.len()));
        self.owed -= part as u64;
        Next::Library(part)
    }

    /// A text as it lies on the page, without its mask.
    fn text<'buffer>(
        &mut self,
        mask: [u8; 4],
        place: Range<usize>,
        buffer: &'buffer mut IoBuffer,
    ) -> Result<Received<'buffer>, Error> {
        let payload = &mut buffer.take(place.end)[place.start..];
        frame_header::mask(payload, mask);
        let text = std::str::from_utf8(payload).map_err(Error::from);
        self.ended = text.is_err();
        text.map(Received::Text)
    }

    /// Has the library go on with what it was lent.
    fn ask_library(&mut self) -> Poll<Option<Result<Message, Error>>> {
        let received = ready!(unless_blocked(self.library.read()));
        self.ended = received.is_err();
        // What it says to pings and goodbyes goes out with the next flush.
        self.library_speaks |= matches!(received, Ok(Message::Ping(_) | Message::Close(_)));
        Poll::Ready(match received {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            received => Some(received),
        })
    }

    /// Takes what has come onto the page.
    fn fill(&mut self, buffer: &mut IoBuffer) -> io::Result<()> {
        if !self.ahead.is_empty() {
            buffer.put(&mut self.ahead);
            return Ok(());
        }
        let io_adapter = self.library.get_mut();
        let came = buffer.fill(|room| io_adapter.receive(room))?;
        io_adapter.is_at_end = came == 0;
        self.came = self.came.saturating_add(u32::try_from(came).unwrap_or(u32::MAX));
        Ok(())
    }

    // Writing ---------------------------------------------------------------------------------------------------------

    /// Whether there is room for one more message.
    pub(in crate::server) fn poll_ready(&mut self, cx: &Context<'_>, buffer: &mut IoBuffer) -> Poll<Result<(), Error>> {
        if self.ready {
            // What is written next may have to wait.
            self.woken_by(cx);
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx, buffer)
    }

    /// Writes a text, which goes out with the next flush.
    pub(in crate::server) fn queue_text(&mut self, text: &Text, buffer: &mut IoBuffer) -> Result<(), Error> {
        if self.library_speaks {
            return self.send(close::frame(text.clone()), buffer);
        }
        let text = text.as_bytes();
        frame_header::write_text(&mut buffer.outgoing, text.len());
        buffer.outgoing.extend_from_slice(text);
        if buffer.outgoing.len() < WRITE_TOGETHER { Ok(()) } else { self.send_page(buffer) }
    }

    /// Writes whatever message, which goes out with the next flush.
    pub(in crate::server) fn send(&mut self, message: Message, buffer: &mut IoBuffer) -> Result<(), Error> {
        self.send_page(buffer)?;
        self.library_speaks = true;
        let outcome = self.library.write(message);
        self.unless_waits(outcome)
    }

    /// Has everything go out that was written.
    pub(in crate::server) fn poll_flush(&mut self, cx: &Context<'_>, buffer: &mut IoBuffer) -> Poll<Result<(), Error>> {
        self.woken_by(cx);
        self.send_page(buffer)?;
        let flushed =
            if self.library_speaks { self.library.flush() } else { self.library.get_mut().flush().map_err(Error::Io) };
        self.ready = false;
        let flushed = ready!(unless_blocked(flushed));
        (self.ready, self.library_speaks) = (true, false);
        Poll::Ready(match flushed {
            Err(Error::ConnectionClosed) => Ok(()),
            flushed => flushed,
        })
    }

    fn send_page(&mut self, buffer: &mut IoBuffer) -> Result<(), Error> {
        if buffer.outgoing.is_empty() {
            return Ok(());
        }
        let outcome = self.library.get_mut().send_all(&buffer.outgoing).map_err(Error::Io);
        buffer.outgoing.clear();
        self.unless_waits(outcome)
    }

    /// What had no room was taken all the same, and goes out with the next flush.
    fn unless_waits(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        match unless_blocked(outcome) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                self.ready = false;
                Ok(())
            }
        }
    }
}

fn unless_blocked<T>(outcome: Result<T, Error>) -> Poll<Result<T, Error>> {
    match outcome {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}
