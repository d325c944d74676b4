//! ICE servers as peers need them: W3C `RTCIceServer`, `urls` always an array of strings. Validates and renders;
//! knows nothing of where the list comes from.

use serde::Serialize;
use serde_json::{Map, Value};

use super::MAX_DEVICE_MESSAGE;
use super::outbound::{self, Text};

/// One ICE server, validated (W3C `RTCIceServer`; URLs by RFC 7064 and RFC 7065).
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct IceServer {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// What is wrong with an ICE server, told with the place of the entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct IceError {
    /// The entry, as `ice_servers[2].urls[0]`.
    pub place: String,
    /// What is wrong with it, and what to do.
    pub what: String,
}

impl IceError {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// A list of ICE servers and the `config` message that tells it, rendered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServers {
    config: Text,
}

impl Default for IceServers {
    /// No servers: a test run must not reach for a public STUN server.
    fn default() -> Self {
        Self { config: outbound::config("[]") }
    }
}

impl IceServers {
    /// The list of these servers.
    ///
    /// # Errors
    /// [`IceError`] if the `config` message would be larger than a device can take.
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

    /// Reads a JSON array of `RTCIceServer` objects; `urls` may be a string or an array of strings.
    ///
    /// # Errors
    /// [`IceError`], which names the entry.
    pub fn from_json(json: &str) -> Result<Self, IceError> {
        let value: Value =
            serde_json::from_str(json).map_err(|e| IceError::new("ice_servers", format!("no valid JSON: {e}")))?;
        let Value::Array(entries) = value else {
            return Err(IceError::new("ice_servers", format!("expected a list, got {}", kind(&value))));
        };
        let servers: Vec<IceServer> = entries
            .into_iter()
            .enumerate()
            .map(|(index, entry)| IceServer::from_value(entry, &format!("ice_servers[{index}]")))
            .collect::<Result<_, _>>()?;
        Self::new(&servers)
    }

    /// The `config` message.
    pub fn config(&self) -> Text {
        self.config.clone()
    }
}

impl IceServer {
    /// One server, validated. `place` names it in errors.
    ///
    /// # Errors
    /// [`IceError`] where a URL, or the want of credentials, would make a peer refuse the server.
    pub fn new(
        urls: Vec<String>,
        username: Option<String>,
        credential: Option<String>,
        place: &str,
    ) -> Result<Self, IceError> {
        if urls.is_empty() {
            return Err(IceError::new(place, "urls is empty; give at least one URL"));
        }
        for (index, url) in urls.iter().enumerate() {
            check_url(url).map_err(|what| IceError::new(format!("{place}.urls[{index}]"), what))?;
        }
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
    /// The credential is left out: it is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
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

fn check_url(url: &str) -> Result<(), String> {
    let fail = |what: &str| {
        Err(format!("{what} in {url:?}; expected stun:HOST[:PORT] or turn:HOST[:PORT][?transport=udp|tcp]"))
    };
    let Some((scheme, rest)) = url.split_once(':') else { return fail("no scheme") };
    let relay = match scheme {
        "stun" | "stuns" => false,
        "turn" | "turns" => true,
        _ => return fail("unknown ICE scheme"),
    };
    let (authority, query) = rest.split_once('?').map_or((rest, None), |(authority, query)| (authority, Some(query)));
    match query {
        Some(_) if !relay => return fail("a query, which stun: has not,"),
        Some(query) if !matches!(query, "transport=udp" | "transport=tcp") => return fail("unknown transport"),
        _ => {}
    }
    let (host, port) = match authority.strip_prefix('[').map(|inner| inner.split_once(']')) {
        Some(Some((host, rest))) => (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some(rest))),
        Some(None) => return fail("an open bracket"),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c)) {
        return fail("no host");
    }
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0) || port.starts_with('+')) {
        return fail("no valid port");
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
