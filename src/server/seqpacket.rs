//! The device socket and the control socket (docs/protocol.md 5.1 and 5.2): `SOCK_SEQPACKET`, one JSON message a
//! packet.
//!
//! File permissions decide which processes may connect: the socket belongs to the server's user and group, mode 0770.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use crate::config::error::Error;
use crate::core::outbox::End;
use crate::core::peer::{Peer, Role};
use crate::core::session::{ControlSession, DeviceSession, Step};
use crate::protocol::refusal::Refusal;
use crate::protocol::{MAX_DEVICE_MESSAGE, Text};
use crate::server::message_pump::{Incoming, MessagePump, MessageTransport};
use crate::server::shared::Shared;
use crate::server::ws::open::BoxFuture;

/// Mode of the socket file: owner and group may connect, as with the current operator (docs/protocol.md 5.1.1).
const MODE: u32 = 0o770;

/// Connections that the kernel queues until the server accepts them.
const BACKLOG: i32 = 128;

/// The purpose of a local socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketKind {
    /// The device socket, on which devices register.
    Devices,
    /// The control socket, on which devices are pre-registered.
    Control,
}

/// A listening local socket. Its file is removed when it is dropped.
pub(super) struct SeqpacketListener {
    /// The purpose of the socket.
    kind: SocketKind,
    /// The path of the socket file.
    path: PathBuf,
    /// The listening socket.
    socket: Socket,
    /// Device and inode of the file. A file that has replaced it is left alone.
    file: (u64, u64),
}

impl SeqpacketListener {
    /// Listens on `path`. The file of a server that is gone is replaced.
    pub(super) fn bind(kind: SocketKind, path: &Path) -> Result<Self, Error> {
        let error = |source| Error::BindLocal { path: path.to_owned(), source };
        make_room(path).map_err(error)?;
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).map_err(error)?;
        // The socket gets a temporary name until it has its mode and listens, so no client connects too early.
        let unfinished = unfinished(path);
        drop(fs::remove_file(&unfinished));
        let made = (|| {
            socket.bind(&SockAddr::unix(&unfinished)?)?;
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(MODE))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            let file = fs::symlink_metadata(&unfinished)?;
            fs::rename(&unfinished, path)?;
            Ok((file.dev(), file.ino()))
        })();
        if made.is_err() {
            drop(fs::remove_file(&unfinished));
        }
        Ok(Self { kind, path: path.to_owned(), socket, file: made.map_err(error)? })
    }

    /// Accepts connections until the server stops.
    pub(super) async fn accept(self, shared: Arc<Shared>) {
        let listening = self.socket.try_clone().map(OwnedFd::from).and_then(UnixSeqpacketListener::try_from);
        let mut listener = match listening {
            Ok(listener) => listener,
            Err(error) => return tracing::error!("cannot watch {}: {error}", self.path.display()),
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) => serve(&shared, self.kind, socket),
                Err(error) => {
                    tracing::warn!("cannot accept on {}, trying again: {error}", self.path.display());
                    tokio::select! {
                        () = shared.stopping.cancelled() => return,
                        () = shared.timers.sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        }
    }
}

impl Drop for SeqpacketListener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Checks that `path` is free: no file is there but a socket on which no process listens.
fn make_room(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let caller = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    // Non-blocking: a server that is too busy to accept is alive as well.
    caller.set_nonblocking(true)?;
    match caller.connect(&SockAddr::unix(path)?) {
        // The old server is gone. The later rename replaces its socket file.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Another process listens, whichever socket type it uses.
        Ok(()) | Err(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
    }
}

/// The temporary name of a socket file.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

/// Serves one accepted connection in a task of its own.
fn serve(shared: &Arc<Shared>, kind: SocketKind, socket: UnixSeqpacket) {
    // The limits count local connections as loopback connections.
    let permit = shared.limiter.acquire(std::net::Ipv4Addr::LOCALHOST.into(), Instant::now());
    if let Some(why) = permit.turned_away {
        return tracing::info!("turned a local connection away: {why}");
    }
    permit.opened();
    let role = if kind == SocketKind::Devices { Role::Device } else { Role::Http };
    let mut peer = Peer::anonymous(role);
    if kind == SocketKind::Devices {
        peer.hears_errors = false;
        peer.max_message = max_packet(&socket).min(shared.config.limits.max_message_size);
    }
    let context = shared.context(peer);
    let transport = PacketTransport::new(Arc::clone(shared), socket);
    let (now, ours) = (shared.clock.now(), Arc::clone(shared));
    let pump: BoxFuture = match kind {
        SocketKind::Devices => {
            let session = DeviceSession::over_packets(context.clone(), now);
            Box::pin(MessagePump::new(ours, &context, session, Step::Done, transport))
        }
        SocketKind::Control => {
            let session = ControlSession::new(context.clone());
            Box::pin(MessagePump::new(ours, &context, session, Step::Done, transport))
        }
    };
    let ours = Arc::clone(shared);
    let counted = async move {
        ours.unless_over(pump).await;
        drop(permit);
    };
    drop(shared.spawn(Box::pin(counted), None));
}

/// The largest packet that the kernel accepts, in bytes (docs/protocol.md 5.1.6).
///
/// The kernel keeps 32 bytes of the send buffer for itself (`unix_dgram_sendmsg`). It refuses a larger packet with
/// `EMSGSIZE`.
fn max_packet(socket: &UnixSeqpacket) -> usize {
    let buffer = SockRef::from(socket).send_buffer_size();
    buffer.map_or(MAX_DEVICE_MESSAGE, |bytes| bytes.saturating_sub(32))
}

/// A message transport over packets, each of which is one text.
struct PacketTransport {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// The connected socket.
    socket: UnixSeqpacket,
    /// Receives one packet, so it has the size of the largest message. Only pages that a packet touches use memory.
    buffer: Vec<u8>,
}

impl PacketTransport {
    /// Creates the transport and its receive buffer.
    fn new(shared: Arc<Shared>, socket: UnixSeqpacket) -> Self {
        let buffer = vec![0; shared.config.limits.max_message_size];
        Self { shared, socket, buffer }
    }
}

impl MessageTransport for PacketTransport {
    fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Incoming> {
        let Poll::Ready(received) = self.socket.poll_recv(cx, &mut self.buffer) else { return Poll::Pending };
        Poll::Ready(match received {
            Ok(packet) if packet.truncated() => Incoming::TooBig,
            Ok(packet) if packet.bytes_read() > 0 => match std::str::from_utf8(&self.buffer[..packet.bytes_read()]) {
                Ok(text) => Incoming::Text(text.to_owned()),
                Err(_) => Incoming::Invalid(Refusal::InvalidJson),
            },
            Ok(_) | Err(_) => Incoming::Gone,
        })
    }

    fn poll_send(&mut self, cx: &mut TaskContext<'_>, text: &Text, forward: bool) -> Poll<io::Result<()>> {
        let Poll::Ready(sent) = self.socket.poll_send(cx, text.as_str().as_bytes()) else { return Poll::Pending };
        sent?;
        self.shared.relay.ledger().count_delivered(u64::from(forward));
        Poll::Ready(Ok(()))
    }

    /// The transport has no close frame: dropping the socket is the end.
    fn end(&mut self, _: &End) {}

    /// A peer that is gone needs no timeout: the kernel closes its socket.
    fn deadline(&self) -> Option<Instant> {
        None
    }
}
