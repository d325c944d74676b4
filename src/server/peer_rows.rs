//! Devices, clients and waiting clients as JSON objects, for the control API.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::cluster::view::{NodeView, RemoteDevice};
use crate::core::hub::{Client, Device};
use crate::core::peer::Peer;
use crate::protocol::{DeviceId, outbound};

/// The connection of a peer.
#[derive(Serialize)]
pub(super) struct Place {
    address: Option<String>,
    port: Option<u16>,
    since: f64,
    /// The identity, as JSON text.
    identity: Option<String>,
}

impl Place {
    fn of(peer: &Peer) -> Self {
        Self {
            address: peer.address.map(|address| address.ip().to_string()),
            port: peer.address.map(|address| address.port()),
            since: seconds(peer.since),
            identity: peer.grant.identity.as_deref().map(str::to_owned),
        }
    }
}

/// A device.
#[derive(Serialize)]
pub(super) struct DeviceRow {
    device_id: String,
    #[serde(flatten)]
    place: Place,
    /// `None` if the node of the device has not told it.
    clients: Option<usize>,
    /// The device info, as JSON text. `None` if it was not asked for.
    info: Option<String>,
    group: String,
    owner: String,
    name: String,
    adb_port: u16,
    web_port: Option<u16>,
    node: Option<String>,
    /// The id that it has registered, if that is not its id in the cluster.
    local_id: Option<String>,
}

impl DeviceRow {
    /// A device of this server, which is the node of this name.
    pub(super) fn of(device: &Device, node: Option<&str>, with_info: bool) -> Self {
        let metadata = device.metadata();
        let info = outbound::info_of(&device.info);
        Self {
            device_id: device.id.to_string(),
            place: Place::of(&device.peer),
            clients: Some(device.client_count()),
            info: with_info.then(|| info.to_owned()),
            group: metadata.group_of(info).into_owned(),
            owner: metadata.owner.to_string(),
            name: metadata.name.to_string(),
            adb_port: metadata.adb_port,
            web_port: device.port,
            node: node.map(str::to_owned),
            local_id: device.local_id.as_ref().map(DeviceId::to_string),
        }
    }

    /// A device of another node, with the number of clients that its node has told. Its device info is not known here.
    pub(super) fn remote(device: RemoteDevice, clients: Option<usize>, with_info: bool) -> Self {
        let RemoteDevice { id, node, facts } = device;
        let [group, owner, name] = [facts.group(false), facts.owner(), facts.name()].map(str::to_owned);
        Self {
            device_id: id.to_string(),
            place: Place { address: None, port: None, since: facts.since, identity: None },
            clients,
            info: with_info.then(|| "null".to_owned()),
            group,
            owner,
            name,
            adb_port: facts.adb_port,
            web_port: None,
            node: Some(node),
            local_id: Some(facts.local_id().to_owned()).filter(|id| !id.is_empty()),
        }
    }

    /// A device of another node, as its node describes it. `None` if that cannot be read.
    pub(super) fn described(id: &DeviceId, answer: &[u8]) -> Option<Self> {
        let told: DescribedDevice = serde_json::from_slice(answer).ok()?;
        let info = told.registration_info.map_or_else(|| "null".to_owned(), |info| info.get().to_owned());
        Some(Self {
            device_id: id.to_string(),
            place: described_place(told.address, &told.since, told.identity)?,
            clients: Some(told.clients),
            info: Some(info),
            group: told.group_name,
            owner: told.owner,
            name: told.name,
            adb_port: told.adb_port,
            web_port: None,
            node: Some(told.node),
            local_id: Some(told.local_id).filter(|id| !id.is_empty()),
        })
    }

    /// The id.
    pub(super) fn id(&self) -> &str {
        &self.device_id
    }
}

/// A client.
#[derive(Serialize)]
pub(super) struct ClientRow {
    device_id: String,
    client_id: u32,
    #[serde(flatten)]
    place: Place,
}

impl ClientRow {
    /// The clients of a device, as its node describes them. `None` if that cannot be read.
    pub(super) fn described(id: &DeviceId, answer: &[u8]) -> Option<Vec<Self>> {
        let clients: Vec<DescribedClient> = serde_json::from_slice(answer).ok()?;
        let row = |client: DescribedClient| {
            let DescribedClient { client_id, address, since, identity } = client;
            let place = described_place(address, &since, identity)?;
            Some(Self { device_id: id.to_string(), client_id, place })
        };
        clients.into_iter().map(row).collect()
    }

    pub(super) fn of(device: &Device, client: &Client) -> Self {
        Self { device_id: device.id.to_string(), client_id: client.id.get(), place: Place::of(&client.peer) }
    }
}

/// A device, as its node describes it.
#[derive(Deserialize)]
struct DescribedDevice {
    node: String,
    group_name: String,
    local_id: String,
    owner: String,
    name: String,
    adb_port: u16,
    clients: usize,
    registration_info: Option<Box<RawValue>>,
    address: Option<SocketAddr>,
    since: Box<RawValue>,
    identity: Option<String>,
}

/// A client, as the node of its device describes it.
#[derive(Deserialize)]
struct DescribedClient {
    client_id: u32,
    address: Option<SocketAddr>,
    since: Box<RawValue>,
    identity: Option<String>,
}

/// The connection of a peer, as the node of its device describes it. The number is read by the standard library, which
/// rounds it right: a node tells the same time as the other one.
fn described_place(address: Option<SocketAddr>, since: &RawValue, identity: Option<String>) -> Option<Place> {
    let (address, port) = address.map(|address| (address.ip().to_string(), address.port())).unzip();
    Some(Place { address, port, since: since.get().parse().ok()?, identity })
}

/// A client that waits for a device.
#[derive(Serialize)]
pub(super) struct WaitingRow {
    device_id: String,
    #[serde(flatten)]
    place: Place,
}

impl WaitingRow {
    pub(super) fn of(id: &DeviceId, client: &Peer) -> Self {
        Self { device_id: id.to_string(), place: Place::of(client) }
    }
}

/// A node of the cluster.
#[derive(Serialize, Clone, PartialEq)]
pub(super) struct NodeRow {
    pub(super) name: String,
    incarnation: String,
    address: String,
    state: &'static str,
    build: String,
    devices: usize,
}

impl From<NodeView> for NodeRow {
    fn from(node: NodeView) -> Self {
        let NodeView { name, incarnation, address, state, build, devices } = node;
        Self { name, incarnation, address, state: state.as_str(), build, devices }
    }
}

/// A change of a peer, for streams.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum PeerEvent {
    DeviceRegistered { at: f64, device: DeviceRow },
    DeviceLeft { at: f64, device_id: String },
    ClientConnected { at: f64, client: ClientRow },
    ClientLeft { at: f64, device_id: String, client_id: u32 },
    ClientWaiting { at: f64, device_id: String },
    ClientStoppedWaiting { at: f64, device_id: String },
}

/// The time now, in seconds since 1970.
pub(super) fn now() -> f64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
