//! A WebSocket for one task, with a fast lane for single-frame texts. Everything else goes through tungstenite.
//!
//! Peers send and receive texts in one frame each. The fast lane unmasks such a text in place in the thread's
//! [`IoBuffer`], and writes it there behind a header of two to four bytes. Fragments, control frames, messages above
//! the limit and frames that break RFC 6455 go to tungstenite frame by frame, so the code that Autobahn tests decides
//! on all of them.
//!
//! # Why not tokio-tungstenite
//!
//! Its `WebSocketStream` can be split between two tasks. It pays for that with two wakers for each connection and four
//! registrations for each message. tungstenite copies each text, and its path is twice as long. A pump is one task, and
//! copies nothing. A relayed message takes a tenth fewer instructions, though hardly fewer microseconds. An idle device
//! takes 3.1 KiB, where the bare relay on tokio-tungstenite takes 9.6 KiB (docs/performance.md).
//!
//! # The parts
//!
//! - [`frame_header`]: where a frame ends, and whether it is a single-frame text.
//! - [`io_buffer`](super::io_buffer): one buffer for each thread, so an idle connection has none.
//! - [`blocking_io`](super::blocking_io): the async transport as tungstenite expects it.
//!
//! `tests/server/lanes.rs` sends the same texts in all framings through both lanes; Autobahn tests the whole.

use std::io::{self, Write};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::blocking_io::BlockingIo;
use super::frame_header::{self, FrameHeader};
use super::io_buffer::IoBuffer;
use crate::protocol::Text;
use crate::server::ws::close;
use crate::server::ws::transport::Transport;

/// The size up to which an incomplete text stays in the fast lane, in bytes. Its header is parsed again with each read.
///
/// A larger incomplete frame goes to tungstenite, which does not parse it again. A peer that sends byte by byte must
/// not cost more than its bytes.
const MAX_REPARSE: usize = 4 * 1024;

/// The size at which batched texts are written before the flush, in bytes.
const WRITE_BATCH: usize = 64 * 1024;

/// An input from the peer.
pub(in crate::server) enum Received<'buffer> {
    /// A single-frame text, in the buffer.
    Text(&'buffer str),
    /// A message that tungstenite returned.
    Message(Message),
}

/// The next step of reading.
enum Next {
    /// A single-frame text: its masking key, and its range in the unread bytes. The text of another node has no mask, which
    /// is the same as a key of zeros.
    Text([u8; 4], Range<usize>),
    /// Give tungstenite this many bytes.
    Library(usize),
    /// Read more from the transport.
    Incomplete,
}

/// The server's side of a WebSocket, or the client's side to another node ([`Transport::IS_CLIENT`]).
#[allow(clippy::struct_excessive_bools, reason = "each is something of its own that a lane has to know")]
pub(in crate::server) struct WebSocketStream<S> {
    /// tungstenite, and the transport below it.
    library: WebSocket<BlockingIo<S>>,
    /// Bytes that were read from the transport and wait for the next poll.
    read_ahead: Bytes,
    /// Bytes of the frame in tungstenite's lane that have not come yet.
    remaining: u64,
    /// tungstenite has the first fragments of a message.
    fragmented: bool,
    /// The longest text, in bytes.
    max_text: usize,
    /// Bytes that were read since the last [`take_bytes_read`](Self::take_bytes_read).
    bytes_read: u32,
    /// The stream has ended or failed.
    read_closed: bool,
    /// The last write has gone out, or there is room for the next.
    write_ready: bool,
    /// tungstenite may have output: a pong or a close frame.
    library_has_output: bool,
}

impl<S: Transport> WebSocketStream<S> {
    /// Wraps an upgraded connection. `read_ahead` is the input that was read from it before.
    pub(in crate::server) fn new(inner: S, read_ahead: Bytes, settings: WebSocketConfig) -> Self {
        let role = if S::IS_CLIENT { Role::Client } else { Role::Server };
        Self {
            max_text: settings.max_message_size.unwrap_or(usize::MAX),
            library: WebSocket::from_raw_socket(BlockingIo::new(inner), role, Some(settings)),
            read_ahead,
            remaining: 0,
            fragmented: false,
            bytes_read: 0,
            read_closed: false,
            write_ready: true,
            library_has_output: false,
        }
    }

    /// The transport.
    pub(in crate::server) fn transport(&mut self) -> &mut S {
        &mut self.library.get_mut().inner
    }

    /// Returns the transport, unless input or output is left.
    pub(in crate::server) fn into_transport(self) -> Option<S> {
        let io_adapter = self.library.into_inner();
        if self.read_ahead.is_empty() { io_adapter.into_idle() } else { None }
    }

    /// Whether messages can still be written: no close frame was sent or received.
    pub(in crate::server) fn can_write(&self) -> bool {
        self.library.can_write()
    }

    /// Whether messages may still come: the peer has sent no close frame.
    pub(in crate::server) fn can_read(&self) -> bool {
        self.library.can_read()
    }

    /// Returns the bytes that were read since the last call, as the peer sent them: headers, fragments and pings
    /// included.
    pub(in crate::server) fn take_bytes_read(&mut self) -> u32 {
        std::mem::take(&mut self.bytes_read)
    }

    /// Returns the number of bytes that the transport has taken since the last call.
    pub(in crate::server) fn take_bytes_written(&mut self) -> usize {
        std::mem::take(&mut self.library.get_mut().written)
    }

    /// Stores the task's waker, and returns the adapter.
    fn register_waker(&mut self, cx: &Context<'_>) -> &mut BlockingIo<S> {
        let io_adapter = self.library.get_mut();
        io_adapter.waker.clone_from(cx.waker());
        io_adapter
    }

    // Reading ---------------------------------------------------------------------------------------------------------

    /// Polls for the next input. `None` at the end of the stream.
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
                    // tungstenite may want more bytes, which can be in the buffer already. Behind a close frame there
                    // are none.
                    if let Poll::Ready(received) = self.read_library() {
                        return Poll::Ready(received.map(|received| received.map(Received::Message)));
                    }
                    if !self.library.can_read() {
                        return Poll::Pending;
                    }
                }
                Next::Incomplete => {
                    if let Err(error) = ready!(self.poll_fill(buffer)) {
                        self.read_closed = true;
                        return Poll::Ready(Some(Err(Error::Io(error))));
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    /// Saves the unread bytes at the end of a poll, before the buffer goes to another connection.
    #[inline]
    pub(in crate::server) fn save_unread(&mut self, buffer: &IoBuffer) {
        if buffer.has_unread() {
            self.read_ahead = [buffer.unread(), &self.read_ahead].concat().into();
        }
    }

    /// Decides which lane the unread bytes belong to.
    fn next_input(&mut self, buffer: &IoBuffer) -> Next {
        let unread = buffer.unread();
        if self.library.get_ref().is_eof || !self.library.can_read() {
            return Next::Library(0);
        }
        if self.remaining == 0 {
            let Some(header) = FrameHeader::parse(unread) else { return Next::Incomplete };
            if !self.fragmented
                && let Some((mask, payload_range)) = Self::single_frame_text(&header, self.max_text)
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

    /// The masking key and the range of the payload of a single-frame text.
    #[inline]
    fn single_frame_text(header: &FrameHeader, max_length: usize) -> Option<([u8; 4], Range<usize>)> {
        if S::IS_CLIENT {
            header.unmasked_text(max_length).map(|range| ([0; 4], range))
        } else {
            header.single_frame_text(max_length)
        }
    }

    /// Takes a single-frame text from the buffer and unmasks it in place.
    fn text<'buffer>(
        &mut self,
        mask: [u8; 4],
        payload_range: Range<usize>,
        buffer: &'buffer mut IoBuffer,
    ) -> Result<Received<'buffer>, Error> {
        let payload = &mut buffer.take(payload_range.end)[payload_range.start..];
        if !S::IS_CLIENT {
            frame_header::mask(payload, mask);
        }
        let text = simdutf8::basic::from_utf8(payload).map_err(|error| Error::Utf8(error.to_string()));
        self.read_closed = text.is_err();
        text.map(Received::Text)
    }

    /// Lets tungstenite read the bytes that it was lent.
    fn read_library(&mut self) -> Poll<Option<Result<Message, Error>>> {
        let received = ready!(pending_if_would_block(self.library.read()));
        self.read_closed = received.is_err();
        // The answer to a ping or a close frame goes out with the next flush.
        self.library_has_output |= matches!(received, Ok(Message::Ping(_) | Message::Close(_)));
        Poll::Ready(match received {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            received => Some(received),
        })
    }

    /// Polls for bytes into the buffer: saved bytes first, then from the transport.
    fn poll_fill(&mut self, buffer: &mut IoBuffer) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            buffer.put(&mut self.read_ahead);
            return Poll::Ready(Ok(()));
        }
        let io_adapter = self.library.get_mut();
        let bytes_read = ready!(buffer.poll_fill(|room| io_adapter.poll_receive(room)))?;
        io_adapter.is_eof = bytes_read == 0;
        self.bytes_read = self.bytes_read.saturating_add(u32::try_from(bytes_read).unwrap_or(u32::MAX));
        Poll::Ready(Ok(()))
    }

    // Writing ---------------------------------------------------------------------------------------------------------

    /// Polls for room for one more message.
    pub(in crate::server) fn poll_ready(&mut self, cx: &Context<'_>, buffer: &mut IoBuffer) -> Poll<Result<(), Error>> {
        if self.write_ready {
            // The next write may block, and then needs the waker.
            self.register_waker(cx);
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx, buffer)
    }

    /// Writes a text. It goes out with the next flush.
    pub(in crate::server) fn queue_text(&mut self, text: &Text, buffer: &mut IoBuffer) -> Result<(), Error> {
        if self.library_has_output {
            return self.send(close::frame(text.clone()), buffer);
        }
        let text = text.as_bytes();
        if S::IS_CLIENT {
            frame_header::write_masked_text(&mut buffer.outgoing, text, fastrand::u32(..).to_ne_bytes());
        } else {
            frame_header::write_text(&mut buffer.outgoing, text.len());
            buffer.outgoing.extend_from_slice(text);
        }
        if buffer.outgoing.len() < WRITE_BATCH { Ok(()) } else { self.send_buffer(buffer) }
    }

    /// Writes a message through tungstenite. It goes out with the next flush.
    pub(in crate::server) fn send(&mut self, message: Message, buffer: &mut IoBuffer) -> Result<(), Error> {
        self.send_buffer(buffer)?;
        self.library_has_output = true;
        let outcome = self.library.write(message);
        self.note_backpressure(outcome)
    }

    /// Flushes all that was written.
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

    /// Writes the batched texts to the transport.
    fn send_buffer(&mut self, buffer: &mut IoBuffer) -> Result<(), Error> {
        if buffer.outgoing.is_empty() {
            return Ok(());
        }
        let outcome = self.library.get_mut().send_all(&buffer.outgoing).map_err(Error::Io);
        buffer.outgoing.clear();
        self.note_backpressure(outcome)
    }

    /// Records backpressure: the adapter or tungstenite has kept the rest, which goes out with the next flush.
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

/// Turns [`WouldBlock`](io::ErrorKind::WouldBlock) into `Poll::Pending`.
fn pending_if_would_block<T>(outcome: Result<T, Error>) -> Poll<Result<T, Error>> {
    match outcome {
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}
