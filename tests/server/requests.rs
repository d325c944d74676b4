//! Bodies of requests, and requests that are not HTTP/1.1.

use std::net::SocketAddr;

use cuttlefish_signaling::{Config, Limits, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::{block_on, serve, with_timeout};

/// The largest body of these tests.
const LIMIT: usize = 1000;

fn server() -> std::sync::Arc<Running> {
    let limits = Limits { max_message_size: LIMIT, ..Limits::default() };
    serve(Config { limits, ..Config::default() })
}

/// A connection that has sent some bytes.
async fn send(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// The first bytes of the answer, up to the end of a head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(with_timeout("a head", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn whole(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    with_timeout("the end", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[test]
fn too_large_body_is_refused_from_its_head() {
    block_on(async {
        let server = server();
        for path in ["/connect", "/forward", "/poll_messages", "/polled_connections", "/polled_connections/x/:forward"]
        {
            for expect in ["", "Expect: 100-continue\r\n"] {
                let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{expect}Content-Length: {}", LIMIT + 1);
                // No byte of the body is sent.
                let mut stream = send(server.local_addr(), &format!("{head}\r\nConnection: close\r\n\r\n")).await;
                stream.shutdown().await.unwrap();
                let answer = whole(stream).await;
                assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
                assert!(answer.contains("Body too large: at most 1000 bytes"), "{answer}");
            }
        }
    });
}

#[test]
fn too_large_body_without_a_length_is_refused_on_the_way() {
    block_on(async {
        let server = server();
        let chunk = format!("{:x}\r\n{}\r\n", LIMIT, "x".repeat(LIMIT));
        let request =
            "POST /connect HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let mut stream = send(server.local_addr(), &format!("{request}{chunk}{chunk}0\r\n\r\n")).await;
        stream.shutdown().await.unwrap();
        assert!(whole(stream).await.starts_with("HTTP/1.1 413 "));
    });
}

#[test]
fn expected_continue_comes_before_the_body_is_read() {
    block_on(async {
        let server = server();
        let body = r#"{"device_id":"x"}"#;
        let request = format!(
            "POST /connect HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = send(server.local_addr(), &request).await;
        assert_eq!(head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(body.as_bytes()).await.unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 404 "));
        // A refusal needs no body, so it is the first answer.
        let mut stream = send(server.local_addr(), &request.replace("Host: localhost", "Host: evil.example")).await;
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 403 "));
    });
}

/// A client with prior knowledge of HTTP/2 sends no more before it has an answer.
#[test]
fn http_2_without_negotiation_is_answered_with_505() {
    block_on(async {
        let server = server();
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
        let stream = send(server.local_addr(), preface).await;
        let answer = whole(stream).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 505 "), "{answer}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
        assert_eq!(body, r#"{"error":"This server speaks HTTP/1.1 only"}"#);
    });
}
