//! Reads single fields of JSON that is otherwise only relayed.
//!
//! Observers read the `"type"` of a payload. Lists read the group of a device. The relay path uses neither.

use std::borrow::Cow;

use serde::Deserialize;

use super::MAX_DEPTH;
use super::scan::Scanner;

/// Longest `group_id` that is used, in bytes: the limit of an announced group name (docs/protocol.md 5.2.6).
const MAX_GROUP: usize = 256;

/// Returns the `"type"` of a payload, such as `offer`, `answer` or `ice-candidate` (docs/protocol.md 6).
///
/// `payload` is JSON text. `None` if it is not an object, or has no string `"type"`. Of a key that stands twice the last
/// value counts, as for peers, which parse the payload with the libraries of browsers and devices.
pub fn type_of(payload: &str) -> Option<String> {
    let mut scanner = Scanner::new(payload, MAX_DEPTH);
    let mut found = None;
    if scanner.begins_object() {
        scanner.members(|key, value| found = if is_type(key) { Some(value) } else { found }).ok()?;
        scanner.end().ok()?;
    }
    serde_json::from_str(found?).ok()
}

/// Returns whether a key, with its quotes, is `type`, which it may write with escapes.
fn is_type(key: &str) -> bool {
    key == r#""type""# || (key.contains('\\') && serde_json::from_str::<String>(key).is_ok_and(|key| key == "type"))
}

/// Returns the `"group_id"` of a device info (docs/protocol.md 5.3.4).
///
/// `info` is JSON text. `None` if it is not an object, or has no string `"group_id"`, or one that is not a valid group
/// name: longer than 256 bytes, or with a control character or a line separator.
pub fn group_id_of(info: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Grouped<'a> {
        #[serde(borrow)]
        group_id: Cow<'a, str>,
    }
    // Most device infos have no group. A list of many devices parses only those that may have one. A backslash counts,
    // since a key may be written with escapes.
    if !is_object(info) || !(info.contains("group_id") || info.contains('\\')) {
        return None;
    }
    let Grouped { group_id } = serde_json::from_str(info).ok()?;
    let breaks_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    (group_id.len() <= MAX_GROUP && !group_id.contains(breaks_line)).then(|| group_id.into_owned())
}

/// Returns the `"adb_port"` of a device info (docs/protocol.md 5.3.19).
///
/// `info` is JSON text. `None` if it is not an object, or has no `"adb_port"` that is a whole number of 1 or more.
pub fn adb_port_of(info: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct WithPort {
        adb_port: u64,
    }
    if !is_object(info) {
        return None;
    }
    serde_json::from_str::<WithPort>(info).ok().map(|info| info.adb_port).filter(|port| *port > 0)
}

/// Returns whether a JSON text is an object. Serde would also read a struct from an array.
fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}
