//! Benchmarks of the steps of a relayed message: `cargo bench --bench core`.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod harness;

use std::time::Instant;

use cuttlefish_signaling::outbox::Passage;
use cuttlefish_signaling::protocol::{ClientId, ClientMessage, DeviceId, DeviceMessage, outbound};
use divan::{Bencher, black_box};
use harness::{Harness, client_forward, device_forward, payload};

const SIZES: [usize; 4] = [100, 250, 4_000, 60_000];

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn parse_of_a_client(bencher: Bencher<'_, '_>, size: usize) {
    let text = client_forward(&payload(size));
    bencher.bench(|| assert!(ClientMessage::parse(black_box(&text)).is_ok()));
}

#[divan::bench(args = SIZES)]
fn parse_of_a_device(bencher: Bencher<'_, '_>, size: usize) {
    let text = device_forward(&payload(size));
    bencher.bench(|| assert!(DeviceMessage::parse(black_box(&text)).is_ok()));
}

#[divan::bench(args = SIZES)]
fn envelope(bencher: Bencher<'_, '_>, size: usize) {
    let (payload, id) = (payload(size), ClientId::new(1).unwrap());
    bencher.bench(|| outbound::client_msg(id, black_box(&payload)));
}

#[divan::bench(args = [1, 100, 10_000])]
fn hub_lookup(bencher: Bencher<'_, '_>, devices: usize) {
    let harness = Harness::new();
    let _all: Vec<_> = (0..devices).map(|n| harness.device(&format!("cvd-{n}"))).collect();
    let id = DeviceId::new("cvd-0");
    bencher.bench(|| harness.hub.device(black_box(&id)));
}

#[divan::bench]
fn outbox(bencher: Bencher<'_, '_>) {
    let harness = Harness::new();
    let mut device = harness.device("cvd-1");
    let text = outbound::client_msg(ClientId::new(1).unwrap(), &payload(250));
    let now = Instant::now();
    bencher.bench_local(|| {
        assert!(device.outbox().push_forward(text.clone(), Passage::Direct, now).is_ok());
        device.hears()
    });
}

/// A forward in each direction: both sessions, the relay, the hub and both outboxes, without sockets.
#[divan::bench(args = SIZES)]
fn round_trip(bencher: Bencher<'_, '_>, size: usize) {
    let harness = Harness::new();
    let (mut device, mut client) = (harness.device("cvd-1"), harness.client("cvd-1"));
    let (there, back) = (client_forward(&payload(size)), device_forward(&payload(size)));
    bencher.bench_local(|| {
        client.says(&there);
        assert!(device.hears().is_some());
        device.says(&back);
        assert!(client.hears().is_some());
    });
}
