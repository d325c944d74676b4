//! Devices that were pre-registered over the control socket, with their metadata (docs/protocol.md 5.2).
//!
//! The metadata stays after the device has registered, so that a device that reconnects has it again. The next
//! pre-registration of the id replaces it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::core::outbox::Outbox;
use crate::protocol::{DeviceId, control, payload};
use crate::sync::Mutex;

/// Metadata of a device, from its pre-registration (docs/protocol.md 5.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMetadata {
    /// Group name; empty if none was given.
    pub group_name: Cow<'static, str>,
    /// Owner; empty if none was given.
    pub owner: String,
    /// Display name; empty if none was given.
    pub name: String,
    /// TCP port of adb; 0 if none was given.
    pub adb_port: u16,
}

/// Metadata of a device that was not pre-registered.
pub static NO_METADATA: DeviceMetadata =
    DeviceMetadata { group_name: Cow::Borrowed(""), owner: String::new(), name: String::new(), adb_port: 0 };

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
pub struct PreRegistrations(Mutex<HashMap<DeviceId, Entry>>);

#[derive(Debug)]
struct Entry {
    metadata: Arc<DeviceMetadata>,
    /// Control connection to notify when the device registers; `None` once it has.
    expected_by: Option<Arc<Outbox>>,
}

/// Reason why a device cannot be pre-registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreRegisterError {
    /// It is pre-registered, and has not registered yet.
    AlreadyPreRegistered,
    /// It is registered.
    AlreadyRegistered,
    /// The server has as many pre-registrations as `max_devices` allows.
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
        let mut entries = self.0.lock();
        if is_registered {
            return Err(PreRegisterError::AlreadyRegistered);
        }
        if entries.get(id).is_some_and(|entry| entry.expected_by.is_some()) {
            return Err(PreRegisterError::AlreadyPreRegistered);
        }
        if entries.len() >= most && !entries.contains_key(id) {
            return Err(PreRegisterError::TooMany);
        }
        entries.insert(id.clone(), Entry { metadata: Arc::new(metadata), expected_by: Some(Arc::clone(by)) });
        Ok(())
    }

    /// Returns the metadata of a device, if it was pre-registered.
    pub fn metadata_of(&self, id: &DeviceId) -> Option<Arc<DeviceMetadata>> {
        self.0.lock().get(id).map(|entry| Arc::clone(&entry.metadata))
    }

    /// Notifies the control connection that pre-registered this device, if it has not been notified.
    pub fn registered(&self, id: &DeviceId) {
        let expected_by = self.0.lock().get_mut(id).and_then(|entry| entry.expected_by.take());
        if let Some(outbox) = expected_by {
            outbox.push(control::registered(id));
        }
    }

    /// Cancels what this connection pre-registered and has not registered yet (docs/protocol.md 5.2.5).
    pub fn cancel(&self, by: &Arc<Outbox>) {
        self.0.lock().retain(|_, entry| !entry.expected_by.as_ref().is_some_and(|other| Arc::ptr_eq(other, by)));
    }

    /// Returns the number of pre-registered devices that have not registered.
    pub fn pending(&self) -> usize {
        self.0.lock().values().filter(|entry| entry.expected_by.is_some()).count()
    }
}
