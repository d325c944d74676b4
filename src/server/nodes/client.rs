//! Requests to other nodes, with mutual TLS, which tickets make cheap. Requests of polling clients share connections, one
//! after the other, and so do clients that have left. All else has a connection of its own.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::HandshakeKind;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::error::Unreachable;
use super::identity::server_name;
use super::idle::NodeStream;
use super::neighbours::Neighbour;
use super::node::Node;
use crate::config::certificates::fingerprint;
use crate::observe::cluster::Handshake;
use crate::server::cluster::details::PROTOCOL;

/// The version of the requests between nodes.
pub(super) const VERSION_HEADER: HeaderName = HeaderName::from_static("x-cuttlefish-cluster");

/// The start of the node that a request is for.
pub(super) const INCARNATION_HEADER: HeaderName = HeaderName::from_static("x-cuttlefish-incarnation");

/// The facts of a client, as JSON.
pub(super) const CLIENT_HEADER: HeaderName = HeaderName::from_static("x-cuttlefish-client");

/// Time to connect to a node, TLS included.
const CONNECT: Duration = Duration::from_secs(2);

/// Time for the answer of a node: it pings a device for 2 s, or waits as long for one that is about to register.
const ANSWER: Duration = Duration::from_secs(4);

/// The longest body of an answer, in bytes: the clients of a device, or a device info.
const MAX_BODY: usize = 16 << 20;

impl Node {
    /// Asks a node. Returns the status and the body of its answer.
    pub(super) async fn ask(
        self: &Arc<Self>,
        neighbour: &Neighbour,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, Bytes), Unreachable> {
        self.ask_over(self.dial(neighbour), request_to(neighbour, method, path)).await
    }

    /// Asks a node for its facts. The connection is not counted as one that requests and clients took.
    pub(super) async fn look_at(self: &Arc<Self>, neighbour: &Neighbour) -> Result<(StatusCode, Bytes), Unreachable> {
        self.ask_over(self.connect(neighbour), request_to(neighbour, Method::GET, "/cluster/hello")).await
    }

    async fn ask_over(
        self: &Arc<Self>,
        stream: impl Future<Output = Result<NodeStream, Unreachable>>,
        request: Request<Empty<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Unreachable> {
        let ask = async {
            let stream = stream.await?;
            let response = self.speak_http(stream).await?.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| Unreachable::Failed(error.to_string()))?.to_bytes();
            Ok((status, body))
        };
        self.shared.timers.timeout(ANSWER, ask).await.unwrap_or(Err(Unreachable::Silent(ANSWER)))
    }

    /// Opens a WebSocket to a node: over a connection that an earlier client has left, if there is one. Returns the stream,
    /// and the input that came behind the answer.
    ///
    /// # Errors
    /// [`Unreachable::Refused`] if the node answers the request otherwise.
    pub(super) async fn upgrade(
        self: &Arc<Self>,
        neighbour: &Neighbour,
        path: &str,
        client: Option<HeaderValue>,
    ) -> Result<(NodeStream, Bytes), Unreachable> {
        let key = STANDARD.encode(fastrand::u128(..).to_ne_bytes());
        let mut request = request_to(neighbour, Method::GET, path);
        let headers = request.headers_mut();
        headers.extend([
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        ]);
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::try_from(&key).map_err(|_| failed("no key"))?);
        if let Some(client) = client {
            headers.insert(CLIENT_HEADER, client);
        }
        let open = async {
            if let Some(stream) = neighbour.left.take(self.fresh()) {
                self.cluster.counts.count_connection(Handshake::None);
                match self.upgrade_over(stream, request.clone(), &key).await {
                    // The other node may have closed it meanwhile. A request that it has begun to serve ends with it.
                    Err(Unreachable::Failed(_)) => {}
                    outcome => return outcome,
                }
            }
            let stream = self.dial(neighbour).await?;
            self.upgrade_over(stream, request, &key).await
        };
        self.shared.timers.timeout(ANSWER, open).await.unwrap_or(Err(Unreachable::Silent(ANSWER)))
    }

    /// Opens a WebSocket over a connection.
    async fn upgrade_over(
        self: &Arc<Self>,
        stream: NodeStream,
        request: Request<Empty<Bytes>>,
        key: &str,
    ) -> Result<(NodeStream, Bytes), Unreachable> {
        let response = self.speak_http(stream).await?.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Unreachable::Refused(response.status()));
        }
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(failed("its answer to the upgrade is invalid"));
        }
        let upgraded = hyper::upgrade::on(response).await?;
        let parts = upgraded.downcast::<TokioIo<NodeStream>>().map_err(|_| failed("the upgrade has another type"))?;
        Ok((parts.io.into_inner(), parts.read_buf))
    }

    /// Time for which a connection waits for the next request. The other node closes it after twice that time.
    pub(super) fn fresh(&self) -> Duration {
        self.shared.settings().limits.request_head_timeout / 2
    }

    /// Keeps the connection that a client has left.
    pub(super) fn keep(&self, neighbour: &Neighbour, stream: NodeStream) {
        neighbour.left.put(stream, self.shared.settings().limits.max_node_idle, self.fresh());
    }

    /// Begins HTTP on a connection to a node.
    async fn speak_http<B>(self: &Arc<Self>, stream: NodeStream) -> Result<SendRequest<B>, Unreachable>
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        self.spawn(async move {
            // The sender of the request is told.
            let _lost = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// Sends a request of a client that has its method, its target and its body: over a connection that has answered an
    /// earlier one, if there is one.
    pub(super) async fn send_to(
        self: &Arc<Self>,
        neighbour: &Neighbour,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unreachable> {
        address(&mut request, neighbour);
        let settings = self.shared.settings();
        let most = settings.limits.max_node_idle;
        let request = match neighbour.idle.send(request, self.fresh(), most).await {
            ControlFlow::Break(response) => {
                let response = response?;
                self.cluster.counts.count_connection(Handshake::None);
                return Ok(response);
            }
            ControlFlow::Continue(request) => request,
        };
        let turn = neighbour.dials.turn(&settings.limits).await?;
        let mut sender = self.speak_http(self.dial(neighbour).await?).await?;
        drop(turn);
        let response = sender.send_request(request).await?;
        neighbour.idle.put(sender, most);
        Ok(response)
    }

    /// Connects to a node for a request or a client.
    async fn dial(&self, neighbour: &Neighbour) -> Result<NodeStream, Unreachable> {
        let stream = self.connect(neighbour).await?;
        let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        self.cluster.counts.count_connection(if is_resumed { Handshake::Resumed } else { Handshake::Full });
        Ok(stream)
    }

    /// Connects to a node, and notes the outcome.
    async fn connect(&self, neighbour: &Neighbour) -> Result<NodeStream, Unreachable> {
        let connected = self.connect_to(neighbour).await;
        self.note_dial(neighbour, connected.as_ref().err());
        connected
    }

    /// Connects to a node, and checks that it is the one of the record.
    async fn connect_to(&self, neighbour: &Neighbour) -> Result<NodeStream, Unreachable> {
        let theirs = neighbour.protocol;
        if theirs != PROTOCOL {
            return Err(Unreachable::Version(theirs));
        }
        let connect = async {
            let stream = TcpStream::connect(&neighbour.address).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(Arc::clone(&neighbour.tls)).connect(server_name(), stream).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(fingerprint);
            match shown {
                Some(shown) if shown == neighbour.fingerprint => Ok(stream),
                shown => Err(Unreachable::Other(shown.unwrap_or_default())),
            }
        };
        self.shared.timers.timeout(CONNECT, connect).await.unwrap_or(Err(Unreachable::Silent(CONNECT)))
    }
}

fn failed(what: &str) -> Unreachable {
    Unreachable::Failed(what.to_owned())
}

/// A request without a body.
fn request_to(neighbour: &Neighbour, method: Method, path: &str) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    address(&mut request, neighbour);
    request
}

/// Adds the headers that each request to a node has.
fn address<B>(request: &mut Request<B>, neighbour: &Neighbour) {
    let headers = request.headers_mut();
    let values = [
        (header::HOST, neighbour.address.clone()),
        (VERSION_HEADER, PROTOCOL.to_string()),
        (INCARNATION_HEADER, neighbour.incarnation.to_string()),
    ];
    for (name, value) in values {
        headers.extend(HeaderValue::try_from(value).map(|value| (name, value)).ok());
    }
}
