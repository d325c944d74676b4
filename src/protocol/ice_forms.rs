//! The forms in which ICE servers come: a list, one server, or the answer of a provider of TURN servers.
//!
//! Cloudflare answers `{"iceServers":[…]}` or `{"iceServers":{…}}`, Twilio `{"ice_servers":[…], …}`, and Xirsys
//! `{"v":{"iceServers":…}, …}`. Entries may have the older names of W3C: `url`, and `credentialType`.

use serde_json::{Map, Value};

/// Error in a list of ICE servers, with the place of the entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct IceError {
    /// Path of the entry, for example `ice_servers[2].urls[0]`.
    pub place: String,
    /// Error and fix, as text.
    pub what: String,
}

impl IceError {
    pub(super) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// The entries of a list.
pub(super) struct Entries {
    pub(super) list: Vec<Value>,
    /// Whether a provider may have added keys of its own.
    pub(super) is_of_a_provider: bool,
}

/// Finds the list.
pub(super) fn entries(value: Value) -> Result<Entries, IceError> {
    match value {
        Value::Array(list) => Ok(Entries { list, is_of_a_provider: false }),
        Value::Object(fields) if fields.contains_key("urls") || fields.contains_key("url") => {
            Ok(Entries { list: vec![Value::Object(fields)], is_of_a_provider: false })
        }
        Value::Object(mut fields) => {
            if let Some(Value::Object(inner)) = fields.remove("v") {
                fields = inner;
            }
            match fields.remove("iceServers").or_else(|| fields.remove("ice_servers")) {
                Some(Value::Array(list)) => Ok(Entries { list, is_of_a_provider: true }),
                Some(server @ Value::Object(_)) => Ok(Entries { list: vec![server], is_of_a_provider: true }),
                Some(other) => Err(no_list(kind(&other))),
                None => Err(no_list("an object without urls and without iceServers")),
            }
        }
        other => Err(no_list(kind(&other))),
    }
}

fn no_list(got: &str) -> IceError {
    IceError::new("ice_servers", format!("expected a list, got {got}"))
}

/// Removes the keys that a provider has added.
pub(super) fn without_other_keys(mut entry: Value) -> Value {
    if let Value::Object(fields) = &mut entry {
        fields.retain(|key, _| {
            matches!(key.as_str(), "urls" | "url" | "username" | "credential" | "credentialType" | "credential_type")
        });
    }
    entry
}

/// Replaces `url` by `urls`, and removes `credentialType`, which may only be `password`.
pub(super) fn forget_old_names(fields: &mut Map<String, Value>, place: &str) -> Result<(), IceError> {
    let url = fields.remove("url");
    if let Some(url) = url.filter(|url| !url.is_null())
        && fields.get("urls").is_none_or(Value::is_null)
    {
        fields.insert("urls".to_owned(), url);
    }
    for key in ["credentialType", "credential_type"] {
        match fields.remove(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.eq_ignore_ascii_case("password") => {}
            Some(other) => {
                return Err(IceError::new(place, format!("{key} {other} is not supported; the only one is password")));
            }
        }
    }
    Ok(())
}

/// The type of a JSON value, for errors.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
