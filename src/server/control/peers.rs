//! Devices, clients, waiting clients and nodes; and the end of their connections.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::task::yield_now;

use super::Control;
use super::about::{Answer, ok};
use super::problem::Problem;
use super::query::{Query, whole};
use crate::core::device::Found;
use crate::core::hub::Device;
use crate::observe::quoted::Quoted;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, DeviceId};
use crate::server::cluster::view::RemoteDevice;
use crate::server::http::cluster_listing::client_counts;
use crate::server::http::extract::PathId;
use crate::server::http::respond::json;
use crate::server::peer_rows::{ClientRow, DeviceRow, NodeRow, WaitingRow};

/// The devices of a page, at most, and by default.
const PAGE: (usize, usize) = (10_000, 1_000);

/// The rows after which rendering yields.
const AT_ONCE: usize = 64;

/// A JSON array that is rendered row by row.
pub(super) struct Rows(Vec<u8>);

impl Rows {
    /// Begins `{"name":[`.
    pub(super) fn new(name: &str) -> Self {
        Self(format!("{{\"{name}\":[").into_bytes())
    }

    /// Adds a row, and yields now and then. The length may exceed `most` by the last row: false is returned then.
    pub(super) async fn add(&mut self, at: usize, row: &impl Serialize, most: usize) -> bool {
        if at > 0 {
            self.0.push(b',');
        }
        // Serde cannot fail here: the keys are strings, and a vector takes all bytes.
        let _infallible = serde_json::to_writer(&mut self.0, row);
        if at % AT_ONCE == AT_ONCE - 1 {
            yield_now().await;
        }
        self.0.len() <= most
    }

    /// Ends the array. `rest` begins with a comma, or is empty.
    pub(super) fn end(mut self, rest: &str) -> Response {
        self.0.push(b']');
        self.0.extend_from_slice(rest.as_bytes());
        self.0.push(b'}');
        json(StatusCode::OK, self.0)
    }
}

/// `GET /control/v1/devices?after=ID&limit=N&info=true`: the devices of all nodes, sorted by id.
pub(super) async fn devices(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let mut query = Query::of(&request)?;
    let (after, limit) = (query.text("after"), query.number("limit")?.unwrap_or(PAGE.1));
    let with_info = query.switch("info")?.unwrap_or(true);
    query.done()?;
    if limit == 0 || limit > PAGE.0 {
        return Err(Problem::bad_request("?limit", format!("must be from 1 to {}", PAGE.0)));
    }
    let (hub, most) = (&control.shared.hub, control.shared.settings().control.max_page);
    let is_behind = |id: &DeviceId| after.as_ref().is_none_or(|after| id.as_str() > after.as_str());
    let here = hub.devices().into_iter().filter(|device| is_behind(&device.id)).map(Ok::<_, _>);
    let remote = control.shared.cluster.as_ref().map(|cluster| cluster.remote_devices()).unwrap_or_default();
    let remote = remote.into_iter().filter(|one| is_behind(&one.id) && hub.device(&one.id).is_none()).map(Err);
    let mut all: Vec<Result<Arc<Device>, _>> = here.chain(remote).collect();
    all.sort_by(|one, other| id_of(one).as_str().cmp(id_of(other).as_str()));
    let counts = match &control.shared.cluster {
        Some(cluster) if all.iter().take(limit).any(Result::is_err) => {
            Some(client_counts(&control.shared, cluster).await)
        }
        _ => None,
    };
    let clients = |remote: &RemoteDevice| counts.as_ref().and_then(|counts| counts.of(&remote.node, &remote.id));
    let (mut rows, count) = (Rows::new("devices"), all.len());
    let mut next = None;
    for (at, device) in all.into_iter().enumerate() {
        let row = match device {
            Ok(device) => DeviceRow::of(&device, control.node(), with_info),
            Err(remote) => {
                let clients = clients(&remote);
                DeviceRow::remote(remote, clients, with_info)
            }
        };
        let has_room = rows.add(at, &row, most).await;
        if (!has_room || at + 1 == limit) && at + 1 < count {
            next = Some(row.id().to_owned());
            break;
        }
    }
    Ok(rows.end(&format!(",\"next\":{}", serde_json::Value::from(next))))
}

fn id_of(device: &Result<Arc<Device>, RemoteDevice>) -> &DeviceId {
    match device {
        Ok(device) => &device.id,
        Err(remote) => &remote.id,
    }
}

/// `GET /control/v1/devices/{id}`: also of another node, which is asked.
pub(super) async fn device(State(control): State<Arc<Control>>, PathId(id): PathId, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let id = DeviceId::new(&id);
    if let Some(device) = control.shared.hub.device(&id) {
        return ok(&DeviceRow::of(&device, control.node(), true));
    }
    let described = control.described_elsewhere(id.clone(), String::new()).await?;
    let described = described.as_deref().and_then(|answer| DeviceRow::described(&id, answer));
    described.map_or_else(|| Err(Problem::not_found("Device not found")), |row| ok(&row))
}

/// `GET /control/v1/clients`.
pub(super) async fn clients(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    clients_in(control.shared.hub.devices()).await
}

/// `GET /control/v1/devices/{id}/clients`: also of a device of another node, which is asked.
pub(super) async fn clients_of(State(control): State<Arc<Control>>, PathId(id): PathId, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let id = DeviceId::new(&id);
    if let Some(device) = control.shared.hub.find(&id) {
        return clients_in(vec![device]).await;
    }
    let described = control.described_elsewhere(id.clone(), "/clients".to_owned()).await?;
    let described = described.as_deref().and_then(|answer| ClientRow::described(&id, answer)).unwrap_or_default();
    let mut rows = Rows::new("clients");
    for (at, client) in described.iter().enumerate() {
        rows.add(at, client, usize::MAX).await;
    }
    Ok(rows.end(""))
}

async fn clients_in(devices: Vec<Arc<Device>>) -> Answer {
    let (mut rows, mut at) = (Rows::new("clients"), 0);
    for device in devices {
        for client in device.clients() {
            rows.add(at, &ClientRow::of(&device, &client), usize::MAX).await;
            at += 1;
        }
    }
    Ok(rows.end(""))
}

/// `GET /control/v1/waiting`.
pub(super) async fn waiting(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let mut rows = Rows::new("waiting");
    for (at, (id, client)) in control.shared.hub.waiting().iter().enumerate() {
        rows.add(at, &WaitingRow::of(id, &client.peer), usize::MAX).await;
    }
    Ok(rows.end(""))
}

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<NodeRow>,
    address: Option<String>,
}

/// `GET /control/v1/nodes`.
pub(super) async fn nodes(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let cluster = control.shared.cluster.as_ref();
    let nodes: Vec<_> = cluster.map(|cluster| cluster.nodes()).unwrap_or_default();
    let own = nodes.iter().find(|node| node.state == crate::server::cluster::view::NodeState::This);
    let address = own.map(|node| node.address.clone());
    ok(&Nodes { address, nodes: nodes.into_iter().map(NodeRow::from).collect() })
}

#[derive(Serialize)]
struct Disconnected {
    disconnected: bool,
}

/// `DELETE /control/v1/devices/{id}`: ends the connection of a device.
pub(super) async fn disconnect_device(
    State(control): State<Arc<Control>>,
    PathId(id): PathId,
    request: Request,
) -> Answer {
    Query::of(&request)?.done()?;
    control.disconnect(&id, None).await
}

/// `DELETE /control/v1/devices/{id}/clients/{client}`: ends the connection of a client.
pub(super) async fn disconnect_client(
    State(control): State<Arc<Control>>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Answer {
    let Ok(Path((id, client))) = path else { return Err(Problem::bad_request("/", "The path is not UTF-8")) };
    Query::of(&request)?.done()?;
    let client = whole(&client).and_then(ClientId::new);
    let client = client.ok_or_else(|| Problem::bad_request("/client", "must be a client id, from 0 to 2147483647"))?;
    control.disconnect(&id, Some(client)).await
}

impl Control {
    async fn disconnect(&self, id: &str, client: Option<ClientId>) -> Answer {
        let (device_id, name) = (DeviceId::new(id), Quoted(id));
        let client_id = client.map(ClientId::get);
        let found = self.shared.hub.device(&device_id);
        let is_done = match (found, client.as_ref()) {
            (Some(device), None) => {
                device.outbox.refuse(&Refusal::EndedByOperator);
                true
            }
            (Some(device), Some(client)) => match device.find(*client) {
                Found::Here(client) => {
                    client.outbox.refuse(&Refusal::EndedByOperator);
                    true
                }
                Found::Left | Found::Never => false,
            },
            (None, _) => self.disconnect_elsewhere(device_id, client_id).await?,
        };
        if !is_done {
            let missing = if client.is_some() { "Client not found" } else { "Device not found" };
            return Err(Problem::not_found(missing));
        }
        match client_id {
            None => tracing::info!(
                event = "control_disconnects",
                device_id = id,
                "the control API disconnects device {name}"
            ),
            Some(client_id) => tracing::info!(
                event = "control_disconnects",
                device_id = id,
                client_id,
                "the control API disconnects client {client_id} of device {name}"
            ),
        }
        ok(&Disconnected { disconnected: true })
    }

    /// The answer of the node of a device about it. `None` if no other node has it.
    async fn described_elsewhere(&self, id: DeviceId, below: String) -> Result<Option<Bytes>, Problem> {
        let Some(cluster) = &self.shared.cluster else { return Ok(None) };
        if cluster.remote_device(&id).is_none() {
            return Ok(None);
        }
        cluster.ask(id, Method::GET, below).await.map_err(Problem::unknown_now)
    }

    /// Ends the connection of a device of another node, or of one of its clients. Returns whether there was one.
    async fn disconnect_elsewhere(&self, id: DeviceId, client: Option<u32>) -> Result<bool, Problem> {
        let Some(cluster) = &self.shared.cluster else { return Ok(false) };
        let below = client.map(|client| format!("/clients/{client}")).unwrap_or_default();
        Ok(cluster.ask(id, Method::DELETE, below).await?.is_some())
    }
}
