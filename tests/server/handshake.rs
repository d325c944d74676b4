//! Routes and upgrades, byte by byte. More of it is tested from Python, with Python's own HTTP client.

use cuttlefish_signaling::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::{block_on, patiently, serve};

async fn answer(request: &str) -> String {
    let server = serve(Config::default());
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let mut length = 0;
    while !answer[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        let read = patiently("an answer", stream.read(&mut answer[length..])).await.unwrap();
        assert_ne!(read, 0, "hung up without an answer");
        length += read;
    }
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[test]
fn the_accept_key_is_that_of_rfc_6455() {
    let request = "GET /register_device HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: x, webrtc-operator\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let answer = block_on(answer(request)).to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: webrtc-operator\r\n"), "{answer}");
    assert!(!answer.contains("extensions"), "{answer}");
}

#[test]
fn every_no_is_json() {
    for (line, status) in [
        ("GET /nowhere HTTP/1.1", "404"),
        ("GET /connect_client HTTP/1.1", "426"),
        ("POST /connect_client HTTP/1.1", "405"),
        ("POST /devices HTTP/1.1", "405"),
    ] {
        let answer = block_on(answer(&format!("{line}\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))).to_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
    }
}
