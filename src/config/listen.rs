//! The addresses that a server listens on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::error::ConfigError;

/// One address to listen on. `Display` writes it as the setting `listen` reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// HTTP and WebSocket over TCP, in plain text.
    Http(SocketAddr),
    /// HTTP and WebSocket over TLS.
    Https(SocketAddr),
    /// HTTP and WebSocket over a Unix stream socket, in plain text.
    Unix {
        /// The path of the socket file.
        path: PathBuf,
        /// The permissions of the socket file. A process needs the right to write to connect.
        mode: u32,
    },
}

impl Listen {
    /// The address of a TCP listener.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Http(address) | Self::Https(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }

    /// Whether only processes of this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().is_loopback())
    }

    /// Whether connections are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Https(_))
    }

    /// Whether the system could not listen on both.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => path == other,
            _ => match (self.tcp(), other.tcp()) {
                (Some(one), Some(two)) => one.port() != 0 && one.port() == two.port() && covers_one_another(one, two),
                _ => false,
            },
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Https(address) => write!(f, "https://{address}"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether one IP address includes the other. `0.0.0.0` is each IPv4 address, `::` is each address.
fn covers_one_another(one: SocketAddr, two: SocketAddr) -> bool {
    let covers = |one: SocketAddr, two: SocketAddr| {
        one.ip() == two.ip() || (one.ip().is_unspecified() && (one.is_ipv6() || two.is_ipv4()))
    };
    covers(one, two) || covers(two, one)
}

/// Checks that all listeners of these settings are different, and that those for TLS have a certificate.
///
/// # Errors
/// [`ConfigError`], which names both of two settings that contradict.
pub(super) fn validate(settings: [(&'static str, &[Listen]); 3], has_certificate: bool) -> Result<(), ConfigError> {
    let mut all: Vec<(&'static str, &Listen)> = Vec::new();
    for (setting, listeners) in settings {
        all.extend(listeners.iter().map(|listener| (setting, listener)));
    }
    let error = |setting, what| Err(ConfigError::new(setting, what));
    match all.iter().find(|(_, listener)| listener.is_tls()) {
        Some((setting, listener)) if !has_certificate => {
            return error(*setting, format!("{listener} needs a certificate: set `tls`"));
        }
        None if has_certificate => {
            return Err(ConfigError::new("tls", "no listener is https, so the certificate has no use"));
        }
        _ => {}
    }
    for (index, (setting, listener)) in all.iter().enumerate() {
        if let Some((other, before)) = all[..index].iter().find(|(_, before)| before.overlaps(listener)) {
            let place = if other == setting { String::new() } else { format!(" of {other}") };
            return error(*setting, format!("{before}{place} and {listener} are one address"));
        }
    }
    Ok(())
}

/// Checks that each local socket has a path of its own: those of the settings named here, and those of listeners.
///
/// # Errors
/// [`ConfigError`], which names both settings.
pub(super) fn validate_paths(
    sockets: [(&'static str, Option<&PathBuf>); 2],
    listeners: [(&'static str, &[Listen]); 3],
) -> Result<(), ConfigError> {
    let sockets = sockets.into_iter().filter_map(|(setting, path)| Some((setting, path?)));
    let listeners = listeners.into_iter().flat_map(|(setting, listeners)| {
        listeners.iter().filter_map(move |listener| match listener {
            Listen::Unix { path, .. } => Some((setting, path)),
            Listen::Http(_) | Listen::Https(_) => None,
        })
    });
    let mut taken: Vec<(&str, &PathBuf)> = Vec::new();
    for (setting, path) in sockets.chain(listeners) {
        if let Some((other, _)) = taken.iter().find(|(_, taken)| *taken == path) {
            return Err(ConfigError::new(setting, format!("{} is the path of {other} too", path.display())));
        }
        taken.push((setting, path));
    }
    Ok(())
}
