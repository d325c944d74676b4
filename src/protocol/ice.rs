//! Validates and renders ICE servers (docs/protocol.md 1.16).
//!
//! The form is W3C `RTCIceServer`, with `urls` always an array of strings. The source of the list (settings, TURN
//! credentials, a hook) is not known here.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::MAX_DEVICE_MESSAGE;
pub use super::ice_forms::IceError;
use super::ice_forms::{Entries, entries, forget_old_names, kind, without_other_keys};
use super::outbound::{self, Text};

/// One validated ICE server: W3C `RTCIceServer`, URLs by RFC 7064 and RFC 7065.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct IceServer {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// List of ICE servers, rendered once as a `config` message.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServers {
    config: Text,
}

impl std::fmt::Debug for IceServers {
    /// Leaves out the servers, since they have credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceServers").finish_non_exhaustive()
    }
}

impl Default for IceServers {
    /// Returns an empty list, so that a test run contacts no public STUN server.
    fn default() -> Self {
        Self { config: outbound::config("[]") }
    }
}

impl IceServers {
    /// Renders the `config` message for these servers.
    ///
    /// # Errors
    /// [`IceError`] if the message would be longer than [`MAX_DEVICE_MESSAGE`], 65,536 bytes (docs/protocol.md 2.8).
    pub fn new(servers: &[IceServer]) -> Result<Self, IceError> {
        let json = serde_json::to_string(servers).map_err(|e| IceError::new("ice_servers", e.to_string()))?;
        let config = outbound::config(&json);
        if config.len() > MAX_DEVICE_MESSAGE {
            let what = format!(
                "the config message would be {} bytes long, and a device takes at most {MAX_DEVICE_MESSAGE}",
                config.len()
            );
            return Err(IceError::new("ice_servers", what));
        }
        Ok(Self { config })
    }

    /// Parses a JSON array of `RTCIceServer` objects, one such object, or the answer of a provider that has them.
    ///
    /// # Errors
    /// [`IceError`] with the place of the invalid entry, or if the `config` message would be too long for a device.
    pub fn from_json(json: &str) -> Result<Self, IceError> {
        Self::new(&IceServer::list_from_json(json)?)
    }

    /// Parses the output of a command: `{"ice_servers":[…]}`, as the operator's delegate prints it, or each form of
    /// [`IceServers::from_json`]. Returns the servers and their lifetime, the `"ttl"` of the object in seconds.
    ///
    /// Other keys are ignored, as the operator ignores them.
    ///
    /// # Errors
    /// [`IceError`], as [`IceServers::from_json`]; also if there is no list, or the lifetime is no number above 0.
    pub fn from_command(output: &str) -> Result<(Self, Option<Duration>), IceError> {
        let value: Value =
            serde_json::from_str(output).map_err(|e| IceError::new("output", format!("no valid JSON: {e}")))?;
        let lifetime = value.get("ttl").map(lifetime_of).transpose()?.flatten();
        let is_object = value.is_object();
        let without = |error| if is_object { IceError::new("output", "an object without ice_servers") } else { error };
        let found = entries(value).map_err(without)?;
        let entries = found.list.into_iter().map(without_other_keys).collect();
        Ok((Self::new(&IceServer::list(entries)?)?, lifetime))
    }

    /// Returns the `config` message.
    pub fn config(&self) -> Text {
        self.config.clone()
    }
}

impl IceServer {
    /// Parses a JSON array of `RTCIceServer` objects, one such object, or the answer of a provider that has them.
    ///
    /// # Errors
    /// [`IceError`] with the place of the invalid entry.
    pub fn list_from_json(json: &str) -> Result<Vec<Self>, IceError> {
        let value: Value =
            serde_json::from_str(json).map_err(|e| IceError::new("ice_servers", format!("no valid JSON: {e}")))?;
        let Entries { list, is_of_a_provider } = entries(value)?;
        let list = if is_of_a_provider { list.into_iter().map(without_other_keys).collect() } else { list };
        Self::list(list)
    }

    fn list(entries: Vec<Value>) -> Result<Vec<Self>, IceError> {
        let parsed = entries.into_iter().enumerate();
        parsed.map(|(index, entry)| Self::from_value(entry, &format!("ice_servers[{index}]"))).collect()
    }

    /// Validates one server. `place` is its path in errors. Schemes and transports may have any case, and get lower case.
    ///
    /// # Errors
    /// [`IceError`] if `urls` is empty, a URL is invalid, or a `turn:` or `turns:` URL lacks `username` or
    /// `credential`. A peer would refuse such a server.
    pub fn new(
        urls: Vec<String>,
        username: Option<String>,
        credential: Option<String>,
        place: &str,
    ) -> Result<Self, IceError> {
        if urls.is_empty() {
            return Err(IceError::new(place, "urls is empty; give at least one URL"));
        }
        let checked = urls
            .into_iter()
            .enumerate()
            .map(|(index, url)| check_url(&url).map_err(|what| IceError::new(format!("{place}.urls[{index}]"), what)));
        let urls = checked.collect::<Result<Vec<_>, _>>()?;
        let relays = urls.iter().any(|url| scheme_of(url).starts_with("turn"));
        if relays && (username.is_none() || credential.is_none()) {
            let what = "a turn: or turns: URL needs username and credential (W3C: peers refuse it without)";
            return Err(IceError::new(place, what));
        }
        Ok(Self { urls, username, credential })
    }

    fn from_value(value: Value, place: &str) -> Result<Self, IceError> {
        let Value::Object(mut fields) = value else {
            return Err(IceError::new(place, format!("expected an object with urls, got {}", kind(&value))));
        };
        forget_old_names(&mut fields, place)?;
        let urls = match fields.remove("urls") {
            Some(Value::String(url)) => vec![url],
            Some(Value::Array(urls)) => urls
                .into_iter()
                .enumerate()
                .map(|(index, url)| match url {
                    Value::String(url) => Ok(url),
                    other => {
                        let what = format!("expected a string, got {}", kind(&other));
                        Err(IceError::new(format!("{place}.urls[{index}]"), what))
                    }
                })
                .collect::<Result<_, _>>()?,
            Some(other) => {
                let what = format!("urls must be a string or a list of strings, got {}", kind(&other));
                return Err(IceError::new(place, what));
            }
            None => return Err(IceError::new(place, "urls is missing")),
        };
        let username = optional_string(&mut fields, "username", place)?;
        let credential = optional_string(&mut fields, "credential", place)?;
        if let Some(key) = fields.keys().next() {
            let what = format!("unknown key {key:?}; there are urls, username and credential");
            return Err(IceError::new(place, what));
        }
        Self::new(urls, username, credential, place)
    }
}

impl std::fmt::Debug for IceServer {
    /// Leaves out username and credential, since the credential is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// Reads the lifetime that a command has printed.
fn lifetime_of(value: &Value) -> Result<Option<Duration>, IceError> {
    if value.is_null() {
        return Ok(None);
    }
    // Twilio writes it as a text.
    let seconds = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match time.filter(|time| !time.is_zero()) {
        Some(time) => Ok(Some(time)),
        None => Err(IceError::new("ttl", format!("expected a number of seconds above 0, got {value}"))),
    }
}

fn optional_string(fields: &mut Map<String, Value>, key: &str, place: &str) -> Result<Option<String>, IceError> {
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(IceError::new(place, format!("{key} must be a string, got {}", kind(&other)))),
    }
}

fn scheme_of(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}

/// Checks a URL. Returns it with its scheme and transport in lower case: peers compare them byte by byte.
fn check_url(url: &str) -> Result<String, String> {
    let fail = |what: &str| {
        // Credentials do not belong into a URL, and an error must not show them.
        let shown = url.rsplit_once('@').map_or_else(|| format!("{url:?}"), |(_, host)| format!("…@{host}"));
        Err(format!("{what} in {shown}; expected stun:HOST[:PORT] or turn:HOST[:PORT][?transport=udp|tcp]"))
    };
    let Some((scheme, rest)) = url.split_once(':') else { return fail("no scheme") };
    let scheme = scheme.to_ascii_lowercase();
    let relay = match scheme.as_str() {
        "stun" | "stuns" => false,
        "turn" | "turns" => true,
        _ => return fail("unknown ICE scheme"),
    };
    let (authority, query) = rest.split_once('?').map_or((rest, None), |(authority, query)| (authority, Some(query)));
    let query = query.map(str::to_ascii_lowercase);
    match query.as_deref() {
        Some(_) if !relay => return fail("a query, which stun: has not,"),
        Some(query) if !matches!(query, "transport=udp" | "transport=tcp") => return fail("unknown transport"),
        _ => {}
    }
    if let Err(what) = check_authority(authority) {
        return fail(what);
    }
    Ok(query.map_or_else(|| format!("{scheme}:{authority}"), |query| format!("{scheme}:{authority}?{query}")))
}

fn check_authority(authority: &str) -> Result<(), &'static str> {
    let (host, port) = match authority.strip_prefix('[').map(|inner| inner.split_once(']')) {
        Some(Some((host, rest))) => (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some(rest))),
        Some(None) => return Err("an open bracket"),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c)) {
        return Err("no host");
    }
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0) || port.starts_with('+')) {
        return Err("no valid port");
    }
    Ok(())
}
