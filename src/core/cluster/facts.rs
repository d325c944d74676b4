//! The facts of a device for lists on other nodes, read once when its record arrives.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

/// A text that devices of one directory share. An empty one needs no memory.
pub type FactText = Option<Arc<str>>;

/// The facts of a device for lists on other nodes. Facts that cannot be read are left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeviceFacts {
    /// When it connected, in seconds since 1970.
    pub since: f64,
    /// The port of its adb.
    pub adb_port: u16,
    group: FactText,
    own_group: FactText,
    local_id: FactText,
    owner: FactText,
    name: FactText,
}

/// The form of the facts in a record.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Form<'a> {
    since: f64,
    #[serde(borrow)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    own_group: Cow<'a, str>,
    #[serde(borrow)]
    local_id: Cow<'a, str>,
    #[serde(borrow)]
    owner: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    adb_port: u16,
}

/// Texts of the facts of one directory. Most devices have the group, the owner and the local id of others.
#[derive(Debug, Default)]
pub(super) struct Texts {
    shared: BTreeSet<Arc<str>>,
    /// Texts that had no room since the last look for those that no device has any more.
    missed: usize,
}

/// Greatest number of texts that are shared, which bounds the memory where each device has its own ones.
const MAX_TEXTS: usize = 4096;

impl Texts {
    fn share(&mut self, text: &str) -> FactText {
        if text.is_empty() {
            return None;
        }
        if let Some(known) = self.shared.get(text) {
            return Some(Arc::clone(known));
        }
        let text: Arc<str> = text.into();
        if self.shared.len() < MAX_TEXTS {
            self.shared.insert(Arc::clone(&text));
        } else {
            self.missed += 1;
            if self.missed == MAX_TEXTS {
                self.tidy();
            }
        }
        Some(text)
    }

    /// Drops texts that no device has any more.
    pub(super) fn tidy(&mut self) {
        self.missed = 0;
        self.shared.retain(|text| Arc::strong_count(text) > 1);
    }
}

impl DeviceFacts {
    /// Reads the facts of a record.
    pub(super) fn read(details: &str, texts: &mut Texts) -> Self {
        let form: Form<'_> = serde_json::from_str(details).unwrap_or_default();
        Self {
            since: form.since,
            adb_port: form.adb_port,
            group: texts.share(&form.group),
            own_group: texts.share(&form.own_group),
            local_id: texts.share(&form.local_id),
            owner: texts.share(&form.owner),
            // Each device has its own.
            name: Some(&*form.name).filter(|name| !name.is_empty()).map(Arc::from),
        }
    }

    /// The group. Where `hides_own`, a viewer may not see the one in the device info.
    pub fn group(&self, hides_own: bool) -> &str {
        let own = if hides_own { &None } else { &self.own_group };
        self.group.as_ref().or(own.as_ref()).map_or("", |text| text)
    }

    /// The group of its pre-registration.
    pub fn announced_group(&self) -> &str {
        self.group.as_deref().unwrap_or_default()
    }

    /// The group in its device info.
    pub fn own_group(&self) -> &str {
        self.own_group.as_deref().unwrap_or_default()
    }

    /// The id that it has registered, if that is not its id in the cluster.
    pub fn local_id(&self) -> &str {
        self.local_id.as_deref().unwrap_or_default()
    }

    /// The owner.
    pub fn owner(&self) -> &str {
        self.owner.as_deref().unwrap_or_default()
    }

    /// The name of its pre-registration.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}
