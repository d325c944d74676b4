//! Client ids of a registration, and the last client id of each device that has left (docs/protocol.md 2.5).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::protocol::{ClientId, DeviceId};

/// Start of the client ids of a registration: the setting `client_ids`.
///
/// With either value, an id is larger than all that this server gave to the same device before (docs/protocol.md
/// 2.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientIds {
    /// The first registration of a device starts at 1 (docs/protocol.md 2.5.2).
    #[default]
    FromOne,
    /// Each registration starts at a number made from the time of day (docs/protocol.md 2.5.3).
    ///
    /// The WebRTC peers of a real device outlive a restart of the server. With a number from before the restart, a new
    /// client would get the peer of an old one.
    Unique,
}

impl ClientIds {
    /// Returns the first id by this setting alone: 1, or 1 + (ms / 10 mod 2^30). `unix_time` is the time since 1970.
    pub fn first(self, unix_time: Duration) -> u32 {
        match self {
            Self::FromOne => 1,
            Self::Unique => 1 + u32::try_from(unix_time.as_millis() / 10 % (1 << 30)).unwrap_or(0),
        }
    }
}

/// Client ids that a device was given in this registration and in those before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenIds {
    /// Last id of the registrations before this one; 0 if there is none.
    before: u32,
    /// First id of this registration.
    first: u32,
    /// Next id to give out.
    next: u32,
}

impl Default for GivenIds {
    fn default() -> Self {
        Self { before: 0, first: 1, next: 1 }
    }
}

impl GivenIds {
    /// Starts a registration at `first`, or after `before`, whichever is larger.
    pub(super) fn begin(before: u32, first: u32) -> Self {
        let first = first.max(before.saturating_add(1));
        Self { before, first, next: first }
    }

    /// Gives out the next id; `None` if none is left.
    pub(super) fn give(&mut self) -> Option<ClientId> {
        let id = ClientId::new(self.next)?;
        self.next += 1;
        Some(id)
    }

    /// Notes an id that another server has given out.
    pub(super) fn note(&mut self, id: ClientId) -> ClientId {
        self.next = self.next.max(id.get().saturating_add(1));
        id
    }

    /// Returns whether this id was given out.
    pub(super) fn contains(&self, id: u32) -> bool {
        (self.first..self.next).contains(&id) || (1..=self.before).contains(&id)
    }

    /// Returns the last id that was given out; 0 if there is none.
    pub(super) fn last(&self) -> u32 {
        if self.next > self.first { self.next - 1 } else { self.before }
    }
}

/// Last client id of each device that has left, for a bounded number of devices.
///
/// Beyond the bound, the device that left first is removed.
#[derive(Debug)]
pub struct LastIds {
    max_devices: usize,
    ids: HashMap<DeviceId, (u32, u64)>,
    /// Devices in the order in which their ids were stored.
    turns: BTreeMap<u64, DeviceId>,
    next_turn: u64,
}

impl LastIds {
    /// Creates an empty table for at most `max_devices` devices.
    pub fn new(max_devices: usize) -> Self {
        Self { max_devices, ids: HashMap::new(), turns: BTreeMap::new(), next_turn: 0 }
    }

    /// Sets the number of devices. Those that left first are removed.
    pub fn set_max_devices(&mut self, max_devices: usize) {
        self.max_devices = max_devices;
        while self.ids.len() > max_devices
            && let Some((_, oldest)) = self.turns.pop_first()
        {
            self.ids.remove(&oldest);
        }
    }

    /// Returns the last id of this device; 0 if it has none, or was removed.
    pub fn of(&self, device: &DeviceId) -> u32 {
        self.ids.get(device).map_or(0, |(id, _)| *id)
    }

    /// Stores the last id of a device that leaves. 0 is not an id and is ignored.
    pub fn remember(&mut self, device: &DeviceId, id: u32) {
        if id == 0 {
            return;
        }
        self.next_turn += 1;
        if let Some((_, turn)) = self.ids.insert(device.clone(), (id, self.next_turn)) {
            self.turns.remove(&turn);
        }
        self.turns.insert(self.next_turn, device.clone());
        if self.ids.len() > self.max_devices
            && let Some((_, oldest)) = self.turns.pop_first()
        {
            self.ids.remove(&oldest);
        }
    }

    /// Returns the number of devices in the table.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
