//! Sessions of devices and clients beyond the transcripts.

use std::time::Duration;

use cuttlefish_signaling::outbox::{End, Outgoing};
use cuttlefish_signaling::peer::Role;

use crate::actors::{error, harness};

mod aliases;
mod announced;
mod client;
mod clustered;
mod device;
mod duplicates;
mod exclusive;

#[test]
fn peer_is_refused_when_its_config_fails() {
    let mut harness = harness();
    harness.ice = None;
    harness.registers("d", "cvd-1");
    harness.connects("c", "cvd-1");
    for peer in ["d", "c"] {
        assert_eq!(harness.all_heard(peer), [error("Internal error")]);
        assert!(matches!(harness.peer(peer).ended, Some(End::Close { code: 1011, .. })));
    }
    assert!(harness.hub.devices().is_empty());
}

#[test]
fn first_message_deadline_applies_to_silent_peers_only() {
    let mut harness = harness();
    harness.opens("d", Role::Device);
    harness.opens("c", Role::Client);
    harness.registers("busy", "cvd-1");
    harness.after(Duration::from_millis(9_999));
    assert_eq!(harness.all_heard("d"), [""; 0]);
    harness.after(Duration::from_millis(1));
    for peer in ["d", "c"] {
        assert_eq!(harness.all_heard(peer), [error("Timed out waiting for the first message")]);
    }
    harness.after(Duration::from_secs(3600));
    assert!(harness.peer("busy").ended.is_none());
}

#[test]
fn dropped_session_unregisters_like_one_that_leaves() {
    let mut harness = harness();
    harness.registers("d", "cvd-1");
    harness.connects("c", "cvd-1");
    harness.all_heard("c");
    // As after a panic of its task.
    let outbox = std::sync::Arc::clone(&harness.peer("d").outbox);
    harness.leaves("d");
    assert!(harness.hub.devices().is_empty());
    assert_eq!(harness.all_heard("c"), [error("Device disconnected")]);
    let cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(outbox.poll_next(&cx, true), std::task::Poll::Ready(Outgoing::Closing));
    assert!(matches!(outbox.poll_next(&cx, true), std::task::Poll::Ready(Outgoing::End(End::Drop))));
}
