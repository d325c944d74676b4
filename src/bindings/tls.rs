//! `_native.Tls`: certificate and key, as the Python class `Tls` wraps them.

use pyo3::prelude::*;

use super::error::{detached, start_error};
use crate::tls;

/// A server's certificate and key.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Tls(pub(super) tls::Tls);

#[pymethods]
impl Tls {
    /// Reads a chain and its key, PEM.
    #[staticmethod]
    fn from_pem(py: Python<'_>, certificate: Vec<u8>, key: Vec<u8>, client_ca: Option<Vec<u8>>) -> PyResult<Self> {
        let tls = detached(py, || tls::Tls::from_pem(&certificate, &key, client_ca.as_deref()))?;
        tls.map(Self).map_err(|error| start_error(py, &error))
    }

    /// Makes a certificate for these names.
    #[staticmethod]
    fn self_signed(py: Python<'_>, names: Vec<String>, client_ca: Option<Vec<u8>>) -> PyResult<Self> {
        let tls = detached(py, || tls::Tls::self_signed(&names, client_ca.as_deref()))?;
        tls.map(Self).map_err(|error| start_error(py, &error))
    }

    /// What clients have to trust, PEM, if it was made here.
    #[getter]
    fn authority_pem(&self) -> Option<&str> {
        self.0.authority_pem()
    }
}
