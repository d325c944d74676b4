//! Backpressure over sockets: bursts, floods, stuck peers, and echoes by peers that write before they read.

use std::time::Duration;

use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::rate::Rate;
use cuttlefish_signaling::{Config, Keepalive, Limits, Running};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::dial::{Dialed, advance, block_on, serve, until_paused, with_timeout};
use crate::raw_peer::{RawPeer, text};

/// No rate limits: these peers send as fast as they can.
fn unhurried() -> Config {
    let rate = Rate { per_second: u32::MAX, burst: u32::MAX };
    let limits = Limits { bytes: rate, messages: rate, ..Limits::default() };
    // Some of these peers read late, and so answer no ping.
    Config { limits, keepalive: Keepalive { interval: None, ..Keepalive::default() }, ..Config::default() }
}

fn forward(payload: &str) -> String {
    format!(r#"{{"message_type":"forward","payload":{payload}}}"#)
}

fn back(payload: &str) -> String {
    format!(r#"{{"message_type":"forward","client_id":1,"payload":{payload}}}"#)
}

fn nobody_was_closed(server: &Running) {
    assert_eq!(server.incidents().of(Incident::SlowConsumer), 0);
    assert_eq!(server.incidents().of(Incident::Silent), 0);
}

/// The payloads of one burst: short ones and long ones.
fn bursts() -> [(usize, String); 2] {
    [(20_000, "1".repeat(20)), (5_000, format!("\"{}\"", "x".repeat(4_000)))]
}

#[test]
fn burst_of_a_client_reaches_a_device_that_reads() {
    for (count, payload) in bursts() {
        block_on(async {
            let server = serve(unhurried());
            let mut device = Dialed::device(server.local_addr(), "x").await;
            let _bystander = Dialed::client(server.local_addr(), "x").await;
            let mut client = RawPeer::connect(server.local_addr(), "/connect_client").await;
            client.send(&text(r#"{"message_type":"connect","device_id":"x"}"#)).await;
            let burst = text(&forward(&payload)).repeat(count);
            let expected = format!(r#"{{"message_type":"client_msg","client_id":2,"payload":{payload}}}"#);
            let read = async {
                for _ in 0..count {
                    device.hears(&expected).await;
                }
            };
            with_timeout("the burst", async { tokio::join!(client.send(&burst), read) }).await;
            nobody_was_closed(&server);
            assert_eq!(server.hub().connections(), 3);
        });
    }
}

#[test]
fn burst_of_a_device_reaches_a_client_that_reads() {
    for (count, payload) in bursts() {
        block_on(async {
            let server = serve(unhurried());
            let mut device = late_device(&server).await;
            let mut client = Dialed::client(server.local_addr(), "x").await;
            let burst = text(&back(&payload)).repeat(count);
            let expected = format!(r#"{{"message_type":"device_msg","payload":{payload}}}"#);
            let read = async {
                for _ in 0..count {
                    client.hears(&expected).await;
                }
            };
            with_timeout("the burst", async { tokio::join!(device.send(&burst), read) }).await;
            nobody_was_closed(&server);
        });
    }
}

#[test]
fn honest_client_beside_a_flooding_one_is_heard() {
    block_on(async {
        let server = serve(unhurried());
        let mut device = late_device(&server).await;
        let mut honest = Dialed::client(server.local_addr(), "x").await;
        let mut flooder = RawPeer::connect(server.local_addr(), "/connect_client").await;
        flooder.send(&text(r#"{"message_type":"connect","device_id":"x"}"#)).await;
        let flood = text(&forward(&format!("\"{}\"", "x".repeat(4_000)))).repeat(10);
        let hears_honest = async {
            for n in 1..=3 {
                honest.says(&forward(&n.to_string())).await;
                let expected = format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{n}}}"#);
                let mut heard = device.next().await;
                while heard.1 != expected.as_bytes() {
                    assert_eq!(heard.0, 1, "a text, and no close frame");
                    heard = device.next().await;
                }
            }
        };
        let floods = async {
            loop {
                flooder.send(&flood).await;
            }
        };
        with_timeout("the honest messages", async {
            tokio::select! {
                () = floods => {}
                () = hears_honest => {}
            }
        })
        .await;
        nobody_was_closed(&server);
    });
}

#[test]
fn stuck_client_delays_no_other_client_of_its_device() {
    block_on(async {
        let server = serve(unhurried());
        let mut device = Dialed::device(server.local_addr(), "x").await;
        let stuck = Dialed::client(server.local_addr(), "x").await;
        let mut other = Dialed::client(server.local_addr(), "x").await;
        stuck.freeze();
        server.clock().freeze();
        let large = back(&format!("\"{}\"", "x".repeat(60_000)));
        for n in 0..300 {
            device.says(&large).await;
            device.says(&format!(r#"{{"message_type":"forward","client_id":2,"payload":{n}}}"#)).await;
            other.hears(&format!(r#"{{"message_type":"device_msg","payload":{n}}}"#)).await;
        }
        nobody_was_closed(&server);
        drop(stuck);
    });
}

/// A device that reads only when the test does.
async fn late_device(server: &Running) -> RawPeer<TcpStream> {
    let mut device = RawPeer::connect(server.local_addr(), "/register_device").await;
    device.send(&text(r#"{"message_type":"register","device_id":"x","device_info":{}}"#)).await;
    device.next().await;
    device
}

/// Each side writes all before it reads: the client waits for the device, and the device never waits.
#[test]
fn peers_that_write_before_they_read_do_not_lock_each_other() {
    block_on(async {
        let server = serve(unhurried());
        let mut device = late_device(&server).await;
        let mut client = Dialed::client(server.local_addr(), "x").await;
        let payload = format!("\"{}\"", "x".repeat(40_000));
        let (there, echo) = (forward(&payload), text(&back(&payload)));
        let client_side = async {
            for _ in 0..400 {
                client.says(&there).await;
            }
            for _ in 0..400 {
                client.hears(&format!(r#"{{"message_type":"device_msg","payload":{payload}}}"#)).await;
            }
        };
        let device_side = async {
            until_paused(&server, "x", 1).await;
            for _ in 0..400 {
                device.send(&echo).await;
            }
            let expected = format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{payload}}}"#);
            for _ in 0..400 {
                assert_eq!(device.next().await, (1, expected.clone().into_bytes()));
            }
        };
        with_timeout("both echoes", async { tokio::join!(client_side, device_side) }).await;
        nobody_was_closed(&server);
    });
}

/// Input that the server has not read when its peer closes the connection is still handled.
#[test]
fn close_of_a_waiting_client_comes_after_its_forwards() {
    block_on(async {
        let server = serve(unhurried());
        let mut device = late_device(&server).await;
        let mut client = RawPeer::connect(server.local_addr(), "/connect_client").await;
        client.send(&text(r#"{"message_type":"connect","device_id":"x"}"#)).await;
        let payload = format!("\"{}\"", "x".repeat(30_000));
        let send = async {
            for _ in 0..400 {
                client.send(&text(&forward(&payload))).await;
            }
            client.0.shutdown().await.unwrap();
        };
        let read = async {
            until_paused(&server, "x", 1).await;
            let expected = format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{payload}}}"#);
            for _ in 0..400 {
                assert_eq!(device.next().await, (1, expected.clone().into_bytes()));
            }
            let left = r#"{"message_type":"client_disconnected","client_id":1}"#;
            assert_eq!(device.next().await, (1, left.as_bytes().to_vec()));
        };
        with_timeout("the forwards", async { tokio::join!(send, read) }).await;
        nobody_was_closed(&server);
    });
}

/// The server looks for a RST once a second while it does not read a client.
#[test]
fn reset_of_a_waiting_client_counts_while_it_is_not_read() {
    block_on(async {
        let server = serve(unhurried());
        let mut device = late_device(&server).await;
        let mut client = RawPeer::connect(server.local_addr(), "/connect_client").await;
        client.send(&text(r#"{"message_type":"connect","device_id":"x"}"#)).await;
        server.clock().freeze();
        let flood = text(&forward(&format!("\"{}\"", "x".repeat(30_000)))).repeat(20);
        let floods = async {
            loop {
                client.send(&flood).await;
            }
        };
        tokio::select! {
            () = floods => {}
            () = until_paused(&server, "x", 1) => {}
        }
        socket2::SockRef::from(&client.0).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        advance(&server, Duration::from_secs(1)).await;
        assert_eq!(server.hub().connections(), 1, "the device's");
        let left = r#"{"message_type":"client_disconnected","client_id":1}"#.as_bytes();
        with_timeout("the news", async { while device.next().await.1 != left {} }).await;
        nobody_was_closed(&server);
    });
}
