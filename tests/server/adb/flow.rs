//! Bytes, backpressure and the half-closed connection.

use std::time::Duration;

use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::observe::adb::AdbReading;
use cuttlefish_signaling::{Adb, Config, Keepalive};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::{adb_port, config, on, pair, pattern};
use crate::dial::{advance, block_on, serve, with_timeout};

/// More than all socket buffers on the way take.
const TRANSFER: usize = 100 * 1024 * 1024;

/// A chunk of a transfer.
const CHUNK: usize = 64 * 1024;

#[test]
fn bytes_are_carried_both_ways_in_order() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        let (mut client, stream) = pair(&server, &listener).await;
        let (mut from, mut to) = stream.into_split();
        let echo = tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await.unwrap() });
        // Fragments, an empty message, one of a single byte, and adb's longest packet as one message.
        let sent = pattern(3 * 1024 * 1024 + 1);
        let (mut rest, mut back) = (&sent[..], Vec::new());
        for length in [0, 1, 24, 4096, 1024 * 1024 + 24, 70_000, sent.len() - 1_122_721 + 2] {
            let (message, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            client.send(message).await;
            while back.len() < sent.len() - rest.len() {
                back.extend(client.next().await.unwrap().unwrap());
            }
        }
        assert!(rest.is_empty() && back == sent);
        let AdbReading { open, to_device, from_device, .. } = server.adb();
        assert_eq!((open, to_device, from_device), (1, sent.len() as u64, sent.len() as u64));
        client.0.close(None).await.unwrap();
        assert_eq!(with_timeout("the end", echo).await.unwrap(), sent.len() as u64);
        assert_eq!(client.read_to_end().await.0, b"");
        while server.adb().open > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn client_that_closes_has_its_bytes_delivered_before_the_end() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        let (mut client, mut stream) = pair(&server, &listener).await;
        let sent = pattern(200_000);
        client.send(&sent).await;
        client.0.close(None).await.unwrap();
        let mut received = vec![0; 1];
        stream.read_exact(&mut received).await.unwrap();
        // Bytes that the device still sends are discarded, and the device is not reset for it.
        with_timeout("a write", stream.write_all(&pattern(1024 * 1024))).await.unwrap();
        with_timeout("the end of the bytes", stream.read_to_end(&mut received)).await.unwrap();
        assert!(received == sent);
        drop(stream);
        client.read_to_end().await;
    });
}

#[test]
fn device_that_closes_has_its_bytes_delivered_before_the_close() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        let (mut client, mut stream) = pair(&server, &listener).await;
        let sent = pattern(200_000);
        stream.write_all(&sent).await.unwrap();
        stream.shutdown().await.unwrap();
        let (bytes, close) = client.read_to_end().await;
        assert!(bytes == sent);
        assert_eq!(close, Some((1000, "The device closed the adb connection".into())));
    });
}

#[test]
fn device_that_has_shut_its_side_still_gets_the_bytes_of_the_client() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        let (mut client, mut stream) = pair(&server, &listener).await;
        stream.shutdown().await.unwrap();
        // Sent before the client has read the close frame.
        client.send(b"last words").await;
        assert_eq!(client.closed().await.0, 1000);
        let mut received = Vec::new();
        with_timeout("the end of the bytes", stream.read_to_end(&mut received)).await.unwrap();
        assert_eq!(received, b"last words");
    });
}

#[test]
fn device_that_closes_during_a_transfer_of_100_mb_ends_it_with_the_reason() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        let (client, mut stream) = pair(&server, &listener).await;
        let (mut sink, read) = client.0.split();
        let sender = tokio::spawn(async move {
            let chunk = pattern(CHUNK);
            for _ in 0..TRANSFER / CHUNK {
                if sink.send(Message::binary(chunk.clone())).await.is_err() {
                    return false;
                }
            }
            true
        });
        let mut some = vec![0; 1024 * 1024];
        stream.read_exact(&mut some).await.unwrap();
        // Bytes are unread, so this is a reset.
        drop(stream);
        let mut read = read;
        let close = loop {
            match with_timeout("the close frame", read.next()).await {
                Some(Ok(Message::Close(frame))) => break frame.unwrap(),
                Some(Ok(_)) => {}
                end => panic!("no close frame: {end:?}"),
            }
        };
        assert_eq!(u16::from(close.code), 1011);
        assert!(close.reason.starts_with("The adb connection to the device was lost: "), "{}", close.reason);
        assert!(!with_timeout("the sender", sender).await.unwrap(), "all was sent to a device that had closed");
        let carried = server.adb().to_device;
        assert!(carried < TRANSFER as u64 / 2, "{carried} bytes were taken for a device that had closed");
    });
}

#[test]
fn client_that_still_sends_to_a_closed_device_is_not_reset_before_it_reads_the_close_frame() {
    block_on(async {
        let server = serve(config());
        let (listener, _device) = adb_port(&server).await;
        let (mut client, stream) = pair(&server, &listener).await;
        client.send(b"CNXN").await;
        drop(stream);
        let chunk = pattern(CHUNK);
        // More than the buffers of the connection take.
        for _ in 0..32 * 1024 * 1024 / CHUNK {
            with_timeout("a message to be taken", client.0.send(Message::binary(chunk.clone()))).await.unwrap();
        }
        let (code, reason) = client.closed().await;
        assert!((code, &*reason) == (1000, "The device closed the adb connection") || code == 1011, "{code} {reason}");
    });
}

#[test]
fn device_is_not_read_while_the_client_takes_nothing_and_the_client_is_closed_in_time() {
    block_on(async {
        // Without pings, since this client answers none.
        let keepalive = Keepalive { interval: None, ..Keepalive::default() };
        let server = serve(Config { keepalive, ..config() });
        let (listener, _device) = adb_port(&server).await;
        let (client, mut stream) = pair(&server, &listener).await;
        let writer = tokio::spawn(async move {
            let (chunk, mut written) = (pattern(CHUNK), 0);
            while written < TRANSFER && stream.write_all(&chunk).await.is_ok() {
                written += CHUNK;
            }
            written
        });
        // The client reads nothing. Its time is up once the server's clock has moved by `write_timeout`.
        with_timeout("the end of the connection", async {
            while !writer.is_finished() {
                advance(&server, Duration::from_secs(1)).await;
            }
        })
        .await;
        let written = writer.await.unwrap();
        assert!(written < TRANSFER, "the server has taken all of it");
        assert_eq!(server.incidents().of(Incident::SlowConsumer), 1);
        drop(client);
    });
}

#[test]
fn client_is_not_read_while_the_device_takes_nothing_and_is_closed_in_time() {
    block_on(async {
        let server = serve(Config {
            keepalive: Keepalive { interval: Some(Duration::from_secs(5)), timeout: Duration::from_secs(5) },
            adb: Adb { timeout: Duration::from_secs(60), ..on() },
            ..config()
        });
        let (listener, _device) = adb_port(&server).await;
        let (client, stream) = pair(&server, &listener).await;
        let (mut sink, mut read) = client.0.split();
        let sender = tokio::spawn(async move {
            let (chunk, mut sent) = (pattern(CHUNK), 0);
            while sent < TRANSFER && sink.send(Message::binary(chunk.clone())).await.is_ok() {
                sent += CHUNK;
            }
            sent
        });
        let mut advanced = 0;
        let close = with_timeout("the close frame", async {
            loop {
                tokio::select! {
                    biased;
                    came = read.next() => match came {
                        Some(Ok(Message::Close(frame))) => break frame.unwrap(),
                        Some(Ok(_)) => {}
                        end => panic!("no close frame: {end:?}"),
                    },
                    () = advance(&server, Duration::from_secs(1)) => advanced += 1,
                }
            }
        })
        .await;
        assert_eq!((u16::from(close.code), close.reason.as_str()), (1013, "The device's adb port takes no bytes"));
        // The ping, which the client could not answer, did not end it earlier.
        assert!(advanced >= 60, "{advanced}");
        assert!(with_timeout("the sender", sender).await.unwrap() < TRANSFER);
        drop(stream);
    });
}
