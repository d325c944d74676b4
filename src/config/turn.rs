//! Time-limited TURN credentials (draft-uberti-behave-turn-rest-00), as coturn's `use-auth-secret` checks them.
//!
//! The username contains the expiry, and the password is a keyed hash of the username.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::config::bounds::at_most;
use crate::config::error::ConfigError;
use crate::protocol::{IceError, IceServer, IceServers};

/// Creates credentials for one TURN server. `Debug` omits the secret.
#[derive(Clone, PartialEq)]
pub struct TurnRest {
    urls: Vec<String>,
    secret: String,
    ttl: Duration,
    name: String,
    /// Servers that need no credentials, such as STUN servers. Each list contains them as well.
    others: Vec<IceServer>,
}

impl std::fmt::Debug for TurnRest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnRest").field("urls", &self.urls).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl TurnRest {
    /// Creates a source of credentials that are valid for `ttl`. The TURN server at `urls` has the same `secret`.
    ///
    /// `name` is part of each username. `others` are servers without credentials.
    ///
    /// # Errors
    /// [`ConfigError`] if a URL does not begin with `turn:` or `turns:`, if the secret is empty, or if `ttl` is below one
    /// second or above [`MAX_TIME`](super::bounds::MAX_TIME).
    pub fn new(
        urls: Vec<String>,
        secret: String,
        ttl: Duration,
        name: String,
        others: Vec<IceServer>,
    ) -> Result<Self, ConfigError> {
        if secret.is_empty() {
            return Err(ConfigError::new("TurnRest.secret", "is empty; use the shared secret of the TURN server"));
        }
        if ttl < Duration::from_secs(1) {
            return Err(ConfigError::new("TurnRest.ttl", format!("must be at least 1 second, got {ttl:?}")));
        }
        at_most("TurnRest.ttl", Some(ttl))?;
        let is_turn = |url: &&String| {
            let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
            matches!(scheme.as_deref(), Some("turn" | "turns"))
        };
        if let Some(url) = urls.iter().find(|url| !is_turn(url)) {
            return Err(ConfigError::new("TurnRest.urls", format!("{url:?} must begin with turn: or turns:")));
        }
        let turn = Self { urls, secret, ttl, name, others };
        turn.credentials(SystemTime::now()).map_err(|error| ConfigError::new(error.place, error.what))?;
        Ok(turn)
    }

    /// The lifetime of credentials.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns the servers, with credentials that expire `ttl` after `now`.
    ///
    /// The username is `expiry:name`, with the expiry in Unix seconds. The password is the base64 of
    /// HMAC-SHA1(secret, username).
    ///
    /// # Errors
    /// [`IceError`] if a URL is malformed.
    pub fn credentials(&self, now: SystemTime) -> Result<IceServers, IceError> {
        let expiry = now.duration_since(UNIX_EPOCH).unwrap_or_default() + self.ttl;
        let username = format!("{}:{}", expiry.as_secs(), self.name);
        let password = self.password(&username);
        let server = IceServer::new(self.urls.clone(), Some(username), Some(password), "TurnRest")?;
        let mut servers = self.others.clone();
        servers.push(server);
        IceServers::new(&servers)
    }

    fn password(&self, username: &str) -> String {
        // HMAC accepts keys of any length, so this does not fail.
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(self.secret.as_bytes()) else { return String::new() };
        mac.update(username.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
}
