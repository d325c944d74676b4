//! HTTP answers that are not read: a deadline ends each kind, a reader that is only slow keeps its connection, and `stop`
//! waits for none. The peers are in memory, behind narrow pipes, and the clock is turned by hand.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::listen::Listen;
use cuttlefish_signaling::{Config, Limits, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::dial::{Dialed, advance, block_on, serve, with_timeout};
use crate::packets::Packets;

/// The bytes that a pipe holds in each direction. Every answer of these tests is longer.
const WIDTH: usize = 200;

/// Longer than any test: only the turned clock ends it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A server whose device files, dashboard and assets are on, and a device with files that never end.
async fn server_with_long_answers(place: &std::path::Path) -> (Arc<Running>, Packets, Dialed) {
    std::fs::write(place.join("large"), vec![b'x'; 100_000]).unwrap();
    let socket: PathBuf = place.join("socket");
    let server = serve(Config {
        limits: Limits { write_timeout: WRITE_TIMEOUT, ..Limits::default() },
        keepalive: cuttlefish_signaling::Keepalive { interval: None, ..Default::default() },
        device_socket: Some(socket.clone()),
        dashboard: true,
        assets_dir: Some(place.into()),
        proxy_device_files: true,
        ..Config::default()
    });
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = web.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
            drop(stream.write_all(head).await);
            while stream.write_all(&[b'x'; 1000]).await.is_ok() {}
        }
    });
    let local = Packets::open(&socket).await;
    local
        .says(&format!(r#"{{"message_type":"register","device_id":"local","device_info":{{}},"device_port":{port}}}"#))
        .await;
    while server.hub().device_count() < 1 {
        tokio::task::yield_now().await;
    }
    let device = Dialed::device(server.local_addr(), &"x".repeat(250)).await;
    (server, local, device)
}

/// Asks over a narrow pipe, and reads one byte of the answer.
async fn ask(server: &Running, path: &str) -> (DuplexStream, JoinHandle<()>) {
    let (mut ours, theirs) = tokio::io::duplex(WIDTH);
    let task = server.serve_in_memory(theirs);
    ours.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(with_timeout("an answer", ours.read_u8()).await.unwrap(), b'H');
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    (ours, task)
}

/// Each kind of answer.
const PATHS: [&str; 6] =
    ["/devices", "/metrics", "/dashboard/events", "/dashboard/main.js", "/large", "/devices/local/files/endless"];

#[test]
fn unread_answers_of_every_kind_end_after_write_timeout() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let (server, _local, _device) = server_with_long_answers(place.path()).await;
        server.clock().freeze();
        for (before, path) in PATHS.iter().enumerate() {
            let (unread, task) = ask(&server, path).await;
            with_timeout(path, async {
                while !task.is_finished() {
                    advance(&server, WRITE_TIMEOUT).await;
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert_eq!(server.incidents().of(Incident::SlowConsumer), before as u64 + 1, "{path}");
            drop(unread);
        }
        assert_eq!(server.hub().device_count(), 2, "the devices stay");
    });
}

#[test]
fn slow_reader_keeps_its_connection() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let (server, _local, _device) = server_with_long_answers(place.path()).await;
        server.clock().freeze();
        let (mut slow, task) = ask(&server, "/metrics").await;
        let almost = WRITE_TIMEOUT.saturating_sub(Duration::from_millis(1));
        for _ in 0..5 {
            advance(&server, almost).await;
            slow.read_exact(&mut [0; 100]).await.unwrap();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        assert!(!task.is_finished());
        advance(&server, almost).await;
        assert!(!task.is_finished(), "the timeout counts from the last byte that was taken");
        advance(&server, Duration::from_millis(1)).await;
        with_timeout("the end", task).await.unwrap();
        assert_eq!(server.incidents().of(Incident::SlowConsumer), 1);
    });
}

#[test]
fn stop_does_not_wait_for_unread_answers() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let (server, local, device) = server_with_long_answers(place.path()).await;
        let mut unread = Vec::new();
        for path in PATHS {
            unread.push(ask(&server, path).await);
        }
        drop((local, device));
        assert!(with_timeout("the stop", server.stop(Duration::from_secs(3600))).await);
    });
}

#[test]
fn prometheus_that_never_reads_holds_one_connection_until_write_timeout() {
    block_on(async {
        let server = serve(Config {
            limits: Limits { write_timeout: WRITE_TIMEOUT, ..Limits::default() },
            metrics: vec![Listen::Http("127.0.0.1:0".parse().unwrap())],
            ..Config::default()
        });
        server.clock().freeze();
        let address = server.metrics_addresses()[0].tcp().unwrap();
        let stuck = TcpStream::connect(address).await.unwrap();
        let (mut answers, mut requests) = stuck.into_split();
        // The answers to these fill the buffers of both sides. The writer ends when the server reads no further request.
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
        let writer = tokio::spawn(async move { while requests.write_all(&request).await.is_ok() {} });
        with_timeout("the end of the stuck connection", async {
            while server.incidents().of(Incident::SlowConsumer) == 0 {
                advance(&server, WRITE_TIMEOUT).await;
                tokio::task::yield_now().await;
            }
        })
        .await;
        // Meanwhile and afterwards the server serves others.
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
        client.says(r#"{"message_type":"forward","payload":1}"#).await;
        device.hears(r#"{"message_type":"client_msg","client_id":1,"payload":1}"#).await;
        let mut scrape = TcpStream::connect(address).await.unwrap();
        scrape.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        with_timeout("a scrape", scrape.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.contains("cuttlefish_signaling_incidents_total{kind=\"slow_consumers\"} 1\n"), "{answer}");
        with_timeout("the writer", writer).await.unwrap();
        drop(answers.read_u8().await);
    });
}
