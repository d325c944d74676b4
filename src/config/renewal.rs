//! Renews the certificate of a server that runs: from its files, or in its state directory.
//!
//! The content of the files is compared, not their times. So a file that another name leads to counts, as ACME clients
//! and Kubernetes swap symbolic links, and a file that was only touched does not.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use time::OffsetDateTime;

use crate::config::certificates;
use crate::config::error::Error;
use crate::config::state_dir::{self, Notice};
use crate::config::tls::{Loaded, Source, Tls, TlsFiles, digest};

/// The largest file that is read, in bytes. Chains and lists of authorities are smaller.
const MAX_FILE: u64 = 1024 * 1024;

/// A certificate that has replaced another one.
#[derive(Debug)]
pub struct Renewed {
    /// Its SHA-256 fingerprint.
    pub fingerprint: String,
    /// The time at which it expires, if the certificate tells it.
    pub not_after: Option<OffsetDateTime>,
    /// Messages for the log about files of the state directory.
    pub notices: Vec<Notice>,
}

impl Tls {
    /// Whether the certificate comes from files or a state directory.
    pub fn is_renewable(&self) -> bool {
        *self.source() != Source::Memory
    }

    /// Takes the certificate from its files, for all handshakes that begin from now on. `None`: it has not changed.
    ///
    /// A certificate of a state directory is made anew if it expires soon. It blocks, since it reads files.
    ///
    /// # Errors
    /// [`Error::Tls`] or [`Error::StateDir`] for files that cannot be used. The certificate stays then.
    pub fn renew(&self, now: OffsetDateTime) -> Result<Option<Renewed>, Error> {
        let (loaded, notices) = match self.source() {
            Source::Memory => return Ok(None),
            Source::Files(files) => (self.read_files(files)?, Vec::new()),
            Source::Directory { path, names, client_ca } => {
                if !state_dir::is_due(path, &self.loaded(), now) {
                    return Ok(None);
                }
                let (new, notices) = state_dir::renewed(path, names, client_ca.as_deref(), &self.loaded(), now)?;
                (Some(new), notices)
            }
        };
        let Some(loaded) = loaded.filter(|new| new.digest != self.loaded().digest) else { return Ok(None) };
        let renewed = Renewed { fingerprint: loaded.fingerprint.clone(), not_after: loaded.not_after, notices };
        self.replace(loaded);
        Ok(Some(renewed))
    }

    /// Reads the files. `None`: they are those that are loaded.
    fn read_files(&self, files: &TlsFiles) -> Result<Option<Loaded>, Error> {
        let [what, key, ca] = files.labels();
        let certificate = read(&files.certificate, &what)?;
        let secret = read(&files.key, &key)?;
        let clients = match &files.client_ca {
            Some(path) => Some(read(path, &ca)?),
            None => self.client_ca().map(<[u8]>::to_vec),
        };
        if digest([Some(&certificate), Some(&secret), clients.as_deref()]) == self.loaded().digest {
            return Ok(None);
        }
        Loaded::from_pem(&certificate, &secret, clients.as_deref(), &[what, key, ca]).map(Some)
    }
}

/// Reads a plain file of at most [`MAX_FILE`] bytes. Reading a pipe could block.
fn read(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    let failed = |why: String| Error::Tls(format!("{what} cannot be read: {why}"));
    let text = |error: std::io::Error| certificates::reason(&error);
    let metadata = fs::metadata(path).map_err(|error| failed(text(error)))?;
    if !metadata.is_file() {
        return Err(failed("it is not a plain file".into()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(text(error)))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| failed(text(error)))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(format!("it has more than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}
