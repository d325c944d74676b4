//! Sockets that another program has opened, for example systemd: they take the place of those that the server would
//! open at the same address.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use socket2::{Socket, Type};

use crate::config::Config;
use crate::config::error::ConfigError;
use crate::config::listen::Listen;

/// The sockets of the setting `sockets` that no listener has taken yet.
pub(super) struct Inherited(Vec<(Address, Socket)>);

/// The address of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf, Type),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path, kind) if *kind == Type::SEQPACKET => write!(f, "{} (SOCK_SEQPACKET)", path.display()),
            Self::Unix(path, _) => write!(f, "{} (SOCK_STREAM)", path.display()),
        }
    }
}

impl Inherited {
    /// Checks the sockets, and that each of them has the address of a listener or of a local socket.
    ///
    /// # Errors
    /// [`ConfigError`], which names the number of the socket in the setting.
    pub(super) fn of(config: &Config) -> Result<Self, ConfigError> {
        let wanted = wanted(config);
        let mut found = Vec::new();
        for (index, socket) in config.sockets.iter().enumerate() {
            let error = |what| ConfigError::new(format!("sockets[{index}]"), what);
            let socket = socket.try_clone().map_err(|source| error(format!("cannot be used: {source}")))?;
            let socket = Socket::from(socket);
            let address = address_of(&socket).map_err(error)?;
            if !wanted.contains(&address) {
                let wanted: Vec<_> = wanted.iter().map(ToString::to_string).collect();
                let what =
                    format!("listens on {address}, and the server on {}: give both one address", wanted.join(", "));
                return Err(error(what));
            }
            if found.iter().any(|(taken, _)| *taken == address) {
                return Err(error(format!("listens on {address}, as another socket does")));
            }
            socket.set_nonblocking(true).map_err(|source| error(source.to_string()))?;
            found.push((address, socket));
        }
        Ok(Self(found))
    }

    /// Takes the socket that listens on this address.
    pub(super) fn take_tcp(&mut self, address: SocketAddr) -> io::Result<Option<std::net::TcpListener>> {
        let Some(socket) = self.take(&Address::Tcp(address)) else { return Ok(None) };
        // Accepted sockets inherit the option.
        socket.set_tcp_nodelay(true)?;
        Ok(Some(socket.into()))
    }

    /// Takes the Unix socket of this path and kind.
    pub(super) fn take_unix(&mut self, path: &Path, kind: Type) -> Option<Socket> {
        self.take(&Address::Unix(path.to_owned(), kind))
    }

    fn take(&mut self, wanted: &Address) -> Option<Socket> {
        let place = self.0.iter().position(|(address, _)| address == wanted)?;
        Some(self.0.swap_remove(place).1)
    }
}

/// The addresses that the settings name.
fn wanted(config: &Config) -> Vec<Address> {
    let own = config.metrics.iter().chain(&config.control.listen).cloned();
    let listeners = config.listeners().into_iter().chain(own).map(|listener| match listener {
        Listen::Http(address) | Listen::Https(address) => Address::Tcp(address),
        Listen::Unix { path, .. } => Address::Unix(path, Type::STREAM),
    });
    let local = [&config.device_socket, &config.control_socket].into_iter().flatten();
    listeners.chain(local.map(|path| Address::Unix(path.clone(), Type::SEQPACKET))).collect()
}

/// The address of a socket that listens.
///
/// # Errors
/// The reason why it cannot be used.
fn address_of(socket: &Socket) -> Result<Address, String> {
    let refused = |source: io::Error| format!("is no socket that can be used: {source}");
    let kind = socket.r#type().map_err(refused)?;
    if kind != Type::STREAM && kind != Type::SEQPACKET {
        return Err("has another type than SOCK_STREAM and SOCK_SEQPACKET".into());
    }
    if !socket.is_listener().map_err(refused)? {
        return Err("does not listen: systemd passes a connection where the socket unit has Accept=yes".into());
    }
    let address = socket.local_addr().map_err(refused)?;
    if let Some(address) = address.as_socket() {
        return Ok(Address::Tcp(address));
    }
    let path = address.as_pathname().ok_or("is a Unix socket without a path, which the server cannot use")?;
    Ok(Address::Unix(path.to_owned(), kind))
}
