//! Names of a node's starts and of devices' registrations.

use std::fmt;
use std::sync::Arc;

/// Longest name of a node, in bytes. A host name has at most 63 in each of its parts.
pub const MAX_NODE_NAME: usize = 64;

/// One start of a node: its name and 64 random bits. Cheap to clone.
///
/// The text form is `NAME.0123456789abcdef`, with 16 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation {
    name: Arc<str>,
    start: u64,
}

impl Incarnation {
    /// Creates the incarnation `start` of the node `name`; `None` if the name is not a node name.
    ///
    /// A node name has 1 to [`MAX_NODE_NAME`] ASCII letters, digits, `-`, `_` and `.`.
    pub fn new(name: &str, start: u64) -> Option<Self> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        let valid = (1..=MAX_NODE_NAME).contains(&name.len()) && name.bytes().all(plain);
        valid.then(|| Self { name: name.into(), start })
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, start) = text.rsplit_once('.')?;
        Self::new(name, parse_hex(start)?)
    }

    /// Returns 40 of the random bits, as 10 hexadecimal digits: a short name of this start among the nodes that live.
    pub fn tag(&self) -> String {
        format!("{:010x}", self.start >> 24)
    }

    /// Returns the name of the node.
    pub fn node(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.name, self.start)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One registration of a device, on one node. Cheap to clone.
///
/// The text form is `INCARNATION/NUMBER`. The node counts its registrations, so that none has the name of another.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registration {
    incarnation: Incarnation,
    number: u64,
}

impl Registration {
    /// Creates the name of the registration with this number.
    pub fn new(incarnation: Incarnation, number: u64) -> Self {
        Self { incarnation, number }
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Option<Self> {
        let (incarnation, number) = text.rsplit_once('/')?;
        let digits = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
        let canonical = digits && (number == "0" || !number.starts_with('0'));
        Some(Self::new(Incarnation::parse(incarnation)?, canonical.then(|| number.parse().ok())??))
    }

    /// Shares the memory of an equal incarnation.
    pub(super) fn share(&mut self, incarnation: &Incarnation) {
        debug_assert_eq!(self.incarnation, *incarnation);
        self.incarnation = incarnation.clone();
    }

    /// Returns the start of the node on which the device registered.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }
}

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.incarnation, self.number)
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Parses 16 lower-case hexadecimal digits, so that each number has one text form.
fn parse_hex(digits: &str) -> Option<u64> {
    let lower = digits.len() == 16 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    lower.then(|| u64::from_str_radix(digits, 16).ok())?
}
