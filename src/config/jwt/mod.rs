//! JSON Web Tokens that others issue (RFC 7519): their keys, and what their claims grant.
//!
//! The keys are read from files, and again while the server runs. `access::jwt` judges tokens with them.

mod jwk;
mod keys;
mod pem;
pub mod strict;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use ring::digest::{Context, SHA256};

pub use self::keys::{Algorithm, Key};
use crate::config::bounds::{MIN_CHECK_INTERVAL, at_least, at_most, within};
use crate::config::certificates;
use crate::config::error::ConfigError;
use crate::protocol::Role;

/// The largest file of keys, in bytes. 10,000 keys of 8,192 bits fit.
const MAX_FILE: u64 = 32 * 1024 * 1024;

/// The most keys that the setting allows.
pub const MOST_KEYS: usize = 10_000;

/// The longest token that the setting allows, in bytes. A head of a request has no room for more.
pub const MOST_TOKEN: usize = 1024 * 1024;

/// A right that a value of a claim gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The token is good for a role.
    Role(Role),
    /// Its holder manages the devices on the dashboard.
    Manage,
    /// Its holder, as a client, has a device for itself.
    Exclusive,
}

impl Right {
    /// Reads the name of a right.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "device" => Self::Role(Role::Device),
            "client" => Self::Role(Role::Client),
            "http" => Self::Role(Role::Http),
            "manage" => Self::Manage,
            "exclusive" => Self::Exclusive,
            _ => return None,
        })
    }
}

/// The settings of tokens. A claim is named by its name, or by a JSON pointer (RFC 6901) like `/realm_access/roles`.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtSettings {
    /// The files with the keys: PEM, or a JSON Web Key Set.
    pub files: Vec<PathBuf>,
    /// The issuers that are accepted. Default none: the keys alone decide.
    pub issuers: Vec<String>,
    /// The audiences of which a token has to name one. Default none: a token for any audience is refused.
    pub audiences: Vec<String>,
    /// The difference of clocks that `exp` and `nbf` allow. Default 60 s.
    pub leeway: Duration,
    /// The claim that is the identity. Default `sub`.
    pub identity: String,
    /// The claim with patterns of device ids. Default none: all devices.
    pub devices: Option<String>,
    /// The claim whose values give rights. Default none: all roles, neither management nor exclusive use.
    pub rights: Option<String>,
    /// The right that a value of that claim gives. A value may have several. Default: the names of the rights.
    pub values: Vec<(String, Right)>,
    /// The roles that need a token. Default all.
    pub needed_for: Vec<Role>,
    /// Whether a token without `exp` is accepted. Default no.
    pub allow_no_exp: bool,
    /// The longest token, in bytes. Default 8 KiB.
    pub max_token: usize,
    /// The most keys of all files. Default 100.
    pub max_keys: usize,
    /// How often the files are read again. Default 60 s. `None` never.
    pub check_interval: Option<Duration>,
}

impl Default for JwtSettings {
    fn default() -> Self {
        let named = |name: &str| Right::of(name).map(|right| (name.to_owned(), right));
        Self {
            files: Vec::new(),
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(60),
            identity: "sub".into(),
            devices: None,
            rights: None,
            values: ["device", "client", "http", "manage", "exclusive"].into_iter().filter_map(named).collect(),
            needed_for: vec![Role::Device, Role::Client, Role::Http],
            allow_no_exp: false,
            max_token: 8 * 1024,
            max_keys: 100,
            check_interval: Some(Duration::from_secs(60)),
        }
    }
}

/// The settings of tokens with the keys, which can be replaced. Clones share the keys.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// The settings.
    pub settings: Arc<JwtSettings>,
    /// The keys.
    loaded: Arc<RwLock<Arc<Loaded>>>,
}

/// Keys, and the digest of the files that have them.
#[derive(Debug, PartialEq)]
struct Loaded {
    digest: Vec<u8>,
    keys: Vec<Key>,
}

impl PartialEq for Jwt {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && *self.loaded.read() == *other.loaded.read()
    }
}

impl Jwt {
    /// Reads the keys of the files.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting that is out of its range, and for a file that cannot be read or has no keys.
    pub fn read(settings: JwtSettings) -> Result<Self, ConfigError> {
        settings.validate()?;
        let documents = settings.read_files()?;
        Self::of(settings, &documents)
    }

    /// Takes the keys from the contents of files, each with its name for errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of(settings: JwtSettings, documents: &[(String, Vec<u8>)]) -> Result<Self, ConfigError> {
        settings.validate()?;
        let loaded = Loaded::of(&settings, documents)?;
        Ok(Self { settings: Arc::new(settings), loaded: Arc::new(RwLock::new(Arc::new(loaded))) })
    }

    /// Reads the files again. Returns the number of keys if they are other ones. It blocks.
    ///
    /// # Errors
    /// [`ConfigError`]: the old keys stay then.
    pub fn renew(&self) -> Result<Option<usize>, ConfigError> {
        if self.settings.files.is_empty() {
            return Ok(None);
        }
        let loaded = Loaded::of(&self.settings, &self.settings.read_files()?)?;
        if loaded == **self.loaded.read() {
            return Ok(None);
        }
        let count = loaded.keys.len();
        *self.loaded.write() = Arc::new(loaded);
        Ok(Some(count))
    }

    /// Calls a function with the keys.
    pub fn with_keys<T>(&self, look: impl FnOnce(&[Key]) -> T) -> T {
        let loaded = Arc::clone(&*self.loaded.read());
        look(&loaded.keys)
    }
}

impl Loaded {
    fn of(settings: &JwtSettings, documents: &[(String, Vec<u8>)]) -> Result<Self, ConfigError> {
        let mut context = Context::new(&SHA256);
        let mut keys = Vec::new();
        for (name, bytes) in documents {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
            let failed = |what: String| ConfigError::new("Jwt.keys", format!("{name}: {what}"));
            keys.extend(parse(bytes, settings.max_keys).map_err(failed)?);
            if keys.len() > settings.max_keys {
                return Err(failed(format!("there are more than {} keys (Jwt.max_keys)", settings.max_keys)));
            }
        }
        if keys.is_empty() {
            return Err(ConfigError::new(
                "Jwt.keys",
                "must name at least one file with keys, PEM or a JSON Web Key Set",
            ));
        }
        Ok(Self { digest: context.finish().as_ref().to_vec(), keys })
    }
}

impl JwtSettings {
    fn validate(&self) -> Result<(), ConfigError> {
        within("Jwt.max_token", self.max_token, 256, MOST_TOKEN)?;
        within("Jwt.max_keys", self.max_keys, 1, MOST_KEYS)?;
        at_most("Jwt.leeway", Some(self.leeway))?;
        at_least("Jwt.check_interval", self.check_interval, MIN_CHECK_INTERVAL)?;
        let claims = [("Jwt.identity", Some(&self.identity)), ("Jwt.devices", self.devices.as_ref())];
        for (setting, claim) in claims.into_iter().chain([("Jwt.rights", self.rights.as_ref())]) {
            if claim.is_some_and(String::is_empty) {
                return Err(ConfigError::new(setting, "must name a claim, like `sub` or `/realm_access/roles`"));
            }
        }
        Ok(())
    }

    fn read_files(&self) -> Result<Vec<(String, Vec<u8>)>, ConfigError> {
        let read = |path: &PathBuf| {
            let failed = |why: String| ConfigError::new("Jwt.keys", format!("cannot read {}: {why}", path.display()));
            Ok((path.display().to_string(), read_plain(path).map_err(failed)?))
        };
        self.files.iter().map(read).collect()
    }
}

/// Reads the keys of a file: a JSON Web Key Set if it begins with `{`, otherwise PEM.
fn parse(bytes: &[u8], most: usize) -> Result<Vec<Key>, String> {
    let begins = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if begins == Some(&b'{') { jwk::parse(bytes, most) } else { pem::parse(bytes, most) }
}

/// Reads a plain file of at most [`MAX_FILE`] bytes. Reading a pipe could block.
fn read_plain(path: &Path) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| certificates::reason(&error);
    let metadata = std::fs::metadata(path).map_err(text)?;
    if !metadata.is_file() {
        return Err("it is not a plain file".into());
    }
    if metadata.len() > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    std::fs::read(path).map_err(text)
}
