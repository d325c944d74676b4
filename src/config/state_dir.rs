//! Keeps the authority, certificate and keys of a server in a directory, so that clients need to trust the authority
//! only once.
//!
//! | file | content |
//! |---|---|
//! | `authority.pem` | the certificate that clients trust |
//! | `authority.key` | its private key; read at the start, then dropped |
//! | `server.pem` | the server certificate |
//! | `server.key` | its private key; a renewal keeps it, so that one rename replaces the certificate |
//!
//! A file that is broken or belongs to another user is an error. It is never overwritten.

mod directory;

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::config::certificates::{self, Authority, Facts, Names};
use crate::config::error::Error;
use crate::config::tls::{Loaded, Source, Tls};
use directory::{Directory, Staged, broken};

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";

const NO_KEY: &str = "is not a private key (PEM, PKCS#8)";

/// The start of a server replaces a certificate that expires within this time.
const RENEWAL: Duration = Duration::days(30);

/// The certificate from the directory, with log messages about created files.
#[derive(Debug)]
pub struct Kept {
    /// The certificate, its key and its authority.
    pub tls: Tls,
    /// The path of the file with the authority's certificate.
    pub authority_file: PathBuf,
    /// Messages for the log.
    pub notices: Vec<Notice>,
}

/// A message for the log: a file was created or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether the administrator has to act: names have changed, or clients have to trust a new authority.
    pub is_warning: bool,
    /// One sentence.
    pub text: String,
}

/// Returns the certificate that the directory keeps for these names. Creates or renews it if necessary.
///
/// # Errors
/// [`Error::Tls`] if a name is neither a DNS name nor an IP address. [`Error::StateDir`] if the directory cannot be
/// used, if a file in it is broken, not private or belongs to another user, or if a file cannot be written.
pub fn tls(directory: &Path, names: &[String], client_ca: Option<&[u8]>, now: OffsetDateTime) -> Result<Kept, Error> {
    let (kept, unsaved) = prepare(directory, names, client_ca, now)?;
    unsaved.save()?;
    Ok(kept)
}

/// As [`tls`], but leaves writing the files to [`Unsaved::save`]: a start that fails for another reason changes none.
///
/// # Errors
/// The errors of [`tls`].
pub fn prepare(
    directory: &Path,
    names: &[String],
    client_ca: Option<&[u8]>,
    now: OffsetDateTime,
) -> Result<(Kept, Unsaved), Error> {
    let names = Names::parse(names)?;
    let path = directory;
    let (loaded, authority_file, notices, unsaved) = load(path, &names, client_ca, now)?;
    let texts = names.to_texts();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let source = Source::Directory { path, names: texts.clone(), client_ca: client_ca.map(<[u8]>::to_vec) };
    Ok((Kept { tls: Tls::new(source, texts, client_ca, loaded), authority_file, notices }, unsaved))
}

/// Whether the directory has another certificate than this one, or has to have another one soon.
///
/// It takes no lock: a file that is being replaced counts as another one.
pub(super) fn is_due(directory: &Path, loaded: &Loaded, now: OffsetDateTime) -> bool {
    let pem = fs::read_to_string(directory.join(CERTIFICATE)).unwrap_or_default();
    let certificate = certificates::from_pem(&pem);
    let is_same = certificate.is_ok_and(|found| certificates::fingerprint(&found) == loaded.fingerprint);
    !is_same || loaded.not_after.is_none_or(|end| end - now <= RENEWAL)
}

/// Returns the certificate that the directory keeps, for a server that runs with `old`. Renews it if necessary.
///
/// # Errors
/// The errors of [`tls`]; also where the authority would be another one, which clients do not trust yet.
pub(super) fn renewed(
    directory: &Path,
    names: &[String],
    client_ca: Option<&[u8]>,
    old: &Loaded,
    now: OffsetDateTime,
) -> Result<(Loaded, Vec<Notice>), Error> {
    let (loaded, authority_file, notices, unsaved) = load(directory, &Names::parse(names)?, client_ca, now)?;
    if loaded.authority != old.authority {
        let what = "is not the authority that clients of this server trust: restart the server to use another one";
        return Err(broken(&authority_file, what));
    }
    unsaved.save()?;
    Ok((loaded, notices))
}

/// Reads the directory, and makes the files that are missing or have to be replaced.
fn load(
    directory: &Path,
    names: &Names,
    client_ca: Option<&[u8]>,
    now: OffsetDateTime,
) -> Result<(Loaded, PathBuf, Vec<Notice>, Unsaved), Error> {
    let directory = Directory::open(directory)?;
    let found = Found::read(&directory)?;
    let mut notices = Vec::new();
    let authority_file = directory.path(AUTHORITY);
    let (authority, is_new_authority) = usable_authority(found.authority, &authority_file, names, now, &mut notices)?;
    let (key, is_new_key) = match found.key {
        Some(key) => (key, false),
        None => {
            (KeyPair::generate().map_err(|error| Error::Tls(format!("cannot create a private key: {error}")))?, true)
        }
    };
    let is_due = found.certificate.as_ref().is_some_and(|old| must_be_replaced(old, names, now, &mut notices));
    let (certificate, is_new) = match found.certificate {
        Some(old) if !is_due && !is_new_authority => (old.certificate, false),
        _ => (authority.issue(names, &key, now)?, true),
    };
    let unsaved = Unsaved {
        directory,
        authority: is_new_authority.then(|| (authority.key_pem(), certificates::to_pem(authority.certificate()))),
        key: is_new_key.then(|| key.serialize_pem()),
        certificate: is_new.then(|| certificates::to_pem(&certificate)),
    };
    let loaded = Loaded::issued(certificate, authority.certificate().clone(), &key, client_ca)?;
    Ok((loaded, authority_file, notices, unsaved))
}

/// Returns the authority that the directory keeps for these names, as PEM. Creates or replaces it if necessary.
///
/// The server certificate stays as it is.
///
/// # Errors
/// The errors of [`tls`].
pub fn authority_pem(directory: &Path, names: &[String], now: OffsetDateTime) -> Result<(String, Vec<Notice>), Error> {
    let names = Names::parse(names)?;
    let directory = Directory::open(directory)?;
    let found = Found::read(&directory)?;
    let mut notices = Vec::new();
    let file = directory.path(AUTHORITY);
    let (authority, is_new) = usable_authority(found.authority, &file, &names, now, &mut notices)?;
    let pem = certificates::to_pem(authority.certificate());
    let new = is_new.then(|| (authority.key_pem(), pem.clone()));
    Unsaved { directory, authority: new, key: None, certificate: None }.save()?;
    Ok((pem, notices))
}

/// Returns the authority found, if it covers these names and does not expire soon. Otherwise creates a new one.
fn usable_authority(
    found: Option<Authority>,
    file: &Path,
    names: &Names,
    now: OffsetDateTime,
    notices: &mut Vec<Notice>,
) -> Result<(Authority, bool), Error> {
    let file = file.display();
    if let Some(authority) = found {
        let flaw = if authority.not_after() - now <= RENEWAL {
            format!("expires on {}", authority.not_after().date())
        } else if !authority.covers(names) {
            format!("may not sign for all of the names {names}")
        } else {
            return Ok((authority, false));
        };
        let text = format!("the authority in {file} {flaw}: a new one replaces it, and clients have to trust it anew");
        notices.push(Notice { is_warning: true, text });
    } else {
        let text = format!("made an authority for {names}: clients that trust {file} trust this server");
        notices.push(Notice { is_warning: false, text });
    }
    Ok((Authority::generate(names, now)?, true))
}

/// Whether the certificate has to be replaced: its names are different, or it expires soon.
fn must_be_replaced(old: &Issued, names: &Names, now: OffsetDateTime, notices: &mut Vec<Notice>) -> bool {
    if !old.facts.names.equals(names) {
        let text = format!(
            "the names of the server have changed: its certificate was for {}, and the new one is for {names}",
            old.facts.names
        );
        notices.push(Notice { is_warning: true, text });
        return true;
    }
    if old.facts.not_after - now <= RENEWAL {
        let text = format!("the certificate of the server expires on {}: renewed", old.facts.not_after.date());
        notices.push(Notice { is_warning: false, text });
        return true;
    }
    false
}

/// A server certificate read from the directory.
struct Issued {
    certificate: CertificateDer<'static>,
    facts: Facts,
}

/// The files of the directory, parsed and checked.
struct Found {
    authority: Option<Authority>,
    key: Option<KeyPair>,
    certificate: Option<Issued>,
}

impl Found {
    fn read(directory: &Directory) -> Result<Self, Error> {
        recover(directory)?;
        let authority = read_authority(directory)?;
        let (key, certificate) = read_server(directory, authority.as_ref())?;
        Ok(Self { authority, key, certificate })
    }
}

/// Completes or reverts the work of a process that was interrupted in [`Unsaved::save`].
fn recover(directory: &Directory) -> Result<(), Error> {
    if let (Some(key), Some(authority)) = (directory.read_staged(AUTHORITY_KEY)?, directory.read(AUTHORITY)?)
        && let (Ok(key), Ok(authority)) = (KeyPair::from_pem(&key), certificates::from_pem(&authority))
        && certificates::belongs(&authority, &key)
    {
        directory.commit_staged(AUTHORITY_KEY)?;
    }
    [AUTHORITY_KEY, AUTHORITY, KEY, CERTIFICATE].iter().try_for_each(|name| directory.remove_staged(name))
}

/// Reads the authority and its key; `None` if neither file exists.
fn read_authority(directory: &Directory) -> Result<Option<Authority>, Error> {
    let (file, key_file) = (directory.path(AUTHORITY), directory.path(AUTHORITY_KEY));
    let cure = format!(
        "put the right file there, or remove {AUTHORITY}, {AUTHORITY_KEY} and {CERTIFICATE} to have a new authority, \
         which clients have to trust anew"
    );
    let (pem, key) = match (directory.read(AUTHORITY)?, directory.read(AUTHORITY_KEY)?) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(broken(&key_file, format!("the key of {AUTHORITY} is missing: {cure}"))),
        (None, Some(_)) => return Err(broken(&file, format!("the certificate of {AUTHORITY_KEY} is missing: {cure}"))),
        (Some(pem), Some(key)) => (pem, key),
    };
    let certificate = certificates::from_pem(&pem).map_err(|what| broken(&file, format!("{what}: {cure}")))?;
    let key = KeyPair::from_pem(&key).map_err(|_| broken(&key_file, format!("{NO_KEY}: {cure}")))?;
    let authority = Authority::new(certificate, key).map_err(|what| broken(&file, format!("{what}: {cure}")))?;
    Ok(Some(authority))
}

/// Reads the server's key and certificate. A key without a certificate is left by an interrupted process, and is used.
fn read_server(
    directory: &Directory,
    authority: Option<&Authority>,
) -> Result<(Option<KeyPair>, Option<Issued>), Error> {
    let (file, key_file) = (directory.path(CERTIFICATE), directory.path(KEY));
    let cure = format!("put the right file there, or remove {CERTIFICATE} and {KEY} to have new ones");
    let (pem, key) = (directory.read(CERTIFICATE)?, directory.read(KEY)?);
    let key = key.map(|key| KeyPair::from_pem(&key)).transpose();
    let key = key.map_err(|_| broken(&key_file, format!("{NO_KEY}: {cure}")))?;
    let Some(pem) = pem else { return Ok((key, None)) };
    let Some(key) = key else {
        return Err(broken(&key_file, format!("the key of {CERTIFICATE} is missing: {cure}")));
    };
    let certificate = certificates::from_pem(&pem).map_err(|what| broken(&file, format!("{what}: {cure}")))?;
    let facts = Facts::of(&certificate).map_err(|what| broken(&file, format!("{what}: {cure}")))?;
    if !certificates::belongs(&certificate, &key) {
        return Err(broken(&file, format!("does not belong to the private key in {KEY}: {cure}")));
    }
    if !authority.is_some_and(|authority| authority.has_signed(&certificate)) {
        return Err(broken(&file, format!("was not signed by the authority in {AUTHORITY}: {cure}")));
    }
    Ok((Some(key), Some(Issued { certificate, facts })))
}

/// Files that wait to be written, and the lock of their directory. `None` leaves the file as it is.
pub struct Unsaved {
    directory: Directory,
    /// Private key and certificate, both PEM.
    authority: Option<(String, String)>,
    key: Option<String>,
    certificate: Option<String>,
}

impl Unsaved {
    /// Writes all new files beside the old ones, then renames each, in an order that `recover` can complete or revert.
    ///
    /// # Errors
    /// [`Error::StateDir`] if a file cannot be written. The old files are unchanged then.
    pub fn save(self) -> Result<(), Error> {
        let directory = &self.directory;
        let stage = |name, text: Option<&String>| text.map(|text| directory.stage(name, text)).transpose();
        let authority_key = stage(AUTHORITY_KEY, self.authority.as_ref().map(|(key, _)| key))?;
        let authority = stage(AUTHORITY, self.authority.as_ref().map(|(_, certificate)| certificate))?;
        let key = stage(KEY, self.key.as_ref())?;
        let certificate = stage(CERTIFICATE, self.certificate.as_ref())?;
        if self.authority.is_some() {
            // A certificate of the old authority must not remain.
            directory.remove(CERTIFICATE)?;
        }
        // The rename of the authority's certificate commits: after it, `recover` also renames a staged key.
        [authority, authority_key, key, certificate].into_iter().flatten().try_for_each(Staged::commit)
    }
}
