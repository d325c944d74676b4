//! The settings of a node of a cluster: one service over several servers.

mod engine_url;
mod template;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::allowances::Authority;
use crate::config::error::ConfigError;
use crate::core::cluster::names::{Incarnation, MAX_NODE_NAME};
use crate::core::cluster::registry::Timing;

pub use self::engine_url::EngineUrl;
#[cfg(feature = "cluster")]
pub(crate) use self::engine_url::sentinel_login;
pub use self::template::DeviceIdTemplate;

/// The fewest bytes of a secret. As many as the hash that is made with it has.
pub const MIN_SECRET: usize = 32;

/// The most secrets. One is in use, and a second one while it is replaced.
pub const MAX_SECRETS: usize = 16;

/// The settings of a node of a cluster.
#[derive(Clone, PartialEq)]
pub struct Cluster {
    /// The URL of the engine: `redis://` or `redis+sentinel://`, with `rediss` for TLS. It may have a password.
    pub engine: String,
    /// The name of the service. Nodes of one name share a registry.
    pub name: String,
    /// The name of this node, unique in the cluster.
    pub node: String,
    /// The address to listen on for other nodes. Port 0: the system picks a free port.
    pub listen: SocketAddr,
    /// The address at which other nodes reach this one, `HOST:PORT`. Default: `listen`.
    pub address: Option<String>,
    /// The secrets that all nodes share. The first signs, all verify. None only where engine and listener are loopback.
    pub secrets: Vec<String>,
    /// A file with the certificate authority of the engine, in PEM. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// Whether a device that cannot be claimed is refused. Default no: its node serves it alone.
    pub hold_on_outage: bool,
    /// The name in the cluster of a device on a local socket, with `{node}` and `{id}`. Default: its own id.
    pub device_id_template: Option<String>,
    /// Times of leases and pauses.
    pub timing: Timing,
}

impl fmt::Debug for Cluster {
    /// Leaves out the password of the URL, and the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, node, listen, .. } = self;
        f.debug_struct("Cluster")
            .field("engine", &self.engine_without_password())
            .field("name", name)
            .field("node", node)
            .field("listen", listen)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Checks the settings, also against each other.
    ///
    /// # Errors
    /// [`ConfigError`] for the first invalid one. No error has a password or a secret.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let engine = EngineUrl::parse(&self.engine).map_err(|what| error("url", what))?;
        for (setting, name) in [("name", &self.name), ("node", &self.node)] {
            if Incarnation::new(name, 0).is_none() {
                let allowed = format!("1 to {MAX_NODE_NAME} ASCII letters, digits, '-', '_' and '.'");
                return Err(error(setting, format!("{name:?} is not a name of {allowed}")));
            }
        }
        self.validate_address(&engine)?;
        self.validate_secrets(&engine)?;
        self.validate_ca(&engine)?;
        self.template()
            .map_err(|what| error("device_id_template", what))?
            .map_or(Ok(()), |template| template.check_node(&self.node).map_err(|what| error("node", what)))
    }

    /// The URL of the engine, for logs and errors. Empty for an invalid one.
    pub fn engine_without_password(&self) -> String {
        EngineUrl::parse(&self.engine).map(|url| url.to_string()).unwrap_or_default()
    }

    /// Whether all is the same but the secrets. A server that runs can replace those by others.
    pub fn is_same_but_secrets(&self, other: &Self) -> bool {
        self.secrets.is_empty() == other.secrets.is_empty()
            && Self { secrets: other.secrets.clone(), ..self.clone() } == *other
    }

    /// The name in the cluster of devices on local sockets.
    ///
    /// # Errors
    /// The reason why the template is invalid.
    pub fn template(&self) -> Result<Option<DeviceIdTemplate>, String> {
        self.device_id_template.as_deref().map(DeviceIdTemplate::parse).transpose()
    }

    /// Checks that other nodes can dial this one.
    fn validate_address(&self, engine: &EngineUrl) -> Result<(), ConfigError> {
        let listen = self.listen;
        let Some(address) = &self.address else {
            if listen.ip().is_unspecified() {
                let what =
                    format!("is missing: no node can dial {listen}; give the HOST:PORT at which others reach it");
                return Err(error("address", what));
            }
            if listen.ip().is_loopback() && !engine.is_loopback() {
                let what = format!(
                    "{listen} is reached from this machine only, and {engine} is on another one: listen on an address \
                     that the other nodes reach, like 10.0.0.5:7443, or set `address`"
                );
                return Err(error("listen", what));
            }
            return Ok(());
        };
        let wanted = "the HOST:PORT at which other nodes reach this one, like 10.0.0.5:7443";
        match Authority::parse(address) {
            Some(Authority { port: Some(port), .. }) if port > 0 && is_dialled(address) => Ok(()),
            _ => Err(error("address", format!("{address:?} is not {wanted}"))),
        }
    }

    /// Checks that there is a secret where strangers could reach the engine or the listener.
    fn validate_secrets(&self, engine: &EngineUrl) -> Result<(), ConfigError> {
        if self.secrets.is_empty() && !(engine.is_loopback() && self.listen.ip().is_loopback()) {
            let what = format!(
                "is missing: other machines reach the engine or the listener; give all nodes the same `secret` of at \
                 least {MIN_SECRET} bytes, which \"openssl rand -base64 32\" prints"
            );
            return Err(error("secret", what));
        }
        if self.secrets.len() > MAX_SECRETS {
            let count = self.secrets.len();
            return Err(error("secret", format!("has {count} lines, and at most {MAX_SECRETS} are allowed")));
        }
        for (line, secret) in self.secrets.iter().enumerate() {
            if secret.len() < MIN_SECRET {
                let (line, length) = (line + 1, secret.len());
                let what = format!("line {line} has {length} bytes, and at least {MIN_SECRET} are needed");
                return Err(error("secret", what));
            }
        }
        Ok(())
    }

    /// Checks that the authority can be read, and has a use.
    fn validate_ca(&self, engine: &EngineUrl) -> Result<(), ConfigError> {
        let Some(path) = &self.ca else { return Ok(()) };
        let place = path.display();
        if !engine.is_tls() {
            return Err(error("ca", format!("{place} has no use: {engine} is not encrypted; write rediss for redis")));
        }
        let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        match found {
            Ok(found) if !found.is_empty() => Ok(()),
            Ok(_) => Err(error("ca", format!("{place} has no certificate in PEM"))),
            Err(rustls::pki_types::pem::Error::Io(why)) => Err(error("ca", format!("cannot read {place}: {why}"))),
            Err(why) => Err(error("ca", format!("{place} is not a certificate in PEM: {why}"))),
        }
    }
}

/// Whether a node can be dialled at an address. `0.0.0.0` and `[::]` are every address of a machine.
fn is_dialled(address: &str) -> bool {
    address.parse::<SocketAddr>().map_or(true, |address| !address.ip().is_unspecified())
}

/// An error of an argument of Python's `Cluster`.
fn error(argument: &str, what: impl Into<String>) -> ConfigError {
    ConfigError::new(format!("Cluster.{argument}"), what)
}
