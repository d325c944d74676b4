//! Requests that another node answers: polled connections, files and adb (docs/protocol.md 5.4.13 to 5.4.16).

use std::net::SocketAddr;
use std::sync::Arc;

use cuttlefish_signaling::hooks::{AuthorizeRequest, HookFuture};
use cuttlefish_signaling::peer::Grant;
use cuttlefish_signaling::{Adb, Config, Hooks, Running, Server};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::{Killable, Memory, Nodes, settings, start, timing, until};
use crate::dial::{Dialed, Received, block_on, keep, with_timeout};
use crate::packets::Packets;

/// Sends a request on a connection of its own. Returns the status and the body.
pub async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    ask_as(address, method, path, body, "").await
}

async fn ask_as(address: SocketAddr, method: &str, path: &str, body: &str, user: &str) -> (u16, String) {
    let answer = ask_whole(address, method, path, body, user).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Sends a request. Returns the whole answer.
pub async fn ask_whole(address: SocketAddr, method: &str, path: &str, body: &str, user: &str) -> String {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-User: {user}\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    with_timeout("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn id_in(answer: &str) -> String {
    let (_, rest) = answer.split_once(r#""connection_id":""#).unwrap_or_else(|| panic!("{answer}"));
    rest.split('"').next().unwrap().to_owned()
}

async fn known_on(node: &Running, id: &str) {
    until(|| node.node_of(&cuttlefish_signaling::protocol::DeviceId::new(id)).is_some()).await;
}

#[test]
fn polled_client_is_answered_by_each_node() {
    block_on(async {
        let nodes = Nodes::start(3, Config::default()).await;
        let (a, b, c) = (nodes.address(0), nodes.address(1), nodes.address(2));
        let mut device = Dialed::device(a, "cvd-1").await;
        let (status, answer) = ask(b, "POST", "/polled_connections", r#"{"device_id":"cvd-1"}"#).await;
        assert_eq!(status, 200, "{answer}");
        let id = id_in(&answer);
        assert_eq!(id.len(), 10 + 1 + 32, "{id}");
        assert!(answer.ends_with(r#""device_info":{}}"#), "{answer}");
        for (number, node) in [a, b, c].into_iter().enumerate() {
            let path = format!("/polled_connections/{id}/:forward");
            let ok = ask(node, "POST", &path, &format!(r#"{{"payload":{number}}}"#)).await;
            assert_eq!(ok, (200, r#""ok""#.to_owned()));
            device.hears(&format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{number}}}"#)).await;
            device.says(&format!(r#"{{"message_type":"forward","client_id":1,"payload":{number}}}"#)).await;
            let path = format!("/polled_connections/{id}/messages?start={number}&wait=5");
            let messages = ask(node, "GET", &path, "").await;
            assert_eq!(messages, (200, format!(r#"[{{"message_type":"device_msg","payload":{number}}}]"#)));
        }
        let wrong = ask(c, "GET", &format!("/polled_connections/{id}/messages?start=0"), "").await;
        assert_eq!(wrong.0, 410, "{}", wrong.1);
        let wrong = ask(c, "POST", &format!("/polled_connections/{id}/:forward"), "{}").await;
        assert_eq!(wrong, (400, r#"{"error":"Forward failed: No payload present in message"}"#.to_owned()));
    });
}

#[test]
fn polled_client_of_the_reference_server_is_answered_by_each_node() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let (a, b) = (nodes.address(0), nodes.address(1));
        let mut device = Dialed::device(a, "cvd-1").await;
        let (_, answer) = ask(a, "POST", "/connect", r#"{"device_id":"cvd-1"}"#).await;
        let id = id_in(&answer);
        let forward = format!(r#"{{"connection_id":"{id}","payload":"hi"}}"#);
        assert_eq!(ask(b, "POST", "/forward", &forward).await, (200, "[]".to_owned()));
        device.hears(r#"{"message_type":"client_msg","client_id":1,"payload":"hi"}"#).await;
        device.says(r#"{"message_type":"forward","client_id":1,"payload":"ho"}"#).await;
        let poll = format!(r#"{{"connection_id":"{id}"}}"#);
        loop {
            let (status, answer) = ask(b, "POST", "/poll_messages", &poll).await;
            assert_eq!(status, 200, "{answer}");
            if answer != "[]" {
                assert_eq!(answer, r#"["ho"]"#);
                break;
            }
        }
        let (status, answer) = ask(b, "POST", "/forward", &poll).await;
        let text = r#"{"error":"Forward failed: No payload present in message","type":"error"}"#;
        assert_eq!((status, &*answer), (400, text));
    });
}

#[test]
fn connection_of_a_node_that_is_gone_is_unknown() {
    block_on(async {
        let engine = Memory::new(timing());
        let a = start(&engine, settings("a", Config::default()));
        let lost = Killable::start(&engine, "b");
        until(|| a.nodes().len() == 2).await;
        let _device = Dialed::device(a.local_addr(), "cvd-1").await;
        let (_, answer) = ask(lost.address, "POST", "/polled_connections", r#"{"device_id":"cvd-1"}"#).await;
        let path = format!("/polled_connections/{}/messages", id_in(&answer));
        assert_eq!(ask(a.local_addr(), "GET", &path, "").await, (200, "[]".to_owned()));
        lost.kill();
        // Until its lease has ended, the node may only be out of reach.
        let (status, answer) = ask(a.local_addr(), "GET", &path, "").await;
        assert!(status == 404 || (status == 504 && answer.contains("Node \\\"b\\\" cannot be reached")), "{answer}");
        until(|| a.nodes().len() == 1).await;
        let unknown = (404, r#"{"error":"Unknown connection"}"#.to_owned());
        assert_eq!(ask(a.local_addr(), "GET", &path, "").await, unknown);
        for id in ["0000000000.00000000000000000000000000000000", "x.y", "."] {
            assert_eq!(ask(a.local_addr(), "GET", &format!("/polled_connections/{id}/messages"), "").await, unknown);
        }
    });
}

/// Each user may use the devices whose ids begin with `cvd`, but `guest` those of other names only.
struct Users;

impl Hooks for Users {
    fn authorize(&self, request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        let headers = request.request.unpack().headers;
        let user = headers.into_iter().find(|(name, _)| name == "x-user").map(|(_, user)| user).unwrap_or_default();
        let patterns = if user == "guest" { ["other*"] } else { ["cvd*"] };
        let grant = Grant::of(Some(format!("\"{user}\"").into()), &patterns);
        Some(HookFuture::new(async move { Ok(grant) }))
    }

    fn wants_requests(&self) -> bool {
        true
    }

    fn authenticates(&self) -> bool {
        true
    }
}

#[test]
fn identity_and_grant_are_those_of_the_sender() {
    block_on(async {
        let engine = Memory::new(timing());
        let start = |name: &str| {
            let config = settings(name, Config::default());
            keep(
                Server::bind_with_engine(config, Arc::new(Users), Arc::new(()), Arc::new(engine.clone()))
                    .unwrap()
                    .serve(),
            )
        };
        let (a, b) = (start("a"), start("b"));
        until(|| a.nodes().len() == 2 && b.nodes().len() == 2).await;
        let _device = Dialed::device(a.local_addr(), "cvd-1").await;
        let connect = r#"{"device_id":"cvd-1"}"#;
        let (_, answer) = ask_as(a.local_addr(), "POST", "/polled_connections", connect, "ann").await;
        let path = format!("/polled_connections/{}/messages", id_in(&answer));
        for (node, user, status) in [
            (&a, "ann", 200),
            (&b, "ann", 200),
            (&a, "bob", 404),
            (&b, "bob", 404),
            (&a, "guest", 404),
            (&b, "guest", 404),
        ] {
            let (found, answer) = ask_as(node.local_addr(), "GET", &path, "", user).await;
            assert_eq!(found, status, "{user}: {answer}");
        }
        let facts_of_a_peer = ask(b.local_addr(), "GET", &format!("/cluster/local{path}"), "").await;
        assert_eq!(facts_of_a_peer.0, 404, "the peers' port passes nothing on");
    });
}

#[test]
fn adb_goes_to_the_node_of_the_device() {
    block_on(async {
        let on = Config { adb: Adb { is_on: true, ..Adb::default() }, ..Config::default() };
        let nodes = Nodes::start(2, on).await;
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut device = Dialed::open(nodes.address(0), "/register_device").await;
        let info = format!(r#"{{"adb_port":{}}}"#, port.local_addr().unwrap().port());
        device.says(&format!(r#"{{"message_type":"register","device_id":"d","device_info":{info}}}"#)).await;
        device.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        known_on(&nodes.nodes[1], "d").await;
        let stream = TcpStream::connect(nodes.address(1)).await.unwrap();
        let url = format!("ws://{}/devices/d/adb", nodes.address(1));
        let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let (mut adb, _) = with_timeout("the connection to adb", port.accept()).await.unwrap();
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(200_000).collect();
        for part in sent.chunks(32 * 1024) {
            client.send(Message::binary(part.to_vec())).await.unwrap();
        }
        let mut heard = vec![0; sent.len()];
        with_timeout("the bytes", adb.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, sent);
        adb.write_all(b"answer").await.unwrap();
        drop(adb);
        let mut heard = Vec::new();
        let reason = loop {
            match with_timeout("a message", client.next()).await {
                Some(Ok(Message::Binary(bytes))) => heard.extend(bytes),
                Some(Ok(Message::Close(Some(frame)))) => break frame.reason.to_string(),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((heard.as_slice(), reason.as_str()), (b"answer".as_slice(), "The device closed the adb connection"));
    });
}

/// A client of adb has a grant for a moment, and all others one forever.
struct Brief;

impl Hooks for Brief {
    fn authorize(&self, request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        let is_adb = request.request.unpack().path.ends_with("/adb");
        let valid_for = is_adb.then_some(std::time::Duration::from_secs(2));
        Some(HookFuture::new(async move { Ok(Grant { valid_for, ..Grant::default() }) }))
    }

    fn wants_requests(&self) -> bool {
        true
    }

    fn authenticates(&self) -> bool {
        true
    }
}

#[test]
fn adb_over_another_node_ends_when_the_grant_expires() {
    block_on(async {
        let engine = Memory::new(timing());
        let start = |name: &str| {
            let on = Config { adb: Adb { is_on: true, ..Adb::default() }, ..Config::default() };
            let server =
                Server::bind_with_engine(settings(name, on), Arc::new(Brief), Arc::new(()), Arc::new(engine.clone()));
            keep(server.unwrap().serve())
        };
        let (a, b) = (start("a"), start("b"));
        until(|| a.nodes().len() == 2 && b.nodes().len() == 2).await;
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut device = Dialed::open(a.local_addr(), "/register_device").await;
        let info = format!(r#"{{"adb_port":{}}}"#, port.local_addr().unwrap().port());
        device.says(&format!(r#"{{"message_type":"register","device_id":"d","device_info":{info}}}"#)).await;
        device.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        known_on(&b, "d").await;
        for node in [&a, &b] {
            let stream = TcpStream::connect(node.local_addr()).await.unwrap();
            let url = format!("ws://{}/devices/d/adb", node.local_addr());
            let (mut client, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
            let (mut adb, _) = with_timeout("the connection to adb", port.accept()).await.unwrap();
            let end = loop {
                match with_timeout("the close frame", client.next()).await {
                    Some(Ok(Message::Close(Some(frame)))) => break (u16::from(frame.code), frame.reason.to_string()),
                    Some(Ok(_)) => {}
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(end, (1008, "Authorization expired".to_owned()));
            let mut rest = Vec::new();
            let read = with_timeout("the end of the connection to adb", adb.read_to_end(&mut rest)).await;
            assert!(read.is_err() || rest.is_empty());
        }
    });
}

/// The web server of a device. It answers with the first line of the request.
async fn serve_files(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        let length = line.len();
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{line}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[test]
fn local_id_is_known_on_its_own_node_and_files_on_each() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let engine = Memory::new(timing());
        let config = |name: &str| {
            let mut config = settings(name, Config { proxy_device_files: true, ..Config::default() });
            config.device_socket = Some(place.path().join(name));
            config.cluster.as_mut().unwrap().device_id_template = Some("{node}-{id}".into());
            config
        };
        let (a, b) = (start(&engine, config("a")), start(&engine, config("b")));
        until(|| a.nodes().len() == 2 && b.nodes().len() == 2).await;
        let files = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = files.local_addr().unwrap().port();
        let web_server = tokio::spawn(serve_files(files));
        let one = Packets::open(&place.path().join("a")).await;
        let register = r#"{"message_type":"register","device_id":"cvd-1","device_info":{}"#;
        one.says(&format!(r#"{register},"device_port":{port}}}"#)).await;
        assert_eq!(one.next().await, Received::Text(r#"{"message_type":"config","ice_servers":[]}"#.into()));
        let two = Packets::device(&place.path().join("b"), "cvd-1").await;
        known_on(&b, "a-cvd-1").await;
        known_on(&a, "b-cvd-1").await;
        for (node, id, status) in [(&a, "cvd-1", 200), (&a, "a-cvd-1", 200), (&b, "a-cvd-1", 200), (&b, "cvd-1", 404)] {
            let path = format!("/devices/{id}/files/client.html?x=%20");
            let (found, body) = ask(node.local_addr(), "GET", &path, "").await;
            assert_eq!(found, status, "{id}: {body}");
            if found == 200 {
                assert!(body.contains("GET /client.html?x=%20"), "{body}");
            }
        }
        assert_eq!(ask(a.local_addr(), "GET", "/devices/cvd-1", "").await.0, 200);
        let (_, answer) = ask(b.local_addr(), "POST", "/polled_connections", r#"{"device_id":"cvd-1"}"#).await;
        assert_eq!(b.hub().devices()[0].client_count(), 1, "{answer}");
        web_server.abort();
        drop((one, two));
    });
}
