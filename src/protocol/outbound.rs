//! Writes every message of the server, each into one allocation of the exact size.

use bytes::Bytes;

use super::ids::ClientId;
use super::inbound;

/// A complete message: valid, compact JSON text (docs/protocol.md 2.9). Cheap to clone: all clones share its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// Returns the message as text.
    pub fn as_str(&self) -> &str {
        // Always UTF-8: every `Text` is made from a `String`, or cut at a character boundary.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the message as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Returns the first `bytes` bytes at most, cut at a character boundary. A fault uses this to truncate a message.
    #[must_use]
    pub fn cut(&self, bytes: usize) -> Self {
        let text = self.as_str();
        let end = (0..=bytes.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        Self(self.0.slice(..end))
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the text is empty. A message never is; a truncated one may be.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

const DEVICE_INFO: &str = r#"{"message_type":"device_info","device_info":"#;
const BARE_DEVICE_INFO: &str = r#"{"device_info":"#;
const DEVICE_MSG: &str = r#"{"message_type":"device_msg","payload":"#;
const CLIENT_MSG: &str = r#"{"message_type":"client_msg","client_id":"#;
const CLIENT_DISCONNECTED: &str = r#"{"message_type":"client_disconnected","client_id":"#;
const CONFIG: &str = r#"{"message_type":"config","ice_servers":"#;
const PAYLOAD: &str = r#","payload":"#;

/// Writes `config` (docs/protocol.md 1.6 and 1.12). `ice_servers` is the JSON text of the array.
pub fn config(ice_servers: &str) -> Text {
    concat(&[CONFIG, ice_servers, "}"])
}

/// Writes `device_info` (docs/protocol.md 1.13). `info` is the JSON text of the device info.
pub fn device_info(info: &str) -> Text {
    concat(&[DEVICE_INFO, info, "}"])
}

/// Writes the first message to a client whose request named its device (docs/protocol.md 5.3.7). `info` is JSON text.
pub fn bare_device_info(info: &str) -> Text {
    concat(&[BARE_DEVICE_INFO, info, "}"])
}

/// Returns the device info of a `device_info` message, as JSON text.
///
/// A device keeps only the message: the same bytes serve clients, hooks and lists.
pub fn info_of(message: &Text) -> &str {
    let text = message.as_str();
    text.get(DEVICE_INFO.len()..text.len().saturating_sub(1)).unwrap_or("null")
}

/// Writes `client_msg`, a client's forward as its device gets it (docs/protocol.md 1.7).
///
/// `payload` is JSON text and is copied byte for byte.
pub fn client_msg(client_id: ClientId, payload: &str) -> Text {
    let mut digits = [0; 10];
    concat(&[CLIENT_MSG, decimal(client_id, &mut digits), PAYLOAD, payload, "}"])
}

/// Writes `device_msg`, a device's forward as its client gets it (docs/protocol.md 1.14).
///
/// `payload` is JSON text and is copied byte for byte.
pub fn device_msg(payload: &str) -> Text {
    concat(&[DEVICE_MSG, payload, "}"])
}

/// Returns the payload of a forward, as JSON text; `None` if it has none.
///
/// A forward that a proxy passes on has the form that its sender gave it.
pub fn payload_of(message: &Text) -> Option<&str> {
    let text = message.as_str();
    written_payload(text).or_else(|| inbound::payload_in(text))
}

/// Returns the payload of a `client_msg` or `device_msg` of this module.
fn written_payload(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(DEVICE_MSG).or_else(|| {
        let after_id = text.strip_prefix(CLIENT_MSG)?.trim_start_matches(|c: char| c.is_ascii_digit());
        after_id.strip_prefix(PAYLOAD)
    })?;
    rest.strip_suffix('}')
}

/// Returns the `message_type` of a message of this module; `error` for an error.
pub fn type_of(message: &Text) -> &str {
    let text = message.as_str();
    if text.starts_with(BARE_DEVICE_INFO) {
        return "device_info";
    }
    text.strip_prefix(r#"{"message_type":""#).and_then(|rest| rest.split('"').next()).unwrap_or("error")
}

/// Writes `client_disconnected` (docs/protocol.md 1.8).
pub fn client_disconnected(client_id: ClientId) -> Text {
    let mut digits = [0; 10];
    concat(&[CLIENT_DISCONNECTED, decimal(client_id, &mut digits), "}"])
}

/// Writes an error (docs/protocol.md 1.9 and 1.15). `reason` is plain text; any character is escaped where needed.
pub fn error(reason: &str) -> Text {
    let mut out = String::with_capacity(reason.len() + 16);
    out.push_str(r#"{"error":"#);
    out.push_str(&quote(reason));
    out.push('}');
    out.into()
}

/// Returns `text` as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    // Writing a `&str` into a `String` cannot fail. The fallback is valid JSON as well.
    serde_json::to_string(text).unwrap_or_else(|_| String::from("\"\""))
}

fn concat(parts: &[&str]) -> Text {
    let mut out = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.push_str(part);
    }
    out.into()
}

/// Writes the id in decimal. `format!` would cost more on the relay path.
fn decimal(id: ClientId, digits: &mut [u8; 10]) -> &str {
    let mut number = id.get();
    let mut start = digits.len();
    loop {
        start -= 1;
        // A remainder of 10 fits in a byte.
        #[allow(clippy::cast_possible_truncation)]
        let digit = (number % 10) as u8;
        digits[start] = b'0' + digit;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    std::str::from_utf8(&digits[start..]).unwrap_or_default()
}
