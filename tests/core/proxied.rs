//! Connections that a proxy passes on: the queue of a direction, and what is booked of a pair.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use cuttlefish_signaling::Config;
use cuttlefish_signaling::core::lane::{Content, Item, Lane, Next};
use cuttlefish_signaling::core::proxied::ProxiedPeers;
use cuttlefish_signaling::core::proxied::tap::{Books, Passing, Tap};
use cuttlefish_signaling::faults::HeldBounds;
use cuttlefish_signaling::hub::{Forwarded, Hub};
use cuttlefish_signaling::outbox::{Budget, End, Outbox};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{DeviceId, Text};
use cuttlefish_signaling::relay::Relay;

fn taken(lane: &Lane) -> Vec<String> {
    let cx = Context::from_waker(Waker::noop());
    let mut taken = Vec::new();
    while let Poll::Ready(next) = lane.poll_next(&cx) {
        taken.push(match next {
            Next::Item(Item { content: Content::Frames(frames), .. }) => String::from_utf8_lossy(&frames).into_owned(),
            Next::Item(Item { content: Content::Text(text), .. }) => text.as_str().to_owned(),
            Next::End(end) => {
                taken.push(end.to_string());
                return taken;
            }
        });
    }
    taken
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn forward_waits_for_the_end_of_a_message_that_passes_in_parts() {
    let lane = Lane::default();
    lane.push_part(bytes("a"), false, false);
    assert_eq!(lane.push_forward(bytes("forward").into(), true), Forwarded::Queued(1));
    lane.push_part(bytes("b"), true, false);
    lane.push(bytes("ping"));
    assert_eq!(taken(&lane), ["a", "b", "ping"]);
    assert_eq!(lane.bytes(), "forward".len());
    lane.push_part(bytes("c"), true, true);
    assert_eq!(taken(&lane), ["c", "forward"]);
    assert_eq!(lane.bytes(), 0);
}

#[test]
fn end_comes_behind_all_that_is_queued_and_nothing_behind_it() {
    let lane = Lane::default();
    lane.push(bytes("before"));
    lane.end(End::close(4000, "fault"));
    lane.end(End::Drop);
    lane.push(bytes("behind"));
    assert_eq!(lane.push_forward(bytes("behind").into(), true), Forwarded::Gone);
    assert_eq!(taken(&lane), ["before", "4000 fault"]);
}

#[test]
fn close_frame_does_not_stand_within_another_frame() {
    let lane = Lane::default();
    lane.push_part(bytes("half"), false, false);
    lane.end(End::close(1001, "server stopping"));
    assert_eq!(taken(&lane), ["half", &End::Drop.to_string()]);
}

#[test]
fn closed_lane_tells_the_forwards_that_were_not_written() {
    let lane = Lane::default();
    lane.push(bytes("other"));
    lane.push_forward(bytes("one").into(), true);
    lane.push_forward(bytes("a copy").into(), false);
    lane.push_part(bytes("part"), false, false);
    lane.push_forward(bytes("behind").into(), true);
    assert_eq!((lane.close(), lane.close(), lane.bytes()), (2, 0, 0));
    assert_eq!(lane.push_forward(bytes("late").into(), true), Forwarded::Gone);
}

/// A proxy. The test plays the server behind it.
struct World {
    books: Books,
}

/// One connection through the proxy.
struct Line {
    tap: Tap,
    lane: Arc<Lane>,
}

impl World {
    fn new() -> Self {
        let budget = Budget::new(Config::default().limits.backpressure.outbox_bounds());
        let held = HeldBounds { messages: 10, bytes: 1000 };
        let hub = Arc::new(Hub::new(Arc::new(()), 10, || 1));
        let peers = Arc::new(ProxiedPeers::default());
        Self { books: Books { hub, relay: Arc::new(Relay::new(None, held)), peers, budget } }
    }

    fn line(&self, role: Role, device: Option<&str>) -> Line {
        let outbox = Arc::new(Outbox::new(&self.books.budget));
        let peer = Arc::new(Peer::anonymous(role));
        let tap = Tap::new(self.books.clone(), peer, outbox, device.map(DeviceId::new));
        Line { tap, lane: Arc::default() }
    }

    fn device(&self, id: &str) -> Line {
        let mut line = self.line(Role::Device, None);
        assert!(!line.says(&format!(r#"{{"message_type":"register","device_id":"{id}"}}"#)));
        assert!(!line.hears(r#"{"message_type":"config","ice_servers":[]}"#));
        line
    }

    fn client(&self, id: &str) -> Line {
        let mut line = self.line(Role::Client, None);
        line.says(&format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#));
        line.hears(r#"{"message_type":"config","ice_servers":[]}"#);
        line.hears(r#"{"message_type":"device_info","device_info":{}}"#);
        line
    }

    fn clients(&self, id: &str) -> Vec<u32> {
        let device = self.books.hub.device(&DeviceId::new(id));
        device.map(|device| device.clients().iter().map(|client| client.id.get()).collect()).unwrap_or_default()
    }
}

impl Line {
    fn says(&mut self, text: &str) -> bool {
        self.passes(text, Tap::on_peer)
    }

    fn hears(&mut self, text: &str) -> bool {
        self.passes(text, Tap::on_upstream)
    }

    /// Returns whether the message is booked as a forward here.
    fn passes(&mut self, text: &str, read: impl FnOnce(&mut Tap, &Passing<'_>) -> bool) -> bool {
        let (text, frames) = (Text::from(text.to_owned()), Bytes::copy_from_slice(text.as_bytes()));
        read(&mut self.tap, &Passing { text: &text, frames: &frames, lane: &self.lane, now: Instant::now() })
    }
}

const TO_DEVICE: &str = r#"{"message_type":"forward","payload":{"a":1}}"#;
const CLIENT_MSG: &str = r#"{"message_type":"client_msg","client_id":7,"payload":{ "a" : 1.0e0 }}"#;
const TO_CLIENT: &str = r#"{"message_type":"forward","client_id":7,"payload":2}"#;
const DEVICE_MSG: &str = r#"{"message_type":"device_msg","payload":2}"#;

#[test]
fn all_is_booked_at_the_device_while_its_client_is_not_recognized() {
    let world = World::new();
    let (mut device, mut client) = (world.device("d"), world.client("d"));
    assert_eq!((client.says(TO_DEVICE), device.hears(&CLIENT_MSG.replace("1.0e0", "2"))), (false, true));
    assert_eq!(world.clients("d"), [1]);
    assert_eq!((device.says(TO_CLIENT), client.hears(DEVICE_MSG)), (true, false));
}

#[test]
fn client_is_known_by_the_id_of_the_server_once_its_payload_has_arrived() {
    let world = World::new();
    let (mut device, mut client) = (world.device("d"), world.client("d"));
    assert_eq!((client.says(TO_DEVICE), device.hears(&CLIENT_MSG.replace("1.0e0", "1"))), (false, true));
    assert_eq!(world.clients("d"), [7]);
    assert_eq!((device.says(TO_CLIENT), client.hears(DEVICE_MSG)), (false, true));
    drop(client);
    assert_eq!(world.clients("d"), [0; 0]);
    // The client has left: its device is the one that hears so.
    assert!(device.says(TO_CLIENT));
}

#[test]
fn all_is_booked_at_the_one_peer_that_is_here() {
    let world = World::new();
    let mut device = world.device("d");
    assert_eq!((device.hears(CLIENT_MSG), device.says(TO_CLIENT)), (true, true));
    let mut client = world.client("e");
    assert_eq!((client.says(TO_DEVICE), client.hears(DEVICE_MSG)), (true, true));
    assert_eq!(world.books.hub.device_count(), 2);
    drop(client);
    // The entry that stood for the device of the client has gone with it.
    assert_eq!(world.books.hub.device_count(), 1);
    drop(device);
    assert_eq!((world.books.hub.device_count(), world.books.relay.ledger().read().accepted), (0, 4));
}

#[test]
fn device_that_registers_later_takes_the_place_of_its_entry() {
    let world = World::new();
    let client = world.client("d");
    let device = world.device("d");
    drop(client);
    assert_eq!(world.books.hub.device_count(), 1);
    drop(device);
    assert_eq!(world.books.hub.device_count(), 0);
}

#[test]
fn client_whose_path_names_the_device_sends_and_hears_payloads() {
    let world = World::new();
    let mut client = world.line(Role::Client, Some("d"));
    assert!(!client.says("1"));
    assert!(!client.hears(r#"{"device_info":{}}"#));
    assert_eq!(world.clients("d"), [1]);
    assert_eq!((client.says("2"), client.hears(r#"{"error":"a payload, too"}"#)), (true, true));
}
