//! A command that prints ICE servers, as the operator's `operator_infra_config_delegate` does.

use std::time::Duration;

use crate::config::bounds::above_zero;
use crate::config::error::ConfigError;
use crate::protocol::IceServers;

/// A command that prints ICE servers on its standard output.
///
/// `Debug` omits its arguments, which may hold a secret.
#[derive(Clone, PartialEq)]
pub struct IceCommand {
    argv: Vec<String>,
    timeout: Duration,
    ttl: Duration,
    fallback: IceServers,
}

impl std::fmt::Debug for IceCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCommand").field("program", &self.program()).finish_non_exhaustive()
    }
}

impl IceCommand {
    /// Creates the source. `argv` is the program and its arguments; no shell reads them.
    ///
    /// A run is killed after `timeout`. The servers of a run are used for `ttl`, and for twice that time while later runs
    /// fail. `fallback` is used when there are none.
    ///
    /// # Errors
    /// [`ConfigError`] for an empty program, a NUL byte, and a time that is 0 or too long.
    pub fn new(argv: Vec<String>, timeout: Duration, ttl: Duration, fallback: IceServers) -> Result<Self, ConfigError> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(ConfigError::new("IceCommand.argv", "is empty; name the program, then its arguments"));
        }
        if let Some(text) = argv.iter().find(|text| text.contains('\0')) {
            return Err(ConfigError::new("IceCommand.argv", format!("{text:?} has a NUL byte")));
        }
        above_zero("IceCommand.timeout", Some(timeout))?;
        above_zero("IceCommand.ttl", Some(ttl))?;
        Ok(Self { argv, timeout, ttl, fallback })
    }

    /// The program and its arguments.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// The program, for messages.
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// The time after which a run is killed.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The time for which the servers of a run are used.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The time for which the servers of a run are used while later runs fail.
    pub fn lifetime(&self) -> Duration {
        self.ttl.saturating_mul(2)
    }

    /// The servers without those of a run.
    pub fn fallback(&self) -> &IceServers {
        &self.fallback
    }
}
