//! A WebSocket peer that writes its frames byte by byte, over TCP or in memory.

use std::net::SocketAddr;

use cuttlefish_signaling::Running;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

use crate::dial::with_timeout;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
/// The bit of a message's last frame.
pub const FINAL: u8 = 0x80;

/// The request that upgrades a connection to a WebSocket.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The head of a masked frame. `first` is its first byte: opcode and final bit.
pub fn head(first: u8, length: usize, mask: [u8; 4]) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        ..126 => head.push(0x80 | u8::try_from(length).unwrap()),
        126..65_536 => {
            head.push(0xfe);
            head.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            head.push(0xff);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head.extend(mask);
    head
}

/// A masked frame.
pub fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = head(first, payload.len(), mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A text in one frame, masked with zeros.
pub fn text(text: &str) -> Vec<u8> {
    frame(FINAL | TEXT, text.as_bytes(), [0; 4])
}

/// The opcode and payload of the next frame. Frames of the server are whole and unmasked (docs/protocol.md 2.8).
pub async fn next(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    assert_eq!(first & !0x0f, FINAL);
    let length = match stream.read_u8().await.unwrap() {
        126 => usize::from(stream.read_u16().await.unwrap()),
        127 => usize::try_from(stream.read_u64().await.unwrap()).unwrap(),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.unwrap();
    (first & 0x0f, payload)
}

pub struct RawPeer<S>(pub S);

impl RawPeer<TcpStream> {
    pub async fn connect(address: SocketAddr, path: &str) -> Self {
        Self::open(TcpStream::connect(address).await.unwrap(), path).await
    }
}

impl RawPeer<DuplexStream> {
    /// A peer in memory. The pipe holds `width` bytes in each direction.
    pub async fn in_memory(server: &Running, path: &str, width: usize) -> Self {
        let (ours, theirs) = tokio::io::duplex(width);
        drop(server.serve_in_memory(theirs));
        Self::open(ours, path).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawPeer<S> {
    /// Upgrades a connection.
    pub async fn open(mut stream: S, path: &str) -> Self {
        stream.write_all(upgrade(path).as_bytes()).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(with_timeout("a response", stream.read_u8()).await.unwrap());
        }
        assert!(response.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&response));
        Self(stream)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub async fn next(&mut self) -> (u8, Vec<u8>) {
        with_timeout("a frame", next(&mut self.0)).await
    }

    /// All that the server sends until it closes the connection.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        with_timeout("the end", self.0.read_to_end(&mut received)).await.unwrap();
        received
    }
}
