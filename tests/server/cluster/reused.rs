//! The cost of connections between nodes: TLS handshakes, and connections that one client leaves to the next.

use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::{Config, Limits, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::memory::Memory;
use super::pairs::metric;
use super::strangers::{Program, UPGRADE, VERSION};
use super::{Nodes, settings, start, timing, until};
use crate::dial::{Dialed, Received, block_on, with_timeout};

/// Settings with which no test ends in time if a connection that both sides have closed waits for `close_timeout`.
pub fn patient(limits: Limits) -> Config {
    Config { limits: Limits { close_timeout: Duration::from_secs(600), ..limits }, ..Config::default() }
}

/// The connections of node b to others: those with a full handshake, those with a resumed one, and those used again.
pub async fn connections(node: &Running) -> [u64; 3] {
    let mut found = [0; 3];
    for (at, handshake) in ["full", "resumed", "none"].iter().enumerate() {
        let name = format!("connections_total{{handshake=\"{handshake}\"}}");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it counts from 0")]
        let count = metric(node.local_addr(), &name).await as u64;
        found[at] = count;
    }
    found
}

/// The connections since an earlier count.
pub async fn since(node: &Running, before: [u64; 3]) -> [u64; 3] {
    let now = connections(node).await;
    std::array::from_fn(|at| now[at] - before[at])
}

/// A client sends its number, hears it from the device, and leaves. Returns when both nodes have forgotten it.
pub async fn visit(nodes: [&Running; 2], device: &mut Dialed, number: usize) {
    let mut client = Dialed::client(nodes[1].local_addr(), "cvd-1").await;
    client.says(&format!(r#"{{"message_type":"forward","payload":{number}}}"#)).await;
    device.hears(&format!(r#"{{"message_type":"client_msg","client_id":{number},"payload":{number}}}"#)).await;
    device.says(&format!(r#"{{"message_type":"forward","client_id":{number},"payload":{number}}}"#)).await;
    client.hears(&format!(r#"{{"message_type":"device_msg","payload":{number}}}"#)).await;
    drop(client);
    device.hears(&format!(r#"{{"message_type":"client_disconnected","client_id":{number}}}"#)).await;
    until(|| nodes[1].hub().connections() == 0).await;
}

#[test]
fn clients_that_come_one_after_another_share_a_connection() {
    block_on(async {
        let nodes = Nodes::start(2, patient(Limits::default())).await;
        let both = [&*nodes.nodes[0], &*nodes.nodes[1]];
        let mut device = Dialed::device(nodes.address(0), "cvd-1").await;
        visit(both, &mut device, 1).await;
        let before = connections(both[1]).await;
        for number in 2..=100 {
            visit(both, &mut device, number).await;
        }
        assert_eq!(since(both[1], before).await, [0, 0, 99]);
    });
}

#[test]
fn no_handshake_of_a_burst_of_clients_is_a_full_one() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let _device = Dialed::device(nodes.address(0), "cvd-1").await;
        // It makes the control connection.
        let _first = Dialed::client(nodes.address(1), "cvd-1").await;
        let before = connections(&nodes.nodes[1]).await;
        let clients: Vec<_> = (0..100)
            .map(|_| {
                let address = nodes.address(1);
                tokio::spawn(async move { Dialed::client(address, "cvd-1").await })
            })
            .collect();
        let mut connected = Vec::new();
        for client in clients {
            connected.push(client.await.unwrap());
        }
        assert_eq!(since(&nodes.nodes[1], before).await, [0, 100, 0]);
    });
}

#[test]
fn connection_that_the_node_of_the_device_closes_is_not_used_again() {
    block_on(async {
        let nodes = Nodes::start(2, patient(Limits::default())).await;
        let device = Dialed::device(nodes.address(0), "cvd-1").await;
        let mut client = Dialed::client(nodes.address(1), "cvd-1").await;
        let before = connections(&nodes.nodes[1]).await;
        drop(device);
        client.hears(r#"{"error":"Device disconnected"}"#).await;
        assert_eq!(client.next().await, Received::Closed(1000));
        until(|| nodes.nodes[1].hub().connections() == 0).await;
        let _device = Dialed::device(nodes.address(0), "cvd-1").await;
        let _client = Dialed::client(nodes.address(1), "cvd-1").await;
        assert_eq!(since(&nodes.nodes[1], before).await, [0, 1, 0]);
    });
}

#[test]
fn no_more_connections_are_kept_than_the_settings_allow() {
    block_on(async {
        let limits = Limits { max_node_idle: 2, ..Limits::default() };
        let nodes = Nodes::start(2, patient(limits)).await;
        let _device = Dialed::device(nodes.address(0), "cvd-1").await;
        // It makes the control connection.
        let _first = Dialed::client(nodes.address(1), "cvd-1").await;
        let own = nodes.nodes[1].hub().connections();
        for expected in [[0, 5, 0], [0, 3, 2]] {
            let before = connections(&nodes.nodes[1]).await;
            let mut clients = Vec::new();
            for _ in 0..5 {
                clients.push(Dialed::client(nodes.address(1), "cvd-1").await);
            }
            drop(clients);
            until(|| nodes.nodes[1].hub().connections() == own).await;
            assert_eq!(since(&nodes.nodes[1], before).await, expected);
        }
    });
}

/// A masked frame with a key of zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[0x80 | opcode, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// The answer of a server to the close frame of [`leaves`].
const CLOSED: &[u8] = &[0x88, 2, 0x03, 0xe8];

/// A close frame with code 1000.
fn leaves() -> Vec<u8> {
    frame(CLOSE, &1000_u16.to_be_bytes())
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: node\r\n{VERSION}{UPGRADE}x-cuttlefish-client: {{}}\r\n\r\n")
}

const CONNECT: &str = "/cluster/devices/cvd-1/connect";

/// Reads until these bytes have come. False if the connection ends before.
async fn reads(stream: &mut TlsStream<TcpStream>, end: &[u8]) -> bool {
    with_timeout("bytes of the node", async {
        let mut got = Vec::new();
        while !got.ends_with(end) {
            match stream.read_u8().await {
                Ok(byte) => got.push(byte),
                Err(_) => return false,
            }
        }
        true
    })
    .await
}

/// Reads to the end.
async fn rest(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut got = Vec::new();
    let _ended = with_timeout("the end", stream.read_to_end(&mut got)).await;
    got
}

/// A node with a device, and a program that is another node to it, with a control connection.
struct Other {
    engine: Memory,
    home: Arc<Running>,
    program: Program,
    device: Dialed,
}

impl Other {
    async fn start(limits: Limits) -> Self {
        let engine = Memory::new(timing());
        let home = start(&engine, settings("a", patient(limits)));
        until(|| home.nodes().len() == 1).await;
        let device = Dialed::device(home.local_addr(), "cvd-1").await;
        let program = Program::new(true);
        program.joins(&engine);
        let other = Self { engine, home, program, device };
        let mut control = other.stream().await;
        control.write_all(request("/cluster/control").as_bytes()).await.unwrap();
        assert!(reads(&mut control, b"\r\n\r\n").await);
        // It answers each ping.
        tokio::spawn(async move {
            while control.read_u16().await.is_ok() {
                control.write_all(&frame(PONG, b"")).await.unwrap();
            }
        });
        other
    }

    async fn stream(&self) -> TlsStream<TcpStream> {
        self.program.connects(self.home.node_address().unwrap()).await
    }

    /// Connects a client over a stream, which sends its number.
    async fn client(&mut self, stream: &mut TlsStream<TcpStream>, number: u32) {
        // It has no lease of its own.
        self.program.joins(&self.engine);
        stream.write_all(request(CONNECT).as_bytes()).await.unwrap();
        let info = br#"{"message_type":"device_info","device_info":{}}"#;
        assert!(reads(stream, info).await, "client {number}");
        stream.write_all(&frame(TEXT, number.to_string().as_bytes())).await.unwrap();
        let heard = format!(r#"{{"message_type":"client_msg","client_id":{number},"payload":{number}}}"#);
        self.device.hears(&heard).await;
    }

    async fn hears_end(&mut self, number: u32) {
        self.device.hears(&format!(r#"{{"message_type":"client_disconnected","client_id":{number}}}"#)).await;
    }
}

#[test]
fn bytes_behind_a_close_frame_reach_no_other_client() {
    block_on(async {
        // No connection is closed for its silence: one that is used again waits for the next request.
        let limits = Limits { request_head_timeout: Duration::from_secs(600), ..Limits::default() };
        let mut other = Other::start(limits).await;
        let late = frame(TEXT, br#""late""#);
        let next = request(CONNECT).into_bytes();
        for (number, behind) in [(1, late.clone()), (2, next), (3, vec![0; 3]), (4, late[..4].to_vec())] {
            let mut stream = other.stream().await;
            other.client(&mut stream, number).await;
            // In one record, so that both come together.
            stream.write_all(&[leaves(), behind].concat()).await.unwrap();
            assert_eq!(rest(&mut stream).await, CLOSED, "client {number}");
            other.hears_end(number).await;
        }
        // A frame that comes after the answer to the close frame is no request.
        let mut stream = other.stream().await;
        other.client(&mut stream, 5).await;
        stream.write_all(&leaves()).await.unwrap();
        assert!(reads(&mut stream, CLOSED).await);
        stream.write_all(&late).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
        other.hears_end(5).await;
        assert_eq!(other.device.round_trip().await, Vec::<String>::new());
    });
}

#[test]
fn each_request_over_a_connection_has_a_session_and_a_deadline_of_its_own() {
    block_on(async {
        let limits = Limits { request_head_timeout: Duration::from_secs(3), ..Limits::default() };
        let mut other = Other::start(limits).await;
        let mut stream = other.stream().await;
        for number in 1..=20 {
            other.client(&mut stream, number).await;
            stream.write_all(&leaves()).await.unwrap();
            assert!(reads(&mut stream, CLOSED).await);
            other.hears_end(number).await;
        }
        // Half of a head: the node waits for the rest as long as for that of a new connection.
        stream.write_all(b"GET /cluster/hello HTTP/1.1\r\nhost:").await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    });
}

#[test]
fn connection_whose_close_frames_crossed_is_closed() {
    block_on(async {
        let mut other = Other::start(Limits::default()).await;
        let mut stream = other.stream().await;
        other.client(&mut stream, 1).await;
        // The node of the device closes first, and then hears the close frame.
        let Other { home, device, .. } = other;
        drop(device);
        assert!(reads(&mut stream, br#"{"error":"Device disconnected"}"#).await);
        stream.write_all(&leaves()).await.unwrap();
        stream.write_all(request(CONNECT).as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        drop(home);
        assert!(answer.starts_with(&[0x88]) && !answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
    });
}
