//! One direction of a connection that is passed on: reads one side, and writes the other.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::splitter::{CLOSE, Piece, Splitter};
use crate::core::lane::{Content, Item, Lane, Next};
use crate::core::outbox::End;
use crate::observe::ledger::Ledger;
use crate::server::ws::close::close_payload;
use crate::server::ws::frame_header;

/// The opcode of a text.
const TEXT: u8 = 1;

/// Bytes that are read at a time.
const CHUNK: usize = 16 * 1024;

/// One direction.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own about one side")]
pub(super) struct Direction {
    /// The queue of what was read and not written.
    pub(super) lane: Arc<Lane>,
    splitter: Splitter,
    /// Bytes that may wait before the side is not read.
    window: usize,
    /// Whether frames are masked: they go to a server.
    is_masked: bool,
    /// The rest of what is being written, and whether the ledger counts it as a forward.
    writing: (Bytes, bool),
    needs_flush: bool,
    /// How reading ended.
    pub(super) read_end: Option<ReadEnd>,
    /// A close frame was read, or written by this server.
    pub(super) is_closing: bool,
    /// The end that this server has decided, once all before it is written.
    pub(super) ended: Option<End>,
    /// Nothing more can be written.
    pub(super) write_closed: bool,
    /// The time since which the side that is written has taken nothing.
    pub(super) stuck_since: Option<Instant>,
}

/// How reading a side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// It has sent FIN.
    Closed,
    /// It has sent RST, or the connection is lost.
    Lost,
}

impl Direction {
    /// Begins a direction. `read_ahead` was read from the side before.
    pub(super) fn new(is_masked: bool, max_text: usize, window: usize, read_ahead: &[u8]) -> Self {
        let mut splitter = Splitter::new(max_text);
        splitter.put(read_ahead);
        Self {
            lane: Arc::default(),
            splitter,
            window,
            is_masked,
            writing: (Bytes::new(), false),
            needs_flush: false,
            read_end: None,
            is_closing: false,
            ended: None,
            write_closed: false,
            stuck_since: None,
        }
    }

    /// Returns the next piece of the side. `Pending`: it has sent nothing, or too much waits; `None` at its end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        side: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Option<Piece>> {
        let mut space = [MaybeUninit::uninit(); CHUNK];
        while self.lane.bytes() < self.window {
            if let Some(piece) = self.splitter.next() {
                return Poll::Ready(Some(piece));
            }
            if self.read_end.is_some() {
                return Poll::Ready(None);
            }
            let mut buffer = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *side).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.read_end = Some(ReadEnd::Closed),
                Poll::Ready(Ok(())) => self.splitter.put(buffer.filled()),
                Poll::Ready(Err(_)) => self.read_end = Some(ReadEnd::Lost),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Writes what waits. Returns whether it has written something.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        side: &mut (impl AsyncWrite + Unpin),
        ledger: &Ledger,
        now: Instant,
    ) -> bool {
        let mut has_written = false;
        while !self.write_closed {
            if self.writing.0.is_empty() && !self.take_next(cx) {
                break;
            }
            match Pin::new(&mut *side).poll_write(cx, &self.writing.0) {
                Poll::Ready(Ok(taken)) if taken > 0 => {
                    (has_written, self.needs_flush, self.stuck_since) = (true, true, None);
                    self.writing.0.advance(taken);
                    if self.writing.0.is_empty() && std::mem::take(&mut self.writing.1) {
                        ledger.count_delivered(1);
                    }
                }
                Poll::Ready(_) => self.close(ledger),
                Poll::Pending => {
                    self.stuck_since = self.stuck_since.or(Some(now));
                    return has_written;
                }
            }
        }
        self.poll_end(cx, side, ledger);
        has_written
    }

    /// Takes the next bytes to write. Returns false if there are none.
    fn take_next(&mut self, cx: &Context<'_>) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let key = self.is_masked.then(|| fastrand::u32(..).to_ne_bytes());
        match self.lane.poll_next(cx) {
            Poll::Ready(Next::Item(Item { content, is_forward })) => {
                let frames = match content {
                    Content::Frames(frames) => frames,
                    Content::Text(text) => frame_header::whole(TEXT, text.as_bytes(), key).into(),
                };
                self.writing = (frames, is_forward);
                true
            }
            Poll::Ready(Next::End(end)) => {
                if let End::Close { code, reason } = &end {
                    self.writing.0 = frame_header::whole(CLOSE, &close_payload(*code, reason), key).into();
                }
                (self.is_closing, self.ended) = (true, Some(end));
                !self.writing.0.is_empty()
            }
            Poll::Pending => false,
        }
    }

    /// Flushes, and tells the side that nothing more comes, if that is so.
    fn poll_end(&mut self, cx: &mut Context<'_>, side: &mut (impl AsyncWrite + Unpin), ledger: &Ledger) {
        if self.write_closed {
            return;
        }
        if self.needs_flush
            && let Poll::Ready(flushed) = Pin::new(&mut *side).poll_flush(cx)
        {
            self.needs_flush = false;
            if flushed.is_err() {
                return self.close(ledger);
            }
        }
        if self.read_end == Some(ReadEnd::Lost) {
            return self.close(ledger);
        }
        let is_last = self.read_end.is_some() || matches!(self.ended, Some(End::Drop));
        if is_last && !self.needs_flush && Pin::new(&mut *side).poll_shutdown(cx).is_ready() {
            self.close(ledger);
        }
    }

    /// Ends writing. Forwards that wait are counted as gone.
    pub(super) fn close(&mut self, ledger: &Ledger) {
        self.write_closed = true;
        self.stuck_since = None;
        let unwritten = u64::from(std::mem::take(&mut self.writing.1));
        self.writing.0 = Bytes::new();
        ledger.count_gone(self.lane.close() + unwritten);
    }
}
