//! The registered devices in the order of their ids, as a list whose copies are cheap.
//!
//! The list is made of chunks. A copy shares the chunks, and a change replaces one chunk. So a reader takes all devices
//! at one moment without walking them under the lock of the hub, and a change shows by the chunk that it replaced.

use std::sync::Arc;

use super::device::Device;
use crate::protocol::DeviceId;

/// The most devices of one chunk. A chunk that would have more is split in half.
const MOST: usize = 64;

/// Some devices that follow each other in the order of their ids. Never empty in a [`DeviceList`].
pub type Chunk = Vec<Arc<Device>>;

/// The registered devices, sorted by id. At most one device has an id.
#[derive(Debug, Clone, Default)]
pub struct DeviceList {
    chunks: Vec<Arc<Chunk>>,
    len: usize,
}

impl DeviceList {
    /// Returns the number of devices.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there is no device.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the chunks. A chunk that is the same `Arc` as in an earlier copy of the list has the same devices.
    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// Returns the devices.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Adds a device. It replaces the device with the same id.
    pub(super) fn insert(&mut self, device: Arc<Device>) {
        let at = self.chunk_of(&device.id).min(self.chunks.len().saturating_sub(1));
        let Some(shared) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![device]));
            self.len = 1;
            return;
        };
        let chunk = Arc::make_mut(shared);
        match chunk.binary_search_by(|other| other.id.cmp(&device.id)) {
            Ok(place) => chunk[place] = device,
            Err(place) => {
                chunk.insert(place, device);
                self.len += 1;
            }
        }
        if chunk.len() > MOST {
            let rest = chunk.split_off(MOST / 2);
            self.chunks.insert(at + 1, Arc::new(rest));
        }
    }

    /// Removes the device with this id.
    pub(super) fn remove(&mut self, id: &DeviceId) {
        let at = self.chunk_of(id);
        let Some(shared) = self.chunks.get_mut(at) else { return };
        let Ok(place) = shared.binary_search_by(|other| other.id.cmp(id)) else { return };
        let chunk = Arc::make_mut(shared);
        chunk.remove(place);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        self.len -= 1;
    }

    /// The chunk that has this id, or would have it: the first one whose last id is not smaller.
    fn chunk_of(&self, id: &DeviceId) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last.id < *id))
    }
}
