//! Peers on real sockets (tokio-tungstenite's client side) and a server to talk to.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cuttlefish_signaling::config::Backpressure;
use cuttlefish_signaling::config::upstream::Upstream;
use cuttlefish_signaling::hub::Observer;
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::{Config, Hooks, Keepalive, Limits, NoHooks, Running, Server};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The time limit of every wait: no wait reaches it unless the test fails.
pub const TIMEOUT: Duration = Duration::from_secs(20);

thread_local! {
    /// The servers of this thread's test.
    static SERVERS: RefCell<Vec<Arc<Running>>> = const { RefCell::new(Vec::new()) };
}

/// Runs a test, then stops its servers and checks that their ledgers balance.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let result = test.await;
        for server in SERVERS.take() {
            server.stop(Duration::from_secs(2)).await;
            let ledger = server.ledger();
            assert!(ledger.balances(), "{ledger:?}");
        }
        result
    })
}

pub fn serve(config: Config) -> Arc<Running> {
    serve_with(config, Arc::new(NoHooks))
}

/// Serves a proxy in front of a server.
pub fn proxy_of(server: &Running) -> Arc<Running> {
    let upstream = Upstream::new(&format!("ws://{}", server.local_addr()), None, false).unwrap();
    serve(Config { upstream: Some(upstream), journal: true, ..Config::default() })
}

pub fn serve_with(config: Config, hooks: Arc<dyn Hooks>) -> Arc<Running> {
    serve_observed(config, hooks, Arc::new(()))
}

pub fn serve_observed(config: Config, hooks: Arc<dyn Hooks>, observer: Arc<dyn Observer>) -> Arc<Running> {
    keep(Server::bind(config, hooks, observer).unwrap().serve())
}

/// Has a server stopped at the end of the test.
pub fn keep(server: Running) -> Arc<Running> {
    let server = Arc::new(server);
    SERVERS.with_borrow_mut(|servers| servers.push(Arc::clone(&server)));
    server
}

/// Settings under which a peer that does not read is found by `write_timeout` alone: it is not pinged, and its outbox has
/// room for more than the system's buffers.
pub fn roomy() -> Config {
    let backpressure = Backpressure { outbox_bytes: 64 << 20, ..Backpressure::default() };
    let limits = Limits { backpressure, ..Limits::default() };
    Config { limits, keepalive: Keepalive { interval: None, ..Keepalive::default() }, ..Config::default() }
}

/// Waits until this many clients of the device are not read, since their forwards wait for it, and none of these moves.
pub async fn until_paused(server: &Running, device: &str, clients: usize) {
    let device = server.hub().device(&DeviceId::new(device)).unwrap();
    with_timeout("the pause of the clients", async {
        let (mut turns, mut before) = (0, server.ledger());
        while turns < 500 {
            tokio::task::yield_now().await;
            let now = server.ledger();
            turns = if now == before && device.outbox.waiting_clients() >= clients { turns + 1 } else { 0 };
            before = now;
        }
    })
    .await;
}

/// Moves the server's clock on, and waits until all that is due then is done.
pub async fn advance(server: &Running, by: Duration) {
    server.clock().advance(by);
    until_done(&server.clock_turned()).await;
}

/// Waits until `clock_turned` reports that all that was due is done: until its receiver is disconnected.
pub async fn until_done(due: &Receiver<()>) {
    with_timeout("the end of all that was due", async {
        while due.try_recv() != Err(TryRecvError::Disconnected) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub async fn with_timeout<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("{what}: did not come in time"))
}

/// A peer that reads all the time, as real peers do, and so answers pings.
pub struct Dialed {
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    inbox: mpsc::UnboundedReceiver<Received>,
    reader: JoinHandle<()>,
    pings: u32,
    /// The reason of the server's close frame, once it has come.
    close_reason: Arc<OnceLock<String>>,
}

/// A received message, or the end.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Text(String),
    Pong(Vec<u8>),
    Closed(u16),
    Lost,
}

impl Dialed {
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        Self::open_with(address, path, false).await
    }

    /// Offers the sub-protocol of Cuttlefish's own devices, or none.
    pub async fn open_with(address: SocketAddr, path: &str, cuttlefish: bool) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        if cuttlefish {
            request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("webrtc-operator"));
        }
        let (socket, response) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await.unwrap();
        assert_eq!(response.status(), 101);
        let (sink, stream) = socket.split();
        let (heard, inbox) = mpsc::unbounded_channel();
        let close_reason = Arc::new(OnceLock::new());
        let reader = tokio::spawn(read(stream, heard, Arc::clone(&close_reason)));
        Self { sink, inbox, reader, pings: 0, close_reason }
    }

    pub async fn device(address: SocketAddr, id: &str) -> Self {
        let mut device = Self::open(address, "/register_device").await;
        device.says(&format!(r#"{{"message_type":"register","device_id":"{id}","device_info":{{}}}}"#)).await;
        device.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        device
    }

    pub async fn client(address: SocketAddr, id: &str) -> Self {
        let mut client = Self::open(address, "/connect_client").await;
        client.says(&format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#)).await;
        client.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        client.hears(r#"{"message_type":"device_info","device_info":{}}"#).await;
        client
    }

    pub async fn says(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    pub async fn send(&mut self, message: Message) {
        // The server may have closed already; its last messages can still be read.
        let _gone = self.sink.send(message).await;
    }

    pub async fn hears(&mut self, text: &str) {
        assert_eq!(self.next().await, Received::Text(text.into()));
    }

    /// Stops reading, and so answering pings.
    pub fn freeze(&self) {
        self.reader.abort();
    }

    /// The reason of the server's close frame.
    pub fn close_reason(&self) -> &str {
        self.close_reason.get().map_or("", String::as_str)
    }

    /// The next text, or the end.
    pub async fn next(&mut self) -> Received {
        loop {
            let came = with_timeout("a message", self.inbox.recv()).await.unwrap_or(Received::Lost);
            if !matches!(came, Received::Pong(_)) {
                return came;
            }
        }
    }

    /// Sends a ping and waits for its pong: the server has read all that this peer sent, and all that the server sent
    /// before has arrived. Returns the texts that came before the pong.
    pub async fn round_trip(&mut self) -> Vec<String> {
        self.pings += 1;
        let mark = self.pings.to_be_bytes().to_vec();
        self.send(Message::Ping(mark.clone().into())).await;
        let mut texts = Vec::new();
        loop {
            match with_timeout("a pong", self.inbox.recv()).await {
                Some(Received::Text(text)) => texts.push(text),
                Some(Received::Pong(pong)) if pong != mark => {}
                _ => return texts,
            }
        }
    }
}

impl Drop for Dialed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(
    mut stream: SplitStream<WebSocketStream<TcpStream>>,
    heard: mpsc::UnboundedSender<Received>,
    close_reason: Arc<OnceLock<String>>,
) {
    loop {
        let came = match stream.next().await {
            Some(Ok(Message::Text(text))) => Received::Text(text.to_string()),
            Some(Ok(Message::Pong(mark))) => Received::Pong(mark.to_vec()),
            Some(Ok(Message::Close(frame))) => {
                if let Some(frame) = &frame {
                    let _first = close_reason.set(frame.reason.to_string());
                }
                Received::Closed(frame.map_or(1005, |frame| frame.code.into()))
            }
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => Received::Lost,
        };
        let lost = came == Received::Lost;
        if heard.send(came).is_err() || lost {
            return;
        }
    }
}
