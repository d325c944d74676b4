//! Counters of adb connections, which also hold their number to a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Counters of the adb connections of one server.
#[derive(Debug, Default)]
pub struct AdbCounts {
    open: AtomicUsize,
    refused: AtomicU64,
    to_device: AtomicU64,
    from_device: AtomicU64,
}

/// The values of [`AdbCounts`] at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdbReading {
    /// Connections that are open now.
    pub open: usize,
    /// Requests that were closed without a connection to a device.
    pub refused: u64,
    /// Bytes that adb ports have taken.
    pub to_device: u64,
    /// Bytes that adb ports have sent, and that were written to clients.
    pub from_device: u64,
}

/// The place of one adb connection. Drop frees it.
#[derive(Debug)]
pub struct AdbSeat(Arc<AdbCounts>);

impl AdbCounts {
    /// Takes a place for one more connection. `None` if `most` are open.
    pub fn take_seat(self: &Arc<Self>, most: usize) -> Option<AdbSeat> {
        let one_more = |open| (open < most).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, one_more).ok().map(|_| AdbSeat(Arc::clone(self)))
    }

    /// Counts a request that was closed without a connection to a device.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Returns the counts.
    pub fn read(&self) -> AdbReading {
        AdbReading {
            open: self.open.load(Relaxed),
            refused: self.refused.load(Relaxed),
            to_device: self.to_device.load(Relaxed),
            from_device: self.from_device.load(Relaxed),
        }
    }
}

impl AdbSeat {
    /// Counts bytes that the adb port has taken.
    pub fn count_to_device(&self, bytes: usize) {
        self.0.to_device.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes of the adb port that were written to the client.
    pub fn count_from_device(&self, bytes: usize) {
        self.0.from_device.fetch_add(bytes as u64, Relaxed);
    }
}

impl Drop for AdbSeat {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
