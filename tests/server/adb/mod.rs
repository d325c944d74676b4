//! `WS /devices/{id}/adb`: bytes to and from the adb port of a device (docs/protocol.md 5.3.19 and 5.3.37 to 5.3.43).

mod ends;
mod flow;

use cuttlefish_signaling::{Adb, Config, Running};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::dial::{Dialed, with_timeout};

/// adb is on.
fn on() -> Adb {
    Adb { is_on: true, ..Adb::default() }
}

fn config() -> Config {
    Config { adb: on(), ..Config::default() }
}

/// A device on this machine, whose device info names this adb port.
async fn device_with_port(server: &Running, port: impl std::fmt::Display) -> Dialed {
    let mut device = Dialed::open(server.local_addr(), "/register_device").await;
    let info = format!(r#"{{"adb_port":{port}}}"#);
    device.says(&format!(r#"{{"message_type":"register","device_id":"d","device_info":{info}}}"#)).await;
    device.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
    device
}

/// The adb port of a device, and the device.
async fn adb_port(server: &Running) -> (TcpListener, Dialed) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let device = device_with_port(server, listener.local_addr().unwrap().port()).await;
    (listener, device)
}

/// A client of adb.
struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn open(server: &Running) -> Self {
        let stream = TcpStream::connect(server.local_addr()).await.unwrap();
        let url = format!("ws://{}/devices/d/adb", server.local_addr());
        let (socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        assert_eq!(response.status(), 101);
        Self(socket)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// The next message: bytes, or code and reason of the close frame; `None` for a lost connection.
    async fn next(&mut self) -> Option<Result<Vec<u8>, (u16, String)>> {
        loop {
            match with_timeout("a message", self.0.next()).await {
                Some(Ok(Message::Binary(bytes))) => return Some(Ok(bytes.to_vec())),
                Some(Ok(Message::Close(frame))) => {
                    return Some(Err(frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()))));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// All bytes up to the close, then the code and reason of the close frame.
    async fn read_to_end(&mut self) -> (Vec<u8>, Option<(u16, String)>) {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Some(Ok(bytes)) => all.extend(bytes),
                Some(Err(close)) => return (all, Some(close)),
                None => return (all, None),
            }
        }
    }

    /// The code and reason of the close frame, before which nothing comes.
    async fn closed(&mut self) -> (u16, String) {
        let (bytes, close) = self.read_to_end().await;
        assert_eq!(bytes, b"");
        close.expect("the connection was lost without a close frame")
    }
}

/// A client and the adb port's side of its connection.
async fn pair(server: &Running, listener: &TcpListener) -> (Client, TcpStream) {
    let client = Client::open(server).await;
    let (stream, _) = with_timeout("the connection to the adb port", listener.accept()).await.unwrap();
    (client, stream)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 7 + i / 251) % 251).try_into().unwrap()).collect()
}
