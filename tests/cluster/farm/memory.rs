//! The memory of a directory: bytes for each device.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cuttlefish_signaling::core::cluster::registry::Entry;
use cuttlefish_signaling::core::cluster::{Directory, Registration};
use cuttlefish_signaling::protocol::DeviceId;

/// Counts the bytes of each thread.
struct Counting;

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: isize) {
    let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
    // A thread that ends has no counter any more.
    let _ended = BYTES.try_with(|counter| counter.set(counter.get() + sign * bytes));
}

// The system's allocator counts what it allocates in steps of 16 bytes, with 8 bytes of its own before each.
fn size(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

#[allow(unsafe_code, reason = "passes each call on to the allocator of the system")]
// SAFETY: as the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout), 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(size(layout), -1);
        // SAFETY: `block` came from `alloc` with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the bytes of a directory for each device, with entries as they are read from the engine.
pub(crate) fn directory_bytes(nodes: usize, devices: usize) -> f64 {
    let before = BYTES.get();
    let mut directory = Directory::default();
    directory.reset(crate::driven::version(1));
    directory.begin_scan();
    for start in (0..devices).step_by(512) {
        let page = (start..devices.min(start + 512)).map(|device| {
            let registration = format!("host-{}.lab.example.0123456789abcdef/{device}", device % nodes);
            let registration = Registration::parse(&registration).unwrap();
            let details = r#"{"group":"lab-7","local_id":"cvd-1","since":1795600000}"#.into();
            (
                DeviceId::new(&format!("host-{}-cvd-{device}", device % nodes)),
                Entry { registration, details, version: 1 },
            )
        });
        directory.page(page.collect());
    }
    directory.end_scan();
    assert_eq!(directory.len(), devices);
    #[allow(clippy::cast_precision_loss, reason = "less than a gigabyte")]
    let bytes = (BYTES.get() - before) as f64 / devices as f64;
    bytes
}
