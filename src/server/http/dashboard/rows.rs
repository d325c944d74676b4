//! The rows of the event `overview`: devices, and the clients that wait for one.

use std::net::SocketAddr;

use serde::Serialize;

use super::selection::Listed;
use super::view::{since, unix};
use crate::core::hub::{Awaited, Device, Traffic};
use crate::core::peer::Grant;
use crate::protocol::DeviceId;
use crate::server::cluster::view::RemoteDevice;
use crate::server::shared::Shared;

/// The maximum number of devices in an event that clients wait for.
const MOST_AWAITED: usize = 50;

/// A device in the event.
#[derive(Serialize)]
pub(super) struct DeviceRow<'a> {
    /// The device id.
    device_id: &'a str,
    /// The group.
    group_name: &'a str,
    /// The owner; empty if it is not known.
    owner: &'a str,
    /// The name; empty if it is not known.
    name: &'a str,
    /// The adb port; 0 if it is not known.
    adb_port: u16,
    /// Whether the device has a web server of its own.
    has_files: bool,
    /// The address that it connected from; `None` on a local socket.
    address: Option<SocketAddr>,
    /// The time at which the device connected, in seconds since 1970.
    since: f64,
    /// The number of clients.
    clients: usize,
    /// Forwards to the device.
    to_device: u64,
    /// Forwards to its clients.
    to_client: u64,
    /// The node of the cluster that has the device; `None` without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// The id that the device has registered, if that is another one.
    #[serde(skip_serializing_if = "str::is_empty")]
    local_id: &'a str,
    /// Whether the registry of the cluster does not have the device, so that its own node alone serves it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unclaimed: bool,
    /// Whether another node has the device. Its clients and its forwards are not known here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_remote: bool,
}

impl<'a> DeviceRow<'a> {
    /// Reads a device of any node.
    pub(super) fn of_listed(shared: &'a Shared, listed: &'a Listed, hides_groups: bool) -> Self {
        match listed {
            Listed::Here { device, unclaimed } => Self { unclaimed: *unclaimed, ..Self::of(shared, device) },
            Listed::There(device) => Self::of_remote(device, hides_groups),
        }
    }

    /// Reads a device of another node.
    fn of_remote(device: &'a RemoteDevice, hides_groups: bool) -> Self {
        let RemoteDevice { id, node, facts } = device;
        Self {
            device_id: id.as_str(),
            group_name: facts.group(hides_groups),
            owner: facts.owner(),
            name: facts.name(),
            adb_port: facts.adb_port,
            has_files: false,
            address: None,
            since: facts.since,
            clients: 0,
            to_device: 0,
            to_client: 0,
            node: Some(node),
            local_id: facts.local_id(),
            unclaimed: false,
            is_remote: true,
        }
    }

    /// Reads a device of this node.
    fn of(shared: &'a Shared, device: &'a Device) -> Self {
        let metadata = device.metadata();
        let (to_device, to_client) = Traffic::read(&device.traffic);
        Self {
            device_id: device.id.as_str(),
            group_name: shared.group_of(device),
            owner: &metadata.owner,
            name: &metadata.name,
            adb_port: metadata.adb_port,
            has_files: device.port.is_some(),
            address: device.peer.address,
            since: since(&device.peer),
            clients: device.client_count(),
            to_device,
            to_client,
            node: shared.cluster.as_ref().map(|cluster| cluster.incarnation.node()),
            local_id: device.local_id.as_ref().map_or("", DeviceId::as_str),
            unclaimed: false,
            is_remote: false,
        }
    }
}

/// A device in the event that clients wait for.
#[derive(Serialize)]
pub(super) struct AwaitedRow {
    /// The device id.
    device_id: String,
    /// The number of clients.
    clients: usize,
    /// The time at which the first of them connected, in seconds since 1970.
    since: f64,
    /// Those that began to wait first.
    first: Vec<WaitingRow>,
}

/// A client that waits.
#[derive(Serialize)]
struct WaitingRow {
    /// Its address; `None` on a local socket.
    address: Option<SocketAddr>,
    /// The time at which it connected, in seconds since 1970.
    since: f64,
}

/// The devices that clients wait for, as far as the viewer may see them, up to the maximum.
pub(super) fn awaited(shared: &Shared, grant: &Grant) -> Vec<AwaitedRow> {
    let row = |Awaited { id, clients, since: first_at, first }: Awaited| AwaitedRow {
        device_id: id.as_str().to_owned(),
        clients,
        since: unix(first_at),
        first: first.iter().map(|peer| WaitingRow { address: peer.address, since: since(peer) }).collect(),
    };
    shared.hub.awaited(grant, MOST_AWAITED).into_iter().map(row).collect()
}
