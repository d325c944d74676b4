//! `_native.Tls`: certificate and key, as the Python class `Tls` wraps them.

use std::path::PathBuf;

use parking_lot::Mutex;
use pyo3::prelude::*;
use time::OffsetDateTime;

use super::error::{detached, start_error};
use crate::config::state_dir::{self, Notice};
use crate::config::{certificates, tls};

/// News for Python's log: whether it is a warning, and its text.
type Notices = Vec<(bool, String)>;

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

    /// The certificate that a directory keeps for these names, the path of its authority, news, and what is to be saved.
    #[staticmethod]
    fn kept_in(
        py: Python<'_>,
        directory: PathBuf,
        names: Vec<String>,
        client_ca: Option<Vec<u8>>,
    ) -> PyResult<(Self, PathBuf, Notices, Unsaved)> {
        let now = OffsetDateTime::now_utc();
        let prepared = detached(py, || state_dir::prepare(&directory, &names, client_ca.as_deref(), now))?;
        let (kept, unsaved) = prepared.map_err(|error| start_error(py, &error))?;
        let unsaved = Unsaved(Mutex::new(Some(unsaved)));
        Ok((Self(kept.tls), kept.authority_file, for_python(kept.notices), unsaved))
    }

    /// The authority that a directory keeps for these names, PEM, and news.
    #[staticmethod]
    fn authority_kept_in(py: Python<'_>, directory: PathBuf, names: Vec<String>) -> PyResult<(String, Notices)> {
        let found = detached(py, || state_dir::authority_pem(&directory, &names, OffsetDateTime::now_utc()))?;
        let (pem, notices) = found.map_err(|error| start_error(py, &error))?;
        Ok((pem, for_python(notices)))
    }

    /// Whether a certificate can be made for this name.
    #[staticmethod]
    fn is_name(name: &str) -> bool {
        certificates::is_name(name)
    }

    /// What clients have to trust, PEM, if it was made here.
    #[getter]
    fn authority_pem(&self) -> Option<&str> {
        self.0.authority_pem()
    }

    /// The SHA-256 fingerprint of the certificate, as OpenSSL prints it.
    #[getter]
    fn fingerprint(&self) -> &str {
        self.0.fingerprint()
    }

    /// The same of the authority, if it was made here.
    #[getter]
    fn authority_fingerprint(&self) -> Option<&str> {
        self.0.authority_fingerprint()
    }
}

/// Files of a state directory that are to be written, and its lock.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Unsaved(Mutex<Option<state_dir::Unsaved>>);

#[pymethods]
impl Unsaved {
    /// Writes them, once, and gives the lock back.
    fn save(&self, py: Python<'_>) -> PyResult<()> {
        let Some(unsaved) = self.0.lock().take() else { return Ok(()) };
        detached(py, || unsaved.save())?.map_err(|error| start_error(py, &error))
    }
}

fn for_python(notices: Vec<Notice>) -> Notices {
    notices.into_iter().map(|notice| (notice.is_warning, notice.text)).collect()
}
