//! The drain before a stop: balancers are told, peers are served, then closed one after the other.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::{Config, Drain, Keepalive, Limits, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, yield_now};

use crate::dial::{Dialed, Received, advance, block_on, serve, with_timeout};
use crate::packets::Packets;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Sends a request on a connection of its own. Returns the response.
async fn request(address: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    answer(&mut stream, &format!("{head} HTTP/1.1\r\nConnection: close"), body).await
}

async fn answer(stream: &mut TcpStream, head: &str, body: &str) -> String {
    let request = format!("{head}\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    with_timeout("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn drain(server: &Arc<Running>, drain: Drain) -> JoinHandle<()> {
    let server = Arc::clone(server);
    tokio::spawn(async move { server.drain(drain).await })
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    with_timeout(what, async {
        while !is_so().await {
            yield_now().await;
        }
    })
    .await;
}

async fn until_not_ready(address: SocketAddr) {
    until("the drain", || async move { request(address, "GET /readyz", "").await.contains("Server draining") }).await;
}

#[test]
fn draining_server_is_not_ready_and_serves_peers() {
    block_on(async {
        let server = serve(Config::default());
        let address = server.local_addr();
        assert!(request(address, "GET /readyz", "").await.starts_with("HTTP/1.1 200"));
        let mut before = Dialed::device(address, "cvd-1").await;
        let draining = drain(&server, Drain { wait: HOUR, ..Drain::default() });
        until_not_ready(address).await;
        assert!(request(address, "GET /readyz", "").await.starts_with("HTTP/1.1 503"));
        assert!(request(address, "GET /healthz", "").await.starts_with("HTTP/1.1 200"));
        let mut during = Dialed::device(address, "cvd-2").await;
        let mut client = Dialed::client(address, "cvd-1").await;
        client.says(r#"{"message_type":"forward","payload":1}"#).await;
        before.hears(r#"{"message_type":"client_msg","client_id":1,"payload":1}"#).await;
        advance(&server, HOUR).await;
        with_timeout("the end of the drain", draining).await.unwrap();
        for peer in [&mut before, &mut during, &mut client] {
            assert_eq!(peer.next().await, Received::Closed(1001));
        }
        assert!(TcpStream::connect(address).await.is_err(), "a drained server listens");
    });
}

#[test]
fn connections_are_closed_evenly_over_the_spread() {
    const DEVICES: usize = 200;
    block_on(async {
        let keepalive = Keepalive { interval: None, ..Keepalive::default() };
        let server = serve(Config { keepalive, ..Config::default() });
        let mut devices = Vec::new();
        for number in 0..DEVICES {
            devices.push(Dialed::device(server.local_addr(), &format!("cvd-{number}")).await);
        }
        let left = || server.hub().device_count();
        let draining = drain(&server, Drain { spread: 10 * SECOND, ..Drain::default() });
        until("the first close", || async { left() < DEVICES }).await;
        server.clock().freeze();
        let mut before = None;
        while left() > DEVICES / 10 {
            let expected = left().saturating_sub(DEVICES / 10);
            advance(&server, SECOND).await;
            until("a second's share of the closes", || async { left() <= expected + 1 }).await;
            for _ in 0..100 {
                yield_now().await;
            }
            // A close that was due between two milliseconds may have come before the clock stood still.
            assert!(left() + 1 >= expected, "{} devices are left, and not {expected}", left());
            assert_ne!(before.replace(left()), Some(left()));
        }
        advance(&server, SECOND).await;
        with_timeout("the end of the drain", draining).await.unwrap();
        for device in &mut devices {
            assert_eq!(device.next().await, Received::Closed(1001));
            assert_eq!(device.close_reason(), "server stopping");
        }
    });
}

#[test]
fn device_and_its_clients_are_closed_together_with_1001() {
    block_on(async {
        let limits = Limits { first_message_timeout: None, ..Limits::default() };
        let server = serve(Config { device_wait_timeout: Some(HOUR), limits, ..Config::default() });
        let address = server.local_addr();
        let mut pairs = Vec::new();
        for number in 0..20 {
            let id = format!("cvd-{number}");
            let device = Dialed::device(address, &id).await;
            pairs.push((device, Dialed::client(address, &id).await));
        }
        let mut waiting = Dialed::open(address, "/connect_client").await;
        waiting.says(r#"{"message_type":"connect","device_id":"cvd-later"}"#).await;
        waiting.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        let mut silent = Dialed::open(address, "/register_device").await;
        let draining = drain(&server, Drain { spread: 22 * SECOND, ..Drain::default() });
        until("the first close", || async { server.hub().device_count() < 20 }).await;
        server.clock().freeze();
        while server.hub().device_count() > 0 {
            advance(&server, SECOND).await;
            // A client without a device would be told `Device disconnected`, and a device `client_disconnected`.
            until("the close of a pair", || async { server.hub().device_count() == server.hub().client_count() }).await;
        }
        advance(&server, 2 * SECOND).await;
        with_timeout("the end of the drain", draining).await.unwrap();
        for (device, client) in &mut pairs {
            assert_eq!(device.next().await, Received::Closed(1001));
            assert_eq!(client.next().await, Received::Closed(1001));
        }
        assert_eq!(waiting.next().await, Received::Closed(1001));
        assert_eq!(silent.next().await, Received::Closed(1001));
    });
}

#[test]
fn stop_ends_a_drain_at_once() {
    block_on(async {
        let server = serve(Config::default());
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        for cut in [Drain { wait: HOUR, spread: HOUR }, Drain { spread: HOUR, ..Drain::default() }] {
            let draining = drain(&server, cut);
            until_not_ready_or_closed(server.local_addr()).await;
            draining.abort();
            drop(draining.await);
        }
        assert!(with_timeout("the stop", server.stop(Duration::from_secs(5))).await);
        assert_eq!(device.next().await, Received::Closed(1001));
    });
}

async fn until_not_ready_or_closed(address: SocketAddr) {
    until("the drain", || async move {
        match TcpStream::connect(address).await {
            Ok(mut stream) => {
                answer(&mut stream, "GET /readyz HTTP/1.1\r\nConnection: close", "").await.contains("Server draining")
            }
            Err(_) => true,
        }
    })
    .await;
}

#[test]
fn drain_closes_devices_on_the_local_socket_and_polled_clients() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("devices");
        let server = serve(Config { device_socket: Some(path.clone()), ..Config::default() });
        let address = server.local_addr();
        let local = Packets::device(&path, "cvd-1").await;
        let connected = request(address, "POST /polled_connections", r#"{"device_id":"cvd-1"}"#).await;
        let (_, rest) = connected.split_once(r#""connection_id":""#).unwrap();
        let messages = format!("GET /polled_connections/{}/messages?start=0&wait=20 HTTP/1.1", &rest[..32]);
        let mut polling = TcpStream::connect(address).await.unwrap();
        // An answer tells that the connection was accepted. The poll may come before or after the end of its session.
        polling.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut health = [0; 1024];
        assert!(polling.read(&mut health).await.unwrap() > 0);
        let poll =
            tokio::spawn(async move { answer(&mut polling, &format!("{messages}\r\nConnection: close"), "").await });
        with_timeout("the drain", server.drain(Drain::default())).await;
        assert_eq!(local.next().await, Received::Lost);
        let told = with_timeout("the answer to the poll", poll).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 503") && told.contains("Server stopping"), "{told}");
    });
}
