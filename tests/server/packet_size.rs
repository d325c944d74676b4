//! What fits a packet of a local socket: more than a WebSocket's device takes, and as much as the system takes.

use cuttlefish_signaling::Config;

use crate::dial::{Dialed, Received, block_on, serve};
use crate::packets::Packets;

#[test]
fn forward_that_the_system_would_refuse_as_a_packet_is_an_error_and_its_sender_stays() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("devices");
        let server = serve(Config { device_socket: Some(path.clone()), ..Config::default() });
        let device = Packets::open(&path).await;
        device.says(r#"{"message_type":"register","device_id":"cvd-1","device_info":{}}"#).await;
        assert_eq!(device.next().await, Received::Text(r#"{"message_type":"config","ice_servers":[]}"#.into()));
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
