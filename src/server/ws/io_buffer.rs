//! A page: what one poll of a connection reads into and writes from. Threads have one each, and lend it to the connection
//! that is polled: an idle one keeps no buffer. Knows no frames.

use std::cell::Cell;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::io::ReadBuf;

/// As much as one read takes, in bytes: the longest message for a device, and what is around it.
const SIZE: usize = 66 * 1024;

/// What is kept of room to write, in bytes: longer messages make more, and it goes again.
const MAX_KEPT_OUTGOING: usize = SIZE;

thread_local! {
    static FREE: Cell<Option<Box<IoBuffer>>> = const { Cell::new(None) };
}

/// Lent by [`IoBuffer::with`]. What is on it has an owner until the end of the poll only.
pub(in crate::server) struct IoBuffer {
    incoming: Box<[u8]>,
    /// What was read into it and not looked at yet.
    unread: Range<usize>,
    /// What is to be written.
    pub(in crate::server) outgoing: Vec<u8>,
}

impl IoBuffer {
    /// Lends the thread's page. One that is lost in a panic is made anew.
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

    fn new() -> Self {
        Self { incoming: vec![0; SIZE].into(), unread: 0..0, outgoing: Vec::new() }
    }

    /// What was read and not looked at yet.
    pub(in crate::server) fn unread(&self) -> &[u8] {
        &self.incoming[self.unread.clone()]
    }

    /// The next bytes, at most so many as there are. They have been looked at then.
    pub(in crate::server) fn take(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.unread.start;
        self.unread.start = self.unread.end.min(start + bytes);
        &mut self.incoming[start..self.unread.start]
    }

    /// Has more come, behind what is unread. Returns how much came.
    pub(in crate::server) fn fill(
        &mut self,
        read: impl FnOnce(&mut ReadBuf<'_>) -> io::Result<()>,
    ) -> io::Result<usize> {
        let mut free_space = self.free_space();
        read(&mut free_space)?;
        let count = free_space.filled().len();
        self.unread.end += count;
        Ok(count)
    }

    /// Takes what was read before, as far as there is room, and puts it behind what is unread.
    pub(in crate::server) fn put(&mut self, read_ahead: &mut Bytes) {
        let mut free_space = self.free_space();
        let chunk = read_ahead.split_to(read_ahead.len().min(free_space.remaining()));
        free_space.put_slice(&chunk);
        self.unread.end += chunk.len();
    }

    fn free_space(&mut self) -> ReadBuf<'_> {
        if self.unread.start > 0 {
            self.incoming.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        ReadBuf::new(&mut self.incoming[self.unread.end..])
    }
}
