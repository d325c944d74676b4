//! Polled clients: one task runs all of them, and a panic ends only one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::hooks::HookFuture;
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::peer::Peer;
use cuttlefish_signaling::rate::Rate;
use cuttlefish_signaling::{Config, Hooks, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::dial::{Dialed, advance, block_on, serve, serve_with, with_timeout};

/// Sends a `POST` on a connection of its own. Returns the response.
async fn post(address: SocketAddr, path: &str, body: &str) -> String {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    with_timeout("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Opens a polled connection to `cvd-1`. Returns its id.
async fn connect(address: SocketAddr) -> String {
    let answer = post(address, "/polled_connections", r#"{"device_id":"cvd-1"}"#).await;
    let (_, rest) = answer.split_once(r#""connection_id":""#).unwrap_or_else(|| panic!("{answer}"));
    rest[..32].to_owned()
}

/// Forwards a payload. The answer has to be `"ok"`, and the device has to hear it.
async fn assert_relays(address: SocketAddr, id: &str, client_id: u32, device: &mut Dialed) {
    let answer = post(address, &format!("/polled_connections/{id}/:forward"), r#"{"payload":1}"#).await;
    assert!(answer.ends_with(r#""ok""#), "{answer}");
    device.hears(&format!(r#"{{"message_type":"client_msg","client_id":{client_id},"payload":1}}"#)).await;
}

#[test]
fn polled_connections_share_one_task() {
    block_on(async {
        let server = serve(Config::default());
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        let mut ids = Vec::new();
        for _ in 0..50 {
            ids.push(connect(address).await);
        }
        // The tasks of the HTTP connections end after their clients have read the answers.
        with_timeout("the end of the requests", async {
            while tasks() > before + 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(tasks(), before + 1);
        for (id, number) in ids.iter().zip(1..) {
            assert_relays(address, id, number, &mut device).await;
        }
        drop(device);
        with_timeout("the end of the task", async {
            while tasks() > before - 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    });
}

/// Panics for the client with a certain query, when its device info is filtered.
struct Panics;

impl Hooks for Panics {
    fn wants_requests(&self) -> bool {
        true
    }

    fn filter_device_info(&self, _: &Arc<Device>, client: &Arc<Peer>) -> Option<HookFuture<String>> {
        let query = client.request.as_ref().map(|request| request.unpack().query).unwrap_or_default();
        assert_ne!(query, "at-once", "on purpose");
        Some(HookFuture::new(async move {
            tokio::task::yield_now().await;
            assert_ne!(query, "later", "on purpose, later");
            Ok("null".into())
        }))
    }
}

#[test]
fn panic_ends_only_its_own_polled_connection() {
    block_on(async {
        let server = serve_with(Config::default(), Arc::new(Panics));
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let id = connect(address).await;
        let answer = post(address, "/polled_connections?later", r#"{"device_id":"cvd-1"}"#).await;
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.ends_with(r#"{"error":"Internal error"}"#), "{answer}");
        let answer = post(address, "/polled_connections?at-once", r#"{"device_id":"cvd-1"}"#).await;
        assert_eq!(answer, "", "the panic is in the task of the request");
        assert_eq!(server.incidents().of(Incident::Panic), 2);
        assert_eq!(server.hub().connections(), 2, "both have left the hub");
        assert_relays(address, &id, 1, &mut device).await;
        let other = connect(address).await;
        assert_relays(address, &other, 2, &mut device).await;
    });
}

/// Lets the tasks of the server run, until a request that has been sent waits.
async fn turns() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn forward_that_finds_no_room_within_write_timeout_is_503() {
    block_on(async {
        let write_timeout = Duration::from_millis(500);
        let limits = Limits { messages: Rate { per_second: 1, burst: 1 }, write_timeout, ..Limits::default() };
        let server = serve(Config { limits, ..Config::default() });
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let id = connect(address).await;
        server.clock().freeze();
        // The first is within the rate, and the second makes the client wait.
        assert_relays(address, &id, 1, &mut device).await;
        assert_relays(address, &id, 1, &mut device).await;
        let path = format!("/polled_connections/{id}/:forward");
        let time_passes = async {
            turns().await;
            advance(&server, write_timeout).await;
        };
        let (answer, ()) = tokio::join!(post(address, &path, r#"{"payload":1}"#), time_passes);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.to_lowercase().contains("retry-after: 1"), "{answer}");
        assert!(answer.ends_with(r#"{"error":"Too many messages wait for the device"}"#), "{answer}");
        assert_eq!(server.ledger().accepted, 2);
        // The rate has recovered while the next one waits.
        advance(&server, Duration::from_millis(300)).await;
        let time_passes = async {
            turns().await;
            advance(&server, Duration::from_millis(300)).await;
        };
        tokio::join!(assert_relays(address, &id, 1, &mut device), time_passes);
    });
}
