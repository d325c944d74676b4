//! The requests of other nodes. Each is refused unless the certificate of its sender is that of a living node.

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, delete, get, post};
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::client::{CLIENT_HEADER, INCARNATION_HEADER, VERSION_HEADER};
use super::forwards::local;
use super::node::Node;
use super::outage::ENGINE_HEADER;
use super::probe::{ALIVE, GONE};
use crate::core::cluster::claim::Probe;
use crate::core::cluster::{Incarnation, Registration};
use crate::core::hub::{Device, Found};
use crate::core::peer::{Peer, Role};
use crate::observe::quoted::Quoted;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, DeviceId, outbound};
use crate::server::cluster::client_facts::ClientFacts;
use crate::server::cluster::details::PROTOCOL;
use crate::server::cluster::forwards::PREFIX;
use crate::server::connect_info::{ConnectInfo, Upgrade};
use crate::server::http::extract::PathId;
use crate::server::http::respond::{error, json};
use crate::server::http::upgrade::handshake;
use crate::server::refusal_log::RefusalRecord;
use crate::server::ws::open::Purpose;

/// The node that sent a request, in the extensions of the request.
#[derive(Clone)]
struct Sender(Incarnation);

/// Builds the router.
pub(super) fn router(node: &Arc<Node>) -> Router {
    Router::new()
        .route("/cluster/hello", get(hello))
        .route("/cluster/control", get(control))
        .route("/cluster/clients", get(client_counts))
        .route("/cluster/local/{*path}", any(local))
        .route("/cluster/devices/{id}", get(describe).delete(disconnect))
        .route("/cluster/devices/{id}/connect", get(connect))
        .route("/cluster/devices/{id}/probe", post(probe))
        .route("/cluster/devices/{id}/replaced", post(replaced))
        .route("/cluster/devices/{id}/clients", get(clients))
        .route("/cluster/devices/{id}/clients/{client}", delete(disconnect_client))
        .fallback(async || error(StatusCode::NOT_FOUND, "Not found"))
        .layer(middleware::from_fn_with_state(Arc::clone(node), admit))
        .with_state(Arc::clone(node))
}

/// Admits the request of a living node that is for this start of this one.
async fn admit(State(node): State<Arc<Node>>, mut request: Request, next: Next) -> Response {
    let claims = Claims::of(&request);
    let address = request.extensions().get::<ConnectInfo>().and_then(|info| info.address);
    let (mut response, sender) = match node.admit(&claims).await {
        Ok(sender) => {
            // An answer to a client of another node is not one to that node.
            let is_own = !request.uri().path().starts_with(PREFIX);
            request.extensions_mut().insert(Sender(sender.clone()));
            (next.run(request).await, is_own.then_some(Some(sender)))
        }
        Err(refused) => (refused, Some(None)),
    };
    if let Some(sender) = sender {
        node.note_refusal(response.status(), sender.as_ref(), address);
    }
    let has_engine = u32::from(node.commands.borrow().is_some());
    response.headers_mut().insert(VERSION_HEADER, HeaderValue::from(PROTOCOL));
    response.headers_mut().insert(ENGINE_HEADER, HeaderValue::from(has_engine));
    response
}

/// The facts that a request gives of its sender and of its receiver.
struct Claims {
    /// The version that the sender speaks.
    version: Option<String>,
    /// The fingerprint of its certificate.
    fingerprint: Arc<str>,
    /// The start of the node that the request is for.
    incarnation: Option<String>,
}

impl Claims {
    fn of(request: &Request) -> Self {
        let header = |name| text(request.headers(), name).map(str::to_owned);
        let shown = request.extensions().get::<ConnectInfo>().and_then(|info| info.certificate.clone());
        Self {
            version: header(&VERSION_HEADER),
            fingerprint: shown.unwrap_or_default(),
            incarnation: header(&INCARNATION_HEADER),
        }
    }
}

impl Node {
    /// Returns the node that sent a request, if it may.
    async fn admit(&self, claims: &Claims) -> Result<Incarnation, Response> {
        let theirs = claims.version.as_deref().unwrap_or("none");
        if theirs != PROTOCOL.to_string() {
            let theirs = Quoted(theirs);
            let why =
                format!("This node speaks version {PROTOCOL} between nodes, and the request has version {theirs}");
            return Err(error(StatusCode::BAD_REQUEST, &why));
        }
        let Some(sender) = self.living_by_engine(&claims.fingerprint).await else {
            return Err(error(StatusCode::FORBIDDEN, "The certificate of the request is not that of a living node"));
        };
        let own = self.cluster.incarnation.to_string();
        match &claims.incarnation {
            Some(wanted) if *wanted != own => Err(error(StatusCode::CONFLICT, &format!("This node is {own}"))),
            _ => Ok(sender),
        }
    }
}

impl Node {
    /// Counts a refused request, and logs it once for each sender and status.
    fn note_refusal(&self, status: StatusCode, sender: Option<&Incarnation>, address: Option<SocketAddr>) {
        if !self.cluster.counts.count_refused(status.as_str()) {
            return;
        }
        let ip = address.map(|address| address.ip());
        let cause = ("cluster_request_refused", status, sender, sender.is_none().then_some(ip));
        if !self.log_limit.is_due(cause, Instant::now()) {
            return;
        }
        let reason = match (status, sender) {
            (StatusCode::BAD_REQUEST, None) => "it speaks another version between nodes: run versions that fit",
            (StatusCode::FORBIDDEN, _) => {
                "its certificate is not that of a node with a lease in the registry of this one"
            }
            (StatusCode::CONFLICT, _) => "it is for another start of a node at this address",
            (StatusCode::SERVICE_UNAVAILABLE, _) => "this node drains",
            (StatusCode::PRECONDITION_REQUIRED, _) => "it came before a control connection",
            _ => "it is invalid",
        };
        let named = sender.map_or_else(String::new, |sender| format!(" of node {}", sender.node()));
        let code = status.as_u16();
        let line = format_args!("refused a request{named} on the listener for nodes with {code}: {reason}");
        let peer = address.as_ref().map(|address| address as &dyn fmt::Display);
        let record =
            RefusalRecord { peer, reason: Some(&reason), ..RefusalRecord::new("cluster_request_refused", line) };
        self.shared.log_refusal(&RefusalRecord { code: Some(code), ..record });
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `GET /cluster/hello`.
async fn hello(State(node): State<Arc<Node>>, request: Request) -> Response {
    let sender = request.extensions().get::<Sender>().map(|Sender(from)| from);
    json(StatusCode::OK, serde_json::to_string(&node.hello(sender)).unwrap_or_default())
}

/// `GET /cluster/control`: the control connection. It ends the clients of the node that came before.
async fn control(State(node): State<Arc<Node>>, request: Request) -> Response {
    let token = CancellationToken::new();
    if let Some(Sender(from)) = request.extensions().get::<Sender>() {
        node.neighbours.connected(from, &token);
    }
    upgrade(&node, request, Peer::anonymous(Role::Http), Purpose::Watch(token))
}

/// `GET /cluster/devices/{id}/connect`: a client of another node.
async fn connect(State(node): State<Arc<Node>>, PathId(id): PathId, request: Request) -> Response {
    let Some(Sender(from)) = request.extensions().get::<Sender>().cloned() else {
        return error(StatusCode::FORBIDDEN, "Your certificate is not that of a node");
    };
    if node.is_draining() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "Server draining");
    }
    let Some(lost) = node.neighbours.connection_from(&from) else {
        return error(StatusCode::PRECONDITION_REQUIRED, "A node needs a control connection first");
    };
    let Some(facts) = text(request.headers(), &CLIENT_HEADER).and_then(ClientFacts::parse) else {
        return error(StatusCode::BAD_REQUEST, "The facts of the client are missing, or are invalid");
    };
    upgrade(&node, request, facts.into_peer(), Purpose::OfNode { device: DeviceId::new(&id), lost })
}

/// Upgrades a request.
fn upgrade(node: &Node, mut request: Request, peer: Peer, purpose: Purpose) -> Response {
    let response = match handshake(&request) {
        Ok(response) => response,
        Err(refused) => return refused,
    };
    let Some(connect_info) = request.extensions_mut().remove::<ConnectInfo>() else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error");
    };
    let (transport, agreed_at) = (hyper::upgrade::on(&mut request), node.shared.clock.now());
    *connect_info.upgrade.lock() = Some(Upgrade { transport, peer, purpose, agreed_at });
    response
}

/// The registration that a query names.
fn registration_of(request: &Request) -> Option<Registration> {
    let query = request.uri().query().unwrap_or_default();
    let (_, value) = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "registration")?;
    Registration::parse(&value)
}

/// `POST /cluster/devices/{id}/probe?registration=R`: whether the device of a registration answers a ping.
///
/// A node that drains gives up its devices to newcomers on other nodes: it closes them soon.
async fn probe(State(node): State<Arc<Node>>, request: Request) -> Response {
    let Some(registration) = registration_of(&request) else {
        return error(StatusCode::BAD_REQUEST, "The query needs a registration");
    };
    drop(request);
    let is_kept = !node.is_draining() && node.probe_here(&registration).await == Probe::Alive;
    let body = if is_kept { ALIVE } else { GONE };
    json(StatusCode::OK, body)
}

/// `POST /cluster/devices/{id}/replaced`: another registration has the id, says another node. The registry decides.
async fn replaced(State(node): State<Arc<Node>>, PathId(id): PathId) -> Response {
    node.check(&DeviceId::new(&id));
    json(StatusCode::OK, "{}")
}

fn find(node: &Node, id: &str) -> Result<Arc<Device>, Response> {
    node.shared.hub.device(&DeviceId::new(id)).ok_or_else(|| error(StatusCode::NOT_FOUND, "Device not found"))
}

/// `GET /cluster/devices/{id}`: a device, with its unfiltered device info.
async fn describe(State(node): State<Arc<Node>>, PathId(id): PathId) -> Response {
    let device = match find(&node, &id) {
        Ok(device) => device,
        Err(refused) => return refused,
    };
    match serde_json::to_string(&Description::of(&device, node.cluster.incarnation.node())) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}

/// A device, as its node describes it to others.
#[derive(Serialize)]
struct Description<'a> {
    device_id: &'a str,
    node: &'a str,
    group_name: &'a str,
    announced_group: &'a str,
    local_id: &'a str,
    owner: &'a str,
    name: &'a str,
    adb_port: u16,
    address: Option<String>,
    /// JSON in a string.
    identity: Option<&'a str>,
    since: f64,
    clients: usize,
    to_device: u64,
    to_clients: u64,
    /// Byte for byte as the device sent it: its numbers need not fit those of this program.
    registration_info: Option<&'a RawValue>,
}

impl<'a> Description<'a> {
    fn of(device: &'a Device, node: &'a str) -> Self {
        let metadata = device.metadata();
        let (to_device, to_clients) = device.traffic.read();
        Self {
            device_id: device.id.as_str(),
            node,
            group_name: device.group(),
            announced_group: &metadata.group_name,
            local_id: device.local_id.as_ref().map_or("", DeviceId::as_str),
            owner: &metadata.owner,
            name: &metadata.name,
            adb_port: metadata.adb_port,
            address: device.peer.address.map(|address| address.to_string()),
            identity: device.peer.grant.identity.as_deref(),
            since: seconds(device.peer.since),
            clients: device.client_count(),
            to_device,
            to_clients,
            registration_info: serde_json::from_str(outbound::info_of(&device.info)).ok(),
        }
    }
}

/// `GET /cluster/devices/{id}/clients`: the clients of a device.
async fn clients(State(node): State<Arc<Node>>, PathId(id): PathId) -> Response {
    let device = match find(&node, &id) {
        Ok(device) => device,
        Err(refused) => return refused,
    };
    let client = |client: Arc<crate::core::hub::Client>| {
        serde_json::json!({
            "client_id": client.id.get(),
            "address": client.peer.address.map(|address| address.to_string()),
            "identity": client.peer.grant.identity.as_deref(),
            "certificate": client.peer.certificate.as_deref(),
            "since": seconds(client.peer.since),
        })
    };
    let all: Vec<_> = device.clients().into_iter().map(client).collect();
    json(StatusCode::OK, serde_json::Value::from(all).to_string())
}

/// `GET /cluster/clients`: the number of clients of each device that has some, by device id.
async fn client_counts(State(node): State<Arc<Node>>) -> Response {
    let devices = node.shared.hub.devices();
    let counts = devices.iter().map(|device| (device.id.to_string(), device.client_count()));
    let counts: HashMap<_, _> = counts.filter(|(_, count)| *count > 0).collect();
    json(StatusCode::OK, serde_json::to_string(&counts).unwrap_or_default())
}

fn seconds(time: std::time::SystemTime) -> f64 {
    time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// `DELETE /cluster/devices/{id}`: ends the connection of a device.
async fn disconnect(State(node): State<Arc<Node>>, PathId(id): PathId) -> Response {
    match find(&node, &id) {
        Ok(device) => {
            tracing::info!(
                event = "cluster_disconnects",
                device_id = id,
                "another node disconnects device {}",
                Quoted(&id)
            );
            device.outbox.refuse(&Refusal::EndedByOperator);
            json(StatusCode::OK, "{}")
        }
        Err(refused) => refused,
    }
}

/// `DELETE /cluster/devices/{id}/clients/{client}`: ends the connection of a client.
async fn disconnect_client(State(node): State<Arc<Node>>, Path((id, client)): Path<(String, u32)>) -> Response {
    let device = match find(&node, &id) {
        Ok(device) => device,
        Err(refused) => return refused,
    };
    match ClientId::new(client).map(|client| device.find(client)) {
        Some(Found::Here(found)) => {
            tracing::info!(
                event = "cluster_disconnects",
                device_id = id,
                client_id = client,
                "another node disconnects client {client} of device {}",
                Quoted(&id)
            );
            found.outbox.refuse(&Refusal::EndedByOperator);
            json(StatusCode::OK, "{}")
        }
        _ => error(StatusCode::NOT_FOUND, "Client not found"),
    }
}
