//! The control API: where it is served, its token, and the bounds of its requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;

use crate::config::bounds::{MAX_COUNT, MAX_KEPT, above_zero, within};
use crate::config::error::ConfigError;
use crate::config::listen::Listen;

/// The bytes of a token.
const TOKEN_LENGTH: std::ops::RangeInclusive<usize> = 16..=512;

/// The control API of a server. The default is none.
#[derive(Debug, Clone)]
pub struct Control {
    /// The addresses at which it is served. Default none: there is no listener and no task.
    pub listen: Vec<Listen>,
    /// The token that each request needs. Default none, which `listen` does not allow.
    pub token: Option<ControlToken>,
    /// Connections at a time. Default 64: test runs and commands hold a few each.
    pub max_connections: usize,
    /// Requests at a time, waits and streams included. Default 64: as many as connections.
    pub max_requests: usize,
    /// The longest wait of a request. Default 60 s: proxies and clients often end a request that takes longer.
    pub max_wait: Duration,
    /// Bytes of a request's body. Default 64 KiB: a list of ICE servers takes a few hundred.
    pub max_body: usize,
    /// Bytes after which an answer is cut to a page. Default 4 MiB; a single entry or device may be longer.
    pub max_page: usize,
}

/// The defaults.
pub(super) const DEFAULT: Control = Control {
    listen: Vec::new(),
    token: None,
    max_connections: 64,
    max_requests: 64,
    max_wait: Duration::from_secs(60),
    max_body: 64 * 1024,
    max_page: 4 * 1024 * 1024,
};

impl Default for Control {
    fn default() -> Self {
        DEFAULT
    }
}

impl Control {
    /// Whether there is a control API.
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for (setting, value, least, most) in [
            ("limits.max_control_api_connections", self.max_connections, 1, MAX_COUNT),
            ("limits.max_control_api_requests", self.max_requests, 1, MAX_COUNT),
            ("limits.control_api_body", self.max_body, 1024, 1 << 20),
            ("limits.control_api_page", self.max_page, 64 * 1024, MAX_KEPT),
        ] {
            within(setting, value, least, most)?;
        }
        above_zero("limits.control_api_wait", Some(self.max_wait))?;
        if let Some(listener) = self.listen.iter().find(|listener| !listener.is_tls() && !listener.is_local()) {
            let what = format!("{listener} sends the token in plain text to other machines: use https, or 127.0.0.1");
            return Err(ConfigError::new("control_api", what));
        }
        if self.is_on() && self.token.is_none() {
            return Err(ConfigError::new("control_token", "is missing: control_api needs it"));
        }
        Ok(())
    }
}

/// The token of the control API.
#[derive(Clone, PartialEq, Eq)]
pub struct ControlToken(Arc<str>);

impl ControlToken {
    /// Checks a token: the characters of a bearer token (RFC 6750, 2.1), and its length.
    ///
    /// # Errors
    /// [`ConfigError`], which does not show the token.
    pub fn new(token: &str) -> Result<Self, ConfigError> {
        let error = |what: String| Err(ConfigError::new("control_token", what));
        let (least, most) = (TOKEN_LENGTH.start(), TOKEN_LENGTH.end());
        if !TOKEN_LENGTH.contains(&token.len()) {
            return error(format!("must have {least} to {most} characters, got {}", token.len()));
        }
        let body = token.trim_end_matches('=');
        if body.is_empty() || !body.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)) {
            return error("may have letters, digits and -._~+/ only, with = at its end".into());
        }
        Ok(Self(token.into()))
    }

    /// Whether a request has this token. The time does not depend on where they differ.
    pub fn is(&self, given: &str) -> bool {
        // Both are digested under a key first, so that the comparison has a fixed length.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"control token");
        let own = hmac::sign(&key, self.0.as_bytes());
        hmac::verify(&key, given.as_bytes(), own.as_ref()).is_ok()
    }
}

/// Does not show the token.
impl fmt::Debug for ControlToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ControlToken")
    }
}
