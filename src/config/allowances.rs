//! The host names and origins that the settings `allowed_hosts` and `allowed_origins` allow.
//!
//! A value that no request can match is an error at the start. Names are compared in one spelling: lower case, without
//! a dot at the end, IPv6 addresses in brackets and in their shortest form, without a default port.

use std::net::{IpAddr, Ipv6Addr};

use crate::config::error::ConfigError;

/// The value that allows everything.
const ANY: &str = "*";

/// The schemes whose origins have a default port.
const WEB: [(&str, u16); 2] = [("http", 80), ("https", 443)];

/// Host and port of a `Host` header, of a request target or of an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The name or address, in the one spelling.
    pub host: String,
    /// The port, if the text has one.
    pub port: Option<u16>,
}

impl Authority {
    /// Parses `name`, `name:80`, `127.0.0.1`, `[::1]:80` and `::1`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Some(Self { host: format!("[{address}]"), port: None });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            // A colon without a port is the default port (RFC 3986, 3.2.3).
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        let host = match name.strip_prefix('[') {
            Some(rest) => format!("[{}]", rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
            None => host_name(name)?,
        };
        Some(Self { host, port })
    }

    /// Whether the host is an IP address.
    pub fn is_address(&self) -> bool {
        self.host.starts_with('[') || self.host.parse::<IpAddr>().is_ok()
    }
}

/// A host name in the one spelling. `None` if it has characters that no host name has.
fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.split('.').all(is_label).then(|| name.to_ascii_lowercase())
}

/// An origin: `https://panel.lab:8443` (RFC 6454, 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The scheme, in lower case.
    pub scheme: String,
    /// The host.
    pub host: String,
    /// The port. `None` where the scheme is not of the web and the text has none.
    pub port: Option<u16>,
}

impl Origin {
    /// Parses an origin. `None` for `null` and for anything else that names no host.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let Authority { host, port } = Authority::parse(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Some(Self { scheme, host, port })
    }
}

/// The default port of a scheme of the web.
pub fn default_port(scheme: &str) -> Option<u16> {
    WEB.iter().find(|(name, _)| *name == scheme).map(|(_, port)| *port)
}

/// Parses each value of a setting.
///
/// # Errors
/// [`ConfigError`], with the first value that no request can match.
pub fn parse_each<T>(
    setting: &'static str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    let named = |text: &String| parse(text).map_err(|why| ConfigError::new(setting, format!("{text:?} {why}")));
    texts.iter().map(named).collect()
}

/// A value of `allowed_hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHost {
    /// `*`: every name.
    Any,
    /// One name or address.
    Named(String),
    /// `*.lab.example`: each name below `lab.example`. The text begins with the dot.
    Below(String),
}

impl AllowedHost {
    /// Parses a value.
    ///
    /// # Errors
    /// The reason why no request can match it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == ANY {
            return Ok(Self::Any);
        }
        if text.contains('/') {
            return Err("is not a host name; write it without scheme and port".into());
        }
        if let Some(authority) = Authority::parse(text).filter(|authority| authority.port.is_some()) {
            return Err(format!("is not a host name; write it without scheme and port: {}", authority.host));
        }
        Self::parse_name(text)
    }

    /// Parses a name without a port, or a pattern.
    fn parse_name(text: &str) -> Result<Self, String> {
        if !text.is_ascii() {
            return Err("has letters that are not ASCII; write it as browsers send it, with xn--".into());
        }
        if let Some(parent) = text.strip_prefix("*.").and_then(host_name) {
            return Ok(Self::Below(format!(".{parent}")));
        }
        if let Some(parent) = text.strip_prefix('.').and_then(host_name) {
            return Err(format!("is not a host name; write *.{parent} for the names below {parent}"));
        }
        if text.contains('*') {
            return Err("is not a host name; * stands alone or for the first labels, as in *.lab.example".into());
        }
        let authority = Authority::parse(text).filter(|authority| authority.port.is_none());
        authority.map(|authority| Self::Named(authority.host)).ok_or_else(|| "is not a host name".into())
    }

    /// Whether it allows a host in the one spelling.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(name) => name == host,
            Self::Below(parent) => host.len() > parent.len() && host.ends_with(parent),
        }
    }
}

/// A value of `allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// `*`: every origin.
    Any,
    /// An origin without a host of the web, in lower case: `null`, `file://`, `chrome-extension://abc`.
    Exact(String),
    /// Origins of a scheme, a host or the names below one, and a port.
    Web {
        /// `http` or `https`.
        scheme: String,
        /// The host.
        host: AllowedHost,
        /// The port.
        port: u16,
    },
}

impl AllowedOrigin {
    /// Parses a value.
    ///
    /// # Errors
    /// The reason why no request can match it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        match &*lower {
            ANY => return Ok(Self::Any),
            "null" | "file://" => return Ok(Self::Exact(lower)),
            _ => {}
        }
        let Some((scheme, rest)) = lower.split_once("://") else {
            return Err("is not an origin; write it with its scheme, like https://panel.lab".into());
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(end) = rest.find(['/', '?', '#', '@']) {
            let at = rest.get(end..).unwrap_or_default();
            return Err(format!("is not an origin; write it without {at:?}: scheme, host and port only"));
        }
        let Some(default) = default_port(scheme) else {
            return match scheme {
                "ws" | "wss" => {
                    Err(format!("is not the origin of a page; write {}://{rest}", scheme.replace("ws", "http")))
                }
                _ if rest.is_empty() => Err("is not an origin; it has no host".into()),
                _ => Ok(Self::Exact(format!("{scheme}://{rest}"))),
            };
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            None => default,
            Some(digits) => {
                let port = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
                port.ok_or_else(|| format!("is not an origin; {digits:?} is no port"))?
            }
        };
        Ok(Self::Web { scheme: scheme.into(), host: AllowedHost::parse_name(host)?, port })
    }

    /// Whether it allows an `Origin` header.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(origin) => text.eq_ignore_ascii_case(origin),
            Self::Web { scheme, host, port } => Origin::parse(text).is_some_and(|origin| {
                origin.scheme == *scheme && origin.port == Some(*port) && host.matches(&origin.host)
            }),
        }
    }
}
