//! `GET /devices` of a node of a cluster: the devices of all nodes, from memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use futures_util::stream::{self, StreamExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::yield_now;

use super::listing::DeviceEntry;
use super::pieces::Pieces;
use super::respond::error;
use crate::config::DevicesFormat;
use crate::core::cluster::Incarnation;
use crate::core::hub::Device;
use crate::core::outbox::Outbox;
use crate::core::peer::{Peer, Role};
use crate::core::preregistration::{DeviceMetadata, SharedText};
use crate::protocol::outbound::quote;
use crate::protocol::{DeviceId, outbound};
use crate::server::cluster::client_counts::{ClientCounts, OfNode};
use crate::server::cluster::handle::Cluster;
use crate::server::cluster::view::RemoteDevice;
use crate::server::shared::Shared;

/// The seconds for which the registry could not be asked, in answers that come from the copy of it.
const STALE: HeaderName = HeaderName::from_static("x-cuttlefish-stale");

/// Nodes that are asked for numbers of clients at the same time.
const ASKED_AT_ONCE: usize = 16;

/// The time in which a node has to tell them. Without them the list has none of its devices.
const TO_COUNT: Duration = Duration::from_secs(2);

/// The most bytes of such an answer.
const MAX_COUNTS: usize = 16 * 1024 * 1024;

/// Devices that are rendered without a yield.
const AT_ONCE: usize = 256;

/// The facts by which a request selects a device.
pub(super) struct Facts<'a> {
    pub(super) id: &'a DeviceId,
    pub(super) group: &'a str,
    pub(super) owner: &'a str,
}

/// Asks the other nodes for the numbers of clients of their devices, unless they were asked within a second.
pub(in crate::server) async fn client_counts(shared: &Shared, cluster: &Cluster) -> Arc<ClientCounts> {
    let ask = async {
        let others = cluster.others().into_iter().map(|record| counts_of(shared, cluster, record.incarnation));
        let told: Vec<_> = stream::iter(others).buffer_unordered(ASKED_AT_ONCE).collect().await;
        ClientCounts::new(told.into_iter().flatten().collect(), Instant::now())
    };
    cluster.client_counts.get(ask).await
}

/// Asks a node for the numbers of clients of its devices. `None` without an answer in time.
async fn counts_of(shared: &Shared, cluster: &Cluster, node: Incarnation) -> Option<(String, OfNode)> {
    let mut request = hyper::Request::new(Full::default());
    *request.uri_mut() = Uri::from_static("/cluster/clients");
    let name = node.node().to_owned();
    let asked = async {
        let response = cluster.forwards.send(node, HeaderValue::from_static("{}"), request).await.ok()?;
        let body = Limited::new(response.into_body(), MAX_COUNTS).collect().await.ok()?.to_bytes();
        serde_json::from_slice::<OfNode>(&body).ok()
    };
    Some((name, shared.timers.timeout(TO_COUNT, asked).await??))
}

/// Returns the body with the devices of all nodes that `selects` returns true for, sorted by id. A device that is here is
/// not told again by the registry. With `counts`, entries have numbers of clients.
pub(super) async fn list(
    shared: &Shared,
    cluster: &Cluster,
    format: DevicesFormat,
    counts: Option<&ClientCounts>,
    selects: impl Fn(&Facts<'_>) -> bool,
) -> Pieces {
    let (own, hides_groups) = (cluster.incarnation.node(), shared.hooks.filters_device_info());
    let (mut parts, mut text, claimed) = (Vec::new(), Vec::new(), cluster.claimed());
    for (at, listed) in all(shared, cluster).iter().enumerate() {
        match listed {
            Listed::Here(device) => {
                let group = shared.group_of(device);
                if selects(&Facts { id: &device.id, group, owner: &device.metadata().owner }) {
                    let clients = counts.map(|_| device.client_count());
                    let entry = DeviceEntry::of(device, group, None).on(Some(own)).with_clients(clients);
                    render(&mut text, format, &entry.unclaimed(!claimed.contains(&device.id)));
                }
            }
            Listed::There(device) => {
                // The group may come from the device info, of which a hook hides a part.
                let group = device.facts.group(hides_groups);
                if selects(&Facts { id: &device.id, group, owner: device.facts.owner() }) {
                    let clients = counts.and_then(|counts| counts.of(&device.node, &device.id));
                    render(&mut text, format, &DeviceEntry::of_remote(device, group).with_clients(clients));
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
    #[serde(default)]
    clients: Option<usize>,
    #[serde(borrow)]
    registration_info: Option<&'a RawValue>,
}

/// Asks the node of a device for it. Returns a stand-in for the device, which is in no hub, the name of the node, and the
/// number of clients.
///
/// # Errors
/// 404 if no node has the device, 504 if its node does not answer.
#[allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]
pub(super) async fn find(
    shared: &Shared,
    cluster: &Cluster,
    id: &DeviceId,
) -> Result<(Device, String, Option<usize>), Response> {
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
    Ok((device, node.unwrap_or_default(), described.clients))
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
