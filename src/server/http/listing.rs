//! The list of `GET /devices`, rendered once for each change and shared by all requests.
//!
//! The list of the hub is made of chunks. The texts of a chunk are rendered once, and used until a device of the chunk
//! comes or goes. The answer to a request is made of slices of these texts: of all, or of the devices that the request
//! selects. Nothing here is rendered for one caller, so a cached text shows no device that its caller may not see.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use hyper::body::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::task::yield_now;

use super::pieces::Pieces;
use crate::config::DevicesFormat;
use crate::core::hub::{Chunk, Device};
use crate::core::preregistration::DeviceMetadata;
use crate::protocol::DeviceId;
use crate::protocol::outbound::quote;
use crate::server::cluster::view::RemoteDevice;
use crate::server::shared::Shared;

/// One entry of `GET /devices`.
#[derive(Serialize)]
pub(in crate::server) struct DeviceEntry<'a> {
    /// The device id.
    device_id: &'a str,
    /// The group, of the pre-registration or of the device info (docs/protocol.md 5.3.4).
    group_name: &'a str,
    /// The owner, if the device was pre-registered with one.
    #[serde(skip_serializing_if = "str::is_empty")]
    owner: &'a str,
    /// The name, if the device was pre-registered with one.
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    /// The adb port; 0 if it is not known.
    adb_port: u16,
    /// The node of the cluster that has the device; none without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// The id that the device has registered, if that is another one.
    #[serde(skip_serializing_if = "str::is_empty")]
    local_id: &'a str,
    /// Whether the registry of the cluster does not have the device, so that its own node alone serves it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unclaimed: bool,
    /// The number of clients, where the request asks for it and the node of the device has told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<usize>,
    /// The device info; only in `GET /devices/{id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_info: Option<&'a RawValue>,
}

impl<'a> DeviceEntry<'a> {
    /// Makes the entry of a device.
    pub(in crate::server) fn of(
        device: &'a Device,
        group_name: &'a str,
        registration_info: Option<&'a RawValue>,
    ) -> Self {
        let metadata = device.metadata();
        Self {
            device_id: device.id.as_str(),
            group_name,
            owner: &metadata.owner,
            name: &metadata.name,
            adb_port: metadata.adb_port,
            node: None,
            local_id: device.local_id.as_ref().map_or("", DeviceId::as_str),
            unclaimed: false,
            clients: None,
            registration_info,
        }
    }

    /// Makes the entry of a device of another node.
    pub(in crate::server::http) fn of_remote(device: &'a RemoteDevice, group_name: &'a str) -> Self {
        let RemoteDevice { id, node, facts } = device;
        let (device_id, adb_port, node) = (id.as_str(), facts.adb_port, Some(&**node));
        let (owner, name, local_id) = (facts.owner(), facts.name(), facts.local_id());
        let (unclaimed, clients, registration_info) = (false, None, None);
        Self { device_id, group_name, owner, name, adb_port, node, local_id, unclaimed, clients, registration_info }
    }

    /// Adds the name of the node, if the server is one.
    pub(in crate::server::http) fn on(self, node: Option<&'a str>) -> Self {
        Self { node, ..self }
    }

    /// Marks a device that the registry does not have.
    pub(in crate::server::http) fn unclaimed(self, unclaimed: bool) -> Self {
        Self { unclaimed, ..self }
    }

    /// Adds the number of clients.
    pub(in crate::server::http) fn with_clients(self, clients: Option<usize>) -> Self {
        Self { clients, ..self }
    }

    /// The id of the device.
    pub(in crate::server::http) fn id(&self) -> &'a str {
        self.device_id
    }
}

/// The rendered list of devices, and how often it was rendered.
#[derive(Default)]
pub(crate) struct Listings {
    /// The latest list. The lock is held while a list is rendered, so that requests share it.
    latest: Mutex<Arc<Listing>>,
    /// Devices whose entry was rendered.
    rendered: AtomicU64,
}

/// The rendered list at one revision of the hub's list.
#[derive(Default)]
pub(in crate::server) struct Listing {
    /// The revision; `None` before the first one.
    revision: Option<u64>,
    /// Whether groups that come from device info are hidden, as a hook filters it. The hook may come and go.
    hides_groups: bool,
    /// The chunks, in the order of the device ids.
    chunks: Vec<Arc<RenderedChunk>>,
}

/// The texts of a chunk of devices.
struct RenderedChunk {
    /// The chunk. It is not kept: devices that have left are freed.
    of: Weak<Chunk>,
    /// Its devices.
    entries: Vec<RenderedEntry>,
    /// Their entries in [`DevicesFormat::Full`], each after a comma.
    full: Bytes,
    /// Their entries in [`DevicesFormat::Ids`], each after a comma.
    ids: Bytes,
}

/// The facts by which a request selects a device, and where its texts end.
pub(in crate::server) struct RenderedEntry {
    /// The device id.
    pub(in crate::server) id: DeviceId,
    /// The metadata of its pre-registration.
    metadata: Option<Arc<DeviceMetadata>>,
    /// The group in its device info, unless a hook filters device info.
    own_group: Option<Arc<str>>,
    /// The end of its entry in `full`.
    full_end: usize,
    /// The end of its entry in `ids`.
    ids_end: usize,
}

impl RenderedEntry {
    /// The group, as the list shows it.
    pub(in crate::server) fn group(&self) -> &str {
        match self.metadata.as_ref().map_or("", |metadata| &metadata.group_name) {
            "" => self.own_group.as_deref().unwrap_or_default(),
            announced => announced,
        }
    }

    /// The owner; empty if there is none.
    pub(in crate::server) fn owner(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.owner)
    }
}

impl Listings {
    /// Returns a list that has each change made before the call.
    ///
    /// Requests that wait while a list is rendered share it, if it has the changes of before they came.
    pub(in crate::server) async fn current(&self, shared: &Shared) -> Arc<Listing> {
        let wanted = shared.hub.list_revision();
        let mut latest = self.latest.lock().await;
        let hides_groups = shared.hooks.filters_device_info();
        if latest.revision.is_none_or(|revision| revision < wanted) || latest.hides_groups != hides_groups {
            *latest = Arc::new(self.render(shared, &latest).await);
        }
        Arc::clone(&latest)
    }

    /// Renders the chunks that the last list lacks. Yields after each.
    async fn render(&self, shared: &Shared, last: &Listing) -> Listing {
        // Read first: a hook that is set meanwhile makes the next request render all again.
        let hides_groups = shared.hooks.filters_device_info();
        let (revision, devices) = shared.hub.device_list();
        let mut chunks = Vec::with_capacity(devices.chunks().len());
        let usable = if last.hides_groups == hides_groups { &*last.chunks } else { &[] };
        let mut before = usable.iter();
        for chunk in devices.chunks() {
            // Both lists have the chunks that did not change in the same order.
            let kept = before.clone().position(|rendered| rendered.of.as_ptr() == Arc::as_ptr(chunk));
            if let Some(kept) = kept.and_then(|at| before.nth(at)) {
                chunks.push(Arc::clone(kept));
                continue;
            }
            chunks.push(Arc::new(RenderedChunk::of(shared, chunk)));
            self.rendered.fetch_add(chunk.len() as u64, Relaxed);
            yield_now().await;
        }
        Listing { revision: Some(revision), hides_groups, chunks }
    }

    /// The number of devices whose entry was rendered so far.
    pub(in crate::server) fn rendered(&self) -> u64 {
        self.rendered.load(Relaxed)
    }
}

impl RenderedChunk {
    fn of(shared: &Shared, chunk: &Arc<Chunk>) -> Self {
        let (mut full, mut ids) = (Vec::new(), Vec::new());
        let entries = chunk.iter().map(|device| RenderedEntry::of(shared, device, &mut full, &mut ids)).collect();
        Self { of: Arc::downgrade(chunk), entries, full: full.into(), ids: ids.into() }
    }

    /// The text in a format.
    fn text(&self, format: DevicesFormat) -> &Bytes {
        match format {
            DevicesFormat::Full => &self.full,
            DevicesFormat::Ids => &self.ids,
        }
    }
}

impl RenderedEntry {
    /// Renders a device behind the texts so far.
    fn of(shared: &Shared, device: &Device, full: &mut Vec<u8>, ids: &mut Vec<u8>) -> Self {
        full.push(b',');
        let entry = DeviceEntry::of(device, shared.group_of(device), None);
        let _infallible = serde_json::to_writer(&mut *full, &entry);
        ids.push(b',');
        ids.extend_from_slice(quote(device.id.as_str()).as_bytes());
        Self {
            id: device.id.clone(),
            metadata: device.metadata.clone(),
            own_group: device.own_group().filter(|_| !shared.hooks.filters_device_info()).cloned(),
            full_end: full.len(),
            ids_end: ids.len(),
        }
    }

    /// Where its text ends.
    fn end(&self, format: DevicesFormat) -> usize {
        match format {
            DevicesFormat::Full => self.full_end,
            DevicesFormat::Ids => self.ids_end,
        }
    }
}

impl Listing {
    /// The body with all devices.
    pub(in crate::server) fn all(&self, format: DevicesFormat) -> Pieces {
        array(self.chunks.iter().map(|chunk| chunk.text(format).clone()).collect())
    }

    /// The body with the devices that `selects` returns true for. Yields after each chunk.
    pub(in crate::server) async fn only(
        &self,
        format: DevicesFormat,
        selects: impl Fn(&RenderedEntry) -> bool,
    ) -> Pieces {
        let mut parts = Vec::new();
        for chunk in &self.chunks {
            let text = chunk.text(format);
            // Devices that follow each other are one slice.
            let (mut from, mut end) = (0, 0);
            for entry in &chunk.entries {
                let begin = std::mem::replace(&mut end, entry.end(format));
                if !selects(entry) {
                    parts.push(text.slice(from..begin));
                    from = end;
                }
            }
            parts.push(text.slice(from..end));
            yield_now().await;
        }
        array(parts)
    }
}

/// The body with the devices that `selects` returns true for by device and group, with their numbers of clients: those
/// change too often for a text that is kept. Yields after each chunk.
pub(in crate::server) async fn counted(shared: &Shared, selects: impl Fn(&Device, &str) -> bool) -> Pieces {
    let (_, devices) = shared.hub.device_list();
    let mut parts = Vec::new();
    for chunk in devices.chunks() {
        let mut text = Vec::new();
        for device in chunk.iter() {
            let group = shared.group_of(device);
            if selects(device, group) {
                text.push(b',');
                let entry = DeviceEntry::of(device, group, None).with_clients(Some(device.client_count()));
                let _infallible = serde_json::to_writer(&mut text, &entry);
            }
        }
        parts.push(text.into());
        yield_now().await;
    }
    array(parts)
}

/// A JSON array of entries, each after a comma.
pub(super) fn array(mut entries: Vec<Bytes>) -> Pieces {
    if let Some(first) = entries.iter_mut().find(|part| !part.is_empty()) {
        *first = first.slice(1..);
    }
    let (open, close) = (Bytes::from_static(b"["), Bytes::from_static(b"]"));
    std::iter::once(open).chain(entries).chain(std::iter::once(close)).collect()
}
