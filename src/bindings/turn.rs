//! `TurnRest`, and the validation of ICE servers, which Python passes as JSON.

use std::time::{Duration, SystemTime};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::error::config_error;
use crate::config::error::ConfigError;
use crate::config::turn;
use crate::protocol::{IceError, IceServer, IceServers};

/// The last time for which credentials are made, in seconds since 1970: a later one would not fit a number of seconds.
const LAST_TIME: Duration = Duration::from_secs(1 << 40);

/// Time-limited TURN credentials (coturn's `use-auth-secret`). Python has checked the types.
#[pyclass(frozen, name = "TurnRest", module = "cuttlefish_signaling")]
pub(super) struct TurnRest(pub(super) turn::TurnRest);

#[pymethods]
impl TurnRest {
    #[new]
    fn new(
        py: Python<'_>,
        urls: Vec<String>,
        secret: String,
        ttl: f64,
        name: String,
        stun: Vec<String>,
    ) -> PyResult<Self> {
        let made = Duration::try_from_secs_f64(ttl)
            .map_err(|_| ConfigError::new("TurnRest.ttl", format!("must be a number of seconds, got {ttl}")))
            .and_then(|ttl| {
                let mut others = Vec::new();
                if !stun.is_empty() {
                    let made = IceServer::new(stun, None, None, "TurnRest.stun");
                    others.push(made.map_err(|error| ConfigError::new(error.place, error.what))?);
                }
                turn::TurnRest::new(urls, secret, ttl, name, others)
            });
        made.map(Self).map_err(|error| config_error(py, &error))
    }

    /// Returns the `config` message, with credentials that expire `ttl` seconds after `now` (Unix seconds).
    fn config(&self, py: Python<'_>, now: Option<f64>) -> PyResult<String> {
        let now = match now {
            None => SystemTime::now(),
            Some(now) => {
                let since = Duration::try_from_secs_f64(now).unwrap_or_default().min(LAST_TIME);
                SystemTime::UNIX_EPOCH + since
            }
        };
        match self.0.credentials(now) {
            Ok(servers) => Ok(servers.config().as_str().to_owned()),
            Err(error) => Err(config_error(py, &ConfigError::new(error.place, error.what))),
        }
    }

    /// Omits the secret.
    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Validates the JSON text of ICE servers, and returns that of the list. Raises `ConfigError`, which names the entry.
#[pyfunction]
pub(super) fn checked_ice_servers(py: Python<'_>, json: &str) -> PyResult<String> {
    let named = |error: IceError| config_error(py, &ConfigError::new(error.place, error.what));
    let servers = IceServer::list_from_json(json).map_err(named)?;
    IceServers::new(&servers).map_err(named)?;
    serde_json::to_string(&servers).map_err(|error| PyValueError::new_err(error.to_string()))
}

pub(super) fn ice_servers(py: Python<'_>, json: &str) -> PyResult<IceServers> {
    IceServers::from_json(json).map_err(|error| config_error(py, &ConfigError::new(error.place, error.what)))
}
