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
use super::frame_header::{self, FrameHeader};
use super::io_buffer::IoBuffer;
use crate::protocol::Text;
use crate::server::ws::close;

/// What has come of a frame is kept, in bytes, to be read again with the rest of it. Where more has come, the frame is the
/// library's, which does not go over it again: a peer that sends byte by byte is not to cost more than its bytes.
const MAX_REPARSE: usize = 4 * 1024;

/// What waits to be written together, in bytes, before it goes out.
const WRITE_BATCH: usize = 64 * 1024;

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
    Incomplete,
}

/// The server's side of a WebSocket.
#[allow(clippy::struct_excessive_bools, reason = "each is something of its own that a lane has to know")]
pub(in crate::server) struct WebSocketStream<S> {
    library: WebSocket<BlockingIo<S>>,
    /// What was read and not looked at, until the next poll.
    read_ahead: Bytes,
    /// Bytes of the library's frame that are still to come.
    remaining: u64,
    /// The library has the first parts of a message.
    fragmented: bool,
    /// The longest text, in bytes.
    max_text: usize,
    /// Bytes that came since somebody asked.
    bytes_read: u32,
    /// Nothing is read any more.
    read_closed: bool,
    /// What was written last has gone out, or has room to wait.
    write_ready: bool,
    /// The library may have something to write: a pong, a goodbye.
    library_has_output: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// Begins with an upgraded connection; `read_ahead` is what was read from it before.
    pub(in crate::server) fn new(inner: S, read_ahead: Bytes, settings: WebSocketConfig) -> Self {
        Self {
            max_text: settings.max_message_size.unwrap_or(usize::MAX),
            library: WebSocket::from_raw_socket(BlockingIo::new(inner), Role::Server, Some(settings)),
            read_ahead,
            remaining: 0,
            fragmented: false,
            bytes_read: 0,
            read_closed: false,
            write_ready: true,
            library_has_output: false,
        }
    }

    /// What it runs on.
    pub(in crate::server) fn transport(&mut self) -> &mut S {
        &mut self.library.get_mut().inner
    }

    /// Bytes that came since this was asked last, as the peer sent them: fragments, pings and all.
    pub(in crate::server) fn take_bytes_read(&mut self) -> u32 {
        std::mem::take(&mut self.bytes_read)
    }

    fn register_waker(&mut self, cx: &Context<'_>) -> &mut BlockingIo<S> {
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
        self.register_waker(cx);
        while !self.read_closed {
            match self.next_input(buffer) {
                Next::Text(mask, payload_range) => return Poll::Ready(Some(self.text(mask, payload_range, buffer))),
                Next::Library(bytes) => {
                    self.library.get_mut().lent = Bytes::copy_from_slice(buffer.take(bytes));
                    // Where it wants more, that may be on the page already; behind a goodbye there is no more.
                    if let Poll::Ready(received) = self.read_library() {
                        return Poll::Ready(received.map(|received| received.map(Received::Message)));
                    }
                    if !self.library.can_read() {
                        return Poll::Pending;
                    }
                }
                Next::Incomplete => {
                    if let Err(error) = ready!(pending_if_would_block(self.fill(buffer).map_err(Error::Io))) {
                        self.read_closed = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    /// Keeps what is left on the page, at the end of a poll.
    pub(in crate::server) fn save_unread(&mut self, buffer: &IoBuffer) {
        if !buffer.unread().is_empty() {
            self.read_ahead = [buffer.unread(), &self.read_ahead].concat().into();
        }
    }

    fn next_input(&mut self, buffer: &IoBuffer) -> Next {
        let unread = buffer.unread();
        if self.library.get_ref().is_eof || !self.library.can_read() {
            return Next::Library(0);
        }
        if self.remaining == 0 {
            let Some(header) = FrameHeader::parse(unread) else { return Next::Incomplete };
            if !self.fragmented
                && let Some((mask, payload_range)) = header.single_frame_text(self.max_text)
            {
                if payload_range.end <= unread.len() {
                    return Next::Text(mask, payload_range);
                }
                if unread.len() < MAX_REPARSE {
                    return Next::Incomplete;
                }
            }
            self.remaining = header.frame_len();
            self.fragmented = header.more_fragments_follow().unwrap_or(self.fragmented);
        } else if unread.is_empty() {
            return Next::Incomplete;
        }
        let length = usize::try_from(self.remaining).map_or(unread.len(), |remaining| remaining.min(unread.len()));
        self.remaining -= length as u64;
        Next::Library(length)
    }

    /// A text as it lies on the page, without its mask.
    fn text<'buffer>(
        &mut self,
        mask: [u8; 4],
        payload_range: Range<usize>,
        buffer: &'buffer mut IoBuffer,
    ) -> Result<Received<'buffer>, Error> {
        let payload = &mut buffer.take(payload_range.end)[payload_range.start..];
        frame_header::mask(payload, mask);
        let text = std::str::from_utf8(payload).map_err(Error::from);
        self.read_closed = text.is_err();
        text.map(Received::Text)
    }

    /// Has the library go on with what it was lent.
    fn read_library(&mut self) -> Poll<Option<Result<Message, Error>>> {
        let received = ready!(pending_if_would_block(self.library.read()));
        self.read_closed = received.is_err();
        // What it says to pings and goodbyes goes out with the next flush.
        self.library_has_output |= matches!(received, Ok(Message::Ping(_) | Message::Close(_)));
        Poll::Ready(match received {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            received => Some(received),
        })
    }

    /// Takes what has come onto the page.
    fn fill(&mut self, buffer: &mut IoBuffer) -> io::Result<()> {
        if !self.read_ahead.is_empty() {
            buffer.put(&mut self.read_ahead);
            return Ok(());
        }
        let io_adapter = self.library.get_mut();
        let bytes_read = buffer.fill(|room| io_adapter.receive(room))?;
        io_adapter.is_eof = bytes_read == 0;
        self.bytes_read = self.bytes_read.saturating_add(u32::try_from(bytes_read).unwrap_or(u32::MAX));
        Ok(())
    }

    // Writing ---------------------------------------------------------------------------------------------------------

    /// Whether there is room for one more message.
    pub(in crate::server) fn poll_ready(&mut self, cx: &Context<'_>, buffer: &mut IoBuffer) -> Poll<Result<(), Error>> {
        if self.write_ready {
            // What is written next may have to wait.
            self.register_waker(cx);
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx, buffer)
    }

    /// Writes a text, which goes out with the next flush.
    pub(in crate::server) fn queue_text(&mut self, text: &Text, buffer: &mut IoBuffer) -> Result<(), Error> {
        if self.library_has_output {
            return self.send(close::frame(text.clone()), buffer);
        }
        let text = text.as_bytes();
        frame_header::write_text(&mut buffer.outgoing, text.len());
        buffer.outgoing.extend_from_slice(text);
        if buffer.outgoing.len() < WRITE_BATCH { Ok(()) } else { self.send_buffer(buffer) }
    }

    /// Writes whatever message, which goes out with the next flush.
    pub(in crate::server) fn send(&mut self, message: Message, buffer: &mut IoBuffer) -> Result<(), Error> {
        self.send_buffer(buffer)?;
        self.library_has_output = true;
        let outcome = self.library.write(message);
        self.note_backpressure(outcome)
    }

    /// Has everything go out that was written.
    pub(in crate::server) fn poll_flush(&mut self, cx: &Context<'_>, buffer: &mut IoBuffer) -> Poll<Result<(), Error>> {
        self.register_waker(cx);
        self.send_buffer(buffer)?;
        let flushed = if self.library_has_output {
            self.library.flush()
        } else {
            self.library.get_mut().flush().map_err(Error::Io)
        };
        self.write_ready = false;
        let flushed = ready!(pending_if_would_block(flushed));
        (self.write_ready, self.library_has_output) = (true, false);
        Poll::Ready(match flushed {
            Err(Error::ConnectionClosed) => Ok(()),
            flushed => flushed,
        })
    }

    fn send_buffer(&mut self, buffer: &mut IoBuffer) -> Result<(), Error> {
        if buffer.outgoing.is_empty() {
            return Ok(());
        }
        let outcome = self.library.get_mut().send_all(&buffer.outgoing).map_err(Error::Io);
        buffer.outgoing.clear();
        self.note_backpressure(outcome)
    }

    /// What had no room was taken all the same, and goes out with the next flush.
    fn note_backpressure(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        match pending_if_would_block(outcome) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                self.write_ready = false;
                Ok(())
            }
        }
    }
}

fn pending_if_would_block<T>(outcome: Result<T, Error>) -> Poll<Result<T, Error>> {
    match outcome {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}
