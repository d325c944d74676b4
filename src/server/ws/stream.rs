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

use super::blocking_io::Transfer;
use super::frame_header::{self, Head};
use super::io_buffer::Page;
use crate::protocol::Text;
use crate::server::ws::close;

/// What has come of a frame is kept, in bytes, to be read again with the rest of it. Where more has come, the frame is the
/// library's, which does not go over it again: a peer that sends byte by byte is not to cost more than its bytes.
const READ_AGAIN: usize = 4 * 1024;

/// What waits to be written together, in bytes, before it goes out.
const WRITE_TOGETHER: usize = 64 * 1024;

/// What a peer has sent.
pub(in crate::server) enum Heard<'page> {
    /// A text that came in one frame.
    Text(&'page str),
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
pub(in crate::server) struct Frames<S> {
    library: WebSocket<Transfer<S>>,
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

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Begins with an upgraded connection; `read_ahead` is what was read from it before.
    pub(in crate::server) fn new(inner: S, read_ahead: Bytes, settings: WebSocketConfig) -> Self {
        Self {
            longest: settings.max_message_size.unwrap_or(usize::MAX),
            library: WebSocket::from_raw_socket(Transfer::new(inner), Role::Server, Some(settings)),
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

    fn woken_by(&mut self, cx: &Context<'_>) -> &mut Transfer<S> {
        let transfer = self.library.get_mut();
        transfer.waker.clone_from(cx.waker());
        transfer
    }

    // Reading ---------------------------------------------------------------------------------------------------------

    /// The next thing that the peer has sent; `None` where nothing comes any more.
    pub(in crate::server) fn poll_read<'page>(
        &mut self,
        cx: &Context<'_>,
        page: &'page mut Page,
    ) -> Poll<Option<Result<Heard<'page>, Error>>> {
        self.woken_by(cx);
        while !self.ended {
            match self.next(page) {
                Next::Text(mask, place) => return Poll::Ready(Some(self.text(mask, place, page))),
                Next::Library(bytes) => {
                    self.library.get_mut().lent = Bytes::copy_from_slice(page.take(bytes));
                    // Where it wants more, that may be on the page already; behind a goodbye there is no more.
                    if let Poll::Ready(heard) = self.ask_library() {
                        return Poll::Ready(heard.map(|heard| heard.map(Heard::Message)));
                    }
                    if !self.library.can_read() {
                        return Poll::Pending;
                    }
                }
                Next::Peer => {
                    if let Err(error) = ready!(unless_blocked(self.fill(page).map_err(Error::Io))) {
                        self.ended = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    /// Keeps what is left on the page, at the end of a poll.
    pub(in crate::server) fn keep(&mut self, page: &Page) {
        if !page.unread().is_empty() {
            self.ahead = [page.unread(), &self.ahead].concat().into();
        }
    }

    fn next(&mut self, page: &Page) -> Next {
        let unread = page.unread();
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
    fn text<'page>(
        &mut self,
        mask: [u8; 4],
        place: Range<usize>,
        page: &'page mut Page,
    ) -> Result<Heard<'page>, Error> {
        let payload = &mut page.take(place.end)[place.start..];
        frame_header::mask(payload, mask);
        let text = std::str::from_utf8(payload).map_err(Error::from);
        self.ended = text.is_err();
        text.map(Heard::Text)
    }

    /// Has the library go on with what it was lent.
    fn ask_library(&mut self) -> Poll<Option<Result<Message, Error>>> {
        let heard = ready!(unless_blocked(self.library.read()));
        self.ended = heard.is_err();
        // What it says to pings and goodbyes goes out with the next flush.
        self.library_speaks |= matches!(heard, Ok(Message::Ping(_) | Message::Close(_)));
        Poll::Ready(match heard {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            heard => Some(heard),
        })
    }

    /// Takes what has come onto the page.
    fn fill(&mut self, page: &mut Page) -> io::Result<()> {
        if !self.ahead.is_empty() {
            page.put(&mut self.ahead);
            return Ok(());
        }
        let transfer = self.library.get_mut();
        let came = page.fill(|room| transfer.receive(room))?;
        transfer.is_at_end = came == 0;
        self.came = self.came.saturating_add(u32::try_from(came).unwrap_or(u32::MAX));
        Ok(())
    }

    // Writing ---------------------------------------------------------------------------------------------------------

    /// Whether there is room for one more message.
    pub(in crate::server) fn poll_ready(&mut self, cx: &Context<'_>, page: &mut Page) -> Poll<Result<(), Error>> {
        if self.ready {
            // What is written next may have to wait.
            self.woken_by(cx);
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(cx, page)
    }

    /// Writes a text, which goes out with the next flush.
    pub(in crate::server) fn say(&mut self, text: &Text, page: &mut Page) -> Result<(), Error> {
        if self.library_speaks {
            return self.send(close::frame(text.clone()), page);
        }
        let text = text.as_bytes();
        frame_header::write_text(&mut page.outgoing, text.len());
        page.outgoing.extend_from_slice(text);
        if page.outgoing.len() < WRITE_TOGETHER { Ok(()) } else { self.send_page(page) }
    }

    /// Writes whatever message, which goes out with the next flush.
    pub(in crate::server) fn send(&mut self, message: Message, page: &mut Page) -> Result<(), Error> {
        self.send_page(page)?;
        self.library_speaks = true;
        let outcome = self.library.write(message);
        self.unless_waits(outcome)
    }

    /// Has everything go out that was written.
    pub(in crate::server) fn poll_flush(&mut self, cx: &Context<'_>, page: &mut Page) -> Poll<Result<(), Error>> {
        self.woken_by(cx);
        self.send_page(page)?;
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

    fn send_page(&mut self, page: &mut Page) -> Result<(), Error> {
        if page.outgoing.is_empty() {
            return Ok(());
        }
        let outcome = self.library.get_mut().send_all(&page.outgoing).map_err(Error::Io);
        page.outgoing.clear();
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
