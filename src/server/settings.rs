//! The settings that are in effect. A reload replaces all of them at once.
//!
//! A connection keeps the settings that it began with, so that its messages read no shared state. Everything that is
//! decided once for a request, a connection or a call of a hook reads the current settings.

use std::ops::Deref;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::access::origin_policy::Policy;
use crate::access::trusted_proxies::TrustedProxies;
use crate::config::Config;
use crate::config::error::ConfigError;
use crate::core::outbox::Budget;
use crate::core::session::Rules;

/// Checked settings, and the values that are made from them.
pub(crate) struct Settings {
    /// The settings.
    config: Config,
    /// The settings that sessions use.
    pub(super) rules: Arc<Rules>,
    /// The bounds of outboxes, and the bytes that all outboxes of the server borrow.
    pub(super) budget: Arc<Budget>,
    /// Decides which `Host` and `Origin` headers are allowed.
    pub(super) policy: Policy,
    /// The proxies whose headers count.
    pub(super) trusted_proxies: TrustedProxies,
    /// The turns of TLS handshakes, given in the order of arrival.
    pub(super) handshakes: Arc<Semaphore>,
}

impl Settings {
    /// Makes the settings of a new server.
    ///
    /// # Errors
    /// [`ConfigError`], which names the first invalid setting.
    pub(super) fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            rules: Arc::new(config.rules()),
            budget: Budget::new(config.limits.backpressure.outbox_bounds()),
            policy: Policy::new(&config)?,
            trusted_proxies: TrustedProxies::parse(&config.trusted_proxies)?,
            handshakes: Arc::new(Semaphore::new(config.limits.max_handshakes)),
            config,
        })
    }

    /// Makes the settings that replace these. The bytes that outboxes have borrowed still count.
    ///
    /// # Errors
    /// [`ConfigError`], which names the first invalid setting.
    pub(super) fn replaced_by(&self, config: Config) -> Result<Self, ConfigError> {
        let is_same = self.config.limits.max_handshakes == config.limits.max_handshakes;
        let mut new = Self::new(config)?;
        new.budget = self.budget.with_bounds(new.config.limits.backpressure.outbox_bounds());
        if is_same {
            new.handshakes = Arc::clone(&self.handshakes);
        }
        Ok(new)
    }
}

impl Deref for Settings {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

/// The current settings of one server.
pub(super) struct CurrentSettings(RwLock<Arc<Settings>>);

impl CurrentSettings {
    /// Begins with these settings.
    pub(super) fn new(settings: Settings) -> Self {
        Self(RwLock::new(Arc::new(settings)))
    }

    /// Returns the settings.
    pub(super) fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read())
    }

    /// Replaces the settings.
    pub(super) fn set(&self, settings: Settings) {
        *self.0.write() = Arc::new(settings);
    }
}
