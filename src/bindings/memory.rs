//! Returns the memory of peers that have left to the system.
//!
//! glibc keeps freed pages for later allocations, and returns them only on request (`malloc_trim`).

use std::sync::atomic::{AtomicUsize, Ordering};

/// The least peak, in peers of some 4 KiB, for which memory is returned.
const WORTH_IT: usize = 64;

/// Counts peers and their peak.
#[derive(Default)]
pub(super) struct PeakCounter {
    present: AtomicUsize,
    /// The peak since memory was last returned.
    highest: AtomicUsize,
}

impl PeakCounter {
    /// Counts a peer that has connected.
    pub(super) fn increment(&self) {
        let present = self.present.fetch_add(1, Ordering::Relaxed) + 1;
        self.highest.fetch_max(present, Ordering::Relaxed);
    }

    /// Counts a peer that has left. Returns true if the count fell to half of a peak of at least [`WORTH_IT`].
    pub(super) fn decrement(&self) -> bool {
        let present = self.present.fetch_sub(1, Ordering::Relaxed) - 1;
        let highest = self.highest.load(Ordering::Relaxed);
        let has_halved = highest >= WORTH_IT && present <= highest / 2;
        if has_halved {
            self.highest.store(present, Ordering::Relaxed);
        }
        has_halved
    }
}

/// Returns unused pages to the system. Takes milliseconds after thousands of peers have left.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn give_back() {
    #[allow(unsafe_code, reason = "glibc offers this function to C only")]
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: malloc_trim(3) takes no pointer, locks internally, and may be called from any thread at any time.
    #[allow(unsafe_code, reason = "glibc offers this function to C only")]
    unsafe {
        malloc_trim(0);
    }
}

/// Does nothing: other C libraries have no such function.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}
