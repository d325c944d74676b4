//! What peers that left have used goes back to the system. glibc keeps it for whoever comes next, in pages of which it
//! holds none; it gives them back when it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Peers that make a difference, at some 4 KiB each.
const WORTH_IT: usize = 64;

/// How many peers there are, and were.
#[derive(Default)]
pub(super) struct PeakCounter {
    present: AtomicUsize,
    /// The most since it was told last.
    highest: AtomicUsize,
}

impl PeakCounter {
    /// Somebody has come.
    pub(super) fn rise(&self) {
        let present = self.present.fetch_add(1, Ordering::Relaxed) + 1;
        self.highest.fetch_max(present, Ordering::Relaxed);
    }

    /// Somebody has left. True where half of the most there were are gone, and those were many.
    pub(super) fn fall(&self) -> bool {
        let present = self.present.fetch_sub(1, Ordering::Relaxed) - 1;
        let highest = self.highest.load(Ordering::Relaxed);
        let has_ebbed = highest >= WORTH_IT && present <= highest / 2;
        if has_ebbed {
            self.highest.store(present, Ordering::Relaxed);
        }
        has_ebbed
    }
}

/// Gives back whole pages that nobody uses: milliseconds, for thousands of peers that left.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn give_back() {
    #[allow(unsafe_code, reason = "glibc has this for C only")]
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    // SAFETY: it takes no pointer, locks for itself, and may be called from any thread at any time (malloc_trim(3)).
    #[allow(unsafe_code, reason = "glibc has this for C only")]
    unsafe {
        malloc_trim(0);
    }
}

/// Other C libraries have no such call.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}
