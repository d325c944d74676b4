//! Replaces the settings of a server that runs, in two steps: check everything, then apply everything.

use std::fs::File;
use std::sync::Arc;

use super::listener::refuse_exposed;
use super::settings::Settings;
use super::shared::Shared;
use super::{Running, audit_log};
use crate::config::error::ConfigError;
use crate::config::{Config, IceSource};

/// Settings that were checked and are not in effect yet.
pub struct Reload {
    shared: Arc<Shared>,
    settings: Settings,
    ice: Option<IceSource>,
    /// The file of the audit log, opened again.
    audit: Option<File>,
}

impl Running {
    /// Replaces the settings, except [`Config::sockets`]. Connections stay. New ones are under the new settings; docs/settings.md tells for each
    /// setting whether it is in effect at once or for new connections.
    ///
    /// # Errors
    /// [`ConfigError`] for an invalid setting, or one that needs a restart. All old settings stay in effect then.
    pub fn reload(&self, config: Config) -> Result<(), ConfigError> {
        // Devices get a new `config` only where it is another one.
        let ice = (!self.shared.ice.read().is_same(&config.ice)).then(|| config.ice.clone());
        self.prepare_reload(config, self.shared.hooks.authenticates(), ice)?.apply();
        Ok(())
    }

    /// Checks settings that replace those in effect. `authenticates`: there will be an `authorize` hook. `ice` replaces the
    /// source of ICE servers, which `config.ice` does not.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub fn prepare_reload(
        &self,
        mut config: Config,
        authenticates: bool,
        ice: Option<IceSource>,
    ) -> Result<Reload, ConfigError> {
        let old = self.shared.settings();
        // The server listens on its sockets, and takes no others.
        config.sockets.clear();
        // First, so that an invalid value is named in any case.
        let settings = old.replaced_by(config)?;
        if let [first, ..] = &old.fixed_changes(&settings)[..] {
            return Err(ConfigError::new(*first, "cannot change while the server runs: restart it"));
        }
        refuse_exposed(&settings, authenticates)?;
        let audit = audit_log::open(&settings)?;
        Ok(Reload { shared: Arc::clone(&self.shared), settings, ice, audit })
    }
}

impl Reload {
    /// Puts the settings into effect.
    pub fn apply(self) {
        let Self { shared, settings, ice, audit } = self;
        let (limits, held, journal) = (settings.limits.clone(), settings.held_bounds(), settings.journal_bounds());
        shared.limiters.set_limits(&settings);
        shared.record_rates.set(&limits);
        if let Some(log) = &shared.audit {
            log.replace(limits.audit_queue, audit);
        }
        shared.hub.set_max_devices(limits.max_devices);
        shared.relay.set_max_held(held);
        if let Some(entries) = shared.relay.journal() {
            entries.set_bounds(journal);
        }
        if let (Some(cluster), Some(new)) = (&shared.cluster, &settings.cluster) {
            let old = shared.settings();
            if old.cluster.as_ref().is_some_and(|old| old.secrets != new.secrets) {
                cluster.replace_secrets(new.secrets.clone());
            }
        }
        let budget = Arc::clone(&settings.budget);
        shared.current.set(settings);
        budget.take_effect();
        if let Some(cluster) = &shared.cluster {
            // Its task tells the other nodes.
            cluster.changed.notify_one();
        }
        if let Some(source) = ice {
            shared.set_ice_servers(source);
        }
        shared.reloaded.notify_waiters();
    }
}
