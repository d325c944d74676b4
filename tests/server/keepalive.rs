//! Keepalive: pings, and peers that do not answer them.

use std::time::Duration;

use cuttlefish_signaling::{Config, Keepalive};

use crate::dial::{Dialed, Received, block_on, serve};

fn quick() -> Config {
    let keepalive = Keepalive { interval: Some(Duration::from_millis(100)), timeout: Duration::from_millis(100) };
    Config { keepalive, ..Config::default() }
}

#[test]
fn peer_without_pong_is_dropped_and_its_client_notified() {
    block_on(async {
        let server = serve(quick());
        let device = Dialed::device(server.local_addr(), "cvd-1").await;
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
        device.freeze();
        client.hears(r#"{"error":"Device disconnected"}"#).await;
        assert_eq!(client.next().await, Received::Closed(1000));
        assert!(server.hub().devices().is_empty());
    });
}

#[test]
fn silent_peers_that_pong_stay_connected() {
    block_on(async {
        // A peer that does not pong would be gone after 2.1 s.
        let keepalive = Keepalive { interval: Some(Duration::from_millis(100)), timeout: Duration::from_secs(2) };
        let server = serve(Config { keepalive, ..Config::default() });
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
        // Forty intervals of real time: pings go by the system's clock here.
        tokio::time::sleep(Duration::from_secs(4)).await;
        client.says(r#"{"message_type":"forward","payload":1}"#).await;
        device.hears(r#"{"message_type":"client_msg","client_id":1,"payload":1}"#).await;
    });
}

#[test]
fn silent_peer_stays_connected_without_keepalive() {
    block_on(async {
        let keepalive = Keepalive { interval: None, timeout: Duration::from_millis(10) };
        let server = serve(Config { keepalive, ..Config::default() });
        let device = Dialed::device(server.local_addr(), "cvd-1").await;
        device.freeze();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(server.hub().devices().len(), 1);
    });
}
