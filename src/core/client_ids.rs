//! Where the client ids of a registration begin, and the last id of each device that was here (docs/protocol.md 2.5).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::protocol::{ClientId, DeviceId};

/// Where the client ids of a registration begin: the setting `client_ids`.
///
/// Either way an id is larger than all that the same device was given before by this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientIds {
    /// The first registration of a device begins at 1.
    #[default]
    FromOne,
    /// Each registration begins at a number made from the time of day. The peers of a real device outlive a restart of
    /// the server: a number from before would hand a new client the peer of an old one.
    Unique,
}

impl ClientIds {
    /// The first id by this rule alone, at this time since 1970: 1, or 1 + (ms / 10 mod 2^30).
    pub fn first(self, unix_time: Duration) -> u32 {
        match self {
            Self::FromOne => 1,
            Self::Unique => 1 + u32::try_from(unix_time.as_millis() / 10 % (1 << 30)).unwrap_or(0),
        }
    }
}

/// Which client ids a device was given, by this registration and by those before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct GivenIds {
    /// The last id of the registrations before this one; 0 where there was none.
    before: u32,
    /// The first id of this registration.
    first: u32,
    /// The next id to be given out.
    next: u32,
}

impl Default for GivenIds {
    fn default() -> Self {
        Self { before: 0, first: 1, next: 1 }
    }
}

impl GivenIds {
    /// Those of a registration that begins at `first`, or behind the last id of those before it.
    pub(super) fn begin(before: u32, first: u32) -> Self {
        let first = first.max(before.saturating_add(1));
        Self { before, first, next: first }
    }

    /// Gives out the next id; `None` once all are used up.
    pub(super) fn give(&mut self) -> Option<ClientId> {
        let id = ClientId::new(self.next)?;
        self.next += 1;
        Some(id)
    }

    /// Whether this id was given out.
    pub(super) fn contains(&self, id: u32) -> bool {
        (self.first..self.next).contains(&id) || (1..=self.before).contains(&id)
    }

    /// The last id that was given out; 0 where there was none.
    pub(super) fn last(&self) -> u32 {
        if self.next > self.first { self.next - 1 } else { self.before }
    }
}

/// The last client id that each device was given, for a bounded number of devices. The one whose device left first is
/// forgotten first.
#[derive(Debug)]
pub struct LastIds {
    max_devices: usize,
    ids: HashMap<DeviceId, (u32, u64)>,
    /// Devices by the turn in which their id was remembered.
    turns: BTreeMap<u64, DeviceId>,
    next_turn: u64,
}

impl LastIds {
    /// Remembers at most this many devices.
    pub fn new(max_devices: usize) -> Self {
        Self { max_devices, ids: HashMap::new(), turns: BTreeMap::new(), next_turn: 0 }
    }

    /// The last id of this device; 0 where it has had none, or it was forgotten.
    pub fn of(&self, device: &DeviceId) -> u32 {
        self.ids.get(device).map_or(0, |(id, _)| *id)
    }

    /// Remembers the last id of a device that leaves. 0 is no id, and changes nothing.
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

    /// How many devices are remembered.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no device is remembered.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
