//! `IceCommand`: ICE servers from a command.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use super::error::config_error;
use super::turn::ice_servers;
use crate::config::error::ConfigError;
use crate::config::ice_command;

/// A command that prints ICE servers.
#[pyclass(frozen, name = "IceCommand", module = "cuttlefish_signaling")]
pub(super) struct IceCommand(pub(super) Arc<ice_command::IceCommand>);

#[pymethods]
impl IceCommand {
    /// `fallback` is the JSON text of a list.
    #[new]
    fn new(py: Python<'_>, argv: Vec<String>, timeout: f64, ttl: f64, fallback: &str) -> PyResult<Self> {
        let time = |name: &'static str, seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| ConfigError::new(name, format!("must be a number of seconds, got {seconds}")))
        };
        let fallback = ice_servers(py, fallback)?;
        let made = time("IceCommand.timeout", timeout)
            .and_then(|timeout| Ok((timeout, time("IceCommand.ttl", ttl)?)))
            .and_then(|(timeout, ttl)| ice_command::IceCommand::new(argv, timeout, ttl, fallback));
        made.map(|command| Self(Arc::new(command))).map_err(|error| config_error(py, &error))
    }
}
