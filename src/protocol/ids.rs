//! Device ids and client ids: their form, and how they are parsed.

use std::fmt;
use std::sync::Arc;

/// Id under which a device registers. Cheap to clone.
///
/// The protocol allows any JSON string that is not empty, has at most 256 bytes (the setting `max_device_id` changes
/// this), no control characters and no line separators (docs/protocol.md 4.1.9 and 4.1.10). This type does not check
/// that: an id that a peer asks for may be any text. A device session checks the id with [`is_plain`] before it
/// registers the device.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Wraps any text.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// Returns the id as the peer sent it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Checks that a name is safe to show and to log.
///
/// Such a name has at most `max` bytes, no control characters and no line separators (docs/protocol.md 4.1.10, for
/// device ids, and docs/protocol.md 5.2.6, for the names of the control socket).
pub fn is_plain(name: &str, max: usize) -> bool {
    name.len() <= max && !name.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// Number by which a device identifies one of its clients, from 0 to 2^31-1 (docs/protocol.md 2.5).
///
/// The server gives out ids from 1 upwards and reuses none while the registration lives. It never gives out 0, but a
/// device may send it: that is an unknown client (docs/protocol.md 4.1.19).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientId(u32);

impl ClientId {
    /// Largest id, 2^31-1: devices read an int32.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// Returns the id with this number; `None` if it is above [`ClientId::MAX`].
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::MAX.0).then_some(Self(number))
    }

    /// Returns the number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Parses the JSON text of a value (docs/protocol.md 4.1.16).
    ///
    /// A whole number from 0 to 2^31-1 is an id in any notation (`1`, `1.0`, `1e0`). Strings, fractions and other
    /// numbers are `None`.
    pub fn from_json(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<u32>() {
            // The usual notation, and the only one on the fast path. `parse` would also accept `+1` and `01`, but the
            // scanner has already rejected these as invalid JSON.
            return Self::new(number);
        }
        if !text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
            return None;
        }
        let number = text.parse::<f64>().ok()?;
        let whole = number.fract() == 0.0 && (0.0..=f64::from(Self::MAX.0)).contains(&number);
        // The cast is exact: the line above checks the range.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        whole.then_some(Self(number as u32))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
