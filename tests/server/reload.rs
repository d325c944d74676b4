//! Settings that are replaced while the server runs.

use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::protocol::IceServers;
use cuttlefish_signaling::{Config, IceSource, Keepalive, Limits};

use crate::dial::{Dialed, Received, advance, block_on, serve};

/// The defaults, with some limits changed.
fn limited(change: impl FnOnce(&mut Limits)) -> Config {
    let mut config = Config::default();
    change(&mut config.limits);
    config
}

#[test]
fn connections_stay_and_new_ones_are_under_the_new_settings() {
    block_on(async {
        let server = serve(Config::default());
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let mut client = Dialed::client(address, "cvd-1").await;
        server.reload(limited(|limits| limits.max_first_message = 200)).unwrap();
        let payload = "x".repeat(1000);
        client.says(&format!(r#"{{"message_type":"forward","payload":"{payload}"}}"#)).await;
        device.hears(&format!(r#"{{"message_type":"client_msg","client_id":1,"payload":"{payload}"}}"#)).await;
        let long = format!(r#"{{"message_type":"register","device_id":"cvd-2","device_info":"{payload}"}}"#);
        let mut other = Dialed::open(address, "/register_device").await;
        other.says(&long).await;
        assert_eq!(other.next().await, Received::Closed(1009));
        server.reload(Config::default()).unwrap();
        let mut other = Dialed::open(address, "/register_device").await;
        other.says(&long).await;
        other.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
    });
}

#[test]
fn invalid_and_fixed_settings_change_nothing() {
    block_on(async {
        let server = serve(Config::default());
        let invalid = limited(|limits| (limits.max_devices, limits.max_first_message) = (0, 200));
        assert_eq!(server.reload(invalid).unwrap_err().setting, "limits.max_devices");
        let fixed = Config { workers: 2, ..limited(|limits| limits.max_first_message = 200) };
        let error = server.reload(fixed).unwrap_err();
        assert_eq!(error.to_string(), "workers: cannot change while the server runs: restart it");
        let open = Config { allowed_hosts: vec!["a b".into()], ..Config::default() };
        assert_eq!(server.reload(open).unwrap_err().setting, "allowed_hosts");
        let mut device = Dialed::open(server.local_addr(), "/register_device").await;
        let long = "x".repeat(1000);
        device.says(&format!(r#"{{"message_type":"register","device_id":"a","device_info":"{long}"}}"#)).await;
        device.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
    });
}

#[test]
fn keepalive_holds_for_new_connections() {
    block_on(async {
        let server =
            serve(Config { keepalive: Keepalive { interval: None, ..Keepalive::default() }, ..Config::default() });
        let mut old = Dialed::device(server.local_addr(), "old").await;
        let keepalive = Keepalive { interval: Some(Duration::from_secs(1)), timeout: Duration::from_secs(1) };
        server.reload(Config { keepalive, ..Config::default() }).unwrap();
        let mut new = Dialed::device(server.local_addr(), "new").await;
        server.clock().freeze();
        new.freeze();
        old.freeze();
        advance(&server, Duration::from_secs(2)).await;
        advance(&server, Duration::from_secs(2)).await;
        assert_eq!(server.hub().devices().iter().map(|device| device.id.to_string()).collect::<Vec<_>>(), ["old"]);
        server.clock().resume();
        drop((old.round_trip(), new.round_trip()));
    });
}

#[test]
fn new_ice_servers_are_sent_and_equal_ones_are_not() {
    block_on(async {
        let stun = |url: &str| IceSource::Fixed(IceServers::from_json(&format!(r#"[{{"urls":["{url}"]}}]"#)).unwrap());
        let server = serve(Config::default());
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        let prepared = server.prepare_reload(Config::default(), false, None).unwrap();
        prepared.apply();
        assert!(device.round_trip().await.is_empty(), "nothing has changed for it");
        server.reload(Config { ice: stun("stun:a"), ..Config::default() }).unwrap();
        device.hears(r#"{"message_type":"config","ice_servers":[{"urls":["stun:a"]}]}"#).await;
        assert!(stun("stun:a").is_same(&stun("stun:a")) && !stun("stun:a").is_same(&stun("stun:b")));
    });
}

#[test]
fn reloads_from_many_threads_leave_one_of_the_settings() {
    block_on(async {
        let server = serve(Config::default());
        let server_ref = Arc::clone(&server);
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
        let reloads = tokio::task::spawn_blocking(move || {
            std::thread::scope(|scope| {
                for size in 0..8 {
                    let server = &server_ref;
                    scope.spawn(move || {
                        for _ in 0..50 {
                            server.reload(limited(|limits| limits.max_first_message = 4000 + size)).unwrap();
                        }
                    });
                }
            });
        });
        while !reloads.is_finished() {
            client.says(r#"{"message_type":"forward","payload":1}"#).await;
            device.hears(r#"{"message_type":"client_msg","client_id":1,"payload":1}"#).await;
        }
        reloads.await.unwrap();
        assert_eq!(server.hub().device_count(), 1);
    });
}
