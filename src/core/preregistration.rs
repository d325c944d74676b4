//! Who is expected: devices that were pre-registered over the control socket (docs/protocol.md 5.2), with what is said of them.
//!
//! What was said of a device stays when it has registered, so that one that reconnects is what it was, until somebody
//! pre-registers its id anew.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::core::outbox::Outbox;
use crate::protocol::{DeviceId, control, payload};
use crate::sync::Mutex;

/// What is said of a device before it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceMetadata {
    /// The group it was announced in; empty where none was named.
    pub group_name: Cow<'static, str>,
    /// Whose it is; empty where nobody said so.
    pub owner: String,
    /// What people call it.
    pub name: String,
    /// Where adb reaches it; 0 where nowhere.
    pub adb_port: u16,
}

/// The metadata of devices that were not announced.
pub static NO_METADATA: DeviceMetadata =
    DeviceMetadata { group_name: Cow::Borrowed(""), owner: String::new(), name: String::new(), adb_port: 0 };

impl DeviceMetadata {
    /// The group of a device: the announced one, else the `group_id` of this device info (JSON text), else the empty
    /// string (docs/protocol.md 5.3).
    pub fn group_of(&self, info: &str) -> Cow<'_, str> {
        if self.group_name.is_empty() {
            return payload::group_id_of(info).unwrap_or_default().into();
        }
        Cow::Borrowed(&self.group_name)
    }
}

/// The roster of one server.
#[derive(Debug, Default)]
pub struct PreRegistrations(Mutex<HashMap<DeviceId, Entry>>);

#[derive(Debug)]
struct Entry {
    metadata: Arc<DeviceMetadata>,
    /// Whom to tell that it has registered; `None` once it has.
    expected_by: Option<Arc<Outbox>>,
}

/// Why a device can not be pre-registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreRegisterError {
    /// Somebody else expects it.
    AlreadyPreRegistered,
    /// It is there.
    AlreadyRegistered,
    /// There are as many as the server takes.
    TooMany,
}

impl PreRegisterError {
    /// What the control socket is told (docs/protocol.md 5.2).
    pub fn text(self) -> &'static str {
        match self {
            Self::AlreadyPreRegistered => "Device Id already pre-registered",
            Self::AlreadyRegistered => "Device Id already registered",
            Self::TooMany => "Too many devices",
        }
    }
}

impl PreRegistrations {
    /// Expects a device; `by` is told when it has registered. `is_registered` and `most` are the hub's and the settings'.
    ///
    /// # Errors
    /// [`PreRegisterError`].
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

    /// What is said of a device.
    pub fn metadata_of(&self, id: &DeviceId) -> Option<Arc<DeviceMetadata>> {
        self.0.lock().get(id).map(|entry| Arc::clone(&entry.metadata))
    }

    /// A device has registered: whoever expects it is told.
    pub fn registered(&self, id: &DeviceId) {
        let expected_by = self.0.lock().get_mut(id).and_then(|entry| entry.expected_by.take());
        if let Some(outbox) = expected_by {
            outbox.push(control::registered(id));
        }
    }

    /// Expects nothing any more on behalf of this connection.
    pub fn cancel(&self, by: &Arc<Outbox>) {
        self.0.lock().retain(|_, entry| !entry.expected_by.as_ref().is_some_and(|other| Arc::ptr_eq(other, by)));
    }

    /// How many devices are expected and have not registered.
    pub fn pending(&self) -> usize {
        self.0.lock().values().filter(|entry| entry.expected_by.is_some()).count()
    }
}
