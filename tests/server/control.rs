//! The control API of a server that no Python program surrounds.

use std::time::Duration;

use cuttlefish_signaling::config::control::{Control, ControlToken};
use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::listen::Listen;
use cuttlefish_signaling::{Config, Limits, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::{Dialed, advance, block_on, serve, with_timeout};

const TOKEN: &str = "token-of-the-tests";

/// Longer than any test: only the turned clock ends it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3600);

fn controlled(journal: bool) -> Config {
    let control = Control {
        listen: vec![Listen::Http("127.0.0.1:0".parse().unwrap())],
        token: Some(ControlToken::new(TOKEN).unwrap()),
        ..Control::default()
    };
    let limits = Limits { write_timeout: WRITE_TIMEOUT, ..Limits::default() };
    Config { control, journal, limits, ..Config::default() }
}

/// Sends a request that ends its connection.
async fn begin(server: &Running, request: &str) -> TcpStream {
    let address = server.control_addresses()[0].tcp().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head =
        format!("{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

async fn answer(server: &Running, request: &str) -> String {
    let mut text = String::new();
    let mut stream = begin(server, request).await;
    with_timeout("an answer", stream.read_to_string(&mut text)).await.unwrap();
    text
}

#[test]
fn requests_to_the_program_are_not_supported_without_one() {
    block_on(async {
        let server = serve(controlled(true));
        for request in ["POST /control/v1/reload", "GET /control/v1/errors", "GET /control/v1/journal/transcript"] {
            let answer = answer(&server, request).await;
            assert!(answer.starts_with("HTTP/1.1 501 "), "{request}: {answer}");
            assert!(answer.contains(r#""code":"not_supported""#), "{request}: {answer}");
        }
        assert!(answer(&server, "GET /control/v1/stats").await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn server_without_a_control_api_has_no_listener_for_it() {
    block_on(async {
        let server = serve(Config::default());
        assert!(server.control_addresses().is_empty());
    });
}

#[test]
fn watch_that_is_not_read_delays_no_forward_and_ends_after_write_timeout() {
    block_on(async {
        let server = serve(controlled(true));
        server.clock().freeze();
        let mut stuck = begin(&server, "GET /control/v1/watch").await;
        let mut first = [0; 12];
        with_timeout("the head of the stream", stuck.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
        let payload = format!("\"{}\"", "x".repeat(16 * 1024));
        // More than the buffers of both sides hold.
        for _ in 0..1500 {
            client.says(&format!(r#"{{"message_type":"forward","payload":{payload}}}"#)).await;
            device.hears(&format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{payload}}}"#)).await;
        }
        with_timeout("the end of the stream", async {
            while server.incidents().of(Incident::SlowConsumer) == 0 {
                advance(&server, WRITE_TIMEOUT).await;
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(answer(&server, "GET /control/v1").await.starts_with("HTTP/1.1 200 "));
    });
}
