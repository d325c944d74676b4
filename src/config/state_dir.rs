//! Keeps a server's authority, certificate and keys in a directory, so that clients can trust the authority once.
//!
//! | file | |
//! |---|---|
//! | `authority.pem` | the certificate to trust |
//! | `authority.key` | its private key; read at the start, and dropped |
//! | `server.pem` | the server's certificate |
//! | `server.key` | its private key; it stays when the certificate is renewed, so that one rename renews it |
//!
//! A file that is broken, or of somebody else, is an error. It is never overwritten.

mod directory;

use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::config::certificates::{self, Authority, Facts, Names};
use crate::config::error::Error;
use crate::config::tls::Tls;
use directory::{Directory, Staged, broken};

const AUTHORITY: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";

const NO_KEY: &str = "is no private key (PEM, PKCS#8)";

/// A certificate that expires earlier is made anew at the start.
const RENEWAL: Duration = Duration::days(30);

/// A certificate from the directory, and news of what was made.
#[derive(Debug)]
pub struct Kept {
    /// The certificate, its key and its authority.
    pub tls: Tls,
    /// The file with the authority's certificate.
    pub authority_file: PathBuf,
    /// News for the log.
    pub notices: Vec<Notice>,
}

/// News for the log: a file was made or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether the operator should look at it: names have changed, or an authority has to be trusted anew.
    pub is_warning: bool,
    /// One sentence.
    pub text: String,
}

/// The certificate that the directory keeps for these names, made or renewed where needed.
///
/// # Errors
/// [`Error::Tls`] where a name is neither a DNS name nor an address. [`Error::StateDir`] where the directory cannot be
/// used, where a file in it is broken, of another user or not private, or where a file cannot be written.
pub fn tls(directory: &Path, names: &[String], client_ca: Option<&[u8]>, now: OffsetDateTime) -> Result<Kept, Error> {
    let (kept, unsaved) = prepare(directory, names, client_ca, now)?;
    unsaved.save()?;
    Ok(kept)
}

/// As [`tls`], and the files are written later: a start that fails for another reason changes none.
///
/// # Errors
/// As those of [`tls`].
pub fn prepare(
    directory: &Path,
    names: &[String],
    client_ca: Option<&[u8]>,
    now: OffsetDateTime,
) -> Result<(Kept, Unsaved), Error> {
    let names = Names::parse(names)?;
    let directory = Directory::open(directory)?;
    let found = Found::read(&directory)?;
    let mut notices = Vec::new();
    let authority_file = directory.path(AUTHORITY);
    let (authority, is_new_authority) = usable_authority(found.authority, &authority_file, &names, now, &mut notices)?;
    let (key, is_new_key) = match found.key {
        Some(key) => (key, false),
        None => (KeyPair::generate().map_err(|error| Error::Tls(format!("cannot make a private key: {error}")))?, true),
    };
    let is_due = found.certificate.as_ref().is_some_and(|old| is_due(old, &names, now, &mut notices));
    let (certificate, is_new) = match found.certificate {
        Some(old) if !is_due && !is_new_authority => (old.certificate, false),
        _ => (authority.issue(&names, &key, now)?, true),
    };
    let unsaved = Unsaved {
        directory,
        authority: is_new_authority.then(|| (authority.key_pem(), certificates::to_pem(authority.certificate()))),
        key: is_new_key.then(|| key.serialize_pem()),
        certificate: is_new.then(|| certificates::to_pem(&certificate)),
    };
    let tls = Tls::issued(certificate, authority.certificate().clone(), &key, &names, client_ca)?;
    Ok((Kept { tls, authority_file, notices }, unsaved))
}

/// The authority that the directory keeps for these names, made or replaced where needed, as PEM. The server's
/// certificate stays as it is.
///
/// # Errors
/// As those of [`tls`].
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

/// The authority that was found, if it can sign for these names for some time; else a new one.
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

/// Whether a certificate has to be made anew: for other names, or because it expires.
fn is_due(old: &Issued, names: &Names, now: OffsetDateTime, notices: &mut Vec<Notice>) -> bool {
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

/// A server's certificate from the directory.
struct Issued {
    certificate: CertificateDer<'static>,
    facts: Facts,
}

/// The files of the directory, checked.
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

/// Finishes or undoes what a process did that was interrupted in [`Unsaved::save`].
fn recover(directory: &Directory) -> Result<(), Error> {
    if let (Some(key), Some(authority)) = (directory.read_staged(AUTHORITY_KEY)?, directory.read(AUTHORITY)?)
        && let (Ok(key), Ok(authority)) = (KeyPair::from_pem(&key), certificates::from_pem(&authority))
        && certificates::belongs(&authority, &key)
    {
        directory.commit_staged(AUTHORITY_KEY)?;
    }
    [AUTHORITY_KEY, AUTHORITY, KEY, CERTIFICATE].iter().try_for_each(|name| directory.remove_staged(name))
}

/// The authority and its key, or neither.
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

/// The server's key and certificate. A key alone is left by a process that was interrupted, and is used.
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

/// Files that are to be written, and the lock of their directory. `None` stays as it is. Keys are never printed.
pub struct Unsaved {
    directory: Directory,
    /// Key and certificate.
    authority: Option<(String, String)>,
    key: Option<String>,
    certificate: Option<String>,
}

impl Unsaved {
    /// Writes all files beside the old ones, then puts each in place, in an order that `recover` can finish or undo.
    ///
    /// # Errors
    /// [`Error::StateDir`] where a file cannot be written; then the old ones are as they were.
    pub fn save(self) -> Result<(), Error> {
        let directory = &self.directory;
        let stage = |name, text: Option<&String>| text.map(|text| directory.stage(name, text)).transpose();
        let authority_key = stage(AUTHORITY_KEY, self.authority.as_ref().map(|(key, _)| key))?;
        let authority = stage(AUTHORITY, self.authority.as_ref().map(|(_, certificate)| certificate))?;
        let key = stage(KEY, self.key.as_ref())?;
        let certificate = stage(CERTIFICATE, self.certificate.as_ref())?;
        if self.authority.is_some() {
            // No certificate is left that the new authority has not signed.
            directory.remove(CERTIFICATE)?;
        }
        // The authority's certificate decides: behind it, a key that waits belongs in its place.
        [authority, authority_key, key, certificate].into_iter().flatten().try_for_each(Staged::commit)
    }
}
