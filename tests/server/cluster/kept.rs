//! Connections between nodes that are kept for the next client, and are lost meanwhile.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cuttlefish_signaling::{Config, Limits, Running};
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::memory::Memory;
use super::reused::{connections, patient, since, visit};
use super::{settings, start, timing, until};
use crate::dial::{Dialed, block_on};

/// A network before the listener of a node, which can end one connection when the next bytes for the node come.
struct Network {
    address: SocketAddr,
    target: Arc<OnceLock<SocketAddr>>,
    /// The connections that have come.
    came: Arc<AtomicUsize>,
    /// Those that have not ended.
    open: Arc<AtomicUsize>,
    /// The number of the connection that ends with its next bytes.
    cut: watch::Sender<Option<usize>>,
}

impl Network {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, target) = (watch::Sender::new(None), Arc::<OnceLock<SocketAddr>>::default());
        let (came, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (cuts, to, count, opened) = (cut.clone(), Arc::clone(&target), Arc::clone(&came), Arc::clone(&open));
        tokio::spawn(async move {
            loop {
                let (mut from, _) = listener.accept().await.unwrap();
                let (number, mut cut, to) = (count.fetch_add(1, SeqCst), cuts.subscribe(), *to.get().unwrap());
                let open = Arc::clone(&opened);
                open.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    let is_cut = tokio::select! {
                        _ = copy_bidirectional(&mut from, &mut to) => false,
                        cut = cut.wait_for(|cut| *cut == Some(number)) => cut.is_ok(),
                    };
                    if is_cut {
                        let _bytes = from.read(&mut [0; 1]).await;
                    }
                    drop((from, to));
                    open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, target, came, open, cut }
    }

    /// Starts the node `a`, which others reach by this network.
    fn node(&self, engine: &Memory, config: Config) -> Arc<Running> {
        let mut config = settings("a", config);
        config.cluster.as_mut().unwrap().address = Some(self.address.to_string());
        let node = start(engine, config);
        self.target.set(node.node_address().unwrap()).unwrap();
        node
    }
}

#[test]
fn client_whose_kept_connection_is_lost_gets_a_new_one() {
    block_on(async {
        let (engine, network) = (Memory::new(timing()), Network::start().await);
        let a = network.node(&engine, Config::default());
        let b = start(&engine, settings("b", Config::default()));
        until(|| [&a, &b].iter().all(|node| node.nodes().len() == 2)).await;
        let mut device = Dialed::device(a.local_addr(), "cvd-1").await;
        visit([&a, &b], &mut device, 1).await;
        let before = connections(&b).await;
        // The last one that was made is the one of the client.
        network.cut.send_replace(Some(network.came.load(SeqCst) - 1));
        let reads = engine.reads();
        visit([&a, &b], &mut device, 2).await;
        assert_eq!(since(&b, before).await, [0, 1, 1]);
        // The request was repeated at once. The client would look a second time otherwise, by a read of the engine.
        assert_eq!(engine.reads(), reads);
        visit([&a, &b], &mut device, 3).await;
        assert_eq!(since(&b, before).await, [0, 1, 2]);
    });
}

#[test]
fn connection_that_no_client_uses_is_closed_by_the_node_of_the_clients() {
    block_on(async {
        let (engine, network) = (Memory::new(timing()), Network::start().await);
        // The node of the device would keep it open.
        let limits = Limits { request_head_timeout: Duration::from_secs(600), ..Limits::default() };
        let a = network.node(&engine, Config { limits, ..Config::default() });
        let limits = Limits { request_head_timeout: Duration::from_secs(2), ..Limits::default() };
        let b = start(&engine, settings("b", patient(limits)));
        until(|| [&a, &b].iter().all(|node| node.nodes().len() == 2)).await;
        let mut device = Dialed::device(a.local_addr(), "cvd-1").await;
        visit([&a, &b], &mut device, 1).await;
        until(|| network.open.load(SeqCst) == 1).await;
        // The control connection is left, and the next client gets a connection of its own.
        let before = connections(&b).await;
        visit([&a, &b], &mut device, 2).await;
        assert_eq!(since(&b, before).await, [0, 1, 0]);
    });
}

#[test]
fn no_connection_of_before_is_used_once_the_control_connection_is_lost() {
    block_on(async {
        let (engine, network) = (Memory::new(timing()), Network::start().await);
        let a = network.node(&engine, Config::default());
        until(|| a.nodes().len() == 1 && network.came.load(SeqCst) == 1).await;
        let b = start(&engine, settings("b", patient(Limits::default())));
        // Each node has asked the node `a` whether it is there.
        until(|| [&a, &b].iter().all(|node| node.nodes().len() == 2) && network.came.load(SeqCst) == 2).await;
        let mut device = Dialed::device(a.local_addr(), "cvd-1").await;
        let mut held = Dialed::client(b.local_addr(), "cvd-1").await;
        let own = b.hub().connections();
        drop(Dialed::client(b.local_addr(), "cvd-1").await);
        device.hears(r#"{"message_type":"client_disconnected","client_id":2}"#).await;
        assert_eq!(network.came.load(SeqCst), 5, "the control connection, and one for each client");
        until(|| b.hub().connections() == own).await;
        // It ends with its next ping, and the clients in that direction with it.
        network.cut.send_replace(Some(2));
        held.hears(r#"{"error":"Device disconnected"}"#).await;
        device.hears(r#"{"message_type":"client_disconnected","client_id":1}"#).await;
        let before = connections(&b).await;
        let mut next = Dialed::client(b.local_addr(), "cvd-1").await;
        assert_eq!(since(&b, before).await, [0, 2, 0], "a control connection, and one for the client");
        next.says(r#"{"message_type":"forward","payload":3}"#).await;
        device.hears(r#"{"message_type":"client_msg","client_id":3,"payload":3}"#).await;
    });
}
