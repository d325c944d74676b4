//! A cassette: the payloads of a device and its clients, as JSON lines that the test kit replays.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hyper::body::Bytes;
use serde_json::value::RawValue;
use tokio::task::yield_now;

use crate::observe::journal::{Direction, Entry, Journal, Kind, Outcome};
use crate::protocol::DeviceId;
use crate::protocol::outbound::quote;
use crate::server::http::pieces::Pieces;

/// The entries of the journal that are read at once.
const AT_ONCE: usize = 256;

/// The error for a device without a registration in the journal.
pub(super) const NO_REGISTRATION: &str =
    "The journal has no registration of this device: it did not register, or the journal has discarded the entry";

/// Renders the payloads since the last registration of a device. `None` if the journal has none. Yields after each chunk.
///
/// The lines are those of `Cassette.save()`: a payload stays byte for byte.
pub(super) async fn of(journal: &Journal, device: &DeviceId) -> Option<Pieces> {
    let (mut head, mut lines, mut after) = (None, Vec::new(), 0);
    while let Some((entries, last)) = journal.next_of(device, after, AT_ONCE) {
        after = last;
        for entry in &entries {
            if entry.kind == Kind::Message && entry.message_type == "register" {
                head = Some(head_of(device, entry));
                lines.clear();
            } else if let Some(line) = line_of(entry) {
                lines.extend(line);
            }
        }
        yield_now().await;
    }
    head.map(|head| std::iter::once(head).chain(lines).collect())
}

/// The first line: the format, and the device with its device info.
fn head_of(device: &DeviceId, registration: &Entry) -> Bytes {
    // Of a name that stands twice, the last one counts.
    let fields: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(registration.text.as_str()).unwrap_or_default();
    let info = fields.get("device_info").map_or("null", |info| info.get());
    let info = members("device_info", info).unwrap_or_else(|| format!("\"device_info\": {info}"));
    format!("{{\"cassette\": 1, \"device_id\": {}, {info}}}\n", on_one_line(&quote(device.as_str()))).into()
}

/// The line of a payload, in parts. `None` for other entries, and for a payload that had no receiver.
fn line_of(entry: &Entry) -> Option<[Bytes; 3]> {
    let payload = entry.payload().filter(|_| entry.outcome != Outcome::Refused)?;
    let sender = if entry.direction == Direction::DeviceToClient { "device" } else { "client" };
    let client = entry.client.map_or(0, crate::protocol::ClientId::get);
    let begin = format!("{{\"from\": \"{sender}\", \"client\": {client}, ");
    let end = Bytes::from_static(b"}\n");
    if let Some(members) = members("payload", payload) {
        return Some([begin.into(), members.into(), end]);
    }
    // A part of the message in the journal, without a copy.
    let payload = entry.text.clone().into_bytes().slice_ref(payload.as_bytes());
    Some([format!("{begin}\"payload\": ").into(), payload, end])
}

/// The members of a value that has line ends: one line of it, and all of it as a string. `None` for a value without any.
fn members(name: &str, json: &str) -> Option<String> {
    let line = on_one_line(json);
    (line != json).then(|| format!("\"{name}\": {line}, \"{name}_text\": {}", on_one_line(&quote(json))))
}

/// Returns the same JSON without characters that end a line. Line breaks are white space between its values; the others
/// are in strings only, and become escapes.
fn on_one_line(json: &str) -> Cow<'_, str> {
    if !json.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) {
        return json.into();
    }
    let mut line = json.replace(['\n', '\r'], " ");
    for (end, escape) in [("\u{85}", "\\u0085"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")] {
        line = line.replace(end, escape);
    }
    line.into()
}
