//! Refusals, limits and the other ends of a connection.

use std::time::Duration;

use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::observe::adb::AdbReading;
use cuttlefish_signaling::{Adb, Config};
use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::{Client, adb_port, config, device_with_port, on, pair};
use crate::dial::{advance, block_on, serve, with_timeout};

#[test]
fn ports_that_are_refused_are_closed_with_the_reason() {
    block_on(async {
        let server = serve(config());
        let own = server.local_addr().port();
        let mut client = Client::open(&server).await;
        assert_eq!(client.closed().await, (1008, "Device not found".into()));
        for (info, reason) in [
            ("22".to_owned(), "adb port 22 is refused: it must be 1024 to 65535".to_owned()),
            ("1023".into(), "adb port 1023 is refused: it must be 1024 to 65535".into()),
            ("65558".into(), "adb port 65558 is refused: it must be 1024 to 65535".into()),
            (own.to_string(), format!("adb port {own} is refused: this server listens on it")),
            ("\"6520\"".into(), "The device has named no adb port".into()),
            ("0".into(), "The device has named no adb port".into()),
            ("-1".into(), "The device has named no adb port".into()),
        ] {
            let device = device_with_port(&server, &info).await;
            let mut client = Client::open(&server).await;
            assert_eq!(client.closed().await, (1008, reason), "{info}");
            drop(device);
            while !server.hub().devices().is_empty() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(server.adb(), AdbReading { refused: 8, ..AdbReading::default() });
    });
}

#[test]
fn closed_adb_port_is_told_with_its_number() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (code, reason) = Client::open(&server).await.closed().await;
        assert_eq!(code, 1011);
        assert!(reason.starts_with(&format!("The device's adb port {port} cannot be reached: ")), "{reason}");
    });
}

#[test]
fn adb_connections_are_limited_and_a_free_place_is_used_again() {
    block_on(async {
        let server = serve(Config { adb: Adb { max_connections: 2, ..on() }, ..config() });
        let (listener, _device) = adb_port(&server).await;
        let first = pair(&server, &listener).await;
        let _second = pair(&server, &listener).await;
        let mut third = Client::open(&server).await;
        assert_eq!(third.closed().await, (1013, "Too many adb connections: at most 2".into()));
        assert_eq!(server.incidents().of(Incident::TurnedAway), 1);
        drop(first);
        while server.adb().open > 1 {
            tokio::task::yield_now().await;
        }
        let (mut client, mut stream) = pair(&server, &listener).await;
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(client.next().await, Some(Ok(b"hello".to_vec())));
    });
}

#[test]
fn messages_that_are_text_or_too_large_close_the_client() {
    block_on(async {
        let server = serve(Config { adb: Adb { max_message: 1000, ..on() }, ..config() });
        let (listener, _device) = adb_port(&server).await;
        for (message, code) in [(Message::text("CNXN"), 1003), (Message::binary(vec![0; 1001]), 1009)] {
            let (mut client, mut stream) = pair(&server, &listener).await;
            client.send(b"before").await;
            client.0.send(message).await.unwrap();
            assert_eq!(client.closed().await.0, code);
            let mut received = Vec::new();
            let _reset = with_timeout("the end", stream.read_to_end(&mut received)).await;
            assert_eq!(received, b"before");
        }
        assert_eq!(server.incidents().of(Incident::Misbehaved), 2);
    });
}

#[test]
fn client_without_pong_is_dropped_and_the_device_is_told() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        // This client does not read, and so answers no ping.
        let (_client, mut stream) = pair(&server, &listener).await;
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        tokio::pin!(closed);
        let mut advanced = 0;
        with_timeout("the end of the connection", async {
            loop {
                tokio::select! {
                    biased;
                    _ = &mut closed => break,
                    () = advance(&server, Duration::from_secs(1)) => advanced += 1,
                }
            }
        })
        .await;
        assert!(advanced >= 15, "{advanced}");
        assert_eq!(server.incidents().of(Incident::Silent), 1);
    });
}

#[test]
fn stop_closes_adb_connections_with_1001() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        let (mut client, mut stream) = pair(&server, &listener).await;
        let (closed, in_time) = tokio::join!(client.closed(), server.stop(Duration::from_secs(20)));
        assert_eq!(closed, (1001, "server stopping".into()));
        assert!(in_time);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    });
}
