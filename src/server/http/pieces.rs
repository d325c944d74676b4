//! Bodies that are written in pieces: between two pieces the task yields, so that a long body delays no forward.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::task::yield_now;

/// The most bytes of a piece. Writing one takes a few microseconds.
const PIECE: usize = 16 * 1024;

/// Makes a body yield between two pieces.
#[derive(Default)]
pub(in crate::server) struct Pace {
    /// A piece was written since the last yield.
    has_written: bool,
}

impl Pace {
    /// `Pending` if a piece was written since the last yield. The task is polled again after all others that can run.
    pub(in crate::server) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.has_written) {
            // The first poll of `yield_now` leaves the waker with the scheduler, and is pending.
            return pin!(yield_now()).poll(cx);
        }
        Poll::Ready(())
    }

    /// Cuts the next piece off.
    pub(in crate::server) fn piece_of(&mut self, text: &mut Bytes) -> Bytes {
        self.has_written = true;
        text.split_to(text.len().min(PIECE))
    }
}

/// A body of several parts, whose length is known. The parts may be shared with other bodies.
pub(in crate::server) struct Pieces {
    /// The parts that are not written yet. None is empty.
    parts: VecDeque<Bytes>,
    /// The sum of their lengths.
    left: usize,
    /// Yields between two pieces.
    pace: Pace,
}

impl FromIterator<Bytes> for Pieces {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let parts: VecDeque<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let left = parts.iter().map(Bytes::len).sum();
        Self { parts, left, pace: Pace::default() }
    }
}

impl Pieces {
    /// Returns the next piece: a part or the beginning of one, or a copy of several small parts.
    fn next(&mut self) -> Option<Bytes> {
        let mut first = self.parts.pop_front()?;
        let mut piece = self.pace.piece_of(&mut first);
        if !first.is_empty() {
            self.parts.push_front(first);
        } else if self.has_small_part(piece.len()) {
            let mut joined = Vec::with_capacity(PIECE);
            joined.extend_from_slice(&piece);
            while self.has_small_part(joined.len())
                && let Some(next) = self.parts.pop_front()
            {
                joined.extend_from_slice(&next);
            }
            piece = joined.into();
        }
        self.left -= piece.len();
        Some(piece)
    }

    /// Whether the next part fits into a piece that has this length already.
    fn has_small_part(&self, length: usize) -> bool {
        self.parts.front().is_some_and(|next| length + next.len() <= PIECE)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.parts.is_empty() && self.pace.poll_ready(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
