//! The query of a dashboard page.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::core::hub::Device;
use crate::core::peer::Peer;
use crate::protocol::DeviceId;
use crate::server::cluster::view::RemoteDevice;
use crate::server::shared::Shared;

/// The query of one page.
#[derive(Default)]
pub(super) struct View {
    /// Text that a device must contain, in lower case; empty for all devices.
    search: String,
    /// The device to show in detail.
    pub(super) device: Option<DeviceId>,
}

impl View {
    /// Parses a query.
    pub(super) fn of_query(query: &str) -> Self {
        let mut view = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "search" => view.search = value.to_lowercase(),
                "device" => view.device = Some(DeviceId::new(&value)),
                _ => {}
            }
        }
        view
    }

    /// Whether the search selects all devices.
    pub(super) fn is_all(&self) -> bool {
        self.search.is_empty()
    }

    /// Whether the search selects a device of another node. `hides_groups`: groups of device infos are hidden.
    pub(super) fn shows_remote(&self, device: &RemoteDevice, hides_groups: bool) -> bool {
        let RemoteDevice { id, node, facts } = device;
        self.finds(&[id.as_str(), facts.group(hides_groups), facts.owner(), facts.name(), facts.local_id(), node])
    }

    /// Whether the search selects a device of this node.
    pub(super) fn shows(&self, shared: &Shared, device: &Device) -> bool {
        let metadata = device.metadata();
        let local_id = device.local_id.as_ref().map_or("", DeviceId::as_str);
        let node = shared.cluster.as_ref().map_or("", |cluster| cluster.incarnation.node());
        self.finds(&[device.id.as_str(), shared.group_of(device), &metadata.owner, &metadata.name, local_id, node])
    }

    /// Whether one of the texts contains the search.
    fn finds(&self, texts: &[&str]) -> bool {
        self.is_all() || texts.iter().any(|text| text.to_lowercase().contains(&self.search))
    }
}

/// The time at which a peer connected, in seconds since 1970.
pub(super) fn since(peer: &Peer) -> f64 {
    unix(peer.since)
}

/// A time in seconds since 1970.
pub(super) fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
