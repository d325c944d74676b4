//! The first client id, and the last ids of devices that have left (docs/protocol.md 2.5).

use std::time::Duration;

use cuttlefish_signaling::client_ids::{ClientIds, LastIds};
use cuttlefish_signaling::protocol::DeviceId;

#[test]
fn unique_ids_count_hundredths_of_a_second_and_wrap_after_124_days() {
    assert_eq!(ClientIds::FromOne.first(Duration::from_secs(1_800_000_000)), 1);
    assert_eq!(ClientIds::Unique.first(Duration::ZERO), 1);
    assert_eq!(ClientIds::Unique.first(Duration::from_millis(19)), 2);
    let wrap = Duration::from_millis(10 << 30);
    assert_eq!(ClientIds::Unique.first(Duration::from_millis((10 << 30) - 1)), 1 << 30);
    assert_eq!(ClientIds::Unique.first(wrap), 1);
}

#[test]
fn device_that_left_first_is_evicted_first() {
    let [a, b, c] = ["a", "b", "c"].map(DeviceId::new);
    let mut last = LastIds::new(2);
    last.remember(&a, 5);
    last.remember(&b, 6);
    last.remember(&a, 7);
    last.remember(&c, 0);
    assert_eq!((last.of(&a), last.of(&b), last.of(&c)), (7, 6, 0));
    last.remember(&c, 1);
    assert_eq!((last.of(&a), last.of(&b), last.of(&c)), (7, 0, 1));
    assert_eq!(last.len(), 2);
}
