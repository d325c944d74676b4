//! What is read of JSON that is otherwise only passed on: the `"type"` of a payload, for observers, and the group of a
//! device, for lists. Relaying reads neither.

use std::borrow::Cow;

use serde::Deserialize;

/// The longest `group_id` that counts, in bytes: as long as an announced group name may be (docs/protocol.md 5.2).
const MAX_GROUP: usize = 256;

/// The `"type"` of a payload (docs/protocol.md 6: `offer`, `answer`, `ice-candidate`, …): `payload` is JSON text. `None` where
/// it is no object, or has no such string.
pub fn type_of(payload: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        name: Cow<'a, str>,
    }
    if !is_object(payload) {
        return None;
    }
    serde_json::from_str::<Typed<'_>>(payload).ok().map(|typed| typed.name.into_owned())
}

/// The `"group_id"` of a device info (docs/protocol.md 5.3): `info` is JSON text. `None` where it is no object, or has no such
/// string, or one that is no group name: more than 256 bytes, a control character or a line separator.
pub fn group_id_of(info: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Grouped<'a> {
        #[serde(borrow)]
        group_id: Cow<'a, str>,
    }
    // Most infos have none: a list of many devices parses only those that may. A key can be written with escapes.
    if !is_object(info) || !(info.contains("group_id") || info.contains('\\')) {
        return None;
    }
    let Grouped { group_id } = serde_json::from_str(info).ok()?;
    let breaks_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    (group_id.len() <= MAX_GROUP && !group_id.contains(breaks_line)).then(|| group_id.into_owned())
}

/// Whether a JSON text is an object: serde reads a struct from an array as well.
fn is_object(json: &str) -> bool {
    json.trim_start().starts_with('{')
}
