//! The buffer that one poll of a connection reads into and writes from.
//!
//! Each thread has one, and lends it to the connection that is polled. An idle connection therefore has no buffer.
//! That is one reason why an idle device takes 3.1 KiB, where the bare relay on tokio-tungstenite takes 9.6 KiB
//! (docs/performance.md). tungstenite has buffers for each connection instead, by default 128 KiB to read into.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::task::{Poll, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;

/// The read buffer in bytes: the longest message for a device, with its frame header, in one read.
const SIZE: usize = 66 * 1024;

/// The capacity of the write buffer that is kept between polls, in bytes. Longer messages grow it for one poll.
const MAX_KEPT_OUTGOING: usize = SIZE;

thread_local! {
    /// The buffer of this thread, while it is not lent.
    static FREE: Cell<Option<Box<IoBuffer>>> = const { Cell::new(None) };
}

/// A pair of buffers that [`IoBuffer::with`] lends for one poll.
pub(in crate::server) struct IoBuffer {
    /// The read buffer.
    incoming: Box<[u8]>,
    /// The part of `incoming` that was read from the transport and not consumed yet.
    unread: Range<usize>,
    /// The bytes to write.
    pub(in crate::server) outgoing: Vec<u8>,
}

impl IoBuffer {
    /// Lends the thread's buffer to `poll`. A panic loses the buffer; the next call makes a new one.
    pub(in crate::server) fn with<T>(poll: impl FnOnce(&mut Self) -> T) -> T {
        FREE.with(|free| {
            let mut buffer = free.take().unwrap_or_else(|| Box::new(Self::new()));
            let outcome = poll(&mut buffer);
            buffer.unread = 0..0;
            buffer.outgoing.clear();
            if buffer.outgoing.capacity() > MAX_KEPT_OUTGOING {
                buffer.outgoing.shrink_to(MAX_KEPT_OUTGOING);
            }
            free.set(Some(buffer));
            outcome
        })
    }

    /// Allocates both buffers.
    fn new() -> Self {
        Self { incoming: vec![0; SIZE].into(), unread: 0..0, outgoing: Vec::new() }
    }

    /// The bytes that were read and not consumed yet.
    pub(in crate::server) fn unread(&self) -> &[u8] {
        &self.incoming[self.unread.clone()]
    }

    /// Returns whether bytes were read and not consumed yet.
    pub(in crate::server) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Consumes the next bytes, at most as many as there are.
    pub(in crate::server) fn take(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.unread.start;
        self.unread.start = self.unread.end.min(start + bytes);
        &mut self.incoming[start..self.unread.start]
    }

    /// Polls for bytes, and puts them behind the unread ones. Returns their number.
    pub(in crate::server) fn poll_fill(
        &mut self,
        poll_read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<usize>> {
        let mut free_space = self.free_space();
        ready!(poll_read(&mut free_space))?;
        let count = free_space.filled().len();
        self.unread.end += count;
        Poll::Ready(Ok(count))
    }

    /// Moves bytes from `read_ahead` behind the unread bytes, as far as they fit.
    pub(in crate::server) fn put(&mut self, read_ahead: &mut Bytes) {
        let mut free_space = self.free_space();
        let chunk = read_ahead.split_to(read_ahead.len().min(free_space.remaining()));
        free_space.put_slice(&chunk);
        self.unread.end += chunk.len();
    }

    /// Moves the unread bytes to the front, and returns the space behind them.
    fn free_space(&mut self) -> ReadBuf<'_> {
        if self.unread.start > 0 {
            self.incoming.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        ReadBuf::new(&mut self.incoming[self.unread.end..])
    }
}
