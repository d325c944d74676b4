//! Devices that were pre-registered over the control socket, with their metadata (docs/protocol.md 5.2).
//!
//! The metadata stays after the device has registered, and after it has left, so that a device that reconnects has it
//! again. The next pre-registration of the id replaces it. Where there is no room for another pre-registration, the
//! metadata of the device that left first is removed.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::cluster::registry::Expectation;
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

/// The form of [`DeviceMetadata`] between nodes.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct PlaceForm<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    group: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    owner: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_zero")]
    adb_port: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advertise: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(port: &u16) -> bool {
    *port == 0
}

impl DeviceMetadata {
    /// Writes the metadata for other nodes, as JSON. Equal metadata have equal texts.
    pub fn to_json(&self) -> String {
        let rules = self.advertise.as_deref().map(AddressRules::rules).unwrap_or_default();
        let form = PlaceForm {
            group: (&*self.group_name).into(),
            owner: (&*self.owner).into(),
            name: (&*self.name).into(),
            adb_port: self.adb_port,
            advertise: rules.iter().map(ToString::to_string).collect(),
        };
        serde_json::to_string(&form).unwrap_or_default()
    }

    /// Reads the metadata of another node. `None` if it is invalid.
    pub fn from_json(text: &str) -> Option<Self> {
        let form: PlaceForm<'_> = serde_json::from_str(text).ok()?;
        let advertise = AddressRules::parse(&form.advertise).ok()?;
        Some(Self {
            group_name: SharedText::from(&*form.group),
            owner: SharedText::from(&*form.owner),
            name: SharedText::from(&*form.name),
            adb_port: form.adb_port,
            advertise: advertise.map(Arc::new),
        })
    }

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

/// Callback with the devices whose pre-registrations were cancelled.
type OnCancelled = Box<dyn Fn(&[DeviceId]) + Send>;

#[derive(Default)]
struct State {
    on_cancelled: Option<OnCancelled>,
    entries: HashMap<DeviceId, Entry>,
    /// Devices that have registered and left, in the order in which they left.
    left: BTreeMap<u64, DeviceId>,
    last_turn: u64,
}

#[derive(Debug)]
struct Entry {
    metadata: Arc<DeviceMetadata>,
    /// Control connection to notify when the device registers; `None` once it was.
    expected_by: Option<Waiting>,
    /// Registrations of the device. There are two for the moment in which one replaces the other.
    registrations: usize,
    /// Place in [`State::left`], if the device has left.
    left_at: Option<u64>,
}

/// A control connection that waits for a device.
#[derive(Debug)]
struct Waiting {
    outbox: Arc<Outbox>,
    /// Whether it has the answer to its message. News of the device wait for that.
    is_answered: bool,
    /// Id under which the device was announced, if it has registered before the answer.
    registered: Option<DeviceId>,
}

impl Entry {
    /// Notes that the device has registered. Returns the control connection to notify.
    fn came(&mut self, announced: &DeviceId) -> Option<Arc<Outbox>> {
        match &mut self.expected_by {
            Some(waiting) if !waiting.is_answered => {
                waiting.registered = Some(announced.clone());
                None
            }
            expected_by => expected_by.take().map(|waiting| waiting.outbox),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl State {
    /// Lets the metadata of a device without registrations make room when there is none.
    fn release(&mut self, id: &DeviceId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.registrations == 0 && entry.expected_by.is_none() && entry.left_at.is_none() {
            self.last_turn += 1;
            entry.left_at = Some(self.last_turn);
            self.left.insert(self.last_turn, id.clone());
        }
    }

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
    /// Returns the error of a pre-registration that the registry of the cluster refuses.
    pub fn of(outcome: Expectation) -> Option<Self> {
        match outcome {
            Expectation::Pending => None,
            Expectation::Taken => Some(Self::AlreadyPreRegistered),
            Expectation::Registered => Some(Self::AlreadyRegistered),
            Expectation::Full => Some(Self::TooMany),
        }
    }

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
    /// Calls `callback` with the devices whose pre-registrations are cancelled from now on. It must not call back.
    pub fn on_cancelled(&self, callback: impl Fn(&[DeviceId]) + Send + 'static) {
        self.0.lock().on_cancelled = Some(Box::new(callback));
    }

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
        self.reserve(id, metadata, by, is_registered, most)?;
        self.answered(std::iter::once(id), by);
        Ok(())
    }

    /// Pre-registers a device on this node, before the cluster is asked. `by` is not notified before
    /// [`PreRegistrations::answered`].
    ///
    /// # Errors
    /// [`PreRegisterError`]
    pub fn reserve(
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
        let waiting = Waiting { outbox: Arc::clone(by), is_answered: false, registered: None };
        let (metadata, expected_by) = (Arc::new(metadata), Some(waiting));
        state.entries.insert(id.clone(), Entry { metadata, expected_by, registrations: 0, left_at: None });
        Ok(())
    }

    /// Notes that `by` has the answer about these devices, and notifies it of those that have registered meanwhile.
    pub fn answered<'a>(&self, ids: impl Iterator<Item = &'a DeviceId>, by: &Arc<Outbox>) {
        let mut state = self.0.lock();
        for id in ids {
            let Some(entry) = state.entries.get_mut(id) else { continue };
            let Some(waiting) = entry.expected_by.as_mut().filter(|it| Arc::ptr_eq(&it.outbox, by)) else { continue };
            waiting.is_answered = true;
            if let Some(announced) = waiting.registered.take() {
                entry.expected_by = None;
                state.release(id);
                by.push(control::registered(&announced));
            }
        }
    }

    /// Removes a pre-registration that the cluster refuses.
    pub fn refused(&self, id: &DeviceId, by: &Arc<Outbox>) {
        let mut state = self.0.lock();
        let is_of = |entry: &Entry| entry.expected_by.as_ref().is_some_and(|it| Arc::ptr_eq(&it.outbox, by));
        if let Some(entry) = state.entries.get_mut(id).filter(|entry| is_of(entry)) {
            entry.expected_by = None;
            if entry.registrations == 0 {
                state.entries.remove(id);
            }
        }
    }

    /// Keeps the metadata of a device that another node has pre-registered, and that registers here.
    pub fn adopt(&self, id: &DeviceId, metadata: &Arc<DeviceMetadata>, most: usize) {
        let mut state = self.0.lock();
        if let Some(entry) = state.entries.get_mut(id) {
            if entry.expected_by.is_none() {
                entry.metadata = Arc::clone(metadata);
            }
        } else if state.entries.len() < most || state.make_room() {
            let entry = Entry { metadata: Arc::clone(metadata), expected_by: None, registrations: 0, left_at: None };
            state.entries.insert(id.clone(), entry);
        }
    }

    /// Notifies the control connection that pre-registered this device as `announced`: it has registered on another node.
    pub fn registered_elsewhere(&self, id: &DeviceId, announced: &DeviceId) {
        let mut state = self.0.lock();
        let Some(entry) = state.entries.get_mut(id) else { return };
        let outbox = entry.came(announced);
        state.release(id);
        drop(state);
        if let Some(outbox) = outbox {
            outbox.push(control::registered(announced));
        }
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
        let outbox = entry.came(announced);
        drop(guard);
        if let Some(outbox) = outbox {
            outbox.push(control::registered(announced));
        }
    }

    /// Ends a registration of this device. Without another one, its metadata makes room when there is none.
    pub fn left(&self, id: &DeviceId) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let Some(entry) = state.entries.get_mut(id) else { return };
        entry.registrations = entry.registrations.saturating_sub(1);
        state.release(id);
    }

    /// Cancels what this connection pre-registered and has not registered yet (docs/protocol.md 5.2.5).
    pub fn cancel(&self, by: &Arc<Outbox>) {
        let mut guard = self.0.lock();
        let State { entries, on_cancelled, .. } = &mut *guard;
        let is_of = |entry: &Entry| entry.expected_by.as_ref().is_some_and(|it| Arc::ptr_eq(&it.outbox, by));
        let cancelled: Vec<_> = entries.extract_if(|_, entry| is_of(entry)).map(|(id, _)| id).collect();
        // Under the lock, so that the next pre-registration of the same id comes after it.
        if let Some(callback) = on_cancelled.as_ref().filter(|_| !cancelled.is_empty()) {
            callback(&cancelled);
        }
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
