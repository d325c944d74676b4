//! Peers that do not read: they are closed [1013], their peers are notified, others are not delayed, and the ledger
//! balances.

use std::time::Duration;

use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::rate::Rate;
use cuttlefish_signaling::{Config, Keepalive, Limits};

use crate::dial::{Dialed, Received, advance, block_on, roomy, serve, until_paused, with_timeout};

const CHUNK: usize = 30_000;

/// No rate limits: these peers send and ping as fast as they can.
fn unhurried() -> Limits {
    let rate = Rate { per_second: u32::MAX, burst: u32::MAX };
    Limits { pings: rate, bytes: rate, messages: rate, ..Limits::default() }
}

fn forward_to(id: u32) -> String {
    format!(r#"{{"message_type":"forward","client_id":{id},"payload":"{}"}}"#, "x".repeat(CHUNK))
}

#[test]
fn client_that_does_not_read_is_closed_and_its_device_notified() {
    block_on(async {
        let server = serve(Config { limits: unhurried(), ..Config::default() });
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let slow = Dialed::client(address, "cvd-1").await;
        let mut other = Dialed::client(address, "cvd-1").await;
        slow.freeze();
        let mut sent = 0;
        // The system's buffers take a few megabytes before the outbox fills.
        while server.hub().device(&DeviceId::new("cvd-1")).unwrap().clients().len() == 2 {
            device.says(&forward_to(1)).await;
            sent += 1;
            assert!(sent < 10_000, "the outbox never overflowed");
            assert!(device.round_trip().await.iter().all(|heard| heard.contains("client_disconnected")));
        }
        device.says(r#"{"message_type":"forward","client_id":2,"payload":"and you?"}"#).await;
        other.hears(r#"{"message_type":"device_msg","payload":"and you?"}"#).await;
        drop(slow);
        with_timeout("the stop", server.stop(Duration::from_secs(2))).await;
        let ledger = server.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert!(ledger.gone > 0, "{ledger:?}");
    });
}

#[test]
fn five_hundred_stuck_clients_do_not_delay_others() {
    block_on(async {
        let keepalive = Keepalive { interval: None, ..Keepalive::default() };
        let server = serve(Config { keepalive, limits: unhurried(), ..Config::default() });
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let mut client = Dialed::client(address, "cvd-1").await;
        let mut stuck = Vec::new();
        for _ in 0..500 {
            let one = Dialed::client(address, "cvd-1").await;
            one.freeze();
            stuck.push(one);
        }
        // A wait for the deadline of a stuck peer would be forever, and no stuck peer is closed meanwhile.
        server.clock().freeze();
        for id in 2..=501 {
            for _ in 0..4 {
                device.says(&forward_to(id)).await;
            }
        }
        for _ in 0..100 {
            client.says(r#"{"message_type":"forward","payload":1}"#).await;
            device.hears(r#"{"message_type":"client_msg","client_id":1,"payload":1}"#).await;
            device.says(r#"{"message_type":"forward","client_id":1,"payload":2}"#).await;
            client.hears(r#"{"message_type":"device_msg","payload":2}"#).await;
        }
        assert_eq!(server.hub().connections(), 502);
    });
}

#[test]
fn ping_flood_is_answered_without_delaying_others() {
    block_on(async {
        let server = serve(Config { limits: unhurried(), ..Config::default() });
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let mut client = Dialed::client(address, "cvd-1").await;
        for _ in 0..5000 {
            client.send(tokio_tungstenite::tungstenite::Message::Ping("x".into())).await;
        }
        device.says(r#"{"message_type":"forward","client_id":1,"payload":2}"#).await;
        client.hears(r#"{"message_type":"device_msg","payload":2}"#).await;
    });
}

#[test]
fn device_that_does_not_read_is_closed_and_its_clients_notified() {
    block_on(async {
        let server = serve(roomy());
        let device = Dialed::device(server.local_addr(), "cvd-1").await;
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
        device.freeze();
        let forward = format!(r#"{{"message_type":"forward","payload":"{}"}}"#, "x".repeat(CHUNK));
        server.clock().freeze();
        // The system's buffers take a few megabytes before the client has to wait.
        let flood = async {
            loop {
                client.says(&forward).await;
            }
        };
        tokio::select! {
            () = flood => {}
            () = until_paused(&server, "cvd-1", 1) => {}
        }
        advance(&server, Limits::default().write_timeout.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(server.hub().device_count(), 1);
        advance(&server, Duration::from_millis(1)).await;
        assert_eq!(server.hub().device_count(), 0);
        while client.next().await != Received::Closed(1000) {}
        // The stop does not wait for the rest of its closing handshake.
        drop(device);
        with_timeout("the stop", server.stop(Duration::from_secs(2))).await;
        assert!(server.ledger().balances(), "{:?}", server.ledger());
    });
}

#[test]
fn closed_peer_that_does_not_read_is_dropped_after_close_timeout() {
    block_on(async {
        let limits = Limits { close_timeout: Duration::from_millis(200), ..unhurried() };
        let keepalive = Keepalive { interval: None, ..Keepalive::default() };
        let server = serve(Config { keepalive, limits, ..Config::default() });
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        let slow = Dialed::client(server.local_addr(), "cvd-1").await;
        slow.freeze();
        let mut sent = 0;
        while server.hub().connections() == 2 {
            device.says(&forward_to(1)).await;
            device.round_trip().await;
            sent += 1;
            assert!(sent < 10_000, "it is still there");
        }
    });
}
