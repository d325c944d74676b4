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

/// Lists may have several lines and several members (RFC 9110, 5.3).
#[test]
fn upgrade_headers_are_lists() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (lines, status) in [
        ("Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket", "101"),
        ("Connection: ,keep-alive ,\tUPGRADE,\r\nUpgrade: websocket", "101"),
        ("Connection: Upgrade\r\nUpgrade: h2c, WebSocket", "101"),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket", "101"),
        ("Connection: Upgrade\r\nUpgrade: h2c", "400"),
        ("Connection: Upgrade\r\nUpgrade: websocket/1", "400"),
        ("Connection: keep-alive\r\nUpgrade: websocket", "400"),
        ("Connection: Upgrades\r\nUpgrade: websocket", "400"),
        ("Connection: Upgrade", "426"),
    ] {
        let request =
            format!("GET /connect_client HTTP/1.1\r\nHost: localhost\r\n{lines}\r\nSec-WebSocket-Version: 13");
        let answer = block_on(answer(&format!("{request}\r\n{key}\r\n\r\n")));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lines}: {answer}");
    }
    for faulty in [
        "Sec-WebSocket-Version: 13".to_owned(),
        format!("Sec-WebSocket-Version: 8\r\n{key}"),
        format!("Sec-WebSocket-Version: 13\r\n{key}\r\n{key}"),
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25j".to_owned(),
    ] {
        let request = "GET /connect_client HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket";
        let answer = block_on(answer(&format!("{request}\r\n{faulty}\r\n\r\n")));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{faulty}: {answer}");
        assert!(answer.contains("sec-websocket-version: 13\r\n"), "{faulty}: {answer}");
    }
}

#[test]
fn host_is_needed_in_http_1_1_only() {
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\n", "400"),
        ("GET /healthz HTTP/1.0\r\n", "200"),
        ("GET http://localhost/healthz HTTP/1.1\r\n", "400"),
        // The host of an absolute target counts, instead of `Host` (RFC 9112, 3.2.2).
        ("GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\n", "200"),
        ("GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n", "403"),
        ("GET http://localhost/devices HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n", "403"),
        ("GET http://user:secret@localhost/healthz HTTP/1.1\r\nHost: localhost\r\n", "400"),
        ("GET http://localhost@evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n", "400"),
        ("CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n", "403"),
    ] {
        let answer = block_on(answer(&format!("{request}\r\n")));
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}: {answer}");
        assert!(!answer.contains("secret"), "{answer}");
    }
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
