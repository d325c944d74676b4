//! Identifiers as the protocol defines them. This file knows how they look, never who holds them.

use std::fmt;
use std::sync::Arc;

/// The name under which a device registers: any JSON string that is not empty. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Wraps the text of an id.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id as the device said it.
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

/// Whether a name can be shown and logged as it is: at most `max` bytes, without control characters and line
/// separators (docs/protocol.md 4 and 5.2).
pub fn is_plain(name: &str, max: usize) -> bool {
    name.len() <= max && !name.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// The number by which a device knows one of its clients: 1 … 2^31-1, given out by the server, counting up, never
/// reused while the registration lives (docs/protocol.md 2.5). 0 can be said by a device, but is never given out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientId(u32);

impl ClientId {
    /// The largest id: devices read an int32.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// The id with this number, or `None` past [`ClientId::MAX`].
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::MAX.0).then_some(Self(number))
    }

    /// The id as a number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Reads an id from the JSON text of a value. Whole numbers count however they are written (`1`, `1.0`, `1e0`);
    /// strings, fractions and numbers outside 0 … 2^31-1 do not (docs/protocol.md 4).
    pub fn from_json(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<u32>() {
            // The usual form, and the only one on the fast path. JSON allows no `+` and no leading zero, so what
            // parses here is what JSON means.
            return Self::new(number);
        }
        if !text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
            return None;
        }
        let number = text.parse::<f64>().ok()?;
        let whole = number.fract() == 0.0 && (0.0..=f64::from(Self::MAX.0)).contains(&number);
        // The range was checked in the line above: the cast is exact.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        whole.then_some(Self(number as u32))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
