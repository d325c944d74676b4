//! Bursts of clients for the devices of another node: how many connections to it are made at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::{Config, Limits, Running};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::memory::Memory;
use super::{settings, start, timing, until};
use crate::dial::{Dialed, Received, block_on};

const CONFIG: &str = r#"{"message_type":"config","ice_servers":[]}"#;
const INFO: &str = r#"{"message_type":"device_info","device_info":{}}"#;
const UNAVAILABLE: &str = r#"{"error":"Connection failed: Cluster unavailable"}"#;

/// A gate before the listener of a node: a connection passes once the test lets it.
#[derive(Clone)]
struct Gate {
    address: SocketAddr,
    /// The connections that have come.
    came: Arc<AtomicUsize>,
    /// Those that have not passed.
    waiting: Arc<AtomicUsize>,
    /// A permit for each that may pass.
    open: Arc<Semaphore>,
}

const WIDE_OPEN: usize = 1_000;

impl Gate {
    async fn start(target: Arc<std::sync::OnceLock<SocketAddr>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gate = Self {
            address: listener.local_addr().unwrap(),
            came: Arc::default(),
            waiting: Arc::default(),
            open: Arc::new(Semaphore::new(WIDE_OPEN)),
        };
        let own = gate.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (gate, to) = (own.clone(), *target.get().unwrap());
                gate.came.fetch_add(1, SeqCst);
                gate.waiting.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    gate.open.acquire().await.unwrap().forget();
                    gate.waiting.fetch_sub(1, SeqCst);
                    let mut node = TcpStream::connect(to).await.unwrap();
                    let _ended = copy_bidirectional(&mut stream, &mut node).await;
                });
            }
        });
        gate
    }

    fn close(&self) {
        self.open.forget_permits(WIDE_OPEN);
    }

    fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }
}

/// A node with the device `cvd-1` behind a gate, and another node with these bounds.
struct Burst {
    gate: Gate,
    home: Arc<Running>,
    other: Arc<Running>,
    /// The clients that have their device.
    found: Arc<AtomicUsize>,
    /// Those that were told that the cluster is unavailable.
    refused: Arc<AtomicUsize>,
}

impl Burst {
    async fn start(max_node_dials: usize, max_node_dial_queue: usize, wait: Duration) -> Self {
        let (engine, target) = (Memory::new(timing()), Arc::default());
        let gate = Gate::start(Arc::clone(&target)).await;
        let mut config = settings("a", Config::default());
        config.cluster.as_mut().unwrap().address = Some(gate.address.to_string());
        let home = start(&engine, config);
        target.set(home.node_address().unwrap()).unwrap();
        let limits = Limits { max_node_dials, max_node_dial_queue, ..Limits::default() };
        let config = Config { limits, device_wait_timeout: Some(wait), ..Config::default() };
        let other = start(&engine, settings("b", config));
        until(|| [&home, &other].iter().all(|node| node.nodes().len() == 2)).await;
        Self { gate, home, other, found: Arc::default(), refused: Arc::default() }
    }

    /// Connects clients of the other node, all at once.
    fn clients(&self, count: usize) {
        for _ in 0..count {
            let (address, found, refused) =
                (self.other.local_addr(), Arc::clone(&self.found), Arc::clone(&self.refused));
            tokio::spawn(async move {
                let mut client = Dialed::open(address, "/connect_client").await;
                client.says(r#"{"message_type":"connect","device_id":"cvd-1"}"#).await;
                client.hears(CONFIG).await;
                match client.next().await {
                    Received::Text(text) if text == INFO => {
                        found.fetch_add(1, SeqCst);
                        std::future::pending().await
                    }
                    Received::Text(text) if text == UNAVAILABLE => refused.fetch_add(1, SeqCst),
                    other => panic!("{other:?}"),
                }
            });
        }
    }

    fn outcomes(&self) -> (usize, usize) {
        (self.found.load(SeqCst), self.refused.load(SeqCst))
    }
}

const LONG: Duration = Duration::from_secs(600);

#[test]
fn burst_of_clients_makes_a_few_connections_at_a_time() {
    block_on(async {
        let burst = Burst::start(3, 100, LONG).await;
        let _device = Dialed::device(burst.home.local_addr(), "cvd-1").await;
        // It makes the control connection, which goes before all.
        let _first = Dialed::client(burst.other.local_addr(), "cvd-1").await;
        burst.gate.close();
        let came = burst.gate.came.load(SeqCst);
        burst.clients(30);
        for let_through in 0..30 {
            until(|| burst.gate.waiting() == 3.min(30 - let_through)).await;
            burst.gate.open.add_permits(1);
            until(|| burst.outcomes() == (let_through + 1, 0)).await;
            assert!(burst.gate.waiting() <= 3);
        }
        // One connection for each: none was made again.
        assert_eq!(burst.gate.came.load(SeqCst) - came, 30);
    });
}

#[test]
fn clients_beyond_the_queue_hear_that_the_cluster_is_unavailable() {
    block_on(async {
        let burst = Burst::start(1, 4, Duration::ZERO).await;
        let _device = Dialed::device(burst.home.local_addr(), "cvd-1").await;
        until(|| burst.other.node_of(&DeviceId::new("cvd-1")).is_some()).await;
        let _first = Dialed::client(burst.other.local_addr(), "cvd-1").await;
        burst.gate.close();
        burst.clients(12);
        // One is being connected, four wait, and seven are refused at once.
        until(|| burst.outcomes() == (0, 7)).await;
        assert_eq!(burst.gate.waiting(), 1);
        burst.gate.open.add_permits(WIDE_OPEN);
        until(|| burst.outcomes() == (5, 7)).await;
    });
}

#[test]
fn clients_of_a_silent_node_wait_for_one_attempt_together() {
    block_on(async {
        let burst = Burst::start(16, 100, Duration::ZERO).await;
        let _device = Dialed::device(burst.home.local_addr(), "cvd-1").await;
        until(|| burst.other.node_of(&DeviceId::new("cvd-1")).is_some()).await;
        // The nodes greet each other first.
        until(|| burst.gate.came.load(SeqCst) > 0 && burst.gate.waiting() == 0).await;
        burst.gate.close();
        let came = burst.gate.came.load(SeqCst);
        burst.clients(40);
        until(|| burst.outcomes() == (0, 40)).await;
        // Each looks three times, and each time one attempt is under way and at most one more follows. The node itself looks
        // at the other one when it comes, and asks it whether it is reached.
        let attempts = burst.gate.came.load(SeqCst) - came;
        assert!(attempts <= 10, "{attempts} connections for 40 clients");
    });
}
