//! The transcripts, run over sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster;
use cuttlefish_signaling::Config;
use cuttlefish_signaling::server::Running;
use tokio_tungstenite::tungstenite::Message;

use crate::dial::{Dialed, Received, block_on, proxy_of, serve, with_timeout};
use crate::packets::Packets;
use crate::transcript::{Act, Case, assert_means, load, run_each};

#[test]
fn every_transcript_holds_over_sockets() {
    run_each(load(), |case| block_on(run(case, Layout::Alone)));
}

#[test]
fn every_transcript_holds_through_a_proxy() {
    run_each(load(), |case| block_on(run(case, Layout::Proxied)));
}

#[test]
fn every_transcript_holds_with_devices_and_clients_on_different_nodes() {
    run_each(load(), |case| block_on(run(case, Layout::Nodes)));
}

/// The servers of a conversation.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    Alone,
    /// WebSocket peers are connected to a proxy of the server.
    Proxied,
    /// Two nodes of a cluster.
    Nodes,
}

/// The server of devices, and the server of clients.
struct Stage {
    of_devices: Arc<Running>,
    of_clients: Arc<Running>,
    proxy: Option<Arc<Running>>,
}

impl Stage {
    /// One server, or two nodes of a cluster.
    async fn start(config: Config, layout: Layout) -> Self {
        if layout != Layout::Nodes {
            let server = serve(config);
            let proxy = (layout == Layout::Proxied).then(|| proxy_of(&server));
            return Self { of_devices: Arc::clone(&server), of_clients: server, proxy };
        }
        let mut of_clients = config.clone();
        (of_clients.device_socket, of_clients.control_socket) = (None, None);
        let [of_devices, of_clients] = cluster::two([config, of_clients]).await;
        Self { of_devices, of_clients, proxy: None }
    }

    fn connections(&self) -> usize {
        self.of_devices.hub().connections() + self.of_clients.hub().connections()
    }
}

/// A peer of a conversation.
enum TestPeer {
    Socket(Box<Dialed>),
    Packets(Packets),
}

impl TestPeer {
    async fn says(&mut self, text: &str) {
        match self {
            Self::Socket(socket) => socket.says(text).await,
            Self::Packets(packets) => packets.says(text).await,
        }
    }

    async fn next(&mut self) -> Received {
        match self {
            Self::Socket(socket) => socket.next().await,
            Self::Packets(packets) => packets.next().await,
        }
    }

    fn socket(&mut self) -> &mut Dialed {
        let Self::Socket(socket) = self else { panic!("only a WebSocket peer can do this") };
        socket
    }

    /// Leaves; true if no unexpected message came.
    async fn leaves(self, with_a_close: bool) -> bool {
        match self {
            Self::Socket(mut socket) => {
                let quiet = socket.round_trip().await.is_empty();
                if with_a_close {
                    socket.send(Message::Close(None)).await;
                    assert_eq!(socket.next().await, Received::Closed(1005));
                }
                quiet
            }
            Self::Packets(packets) => packets.leaves().await,
        }
    }
}

async fn run(mut case: Case, layout: Layout) {
    let place = tempfile::tempdir().unwrap();
    let (devices, control) = (place.path().join("devices"), place.path().join("control"));
    (case.config.device_socket, case.config.control_socket) = (Some(devices.clone()), Some(control.clone()));
    let stage = Stage::start(case.config, layout).await;
    let mut peers: BTreeMap<String, TestPeer> = BTreeMap::new();
    let mut frozen: Vec<TestPeer> = Vec::new();
    for line in case.lines {
        let place = &line.place;
        match line.act {
            Act::Opens(peer, role, of) => {
                let (server, path) = match of {
                    Some(id) => (&stage.of_clients, format!("/devices/{id}/connect")),
                    None if role == "device" => (&stage.of_devices, "/register_device".into()),
                    None => (&stage.of_clients, "/connect_client".into()),
                };
                let address = stage.proxy.as_ref().unwrap_or(server).local_addr();
                peers
                    .insert(peer, TestPeer::Socket(Box::new(Dialed::open_with(address, &path, case.cuttlefish).await)));
            }
            Act::OpensPackets(peer, role) => {
                let socket = if role == "device" { &devices } else { &control };
                peers.insert(peer, TestPeer::Packets(Packets::open(socket).await));
            }
            Act::Says(peer, text) => peers.get_mut(&peer).unwrap().says(&text).await,
            Act::SaysBinary(peer, bytes) => {
                peers.get_mut(&peer).unwrap().socket().send(Message::binary(bytes.into_bytes())).await;
            }
            Act::Hears(peer, expected) => {
                let Received::Text(heard) = peers.get_mut(&peer).unwrap().next().await else {
                    panic!("{place}: {peer} was closed instead");
                };
                assert_means(place, &peer, &heard, &expected);
            }
            Act::HearsText(peer, expected) => {
                assert_eq!(peers.get_mut(&peer).unwrap().next().await, Received::Text(expected), "{place}");
            }
            Act::Closes(peer, code, reason) => {
                let Some(TestPeer::Socket(mut socket)) = peers.remove(&peer) else { panic!("{place}: no WebSocket") };
                assert_eq!(socket.next().await, Received::Closed(code), "{place}");
                if let Some(reason) = reason {
                    assert_eq!(socket.close_reason(), &reason[..reason.len().min(123)], "{place}");
                }
            }
            Act::Ends(peer) => assert_eq!(peers.remove(&peer).unwrap().next().await, Received::Lost, "{place}"),
            Act::Leaves(peer) => leaves(&stage, peers.remove(&peer).unwrap(), true, place).await,
            Act::Drops(peer) => leaves(&stage, peers.remove(&peer).unwrap(), false, place).await,
            Act::Freezes(peer) => {
                let mut peer = peers.remove(&peer).unwrap();
                peer.socket().freeze();
                frozen.push(peer);
            }
            // The next line waits as long.
            Act::After(_) => {}
        }
    }
    for (name, peer) in &mut peers {
        if let TestPeer::Socket(socket) = peer {
            assert_eq!(socket.round_trip().await, Vec::<String>::new(), "{name} heard more than it should");
        }
    }
    for server in [&stage.of_clients, &stage.of_devices] {
        assert!(with_timeout("the stop", server.stop(Duration::from_secs(5))).await);
    }
    drop(frozen);
    for (name, peer) in peers {
        if let TestPeer::Packets(packets) = peer {
            assert!(packets.leaves().await, "{name} heard more than it should");
        }
    }
    for server in [&stage.of_clients, &stage.of_devices] {
        assert!(server.ledger().balances(), "{:?}", server.ledger());
    }
    assert_eq!(stage.connections(), 0);
    if let Some(proxy) = &stage.proxy {
        assert!(with_timeout("the stop", proxy.stop(Duration::from_secs(5))).await);
        assert!(proxy.ledger().balances(), "{:?}", proxy.ledger());
        let hub = proxy.hub();
        assert_eq!((hub.connections(), hub.device_count(), hub.client_count()), (0, 0, 0));
    }
}

async fn leaves(stage: &Stage, peer: TestPeer, with_a_close: bool, place: &str) {
    let connections = stage.connections();
    assert!(peer.leaves(with_a_close).await, "{place}: heard more before it left");
    until(|| stage.connections() < connections).await;
}

/// Waits for a condition that another task of this thread makes true.
async fn until(condition: impl Fn() -> bool) {
    with_timeout("a condition", async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
