//! Routes and upgrades, byte by byte. Python tests cover more, with Python's own HTTP client.

use std::time::Duration;

use cuttlefish_signaling::{Config, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::{block_on, serve, with_timeout};
use crate::raw_peer::{CLOSE, FINAL, RawPeer, TEXT, frame, head};

async fn answer(request: &str) -> String {
    let server = serve(Config::default());
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let mut length = 0;
    while !answer[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        let read = with_timeout("an answer", stream.read(&mut answer[length..])).await.unwrap();
        assert_ne!(read, 0, "hung up without an answer");
        length += read;
    }
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[test]
fn accept_key_is_that_of_rfc_6455() {
    let request = "GET /register_device HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: x, webrtc-operator\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let answer = block_on(answer(request)).to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: webrtc-operator\r\n"), "{answer}");
    assert!(!answer.contains("extensions"), "{answer}");
}

/// The server closes the connection at once, without waiting for a timeout (RFC 6455, 7.1.1).
#[test]
fn close_frame_is_answered_and_the_connection_closed_at_once() {
    block_on(async {
        let limits = Limits { close_timeout: Duration::from_secs(3600), ..Limits::default() };
        let server = serve(Config { limits, ..Config::default() });
        let mut peer = RawPeer::connect(server.local_addr(), "/register_device").await;
        peer.send(&frame(FINAL | CLOSE, b"", [0; 4])).await;
        assert_eq!(peer.read_to_end().await, b"\x88\x00");
    });
}

/// Unread input would reset the connection, and the peer could lose the close frame.
#[test]
fn oversized_message_is_closed_with_1009_while_the_peer_still_sends() {
    block_on(async {
        let server = serve(Config::default());
        let mut peer = RawPeer::connect(server.local_addr(), "/register_device").await;
        peer.send(&head(FINAL | TEXT, 1 << 20, [0; 4])).await;
        for _ in 0..64 {
            peer.send(&[b'x'; 16 * 1024]).await;
            tokio::task::yield_now().await;
        }
        peer.0.shutdown().await.unwrap();
        assert_eq!(peer.read_to_end().await, [&[0x88, 17, 0x03, 0xf1][..], b"message too big"].concat());
    });
}

#[test]
fn http_errors_are_json() {
    for (line, status) in [
        ("GET /nowhere HTTP/1.1", "404"),
        ("GET /connect_client HTTP/1.1", "426"),
        ("POST /connect_client HTTP/1.1", "405"),
        ("POST /devices HTTP/1.1", "405"),
        ("HEAD /nowhere HTTP/1.1", "404"),
        ("HEAD /connect HTTP/1.1", "405"),
        ("OPTIONS * HTTP/1.1", "404"),
        ("CONNECT localhost:80 HTTP/1.1", "404"),
    ] {
        let answer =
            block_on(answer(&format!("{line}\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"))).to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
    }
}

#[test]
fn paths_match_percent_decoded_except_separators() {
    for (path, status) in [
        ("/healt%68z", "200"),
        ("/%68%65%61%6c%74%68%7A?x=%79", "200"),
        ("/devices%2Fx", "404"),
        ("/devices%3Fformat=ids", "404"),
        ("/healthz%", "404"),
        ("/%68ealthz%2", "404"),
        ("/%2568ealthz", "404"),
        ("/polled_connections/x/%3Aforward", "405"),
        ("/polled%5fconnections/x/messages", "404"),
        ("/register%5fdevice", "426"),
        ("http://localhost/healt%68z", "200"),
    ] {
        let answer = block_on(answer(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
}

#[test]
fn errors_of_the_reference_routes_have_a_type() {
    for (request, body) in [
        ("GET /connect", r#"{"error":"Method not allowed","type":"error"}"#),
        ("POST /%63onnect", r#"{"error":"Received Invalid JSON","type":"error"}"#),
        ("POST /polled_connections", r#"{"error":"Received Invalid JSON"}"#),
    ] {
        let answer = block_on(answer(&format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")));
        assert!(answer.ends_with(body), "{request}: {answer}");
        assert!(answer.contains(&format!("content-length: {}\r\n", body.len())), "{request}: {answer}");
    }
}
