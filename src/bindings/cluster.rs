//! `_native.Cluster`: the settings of a node of a cluster. The Python class `Cluster` wraps it.

use std::net::SocketAddr;
use std::path::PathBuf;

use pyo3::prelude::*;

use super::error::config_error;
use crate::config::cluster;
use crate::config::error::ConfigError;
use crate::core::cluster::registry::Timing;

/// The checked settings of a node. Python has checked the types.
#[pyclass(frozen, eq, name = "Cluster", module = "cuttlefish_signaling")]
#[derive(PartialEq)]
pub(super) struct Cluster(pub(super) cluster::Cluster);

#[pymethods]
impl Cluster {
    #[new]
    #[pyo3(signature = (engine, *, name, node, listen, address, secrets, ca, hold_on_outage, device_id_template))]
    #[allow(clippy::too_many_arguments, reason = "Python passes each by its name")]
    fn new(
        py: Python<'_>,
        engine: String,
        name: String,
        node: String,
        listen: &str,
        address: Option<String>,
        secrets: Vec<String>,
        ca: Option<PathBuf>,
        hold_on_outage: bool,
        device_id_template: Option<String>,
    ) -> PyResult<Self> {
        let made = listen_address(listen).and_then(|listen| {
            let timing = Timing::default();
            let cluster = cluster::Cluster {
                engine,
                name,
                node,
                listen,
                address,
                secrets,
                ca,
                hold_on_outage,
                device_id_template,
                timing,
            };
            cluster.validate().map(|()| cluster)
        });
        made.map(Self).map_err(|error| config_error(py, &error))
    }

    /// Whether a server that runs can take over the secrets of `other`: all else is the same.
    fn is_same_but_secrets(&self, other: &Self) -> bool {
        self.0.is_same_but_secrets(&other.0)
    }

    /// The URL of the engine, without the password.
    #[getter]
    fn engine(&self) -> String {
        self.0.engine_without_password()
    }

    /// Omits the password and the secrets.
    fn __repr__(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn listen_address(text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        let what =
            format!("{text:?} is not ADDRESS:PORT, like 10.0.0.5:7443; a name of this machine goes into `address`");
        ConfigError::new("Cluster.listen", what)
    })
}
