//! A minimal WebSocket peer (RFC 6455) that uses little CPU time of its own.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::options::Options;
use crate::tls;

/// A connection, plain or over TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to a server, over TLS if the options say so.
pub async fn dial(options: &Options, port: u16) -> Box<dyn Stream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match &options.tls {
        None => Box::new(stream),
        Some(connector) => Box::new(connector.connect(tls::name(), stream).await.unwrap()),
    }
}

pub struct Peer {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    /// The number of input bytes that have been taken.
    taken: usize,
    output: Vec<u8>,
}

impl Peer {
    /// Connects a device, until it has its `config`.
    pub async fn device(options: &Options, id: &str) -> Self {
        Self::open(options, options.port, "/register_device").await.register(id).await
    }

    /// Connects a client, until it has its device info.
    pub async fn client(options: &Options, id: &str) -> Self {
        let mut client = Self::open(options, options.client_port, "/connect_client").await;
        client.says(&format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#)).await;
        client.hears().await;
        client.hears().await;
        client
    }

    /// Connects, and upgrades the connection to a WebSocket.
    async fn open(options: &Options, port: u16, path: &str) -> Self {
        let mut stream = dial(options, port).await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut peer = Self { stream, input: Vec::new(), taken: 0, output: Vec::new() };
        let end = loop {
            if let Some(end) = peer.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            peer.read().await;
        };
        assert!(peer.input.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&peer.input));
        peer.taken = end;
        peer
    }

    /// Registers as a device, and waits for its `config`.
    async fn register(mut self, id: &str) -> Self {
        self.says(&format!(r#"{{"message_type":"register","device_id":"{id}","device_info":{{"displays":[]}}}}"#))
            .await;
        self.hears().await;
        self
    }

    pub async fn says(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes());
        self.flush().await;
    }

    /// Adds a text to the next write.
    pub fn queue(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes());
    }

    pub async fn flush(&mut self) {
        self.stream.write_all(&self.output).await.unwrap();
        self.output.clear();
    }

    /// Reads the next text. Answers pings meanwhile.
    pub async fn hears(&mut self) -> &[u8] {
        loop {
            let Some((opcode, start, end)) = self.whole_frame() else {
                self.read().await;
                continue;
            };
            self.taken = end;
            match opcode {
                1 => return &self.input[start..end],
                9 => {
                    let payload = self.input[start..end].to_vec();
                    self.frame(0x8a, &payload);
                    self.flush().await;
                }
                8 => panic!("closed: {}", String::from_utf8_lossy(&self.input[start..end])),
                _ => {}
            }
        }
    }

    /// Whether a whole frame has been read but not taken.
    pub fn has_more(&self) -> bool {
        self.whole_frame().is_some()
    }

    pub async fn closes(mut self) {
        self.frame(0x88, &1000_u16.to_be_bytes());
        self.flush().await;
        let mut rest = Vec::new();
        drop(self.stream.read_to_end(&mut rest).await);
    }

    /// The opcode of the next frame, and the range of its payload.
    fn whole_frame(&self) -> Option<(u8, usize, usize)> {
        let input = self.input.get(self.taken..)?;
        let (length, start) = match *input.get(1)? {
            126 => (usize::from(u16::from_be_bytes(input.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(input.get(2..10)?.try_into().ok()?)).ok()?, 10),
            length => (usize::from(length), 2),
        };
        let (start, end) = (self.taken + start, self.taken + start + length);
        (self.input.len() >= end).then(|| (self.input[self.taken] & 0x0f, start, end))
    }

    async fn read(&mut self) {
        self.input.drain(..self.taken);
        self.taken = 0;
        assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0, "the server hung up");
    }

    /// Encodes a masked frame. The mask is constant: it only has to make the server unmask.
    fn frame(&mut self, first: u8, payload: &[u8]) {
        const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
        self.output.push(first);
        match payload.len() {
            length @ ..126 => self.output.push(0x80 | u8::try_from(length).unwrap()),
            length if u16::try_from(length).is_ok() => {
                self.output.push(0xfe);
                self.output.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                self.output.push(0xff);
                self.output.extend((length as u64).to_be_bytes());
            }
        }
        self.output.extend(MASK);
        self.output.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}
