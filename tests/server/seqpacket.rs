//! The device socket: the largest packet, and the write timeout.

use std::time::Duration;

use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::{Config, Limits};

use crate::dial::{Dialed, Received, advance, block_on, roomy, serve, until_paused};
use crate::packets::Packets;

#[test]
fn forward_larger_than_a_packet_is_refused_and_its_sender_stays() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("devices");
        let server = serve(Config { device_socket: Some(path.clone()), ..Config::default() });
        let device = Packets::device(&path, "cvd-1").await;
        let limit = server.hub().devices()[0].peer.max_message;
        assert!((100_000..=Config::default().limits.max_message_size).contains(&limit), "{limit}");
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;

        let largest = limit - r#"{"message_type":"client_msg","client_id":1,"payload":""}"#.len();
        let forward = |size| format!(r#"{{"message_type":"forward","payload":"{}"}}"#, "x".repeat(size));
        client.says(&forward(largest + 1)).await;
        let error = format!(
            "Forward failed: Message too large: {} bytes for the device, which takes at most {limit}",
            limit + 1
        );
        client.hears(&format!(r#"{{"error":"{error}"}}"#)).await;

        client.says(&forward(largest)).await;
        let Received::Text(heard) = device.next().await else { panic!("the device was closed") };
        assert_eq!(heard.len(), limit);
        assert!(device.leaves().await);
    });
}

#[test]
fn slow_consumer_on_the_device_socket_is_closed_after_write_timeout() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("devices");
        let timeout = Limits::default().write_timeout;
        let server = serve(Config { device_socket: Some(path.clone()), ..roomy() });
        let _stuck = Packets::device(&path, "cvd-1").await;
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
        server.clock().freeze();
        // More than the socket's buffer has room for, less than the outbox.
        let payload = "x".repeat(60_000);
        for _ in 0..10 {
            client.says(&format!(r#"{{"message_type":"forward","payload":"{payload}"}}"#)).await;
        }
        until_paused(&server, "cvd-1", 1).await;
        advance(&server, timeout.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(server.hub().device_count(), 1, "the timeout is not over");
        advance(&server, Duration::from_millis(1)).await;
        assert_eq!(server.hub().device_count(), 0);
        assert_eq!(server.incidents().of(Incident::SlowConsumer), 1);
        client.hears(r#"{"error":"Device disconnected"}"#).await;
        assert!(server.ledger().gone > 0 && server.ledger().balances(), "{:?}", server.ledger());
    });
}
