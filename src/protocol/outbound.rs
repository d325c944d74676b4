//! Every message the server can say, written straight into one allocation of the exact size. Knows no receiver.

use bytes::Bytes;

use super::ids::ClientId;

/// A whole message, ready for a frame: valid, compact JSON text. Cheap to clone, so that one rendering can go to many.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// The message as text.
    pub fn as_str(&self) -> &str {
        // Only ever made from a `String`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The message as it goes out.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the message, without copying them.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The first part of it, at most so many bytes and never half a character: for whoever wants a broken message.
    #[must_use]
    pub fn cut(&self, bytes: usize) -> Self {
        let text = self.as_str();
        let end = (0..=bytes.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        Self(self.0.slice(..end))
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty. No message is.
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

/// `config`: `ice_servers` is the JSON text of the array.
pub fn config(ice_servers: &str) -> Text {
    concat(&[CONFIG, ice_servers, "}"])
}

/// `device_info`: `info` is the JSON text of the device info.
pub fn device_info(info: &str) -> Text {
    concat(&[DEVICE_INFO, info, "}"])
}

/// What a client hears first that named its device in the request (docs/protocol.md 5.3): `info` is JSON text.
pub fn bare_device_info(info: &str) -> Text {
    concat(&[BARE_DEVICE_INFO, info, "}"])
}

/// The device info within a `device_info` message, as JSON text: one copy serves the message and the hooks.
pub fn info_of(message: &Text) -> &str {
    let text = message.as_str();
    text.get(DEVICE_INFO.len()..text.len().saturating_sub(1)).unwrap_or("null")
}

/// `client_msg`, the forward of a client on its way to the device: `payload` is JSON text and goes out byte for byte.
pub fn client_msg(client_id: ClientId, payload: &str) -> Text {
    let mut digits = [0; 10];
    concat(&[CLIENT_MSG, decimal(client_id, &mut digits), PAYLOAD, payload, "}"])
}

/// `device_msg`, the forward of a device on its way to the client: `payload` is JSON text and goes out byte for byte.
pub fn device_msg(payload: &str) -> Text {
    concat(&[DEVICE_MSG, payload, "}"])
}

/// The payload within a `client_msg` or `device_msg`, as JSON text; `None` in any other message.
pub fn payload_of(message: &Text) -> Option<&str> {
    let text = message.as_str();
    let rest = text.strip_prefix(DEVICE_MSG).or_else(|| {
        let after_id = text.strip_prefix(CLIENT_MSG)?.trim_start_matches(|c: char| c.is_ascii_digit());
        after_id.strip_prefix(PAYLOAD)
    })?;
    rest.strip_suffix('}')
}

/// The `message_type` of a message that was written here; `error` for an error.
pub fn type_of(message: &Text) -> &str {
    let text = message.as_str();
    if text.starts_with(BARE_DEVICE_INFO) {
        return "device_info";
    }
    text.strip_prefix(r#"{"message_type":""#).and_then(|rest| rest.split('"').next()).unwrap_or("error")
}

/// `client_disconnected`.
pub fn client_disconnected(client_id: ClientId) -> Text {
    let mut digits = [0; 10];
    concat(&[CLIENT_DISCONNECTED, decimal(client_id, &mut digits), "}"])
}

/// `error`: `reason` is plain text, whatever it contains.
pub fn error(reason: &str) -> Text {
    let mut out = String::with_capacity(reason.len() + 16);
    out.push_str(r#"{"error":"#);
    out.push_str(&quote(reason));
    out.push('}');
    out.into()
}

/// `text` as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    // Writing a `&str` into a `String` cannot fail; the empty string would still be valid JSON.
    serde_json::to_string(text).unwrap_or_else(|_| String::from("\"\""))
}

fn concat(parts: &[&str]) -> Text {
    let mut out = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.push_str(part);
    }
    out.into()
}

/// The id in decimal, without the machinery of `format!` on the relay path.
fn decimal(id: ClientId, digits: &mut [u8; 10]) -> &str {
    let mut number = id.get();
    let mut start = digits.len();
    loop {
        start -= 1;
        // A remainder of 10 fits a byte.
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
