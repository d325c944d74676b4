//! The connections between nodes when the network between them fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::server::NodeState;
use cuttlefish_signaling::{Config, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::known::{state_of, until_unreachable};
use super::memory::Memory;
use super::{settings, start, timing, until};
use crate::dial::{Dialed, Received, block_on};

const DISCONNECTED: &str = r#"{"error":"Device disconnected"}"#;

/// State of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Works,
    /// Nothing arrives, and neither end is told.
    Stalls,
    /// All connections end.
    Cuts,
}

/// A network before the listener of a node, under the control of the test.
struct Relay {
    address: SocketAddr,
    state: watch::Sender<Network>,
    target: Arc<std::sync::OnceLock<SocketAddr>>,
}

impl Relay {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, target) = (watch::Sender::new(Network::Works), Arc::new(std::sync::OnceLock::new()));
        let (states, to) = (state.clone(), Arc::clone(&target));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, to) = (states.subscribe(), *to.get().unwrap());
                tokio::spawn(async move { relay(stream, TcpStream::connect(to).await.unwrap(), state).await });
            }
        });
        Self { address, state, target }
    }
}

async fn relay(mut from: TcpStream, mut to: TcpStream, mut state: watch::Receiver<Network>) {
    tokio::select! {
        _ = copy_bidirectional(&mut from, &mut to) => return,
        changed = state.wait_for(|state| *state != Network::Works) => {
            if changed.is_err() || *changed.unwrap() == Network::Cuts {
                return;
            }
        }
    }
    let _cut = state.wait_for(|state| *state == Network::Cuts).await;
}

/// A pair whose node A is behind a network that fails so: the client hears that the device has left, and the device that
/// the client has.
async fn pair_ends(network: Network) {
    let (engine, net) = (Memory::new(timing()), Relay::start().await);
    let mut config = settings("a", Config::default());
    config.cluster.as_mut().unwrap().address = Some(net.address.to_string());
    let a = start(&engine, config);
    net.target.set(a.node_address().unwrap()).unwrap();
    // A connection that a client leaves is kept for half of this time.
    let limits = Limits { request_head_timeout: Duration::from_secs(600), ..Limits::default() };
    let b = start(&engine, settings("b", Config { limits, ..Config::default() }));
    until(|| [&a, &b].iter().all(|node| node.nodes().len() == 2)).await;
    let mut device = Dialed::device(a.local_addr(), "cvd-1").await;
    let mut client = Dialed::client(b.local_addr(), "cvd-1").await;
    drop(Dialed::client(b.local_addr(), "cvd-1").await);
    device.hears(r#"{"message_type":"client_disconnected","client_id":2}"#).await;
    let mut local = Dialed::client(a.local_addr(), "cvd-1").await;
    net.state.send_replace(network);
    client.hears(DISCONNECTED).await;
    assert_eq!(client.next().await, Received::Closed(1000));
    device.hears(r#"{"message_type":"client_disconnected","client_id":1}"#).await;
    // A client of the device's own node goes on.
    local.says(r#"{"message_type":"forward","payload":1}"#).await;
    device.hears(r#"{"message_type":"client_msg","client_id":3,"payload":1}"#).await;
    if network == Network::Stalls {
        // The node cannot be reached, and that is no reason to say that there is no such device.
        let mut late = Dialed::open(b.local_addr(), "/connect_client").await;
        late.says(r#"{"message_type":"connect","device_id":"cvd-1"}"#).await;
        late.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        late.hears(r#"{"error":"Connection failed: Cluster unavailable"}"#).await;
    }
    net.state.send_replace(Network::Works);
    let again = Dialed::client(b.local_addr(), "cvd-1").await;
    drop(again);
    device.hears(r#"{"message_type":"client_disconnected","client_id":4}"#).await;
}

#[test]
fn network_that_stalls_between_nodes_ends_the_pairs_on_both_sides() {
    block_on(pair_ends(Network::Stalls));
}

#[test]
fn network_that_is_cut_between_nodes_ends_the_pairs_on_both_sides() {
    block_on(pair_ends(Network::Cuts));
}

#[test]
fn node_behind_a_port_that_closes_cannot_be_reached_until_it_opens() {
    block_on(async {
        let (engine, net) = (Memory::new(timing()), Relay::start().await);
        let mut config = settings("a", Config::default());
        config.cluster.as_mut().unwrap().address = Some(net.address.to_string());
        let a = start(&engine, config);
        net.target.set(a.node_address().unwrap()).unwrap();
        let wait = Config { device_wait_timeout: Some(Duration::from_secs(600)), ..Config::default() };
        let b = start(&engine, settings("b", wait));
        until(|| [&a, &b].iter().all(|node| node.nodes().len() == 2)).await;
        let _device = Dialed::device(a.local_addr(), "cvd-1").await;
        let mut client = Dialed::client(b.local_addr(), "cvd-1").await;
        until_unreachable(&b, 0.0).await;
        net.state.send_replace(Network::Cuts);
        client.hears(DISCONNECTED).await;
        // The dial of one client is enough.
        let mut late = Dialed::open(b.local_addr(), "/connect_client").await;
        late.says(r#"{"message_type":"connect","device_id":"cvd-1"}"#).await;
        late.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        until_unreachable(&b, 1.0).await;
        assert_eq!(state_of(&b, "a"), NodeState::Unreachable);
        net.state.send_replace(Network::Works);
        until_unreachable(&b, 0.0).await;
        assert_eq!(state_of(&b, "a"), NodeState::Alive);
        late.hears(r#"{"message_type":"device_info","device_info":{}}"#).await;
    });
}

/// An address at which another program listens, which speaks no TLS.
#[test]
fn client_is_not_sent_to_a_program_that_is_no_node() {
    block_on(async {
        let engine = Memory::new(timing());
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = settings("a", Config::default());
        config.cluster.as_mut().unwrap().address = Some(other.local_addr().unwrap().to_string());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = other.accept().await {
                let _closed = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                let _closed = stream.read(&mut [0; 1024]).await;
            }
        });
        let a = start(&engine, config);
        let b = start(&engine, settings("b", Config::default()));
        until(|| [&a, &b].iter().all(|node| node.nodes().len() == 2)).await;
        let _device = Dialed::device(a.local_addr(), "cvd-1").await;
        let mut client = Dialed::open(b.local_addr(), "/connect_client").await;
        client.says(r#"{"message_type":"connect","device_id":"cvd-1"}"#).await;
        client.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        client.hears(r#"{"error":"Connection failed: Cluster unavailable"}"#).await;
    });
}
