//! Hostile peers: too many, too fast, too large, too slow, or foreign. Each gets an error and does not affect others:
//! every test ends with a working pair of peers and a balanced ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::hooks::{AuthorizeRequest, HookFuture, Hooks, IceQuestion};
use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::peer::Grant;
use cuttlefish_signaling::protocol::IceServers;
use cuttlefish_signaling::rate::Rate;
use cuttlefish_signaling::{Config, IceSource, Limits, NoHooks, Running, Server};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::dial::{Dialed, Received, advance, block_on, roomy, serve, serve_with, with_timeout};
use crate::raw_peer::upgrade;

fn limited(limits: Limits) -> Arc<Running> {
    serve(Config { limits, ..Config::default() })
}

/// A new pair of peers exchanges messages, and the ledger balances.
async fn assert_healthy(server: &Running) {
    let address = server.local_addr();
    let mut device = Dialed::device(address, "good").await;
    let mut client = Dialed::client(address, "good").await;
    client.says(r#"{"message_type":"forward","payload":1}"#).await;
    // The client id depends on the earlier clients of this device.
    let Received::Text(heard) = device.next().await else { panic!("the device was closed") };
    let heard: serde_json::Value = serde_json::from_str(&heard).unwrap();
    assert_eq!((&heard["message_type"], &heard["payload"]), (&json!("client_msg"), &json!(1)));
    let id = &heard["client_id"];
    device.says(&format!(r#"{{"message_type":"forward","client_id":{id},"payload":2}}"#)).await;
    client.hears(r#"{"message_type":"device_msg","payload":2}"#).await;
    drop((device, client));
    with_timeout("the stop", server.stop(Duration::from_secs(2))).await;
    let ledger = server.ledger();
    assert!(ledger.balances(), "{ledger:?}");
}

/// The answer to a request, up to the end of the connection.
pub async fn answer(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    with_timeout("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn connection_over_the_limit_gets_503_with_retry_after() {
    block_on(async {
        let server = limited(Limits { max_connections: 2, ..Limits::default() });
        let address = server.local_addr();
        let first = Dialed::open(address, "/register_device").await;
        let second = Dialed::open(address, "/connect_client").await;
        for path in ["/register_device", "/connect_client", "/devices", "/readyz", "/unknown"] {
            let response = answer(address, &upgrade(path)).await.to_lowercase();
            assert!(response.starts_with("http/1.1 503 "), "{response}");
            assert!(
                response.contains("retry-after: 1\r\n") && response.contains("connection: close\r\n"),
                "{response}"
            );
            assert!(response.ends_with(r#"{"error":"too many connections"}"#), "{response}");
        }
        assert_eq!(server.incidents().of(Incident::TurnedAway), 5);
        for path in ["/healthz", "/metrics"] {
            let response = answer(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            assert!(response.starts_with("HTTP/1.1 200 ") && response.contains("connection: close\r\n"), "{response}");
        }
        drop((first, second));
        while server.hub().connections() > 0 {
            tokio::task::yield_now().await;
        }
        assert_healthy(&server).await;
    });
}

#[test]
fn slow_handshakes_do_not_block_new_connections() {
    block_on(async {
        let opening_silence = Duration::from_millis(20);
        let server = limited(Limits { max_opening: 100, opening_silence, ..Limits::default() });
        let mut slow = Vec::new();
        for _ in 0..1000 {
            let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
            stream.write_all(b"GET /register_device HT").await.unwrap();
            slow.push(stream);
        }
        assert_healthy(&server).await;
        assert!(server.incidents().of(Incident::OpeningCut) >= 900);
    });
}

#[test]
fn devices_and_clients_are_limited() {
    block_on(async {
        let server = limited(Limits { max_devices: 1, max_clients_per_device: 1, ..Limits::default() });
        let address = server.local_addr();
        let mut early = Dialed::open(address, "/register_device").await;
        let device = Dialed::device(address, "good").await;
        early.says(r#"{"message_type":"register","device_id":"other"}"#).await;
        early.hears(r#"{"error":"Registration failed: Too many devices"}"#).await;
        assert_eq!(early.next().await, Received::Closed(1013));
        let mut again = Dialed::open(address, "/connect_client").await;
        let client = Dialed::client(address, "good").await;
        again.says(r#"{"message_type":"connect","device_id":"good"}"#).await;
        again.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        again.hears(r#"{"error":"Connection failed: Too many clients of device 'good'"}"#).await;
        assert_eq!(again.next().await, Received::Closed(1013));
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(upgrade("/register_device").as_bytes()).await.unwrap();
        let mut response = [0; 13];
        late.read_exact(&mut response).await.unwrap();
        assert_eq!(&response, b"HTTP/1.1 503 ");
        drop((device, client));
        while !server.hub().devices().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_healthy(&server).await;
    });
}

/// Sends the message until the server closes with 1008; returns the last text before.
async fn send_until_closed(peer: &mut Dialed, message: Message) -> Option<String> {
    for _ in 0..1000 {
        peer.send(message.clone()).await;
    }
    let mut response = None;
    loop {
        match peer.next().await {
            Received::Text(text) => response = Some(text),
            Received::Closed(code) => {
                assert_eq!(code, 1008);
                return response;
            }
            Received::Lost | Received::Pong(_) => return response,
        }
    }
}

#[test]
fn errors_and_pings_over_their_rate_get_an_error_and_1008() {
    let slowly = Rate { per_second: 1, burst: 50 };
    let unknown_type = Message::text(r#"{"message_type":"?"}"#);
    let cases = [
        (Limits { errors: slowly, ..Limits::default() }, unknown_type, "errors: at most 1 a second"),
        (Limits { pings: slowly, ..Limits::default() }, Message::Ping("x".into()), "pings: at most 1 a second"),
    ];
    for (limits, message, limit) in cases {
        block_on(async {
            let server = limited(limits);
            let address = server.local_addr();
            let mut device = Dialed::device(address, "cvd-1").await;
            let mut client = Dialed::client(address, "cvd-1").await;
            let response = send_until_closed(&mut device, message).await;
            assert_eq!(response, Some(format!(r#"{{"error":"Too many {limit}"}}"#)));
            assert_eq!(server.incidents().of(Incident::TooFast), 1);
            // Its client is closed after the messages that came before.
            while client.next().await != Received::Closed(1000) {}
            assert_healthy(&server).await;
        });
    }
}

#[test]
fn messages_and_bytes_over_their_rate_are_delayed_and_arrive() {
    let cases = [
        Limits { messages: Rate { per_second: 10, burst: 50 }, ..Limits::default() },
        Limits { bytes: Rate { per_second: 500, burst: 5000 }, ..Limits::default() },
    ];
    for limits in cases {
        block_on(async {
            let server = limited(limits);
            let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
            let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
            server.clock().freeze();
            for n in 0..200 {
                device.says(&format!(r#"{{"message_type":"forward","client_id":1,"payload":{n}}}"#)).await;
            }
            let mut heard = 0;
            let mut turns = 0;
            while heard < 200 {
                advance(&server, Duration::from_secs(1)).await;
                turns += 1;
                while heard < server.ledger().delivered {
                    client.hears(&format!(r#"{{"message_type":"device_msg","payload":{heard}}}"#)).await;
                    heard += 1;
                }
            }
            assert!(turns > 10, "200 messages came within {turns} s");
            assert_eq!(server.incidents().of(Incident::TooFast), 0);
            assert_healthy(&server).await;
        });
    }
}

#[test]
fn tiny_fragments_count_against_the_byte_rate() {
    block_on(async {
        let server = limited(Limits { bytes: Rate { per_second: 1000, burst: 20_000 }, ..Limits::default() });
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        server.clock().freeze();
        let part =
            |part: &str, opcode, last| Message::Frame(Frame::message(part.to_owned(), OpCode::Data(opcode), last));
        device.send(part(r#"{"message_type":"?","more":""#, Data::Text, false)).await;
        for _ in 0..10_000 {
            device.send(part("x", Data::Continue, false)).await;
        }
        device.send(part(r#""}"#, Data::Continue, true)).await;
        device.says(r#"{"message_type":"forward","client_id":9,"payload":0}"#).await;
        let mut seconds = 0;
        while server.ledger().refused == 0 {
            advance(&server, Duration::from_secs(1)).await;
            seconds += 1;
            assert!(seconds < 1000, "it was never read");
        }
        // 70,000 bytes came over the network, although the text has 10,000.
        assert!(seconds >= 40, "all was read within {seconds} s");
        device.hears(r#"{"error":"Unknown message type: ?"}"#).await;
        device.hears(r#"{"error":"Forward failed: Unknown client 9"}"#).await;
    });
}

#[test]
fn first_message_has_a_smaller_size_limit() {
    block_on(async {
        let server = limited(Limits { max_first_message: 1000, ..Limits::default() });
        let address = server.local_addr();
        let register = |size: usize| {
            let head = r#"{"message_type":"register","device_id":"cvd-1","device_info":""#;
            format!(r#"{head}{}"}}"#, "x".repeat(size - head.len() - 2))
        };
        let mut large = Dialed::open(address, "/register_device").await;
        large.says(&register(1001)).await;
        assert_eq!(large.next().await, Received::Closed(1009));
        let mut fitting = Dialed::open(address, "/register_device").await;
        fitting.says(&register(1000)).await;
        fitting.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        fitting.says(&format!(r#"{{"message_type":"?","more":"{}"}}"#, "x".repeat(5000))).await;
        fitting.hears(r#"{"error":"Unknown message type: ?"}"#).await;
        // The sum of all fragments counts, though the message never ends.
        let mut endless = Dialed::open(address, "/register_device").await;
        endless.send(Message::Frame(Frame::message("\"", OpCode::Data(Data::Text), false))).await;
        for _ in 0..300 {
            endless.send(Message::Frame(Frame::message("xxxxxxxx", OpCode::Data(Data::Continue), false))).await;
        }
        assert_eq!(endless.next().await, Received::Closed(1009));
        assert_healthy(&server).await;
    });
}

#[test]
fn slow_consumer_is_closed_after_write_timeout() {
    block_on(async {
        let server = serve(roomy());
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let stuck = Dialed::client(address, "cvd-1").await;
        stuck.freeze();
        let large = format!(r#"{{"message_type":"forward","client_id":1,"payload":"{}"}}"#, "x".repeat(60_000));
        server.clock().freeze();
        // More than the system's buffers, less than the outbox.
        for _ in 0..300 {
            device.says(&large).await;
        }
        device.round_trip().await;
        advance(&server, Duration::from_millis(9_900)).await;
        assert!(device.round_trip().await.is_empty(), "the timeout is not over");
        advance(&server, Duration::from_millis(100)).await;
        device.hears(r#"{"message_type":"client_disconnected","client_id":1}"#).await;
        assert_eq!(server.incidents().of(Incident::SlowConsumer), 1);
        drop(stuck);
        drop(device);
        assert_healthy(&server).await;
    });
}

/// Panics for the device ids `bad` and `worse`.
struct PanicsOnBadIds;

impl Hooks for PanicsOnBadIds {
    fn ice_servers(&self, question: &IceQuestion) -> Option<HookFuture<IceServers>> {
        let id = question.device_id.as_ref().map(ToString::to_string);
        assert!(id.as_deref() != Some("bad"), "on purpose");
        Some(HookFuture::new(async move {
            assert!(id.as_deref() != Some("worse"), "on purpose, later");
            Ok(IceServers::default())
        }))
    }
}

#[test]
fn panic_ends_only_its_own_connection() {
    block_on(async {
        let config = Config { ice: IceSource::Hook, ..Config::default() };
        let server = serve_with(config, Arc::new(PanicsOnBadIds));
        for id in ["bad", "worse"] {
            let mut device = Dialed::open(server.local_addr(), "/register_device").await;
            device.says(&format!(r#"{{"message_type":"register","device_id":"{id}"}}"#)).await;
            assert_eq!(device.next().await, Received::Lost);
        }
        assert_eq!(server.incidents().of(Incident::Panic), 2);
        assert_eq!(server.hub().connections(), 0, "it has left the hub");
        assert_healthy(&server).await;
    });
}

struct AllowsAll;

impl Hooks for AllowsAll {
    fn authenticates(&self) -> bool {
        true
    }

    fn authorize(&self, _: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        Some(HookFuture::new(async { Ok(Grant::default()) }))
    }
}

#[test]
fn public_address_requires_authentication() {
    let everywhere = Config { host: [0, 0, 0, 0].into(), ..Config::default() };
    let bind = |config: &Config, hooks: Arc<dyn Hooks>| Server::bind(config.clone(), hooks, Arc::new(())).map(drop);
    let refused = bind(&everywhere, Arc::new(NoHooks)).unwrap_err().to_string();
    assert!(refused.contains("host: 0.0.0.0 can be reached from other machines"), "{refused}");
    assert!(refused.contains("allow_unauthenticated"), "{refused}");
    bind(&everywhere, Arc::new(AllowsAll)).unwrap();
    bind(&Config { allow_unauthenticated: true, ..everywhere }, Arc::new(NoHooks)).unwrap();
}

#[test]
fn foreign_origin_and_host_are_refused_on_every_path() {
    block_on(async {
        let server = serve(Config::default());
        let address = server.local_addr();
        let cases = [
            (
                "/connect_client",
                "Host: localhost\r\nOrigin: https://evil.example",
                "403",
                "Origin not allowed: https://evil.example; --allow-origin admits it",
            ),
            (
                "/devices",
                "Host: localhost\r\nOrigin: null",
                "403",
                "Origin not allowed: null; --allow-origin admits it",
            ),
            ("/unknown", "Host: evil.example", "403", "Host not allowed: evil.example; --allow-host admits it"),
            (
                "/register_device",
                "Host: evil.example:80",
                "403",
                "Host not allowed: evil.example:80; --allow-host admits it",
            ),
            ("/healthz", "Host: localhost\r\nHost: evil.example", "400", "More than one Host"),
            ("/healthz", "X-Host: localhost", "400", "Host is missing"),
            (
                "http://evil.example/healthz",
                "Host: localhost",
                "403",
                "Host not allowed: evil.example; --allow-host admits it",
            ),
            (
                "/devices",
                "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors",
                "403",
                "Pages of other sites are not allowed; --allow-origin admits one, for requests with an Origin",
            ),
        ];
        for (path, headers, status, words) in cases {
            let request = upgrade(path).replace("Host: localhost", headers);
            let response = answer(address, &request.replace("Connection: Upgrade", "Connection: close, Upgrade")).await;
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            assert!(response.ends_with(&format!(r#"{{"error":"{words}"}}"#)), "{response}");
            assert!(!response.to_lowercase().contains("access-control"), "{response}");
        }
        assert_eq!(server.incidents().of(Incident::Foreign), 8);
        assert_healthy(&server).await;
    });
}
