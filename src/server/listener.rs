//! The listening sockets and their accept loops.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::connection::Connection;
use super::http::service::{Routes, Service};
use super::inherited::Inherited;
use super::shared::Shared;
use super::socket_file::SocketFile;
use crate::access::connection_limits::Permit;
use crate::config::Config;
use crate::config::error::{ConfigError, Error};
use crate::config::listen::Listen;
use crate::config::tls::Tls;

/// Connections that the kernel queues until the server accepts them.
///
/// No setting: the bound is the kernel's `net.core.somaxconn`, 4,096 by default, which cuts a larger number. A connection
/// in this queue uses no memory of the process.
const BACKLOG: i32 = 4096;

/// The settings of a listener that is not one of `listen`.
pub(super) const HOST_AND_PORT: &str = "host, port";

/// A socket that listens and accepts no connections yet.
pub(super) struct Listener {
    /// The socket.
    socket: ListeningSocket,
    /// Its address, with the port that the system has chosen.
    pub(super) address: Listen,
    /// The clients that it serves.
    audience: Audience,
}

/// The clients of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Peers: all endpoints.
    Peers,
    /// Readers of the metrics, and of nothing else.
    Metrics,
    /// Programs that control the server.
    Control,
}

/// A listening socket.
enum ListeningSocket {
    /// For TCP.
    Tcp(std::net::TcpListener),
    /// For Unix stream sockets.
    Unix(SocketFile),
}

impl Audience {
    /// The service of a connection. `turned_away` names the limit that the connection exceeds.
    fn service(self, routes: &Routes, turned_away: Option<&'static str>) -> Service {
        match self {
            Self::Peers => routes.service(turned_away),
            Self::Metrics => routes.metrics_service(turned_away),
            Self::Control => routes.control_service(turned_away),
        }
    }
}

impl Listener {
    /// Listens on each address of a setting. It needs no runtime.
    ///
    /// # Errors
    /// [`Error::Bind`], which has the address in the form of the setting.
    pub(super) fn bind_all(
        setting: &'static str,
        all: &[Listen],
        audience: Audience,
        inherited: &mut Inherited,
    ) -> Result<Vec<Self>, Error> {
        let mut bind = |listen: &Listen| {
            let address = listen.tcp().filter(|_| setting == HOST_AND_PORT);
            let address = address.map_or_else(|| listen.to_string(), |address| address.to_string());
            Self::bind(listen, audience, inherited).map_err(|source| Error::Bind { setting, address, source })
        };
        all.iter().map(&mut bind).collect()
    }

    /// Listens, or takes a socket that listens on this address. It needs no runtime.
    fn bind(listen: &Listen, audience: Audience, inherited: &mut Inherited) -> io::Result<Self> {
        let mut tcp = |address: &SocketAddr| {
            let socket = match inherited.take_tcp(*address)? {
                Some(socket) => socket,
                None => listen_on(*address)?,
            };
            Ok::<_, io::Error>((socket.local_addr()?, ListeningSocket::Tcp(socket)))
        };
        Ok(match listen {
            Listen::Http(address) => {
                let (address, socket) = tcp(address)?;
                Self { socket, address: Listen::Http(address), audience }
            }
            Listen::Https(address) => {
                let (address, socket) = tcp(address)?;
                Self { socket, address: Listen::Https(address), audience }
            }
            Listen::Unix { path, mode } => {
                let socket = match inherited.take_unix(path, Type::STREAM) {
                    Some(socket) => SocketFile::inherited(socket, path),
                    None => SocketFile::bind(path, Type::STREAM, *mode, BACKLOG)?,
                };
                Self { socket: ListeningSocket::Unix(socket), address: listen.clone(), audience }
            }
        })
    }

    /// Warns if other machines reach all endpoints without authentication.
    fn warn_if_open(&self, shared: &Shared) {
        let Self { address, audience, .. } = self;
        if *audience == Audience::Peers && is_exposed(address, &shared.settings(), shared.hooks.authenticates()) {
            tracing::warn!(
                event = "listening_open",
                listeners = %address,
                "listening on {address} without `authorize`: whoever reaches it may register devices and use all of them"
            );
        }
    }

    /// Accepts connections and spawns a task for each, until the server stops.
    pub(super) async fn accept(self, shared: Arc<Shared>, routes: Routes) {
        self.warn_if_open(&shared);
        let listener = match Acceptor::watch(self.socket) {
            Ok(listener) => listener,
            Err(error) => {
                let what = "cannot watch the listening socket";
                return tracing::error!(event = "listener_failed", reason = %error, "{what}: {error}");
            }
        };
        let mut backoff = Backoff::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.drain.no_more.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    backoff.pause = Duration::ZERO;
                    // Until there is room, further connections wait in the kernel's backlog.
                    let Some(permit) = permit(&shared, address, self.audience).await else { return };
                    let service = self.audience.service(&routes, permit.turned_away);
                    let connection = Connection::new(Arc::clone(&shared), service, address, permit);
                    serve(&shared, connection, stream, address, self.address.is_tls());
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => tokio::select! {
                    () = shared.drain.no_more.cancelled() => return,
                    () = shared.timers.sleep(backoff.next(&error)) => {}
                },
            }
        }
    }
}

/// A listening socket that the runtime watches.
enum Acceptor {
    /// For TCP.
    Tcp(TcpListener),
    /// For Unix stream sockets. The file is removed with it.
    Unix(UnixListener, #[allow(dead_code, reason = "its drop removes the file")] SocketFile),
}

/// An accepted connection.
enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Acceptor {
    /// Registers the socket with the current runtime.
    fn watch(socket: ListeningSocket) -> io::Result<Self> {
        Ok(match socket {
            ListeningSocket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            ListeningSocket::Unix(file) => {
                let socket = OwnedFd::from(file.socket.try_clone()?);
                Self::Unix(UnixListener::from_std(socket.into())?, file)
            }
        })
    }

    /// Accepts one connection. A peer on a Unix socket has no address.
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                (Stream::Tcp(stream), Some(address))
            }
            Self::Unix(listener, _) => (Stream::Unix(listener.accept().await?.0), None),
        })
    }
}

/// Spawns the task of one connection.
fn serve(shared: &Arc<Shared>, connection: Connection, stream: Stream, address: Option<SocketAddr>, is_tls: bool) {
    let task = match stream {
        Stream::Tcp(stream) => connection.run(stream, is_tls),
        Stream::Unix(stream) => connection.run_plain(stream),
    };
    shared.spawn(task, address);
}

/// Creates the listening socket for TCP.
fn listen_on(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // `SO_REUSEADDR` allows a port that another server has just left. A port that another socket listens on stays
    // taken.
    socket.set_reuse_address(true)?;
    if matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified()) {
        socket.set_only_v6(false)?;
    }
    // Signaling messages are small and latency matters. Accepted sockets inherit the option.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Waits until one more connection may be opening, and counts it. `None` if the server stops.
async fn permit(shared: &Shared, address: Option<SocketAddr>, audience: Audience) -> Option<Permit> {
    let limiter = match (audience, address) {
        (Audience::Metrics, _) => &shared.limiters.metrics,
        (Audience::Control, _) => &shared.limiters.control,
        (Audience::Peers, Some(_)) => &shared.limiters.tcp,
        (Audience::Peers, None) => &shared.limiters.unix,
    };
    let ip = limited_address(shared, address);
    while let Some(retry_at) = limiter.make_room(Instant::now()) {
        tokio::select! {
            biased;
            () = shared.drain.no_more.cancelled() => return None,
            () = limiter.freed() => {}
            () = shared.timers.sleep_until(retry_at) => {}
        }
    }
    Some(limiter.acquire(ip, Instant::now()))
}

/// The address by which the limits count a new connection. The limit per address exempts Unix sockets and trusted proxies
/// as it exempts loopback.
pub(super) fn limited_address(shared: &Shared, address: Option<SocketAddr>) -> IpAddr {
    let own = address.map(|address| address.ip()).filter(|ip| !shared.settings().trusted_proxies.trusts(Some(*ip)));
    own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The pause between failed attempts to accept.
///
/// The process is out of descriptors or memory. Both return when a connection ends.
#[derive(Default)]
struct Backoff {
    /// The last pause; zero after a success.
    pause: Duration,
    /// The time of the last warning. At most one line a second is logged.
    last_warned: Option<Instant>,
}

impl Backoff {
    /// Logs the failure, and returns the next pause: 10 ms, doubled with each failure, at most 1 s.
    fn next(&mut self, error: &io::Error) -> Duration {
        self.pause = (self.pause * 2).clamp(Duration::from_millis(10), Duration::from_secs(1));
        if self.last_warned.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            self.last_warned = Some(Instant::now());
            let what = "cannot accept connections, trying again and again";
            tracing::warn!(event = "accept_failed", reason = %error, "{what}: {error}");
        }
        self.pause
    }
}

/// Whether the error concerns only the connection that was about to be accepted.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Refuses settings with which other machines reach the server and need no authentication, unless they permit that.
/// `authenticates`: there is an `authorize` hook.
pub(super) fn refuse_exposed(config: &Config, authenticates: bool) -> Result<(), ConfigError> {
    let listeners = config.listeners();
    let exposed = listeners.iter().find(|listener| is_exposed(listener, config, authenticates));
    let Some(listener) = exposed.filter(|_| !config.allow_unauthenticated) else { return Ok(()) };
    let host = ("host", config.host.to_string());
    let (setting, shown) = if config.listen.is_empty() { host } else { ("listen", listener.to_string()) };
    let what = format!(
        "{shown} can be reached from other machines, and nobody is asked who they are: set `authorize`, or \
         allow_unauthenticated if that is meant"
    );
    Err(ConfigError::new(setting, what))
}

/// Whether other machines can reach this listener without authentication.
fn is_exposed(listener: &Listen, config: &Config, authenticates: bool) -> bool {
    let certificates = listener.is_tls() && config.tls.as_ref().is_some_and(Tls::asks_clients);
    !listener.is_local() && !authenticates && config.jwt.is_none() && !certificates
}
