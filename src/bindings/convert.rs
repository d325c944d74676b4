//! Converts devices and clients to plain tuples for Python.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::core::hub::{Client, Device};
use crate::core::peer::Peer;
use crate::protocol::{DeviceId, outbound};
use crate::server::{NodeView, RemoteDevice};

/// group, owner, name, adb port.
pub(super) type MetadataTuple = (String, String, String, u16);
/// id, address, port, since, identity as JSON, clients, device info as JSON, metadata, port of the device's web server,
/// node, id that it has registered, if that is another one.
pub(super) type DeviceTuple = (
    String,
    Option<String>,
    Option<u16>,
    f64,
    Option<String>,
    Option<usize>,
    String,
    MetadataTuple,
    Option<u16>,
    Option<String>,
    Option<String>,
);
/// name, incarnation, address, state, build, devices.
pub(super) type NodeTuple = (String, String, String, &'static str, String, usize);
/// device id, client id, address, port, since, identity as JSON.
pub(super) type ClientTuple = (String, u32, Option<String>, Option<u16>, f64, Option<String>);

/// device id, address, port, since, identity as JSON.
pub(super) type WaitingTuple = (String, Option<String>, Option<u16>, f64, Option<String>);

fn place(peer: &Peer) -> (Option<String>, Option<u16>, f64, Option<String>) {
    (
        peer.address.map(|address| address.ip().to_string()),
        peer.address.map(|address| address.port()),
        unix(peer.since),
        peer.grant.identity.as_deref().map(str::to_owned),
    )
}

/// Converts a device of this server, which is the node of this name.
pub(super) fn device_tuple(device: &Device, node: Option<&str>) -> DeviceTuple {
    let (address, port, since, identity) = place(&device.peer);
    let info = outbound::info_of(&device.info).to_owned();
    (
        device.id.to_string(),
        address,
        port,
        since,
        identity,
        Some(device.client_count()),
        info,
        metadata_tuple(device),
        device.port,
        node.map(str::to_owned),
        device.local_id.as_ref().map(DeviceId::to_string),
    )
}

/// Converts a device of another node. Its device info is not known here.
pub(super) fn remote_tuple(device: RemoteDevice) -> DeviceTuple {
    let RemoteDevice { id, node, facts } = device;
    let [group, owner, name] = [facts.group(false), facts.owner(), facts.name()].map(str::to_owned);
    let local_id = Some(facts.local_id().to_owned()).filter(|id| !id.is_empty());
    let (info, metadata) = ("null".to_owned(), (group, owner, name, facts.adb_port));
    (id.to_string(), None, None, facts.since, None, None, info, metadata, None, Some(node), local_id)
}

pub(super) fn node_tuple(node: NodeView) -> NodeTuple {
    let NodeView { name, incarnation, address, state, build, devices } = node;
    (name, incarnation, address, state.as_str(), build, devices)
}

/// Converts the metadata of a device.
pub(super) fn metadata_tuple(device: &Device) -> MetadataTuple {
    let metadata = device.metadata();
    let group = metadata.group_of(outbound::info_of(&device.info)).into_owned();
    (group, metadata.owner.to_string(), metadata.name.to_string(), metadata.adb_port)
}

pub(super) fn client_tuple(device: &Device, client: &Client) -> ClientTuple {
    let (address, port, since, identity) = place(&client.peer);
    (device.id.to_string(), client.id.get(), address, port, since, identity)
}

/// Converts a client that waits for this device.
pub(super) fn waiting_tuple(id: &DeviceId, client: &Peer) -> WaitingTuple {
    let (address, port, since, identity) = place(client);
    (id.to_string(), address, port, since, identity)
}

/// Converts to Unix seconds.
pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
