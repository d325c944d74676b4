//! The record of one decision about a peer: a line of JSON. It has no token, no header and no query.

#![allow(clippy::ref_option_ref, clippy::ref_option, reason = "serde passes a reference to each field")]

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The bytes of a text in a record, and of an identity.
///
/// No setting: it bounds the memory of a record that waits. A path can have the length of a request head.
pub const MAX_TEXT: usize = 1024;

/// The device patterns of a grant that a record has. `devices_left_out` counts the others.
pub const MAX_PATTERNS: usize = 32;

/// The kind of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A request was admitted, a device has registered, or a client has connected.
    Admitted,
    /// A request was refused, or the server has ended a connection for the reason.
    Refused,
    /// A program or a viewer has changed something, such as disconnected a peer.
    Managed,
}

/// The parts of a grant that a record has.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AuditGrant<'a> {
    /// The identity, as JSON text.
    #[serde(serialize_with = "identity", skip_serializing_if = "Option::is_none")]
    pub identity: Option<&'a str>,
    /// The first patterns of devices; `None` grants all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<String>>,
    /// Patterns beyond [`MAX_PATTERNS`].
    #[serde(skip_serializing_if = "is_zero")]
    pub devices_left_out: usize,
    /// Whether the peer may manage its devices.
    #[serde(skip_serializing_if = "is_false")]
    pub manage: bool,
    /// Whether the peer has a device for itself.
    #[serde(skip_serializing_if = "is_false")]
    pub exclusive: bool,
    /// Seconds for which the grant holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_for: Option<f64>,
}

/// A record. A field that is not known is missing in the line.
#[derive(Debug, Clone, Serialize)]
pub struct AuditRecord<'a> {
    /// The kind of the decision.
    pub outcome: Outcome,
    /// `device`, `client` or `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'a str>,
    /// The address and port of the peer.
    #[serde(flatten, serialize_with = "address")]
    pub address: Option<SocketAddr>,
    /// The scheme of the listener, or the one that a trusted proxy tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<&'a str>,
    /// The decoded path, without a query.
    #[serde(serialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    /// The id of the device.
    #[serde(serialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub device_id: Option<&'a str>,
    /// The id of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<u32>,
    /// The subject of the TLS certificate of the peer.
    #[serde(serialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub certificate: Option<&'a str>,
    /// The grant.
    #[serde(flatten)]
    pub grant: AuditGrant<'a>,
    /// The change of a managed record, such as `disconnect`.
    #[serde(serialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub action: Option<&'a str>,
    /// The HTTP status, or the code of the close frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The text of the refusal.
    #[serde(serialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

impl AuditRecord<'_> {
    /// A record with no further fields.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            role: None,
            address: None,
            scheme: None,
            path: None,
            device_id: None,
            client_id: None,
            certificate: None,
            grant: AuditGrant::default(),
            action: None,
            status: None,
            reason: None,
        }
    }

    /// Returns the line of the record, with its end. `node` is the name of this node, if it is one of a cluster.
    pub fn line(&self, at: SystemTime, node: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            at: String,
            #[serde(flatten)]
            record: &'a AuditRecord<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            node: Option<&'a str>,
        }
        // Serde cannot fail here: all keys are strings.
        let mut line = serde_json::to_string(&Line { at: rfc3339(at), record: self, node }).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// The time in UTC, like `2026-01-31T12:00:00.125Z` (RFC 3339). A time before 1970 is shown as 1970.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (mut days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let mut year = 1970;
    let days_of = |year: u64| {
        let is_leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
        [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    };
    while days >= days_of(year).iter().sum() {
        days -= days_of(year).iter().sum::<u64>();
        year += 1;
    }
    let mut month = 1;
    for length in days_of(year) {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z", days + 1)
}

/// The beginning of a text, and how much of it is missing.
fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT {
        return text.into();
    }
    let end = (0..=MAX_TEXT).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    format!("{}... ({} more bytes)", &text[..end], text.len() - end).into()
}

fn text<S: Serializer>(text: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    text.map(cut).serialize(serializer)
}

/// The identity is JSON. One that is too long becomes a string with its beginning.
fn identity<S: Serializer>(identity: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(json) = identity else { return serializer.serialize_none() };
    match serde_json::from_str::<&RawValue>(json) {
        Ok(value) if json.len() <= MAX_TEXT && !json.contains('\n') => value.serialize(serializer),
        _ => cut(json).serialize(serializer),
    }
}

/// The address without the port, and the port.
fn address<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Parts {
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    }
    let ip = address.map(|address| address.ip().to_canonical().to_string());
    Parts { address: ip, port: address.map(|address| address.port()) }.serialize(serializer)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(switch: &bool) -> bool {
    !switch
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value, json};

    use crate::observe::audit::{AuditGrant, AuditRecord, MAX_TEXT, Outcome, rfc3339};

    fn read(record: &AuditRecord<'_>) -> Value {
        let line = record.line(UNIX_EPOCH, None);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn time_is_that_of_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_125, "2000-02-29T00:00:00.125Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_798_761_599_001, "2026-12-31T23:59:59.001Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn line_has_the_fields_that_are_known() {
        let grant = AuditGrant {
            identity: Some(r#"{"user":"alice"}"#),
            devices: Some(vec!["cvd-*".into()]),
            exclusive: true,
            valid_for: Some(60.0),
            ..AuditGrant::default()
        };
        let record = AuditRecord {
            role: Some("client"),
            address: "[::ffff:192.0.2.7]:4711".parse().ok(),
            scheme: Some("https"),
            path: Some("/connect_client"),
            grant,
            ..AuditRecord::new(Outcome::Admitted)
        };
        let line = record.line(UNIX_EPOCH, Some("a"));
        let expected = concat!(
            r#"{"at":"1970-01-01T00:00:00.000Z","outcome":"admitted","role":"client","address":"192.0.2.7","port":4711,"#,
            r#""scheme":"https","path":"/connect_client","identity":{"user":"alice"},"devices":["cvd-*"],"#,
            r#""exclusive":true,"valid_for":60.0,"node":"a"}"#,
            "\n"
        );
        assert_eq!(line, expected);
        let refused = AuditRecord { status: Some(401), reason: Some("no"), ..AuditRecord::new(Outcome::Refused) };
        let at = "1970-01-01T00:00:00.000Z";
        assert_eq!(read(&refused), json!({"at": at, "outcome": "refused", "status": 401, "reason": "no"}));
    }

    #[test]
    fn text_of_a_peer_stays_on_its_line_and_is_cut() {
        let hostile = "a\"b\n{\"outcome\":\"admitted\"}\u{2028}\u{7}";
        let record = AuditRecord { path: Some(hostile), reason: Some(hostile), ..AuditRecord::new(Outcome::Refused) };
        let read_back = read(&record);
        assert_eq!((&read_back["path"], &read_back["outcome"]), (&json!(hostile), &json!("refused")));
        let long = "é".repeat(MAX_TEXT);
        let record = AuditRecord { path: Some(&long), ..AuditRecord::new(Outcome::Refused) };
        let expected = format!("{}... ({MAX_TEXT} more bytes)", "é".repeat(MAX_TEXT / 2));
        assert_eq!(read(&record)["path"], json!(expected));
    }

    #[test]
    fn identity_is_json_and_a_long_one_is_a_text() {
        let of = |identity| {
            let grant = AuditGrant { identity: Some(identity), ..AuditGrant::default() };
            read(&AuditRecord { grant, ..AuditRecord::new(Outcome::Admitted) })["identity"].clone()
        };
        assert_eq!(of("\"alice\""), json!("alice"));
        assert_eq!(of("{\"a\":\n1}"), json!("{\"a\":\n1}"), "a line stays one");
        let long = format!("\"{}\"", "x".repeat(MAX_TEXT));
        assert_eq!(of(&long), json!(format!("\"{}... (2 more bytes)", "x".repeat(MAX_TEXT - 1))));
    }
}
