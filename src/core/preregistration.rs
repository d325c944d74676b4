//! Devices that were pre-registered over the control socket, with their metadata (docs/protocol.md 5.2).
//!
//! The metadata stays after the device has registered, and after it has left, so that a device that reconnects has it
//! again. The next pre-registration of the id replaces it. Where there is no room for another pre-registration, the
//! metadata of the device that left first is removed.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use crate::core::outbox::Outbox;
use crate::protocol::candidates::AddressRules;
use crate::protocol::{DeviceId, control, payload};
use crate::sync::Mutex;

/// A text that the devices of one message share. An empty one needs no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedText(Option<Arc<str>>);

impl From<&str> for SharedText {
    fn from(text: &str) -> Self {
        Self((!text.is_empty()).then(|| text.into()))
    }
}

impl Deref for SharedText {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Metadata of a device, from its pre-registration (docs/protocol.md 5.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMetadata {
    /// Group name; empty if none was given.
    pub group_name: SharedText,
    /// Owner; empty if none was given.
    pub owner: SharedText,
    /// Display name; empty if none was given.
    pub name: SharedText,
    /// TCP port of adb; 0 if none was given.
    pub adb_port: u16,
    /// Addresses at which clients reach it; `None` if none were given.
    pub advertise: Option<Arc<AddressRules>>,
}

/// Metadata of a device that was not pre-registered.
pub static NO_METADATA: DeviceMetadata = DeviceMetadata {
    group_name: SharedText(None),
    owner: SharedText(None),
    name: SharedText(None),
    adb_port: 0,
    advertise: None,
};

impl DeviceMetadata {
    /// Returns the group of a device (docs/protocol.md 5.3.4).
    ///
    /// This is the pre-registered group, else the `group_id` of `info`, the device info as JSON text, else the empty
    /// string.
    pub fn group_of(&self, info: &str) -> Cow<'_, str> {
        if self.group_name.is_empty() {
            return payload::group_id_of(info).unwrap_or_default().into();
        }
        Cow::Borrowed(&self.group_name)
    }
}

/// Pre-registrations of one server.
#[derive(Debug, Default)]
pub struct PreRegistrations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<DeviceId, Entry>,
    /// Devices that have registered and left, in the order in which they left.
    left: BTreeMap<u64, DeviceId>,
    last_turn: u64,
}

#[derive(Debug)]
struct Entry {
    metadata: Arc<DeviceMetadata>,
    /// Control connection to notify when the device registers; `None` once it has.
    expected_by: Option<Arc<Outbox>>,
    /// Registrations of the device. There are two for the moment in which one replaces the other.
    registrations: usize,
    /// Place in [`State::left`], if the device has left.
    left_at: Option<u64>,
}

impl State {
    /// Removes the device that left first. Returns false if there is none.
    fn make_room(&mut self) -> bool {
        let oldest = self.left.pop_first();
        oldest.and_then(|(_, id)| self.entries.remove(&id)).is_some()
    }
}

/// Reason why a device cannot be pre-registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreRegisterError {
    /// It is pre-registered, and has not registered yet.
    AlreadyPreRegistered,
    /// It is registered.
    AlreadyRegistered,
    /// The server has as many pre-registrations as `max_devices` allows, and none is of a device that has left.
    TooMany,
}

impl PreRegisterError {
    /// Returns the text for the control socket (docs/protocol.md 5.2.3).
    pub fn text(self) -> &'static str {
        match self {
            Self::AlreadyPreRegistered => "Device Id already pre-registered",
            Self::AlreadyRegistered => "Device Id already registered",
            Self::TooMany => "Too many devices",
        }
    }
}

impl PreRegistrations {
    /// Pre-registers a device. `by` is notified when it registers.
    ///
    /// `is_registered` says whether the hub has the device. `most` is the greatest number of pre-registrations.
    ///
    /// # Errors
    /// [`PreRegisterError`]
    pub fn pre_register(
        &self,
        id: &DeviceId,
        metadata: DeviceMetadata,
        by: &Arc<Outbox>,
        is_registered: bool,
        most: usize,
    ) -> Result<(), PreRegisterError> {
        let mut state = self.0.lock();
        if is_registered {
            return Err(PreRegisterError::AlreadyRegistered);
        }
        let known = state.entries.get(id);
        if known.is_some_and(|entry| entry.expected_by.is_some()) {
            return Err(PreRegisterError::AlreadyPreRegistered);
        }
        let (is_new, left_at) = (known.is_none(), known.and_then(|entry| entry.left_at));
        if is_new && state.entries.len() >= most && !state.make_room() {
            return Err(PreRegisterError::TooMany);
        }
        if let Some(turn) = left_at {
            state.left.remove(&turn);
        }
        let (metadata, expected_by) = (Arc::new(metadata), Some(Arc::clone(by)));
        state.entries.insert(id.clone(), Entry { metadata, expected_by, registrations: 0, left_at: None });
        Ok(())
    }

    /// Returns the metadata of a device, if it was pre-registered.
    pub fn metadata_of(&self, id: &DeviceId) -> Option<Arc<DeviceMetadata>> {
        self.0.lock().entries.get(id).map(|entry| Arc::clone(&entry.metadata))
    }

    /// Notifies the control connection that pre-registered this device as `announced`, if it has not been notified.
    ///
    /// The caller calls [`PreRegistrations::left`] when this registration ends.
    pub fn registered(&self, id: &DeviceId, announced: &DeviceId) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let Some(entry) = state.entries.get_mut(id) else { return };
        entry.registrations += 1;
        if let Some(turn) = entry.left_at.take() {
            state.left.remove(&turn);
        }
        let expected_by = entry.expected_by.take();
        drop(guard);
        if let Some(outbox) = expected_by {
            outbox.push(control::registered(announced));
        }
    }

    /// Ends a registration of this device. Without another one, its metadata makes room when there is none.
    pub fn left(&self, id: &DeviceId) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let Some(entry) = state.entries.get_mut(id) else { return };
        entry.registrations = entry.registrations.saturating_sub(1);
        if entry.registrations == 0 && entry.expected_by.is_none() && entry.left_at.is_none() {
            state.last_turn += 1;
            entry.left_at = Some(state.last_turn);
            state.left.insert(state.last_turn, id.clone());
        }
    }

    /// Cancels what this connection pre-registered and has not registered yet (docs/protocol.md 5.2.5).
    pub fn cancel(&self, by: &Arc<Outbox>) {
        self.0
            .lock()
            .entries
            .retain(|_, entry| !entry.expected_by.as_ref().is_some_and(|other| Arc::ptr_eq(other, by)));
    }

    /// Returns the number of pre-registered devices that have not registered.
    pub fn pending(&self) -> usize {
        self.0.lock().entries.values().filter(|entry| entry.expected_by.is_some()).count()
    }

    /// Returns the number of devices with metadata.
    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
