//! `GET /devices` of a node of a cluster: the devices of all nodes, from memory.

use std::sync::Arc;

use axum::response::Response;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::yield_now;

use super::listing::DeviceEntry;
use super::pieces::Pieces;
use super::respond::error;
use crate::config::DevicesFormat;
use crate::core::hub::Device;
use crate::core::outbox::Outbox;
use crate::core::peer::{Peer, Role};
use crate::core::preregistration::{DeviceMetadata, SharedText};
use crate::protocol::outbound::quote;
use crate::protocol::{DeviceId, outbound};
use crate::server::cluster::handle::Cluster;
use crate::server::cluster::view::RemoteDevice;
use crate::server::shared::Shared;

/// The seconds for which the registry could not be asked, in answers that come from the copy of it.
const STALE: HeaderName = HeaderName::from_static("x-cuttlefish-stale");

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
    let (mut parts, mut text, claimed) = (Vec::new(), Vec::new(), cluster.claimed());
    for (at, listed) in all(shared, cluster).iter().enumerate() {
        match listed {
            Listed::Here(device) => {
                let group = shared.group_of(device);
                if selects(&Facts { id: &device.id, group, owner: &device.metadata().owner }) {
                    let entry = DeviceEntry::of(device, group, None).on(Some(own));
                    render(&mut text, format, &entry.unclaimed(!claimed.contains(&device.id)));
                }
            }
            Listed::There(device) => {
                // The group may come from the device info, of which a hook hides a part.
                let group = device.facts.group(hides_groups);
                if selects(&Facts { id: &device.id, group, owner: device.facts.owner() }) {
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

/// Adds the age of the list, if the registry cannot be asked.
pub(super) fn with_age(cluster: &Cluster, mut response: Response) -> Response {
    if let Some(age) = cluster.stale_for() {
        response.headers_mut().insert(STALE, HeaderValue::from(age.as_secs()));
    }
    response
}

/// A device of another node, as that node describes it.
#[derive(Deserialize)]
struct Described<'a> {
    /// The group of its pre-registration.
    #[serde(default)]
    announced_group: String,
    owner: String,
    name: String,
    adb_port: u16,
    #[serde(default)]
    local_id: String,
    #[serde(borrow)]
    registration_info: Option<&'a RawValue>,
}

/// Asks the node of a device for it. Returns a stand-in for the device, which is in no hub, and the name of the node.
///
/// # Errors
/// 404 if no node has the device, 504 if its node does not answer.
#[allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]
pub(super) async fn find(shared: &Shared, cluster: &Cluster, id: &DeviceId) -> Result<(Device, String), Response> {
    let node = cluster.remote_device(id).map(|device| device.node);
    let asked = cluster.ask(id.clone(), Method::GET, String::new()).await;
    let body = match asked {
        Ok(Some(body)) => body,
        Ok(None) => return Err(error(StatusCode::NOT_FOUND, "Device not found")),
        Err(unreachable) => return Err(error(StatusCode::GATEWAY_TIMEOUT, &format!("Not known now: {unreachable}"))),
    };
    let Ok(described) = serde_json::from_slice::<Described<'_>>(&body) else {
        return Err(error(StatusCode::BAD_GATEWAY, "The node of the device has answered with something else"));
    };
    let info = outbound::device_info(described.registration_info.map_or("null", RawValue::get));
    let (peer, outbox) = (Peer::anonymous(Role::Device), Outbox::new(&shared.settings().budget));
    let mut device = Device::new(id.clone(), info, Arc::new(peer), Arc::new(outbox));
    device.metadata = Some(Arc::new(DeviceMetadata {
        group_name: SharedText::from(&*described.announced_group),
        owner: SharedText::from(&*described.owner),
        name: SharedText::from(&*described.name),
        adb_port: described.adb_port,
        advertise: None,
    }));
    device.local_id = Some(described.local_id).filter(|id| !id.is_empty()).map(|id| DeviceId::new(&id));
    Ok((device, node.unwrap_or_default()))
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
