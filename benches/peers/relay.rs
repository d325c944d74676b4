//! The bare relay itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

type Outbox = UnboundedSender<Message>;

#[derive(Default)]
struct Devices(Mutex<HashMap<String, Arc<Device>>>);

struct Device {
    outbox: Outbox,
    info: String,
    clients: Mutex<HashMap<u32, Outbox>>,
}

/// TLS as a typical server has it: rustls with its defaults, and one self-signed certificate. Returns that as PEM too.
pub fn tls() -> (TlsAcceptor, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

/// Accepts peers until the listener fails.
pub async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>) {
    let devices: Arc<Devices> = Arc::default();
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let devices = Arc::clone(&devices);
        // Two kinds of tasks: the state of a handshake would make that of a plain connection larger.
        match tls.clone() {
            None => tokio::spawn(serve(stream, devices)),
            Some(tls) => tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream, devices).await;
                }
            }),
        };
    }
}

#[allow(clippy::result_large_err, reason = "the library's type")]
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, devices: Arc<Devices>) {
    let mut is_device = false;
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        is_device = request.uri().path() == "/register_device";
        Ok(response)
    };
    let settings = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
    let Ok(socket) = tokio_tungstenite::accept_hdr_async_with_config(stream, look, Some(settings)).await else {
        return;
    };
    let (mut sink, mut incoming) = socket.split();
    let (outbox, mut waiting) = unbounded_channel();
    let writer = tokio::spawn(async move {
        while let Some(message) = waiting.recv().await {
            let mut outcome = sink.feed(message).await;
            while let Ok(message) = waiting.try_recv() {
                outcome = sink.feed(message).await;
            }
            if outcome.is_err() || sink.flush().await.is_err() {
                return;
            }
        }
        drop(sink.close().await);
    });
    let mut peer = Peer::New;
    while let Some(Ok(message)) = incoming.next().await {
        match message {
            Message::Text(text) => peer.hear(&text, is_device, &outbox, &devices),
            Message::Close(_) => break,
            _ => {}
        }
    }
    peer.leave(&devices);
    drop(outbox);
    drop(writer.await);
}

enum Peer {
    New,
    Device(String, Arc<Device>),
    Client(u32, Arc<Device>),
}

impl Peer {
    fn hear(&mut self, text: &str, is_device: bool, outbox: &Outbox, devices: &Devices) {
        match self {
            Self::Device(_, device) => {
                let digits = behind(text, r#""client_id":"#);
                let client: u32 = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or("").parse().unwrap_or(0);
                if let Some(client) = device.clients.lock().unwrap().get(&client) {
                    say(
                        client,
                        format!(r#"{{"message_type":"device_msg","payload":{}"#, behind(text, r#""payload":"#)),
                    );
                }
            }
            Self::Client(id, device) => {
                let payload = behind(text, r#""payload":"#);
                say(&device.outbox, format!(r#"{{"message_type":"client_msg","client_id":{id},"payload":{payload}"#));
            }
            Self::New => *self = Self::of(text, is_device, outbox, devices),
        }
    }

    fn of(text: &str, is_device: bool, outbox: &Outbox, devices: &Devices) -> Self {
        let id = behind(text, r#""device_id":""#).split('"').next().unwrap_or("").to_owned();
        say(outbox, r#"{"message_type":"config","ice_servers":[]}"#.into());
        if is_device {
            let info = behind(text, r#""device_info":"#).to_owned();
            let device = Arc::new(Device { outbox: outbox.clone(), info, clients: Mutex::default() });
            devices.0.lock().unwrap().insert(id.clone(), Arc::clone(&device));
            return Self::Device(id, device);
        }
        let Some(device) = devices.0.lock().unwrap().get(&id).cloned() else { return Self::New };
        let mut clients = device.clients.lock().unwrap();
        let id = u32::try_from(clients.len()).unwrap() + 1;
        clients.insert(id, outbox.clone());
        drop(clients);
        say(outbox, format!(r#"{{"message_type":"device_info","device_info":{}"#, device.info));
        Self::Client(id, device)
    }

    fn leave(self, devices: &Devices) {
        match self {
            Self::New => {}
            Self::Device(id, _) => drop(devices.0.lock().unwrap().remove(&id)),
            Self::Client(id, device) => {
                device.clients.lock().unwrap().remove(&id);
                say(&device.outbox, format!(r#"{{"message_type":"client_disconnected","client_id":{id}}}"#));
            }
        }
    }
}

fn say(outbox: &Outbox, text: String) {
    drop(outbox.send(Message::text(text)));
}

/// The text after this key, with the closing brace.
fn behind<'a>(text: &'a str, key: &str) -> &'a str {
    text.split_once(key).map_or("null}", |(_, rest)| rest)
}
