//! `GET /devices` of a node of a cluster: the devices of all nodes, from memory.

use std::sync::Arc;

use hyper::body::Bytes;
use tokio::task::yield_now;

use super::listing::DeviceEntry;
use super::pieces::Pieces;
use crate::config::DevicesFormat;
use crate::core::hub::Device;
use crate::protocol::DeviceId;
use crate::protocol::outbound::quote;
use crate::server::cluster::handle::Cluster;
use crate::server::cluster::view::RemoteDevice;
use crate::server::shared::Shared;

/// Devices that are rendered without a yield.
const AT_ONCE: usize = 256;

/// The facts by which a request selects a device.
pub(super) struct Facts<'a> {
    pub(super) id: &'a DeviceId,
    pub(super) group: &'a str,
    pub(super) owner: &'a str,
}

/// Returns the body with the devices of all nodes that `selects` returns true for, sorted by id. A device that is here is
/// not told again by the registry.
pub(super) async fn list(
    shared: &Shared,
    cluster: &Cluster,
    format: DevicesFormat,
    selects: impl Fn(&Facts<'_>) -> bool,
) -> Pieces {
    let (own, hides_groups) = (cluster.incarnation.node(), shared.hooks.filters_device_info());
    let (mut parts, mut text) = (Vec::new(), Vec::new());
    for (at, listed) in all(shared, cluster).iter().enumerate() {
        match listed {
            Listed::Here(device) => {
                let group = shared.group_of(device);
                if selects(&Facts { id: &device.id, group, owner: &device.metadata().owner }) {
                    render(&mut text, format, &DeviceEntry::of(device, group, None).on(Some(own)));
                }
            }
            Listed::There(device) => {
                // The group may come from the device info, of which a hook hides a part.
                let group = if hides_groups { "" } else { &*device.facts.group };
                if selects(&Facts { id: &device.id, group, owner: &device.facts.owner }) {
                    render(&mut text, format, &DeviceEntry::of_remote(device, group));
                }
            }
        }
        if at % AT_ONCE == AT_ONCE - 1 {
            parts.push(Bytes::from(std::mem::take(&mut text)));
            yield_now().await;
        }
    }
    parts.push(text.into());
    super::listing::array(parts)
}

/// A device of this node, or of another one.
enum Listed {
    Here(Arc<Device>),
    There(RemoteDevice),
}

impl Listed {
    fn id(&self) -> &DeviceId {
        match self {
            Self::Here(device) => &device.id,
            Self::There(device) => &device.id,
        }
    }
}

/// All devices, sorted by id.
fn all(shared: &Shared, cluster: &Cluster) -> Vec<Listed> {
    let (_, here) = shared.hub.device_list();
    let mut all: Vec<_> = here.iter().map(|device| Listed::Here(Arc::clone(device))).collect();
    let there = cluster.remote_devices().into_iter().filter(|device| shared.hub.device(&device.id).is_none());
    all.extend(there.map(Listed::There));
    all.sort_by(|one, other| one.id().cmp(other.id()));
    all
}

fn render(text: &mut Vec<u8>, format: DevicesFormat, entry: &DeviceEntry<'_>) {
    text.push(b',');
    match format {
        DevicesFormat::Full => {
            let _infallible = serde_json::to_writer(text, entry);
        }
        DevicesFormat::Ids => text.extend_from_slice(quote(entry.id()).as_bytes()),
    }
}
