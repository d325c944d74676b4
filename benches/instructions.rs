//! Runs the path of a forward many times, so that callgrind can count its instructions: `make bench-instructions`.
//!
//! `core` runs sessions, relay, hub and outboxes. `edge` runs a whole server with two peers, in memory. `tls` runs the same
//! over TLS and the loopback interface; the peers' own TLS is half of it. `arrival` runs a device that connects, registers
//! and leaves. `session` runs a client that connects to a device and leaves, and `hooks` the same with three hooks.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, unreachable_pub)]

#[path = "load/tls.rs"]
mod connector;
mod harness;

use std::sync::Arc;

use cuttlefish_signaling::{Config, Hooks, IceSource, NoHooks, Running, Server, Tls};
use harness::deferred_hooks::DeferredHooks;
use harness::{Harness, client_forward, device_forward, payload};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

const PAYLOAD: usize = 250;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.as_slice() {
        [scenario, times] if scenario == "core" => core(times.parse().unwrap()),
        [scenario, times] if scenario == "edge" => edge(times.parse().unwrap()),
        [scenario, times] if scenario == "tls" => tls(times.parse().unwrap()),
        [scenario, times] if scenario == "arrival" => arrival(times.parse().unwrap()),
        [scenario, times] if scenario == "session" => session(times.parse().unwrap()),
        [scenario, times] if scenario == "hooks" => hooks(times.parse().unwrap()),
        // `cargo bench` passes no arguments: only check that each scenario works.
        _ => {
            core(10);
            edge(10);
            tls(10);
            arrival(10);
            session(10);
            hooks(10);
        }
    }
}

fn core(round_trips: usize) {
    let harness = Harness::new();
    let (mut device, mut client) = (harness.device("cvd-1"), harness.client("cvd-1"));
    let (there, back) = (client_forward(&payload(PAYLOAD)), device_forward(&payload(PAYLOAD)));
    for _ in 0..round_trips {
        client.says(&there);
        assert!(device.hears().is_some());
        device.says(&back);
        assert!(client.hears().is_some());
    }
}

fn edge(round_trips: usize) {
    block_on(async {
        let server = serve(Config::default());
        let device = Wire::open(&server, "/register_device").await;
        let client = Wire::open(&server, "/connect_client").await;
        relay(device, client, round_trips).await;
    });
}

fn tls(round_trips: usize) {
    block_on(async {
        let tls = Tls::self_signed(&["localhost".into()], None).unwrap();
        let connector = connector::trusting(tls.authority_pem().unwrap().as_bytes());
        let server = serve(Config { port: 0, tls: Some(tls), ..Config::default() });
        let dial = async |path| {
            let stream = TcpStream::connect(server.local_addr()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            Wire::over(connector.connect(connector::name(), stream).await.unwrap(), path).await
        };
        relay(dial("/register_device").await, dial("/connect_client").await, round_trips).await;
    });
}

fn block_on(run: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run);
}

fn serve(config: Config) -> Running {
    serve_with(config, Arc::new(NoHooks))
}

fn serve_with(config: Config, hooks: Arc<dyn Hooks>) -> Running {
    Server::bind(config, hooks, Arc::new(())).unwrap().serve()
}

/// Round trips of a device and its client.
async fn relay<S: AsyncRead + AsyncWrite + Unpin>(mut device: Wire<S>, mut client: Wire<S>, round_trips: usize) {
    device.says(r#"{"message_type":"register","device_id":"cvd-1","device_info":{}}"#).await;
    device.hears().await;
    client.says(r#"{"message_type":"connect","device_id":"cvd-1"}"#).await;
    client.hears().await;
    client.hears().await;
    let (there, back) = (frame(&client_forward(&payload(PAYLOAD))), frame(&device_forward(&payload(PAYLOAD))));
    for _ in 0..round_trips {
        client.stream.write_all(&there).await.unwrap();
        device.hears().await;
        device.stream.write_all(&back).await.unwrap();
        client.hears().await;
    }
}

fn arrival(times: usize) {
    block_on(async {
        let server = serve(Config::default());
        for _ in 0..times {
            let mut device = Wire::open(&server, "/register_device").await;
            device.says(r#"{"message_type":"register","device_id":"cvd-1","device_info":{}}"#).await;
            device.hears().await;
            device.closes().await;
        }
    });
}

fn session(times: usize) {
    block_on(async { sessions(serve(Config::default()), times).await });
}

fn hooks(times: usize) {
    block_on(async {
        let hooks = Arc::new(DeferredHooks::start());
        let config = Config { ice: IceSource::Hook, ..Config::default() };
        sessions(serve_with(config, Arc::clone(&hooks) as Arc<dyn Hooks>), times).await;
        // The device has two calls of its own: its info is not filtered for itself.
        assert_eq!(hooks.calls(), 2 + 3 * times);
    });
}

/// Clients that connect to one device and leave, one after the other.
async fn sessions(server: Running, times: usize) {
    let mut device = Wire::open(&server, "/register_device").await;
    device.says(r#"{"message_type":"register","device_id":"cvd-1","device_info":{"displays":[]}}"#).await;
    device.hears().await;
    for _ in 0..times {
        let mut client = Wire::open(&server, "/connect_client").await;
        client.says(r#"{"message_type":"connect","device_id":"cvd-1"}"#).await;
        client.hears().await;
        client.hears().await;
        client.closes().await;
    }
}

/// A minimal WebSocket peer, whose own instructions hardly count.
struct Wire<S = DuplexStream> {
    stream: S,
    scratch: Vec<u8>,
}

impl Wire {
    async fn open(server: &Running, path: &str) -> Self {
        let (stream, theirs) = tokio::io::duplex(1 << 16);
        drop(server.serve_in_memory(theirs));
        Self::over(stream, path).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    async fn over(mut stream: S, path: &str) -> Self {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        Self { stream, scratch: vec![0; 1024] }
    }

    async fn says(&mut self, text: &str) {
        self.stream.write_all(&frame(text)).await.unwrap();
    }

    /// Sends a close frame, and waits for the server's.
    async fn closes(mut self) {
        self.stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [0x88, 0]);
    }

    /// Reads the next frame and drops it.
    async fn hears(&mut self) {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head[..2]).await.unwrap();
        assert_eq!(head[0], 0x81);
        let mut length = usize::from(head[1]);
        if length == 126 {
            self.stream.read_exact(&mut head[2..]).await.unwrap();
            length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        }
        self.stream.read_exact(&mut self.scratch[..length]).await.unwrap();
    }
}

/// Encodes a masked text frame.
fn frame(text: &str) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![0x81];
    match u16::try_from(text.len()).unwrap() {
        length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(text.bytes().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
