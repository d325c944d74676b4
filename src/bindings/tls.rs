//! `_native.Tls`: certificate and key. The Python class `Tls` wraps it.

use std::path::PathBuf;

use parking_lot::Mutex;
use pyo3::prelude::*;
use time::OffsetDateTime;

use super::error::{detached, start_error};
use crate::config::state_dir::{self, Notice};
use crate::config::tls::TlsFiles;
use crate::config::{certificates, tls};

/// Messages for Python's log: whether each is a warning, and its text.
type Notices = Vec<(bool, String)>;

/// The certificate and key of a server.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Tls(pub(super) tls::Tls);

#[pymethods]
impl Tls {
    /// Reads a certificate chain and its key, both PEM. `files`: the paths of certificate, key and the authorities of
    /// clients, of which they were read.
    #[staticmethod]
    fn from_pem(
        py: Python<'_>,
        certificate: Vec<u8>,
        key: Vec<u8>,
        client_ca: Option<Vec<u8>>,
        files: Option<(PathBuf, PathBuf, Option<PathBuf>)>,
    ) -> PyResult<Self> {
        let files = files.map(|(certificate, key, client_ca)| TlsFiles { certificate, key, client_ca });
        let tls = detached(py, || match files {
            Some(files) => tls::Tls::from_pem_of(files, &certificate, &key, client_ca.as_deref()),
            None => tls::Tls::from_pem(&certificate, &key, client_ca.as_deref()),
        })?;
        tls.map(Self).map_err(|error| start_error(py, &error))
    }

    /// Creates a certificate for these names, and an authority that signs it.
    #[staticmethod]
    fn self_signed(py: Python<'_>, names: Vec<String>, client_ca: Option<Vec<u8>>) -> PyResult<Self> {
        let tls = detached(py, || tls::Tls::self_signed(&names, client_ca.as_deref()))?;
        tls.map(Self).map_err(|error| start_error(py, &error))
    }

    /// Returns the certificate that a directory keeps for these names, the path of its authority, log messages, and the
    /// files to save.
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

    /// Returns the authority that a directory keeps for these names, as PEM, and log messages.
    #[staticmethod]
    fn authority_kept_in(py: Python<'_>, directory: PathBuf, names: Vec<String>) -> PyResult<(String, Notices)> {
        let found = detached(py, || state_dir::authority_pem(&directory, &names, OffsetDateTime::now_utc()))?;
        let (pem, notices) = found.map_err(|error| start_error(py, &error))?;
        Ok((pem, for_python(notices)))
    }

    /// Whether a text is a DNS name or an IP address.
    #[staticmethod]
    fn is_name(name: &str) -> bool {
        certificates::is_name(name)
    }

    /// Takes the certificate from its files again. Returns whether it is another one, and log messages.
    fn renew(&self, py: Python<'_>) -> PyResult<(bool, Notices)> {
        let renewed = detached(py, || self.0.renew(OffsetDateTime::now_utc()))?;
        let renewed = renewed.map_err(|error| start_error(py, &error))?;
        Ok((renewed.is_some(), renewed.map_or_else(Vec::new, |renewed| for_python(renewed.notices))))
    }

    /// Whether the certificate comes from files or a state directory.
    #[getter]
    fn is_renewable(&self) -> bool {
        self.0.is_renewable()
    }

    /// Whether it has the same certificate, key and authorities of clients, and the same source.
    fn is_same(&self, other: &Self) -> bool {
        self.0.is_same(&other.0)
    }

    /// The certificate that a client has to trust, as PEM: the authority of one that was created here, else the chain.
    #[getter]
    fn trusted_pem(&self) -> String {
        self.0.trusted_pem()
    }

    /// The SHA-256 fingerprint of the certificate, as OpenSSL prints it.
    #[getter]
    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }

    /// The SHA-256 fingerprint of the authority; `None` if the certificate was not created here.
    #[getter]
    fn authority_fingerprint(&self) -> Option<String> {
        self.0.authority_fingerprint()
    }
}

/// Files of a state directory that wait to be written, and its lock.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Unsaved(Mutex<Option<state_dir::Unsaved>>);

#[pymethods]
impl Unsaved {
    /// Writes the files and releases the lock. A second call does nothing.
    fn save(&self, py: Python<'_>) -> PyResult<()> {
        let Some(unsaved) = self.0.lock().take() else { return Ok(()) };
        detached(py, || unsaved.save())?.map_err(|error| start_error(py, &error))
    }
}

fn for_python(notices: Vec<Notice>) -> Notices {
    notices.into_iter().map(|notice| (notice.is_warning, notice.text)).collect()
}
