//! The device socket and the control socket (docs/protocol.md 5.1 and 5.2): `SOCK_SEQPACKET`, one JSON message a
//! packet.
//!
//! File permissions decide which processes may connect: the socket belongs to the server's user and group, mode 0770.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use socket2::{SockRef, Type};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use crate::access::connection_limits::Local;
use crate::core::driver::Closed;
use crate::core::peer::{Peer, Role};
use crate::core::session::{ControlSession, DeviceSession, Step};
use crate::observe::audit::{AuditRecord, Outcome};
use crate::protocol::refusal::Refusal;
use crate::protocol::{MAX_DEVICE_MESSAGE, Text};
use crate::server::inherited::Inherited;
use crate::server::message_pump::{Incoming, MessagePump, MessageTransport};
use crate::server::refusal_log::RefusalRecord;
use crate::server::shared::Shared;
use crate::server::socket_file::SocketFile;
use crate::server::ws::open::BoxFuture;

/// Mode of the socket file: owner and group may connect, as with the current operator (docs/protocol.md 5.1.1).
const MODE: u32 = 0o770;

/// Connections that the kernel queues until the server accepts them.
///
/// No setting: beyond it `connect` waits, so no local program is turned away.
const BACKLOG: i32 = 128;

/// The purpose of a local socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketKind {
    /// The device socket, on which devices register.
    Devices,
    /// The control socket, on which devices are pre-registered.
    Control,
}

impl SocketKind {
    /// The name of the socket for the log.
    fn name(self) -> &'static str {
        match self {
            Self::Devices => "device socket",
            Self::Control => "control socket",
        }
    }
}

/// A listening local socket. Its file is removed when it is dropped.
pub(super) struct SeqpacketListener {
    /// The purpose of the socket.
    kind: SocketKind,
    /// The listening socket and its file.
    socket: SocketFile,
}

impl SeqpacketListener {
    /// Listens on `path`, or takes a socket that does. The file of a server that is gone is replaced.
    pub(super) fn bind(kind: SocketKind, path: &Path, inherited: &mut Inherited) -> io::Result<Self> {
        let socket = match inherited.take_unix(path, Type::SEQPACKET) {
            Some(socket) => SocketFile::inherited(socket, path),
            None => SocketFile::bind(path, Type::SEQPACKET, MODE, BACKLOG)?,
        };
        Ok(Self { kind, socket })
    }

    /// Accepts connections until the server stops.
    pub(super) async fn accept(self, shared: Arc<Shared>) {
        let listening = self.socket.socket.try_clone().map(OwnedFd::from).and_then(UnixSeqpacketListener::try_from);
        let mut listener = match listening {
            Ok(listener) => listener,
            Err(error) => {
                let path = self.socket.path.display();
                return tracing::error!(event = "listener_failed", reason = %error, "cannot watch {path}: {error}");
            }
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = shared.drain.no_more.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) => serve(&shared, self.kind, socket),
                Err(error) => {
                    let path = self.socket.path.display();
                    tracing::warn!(
                        event = "accept_failed",
                        reason = %error,
                        "cannot accept on {path}, trying again: {error}"
                    );
                    tokio::select! {
                        () = shared.drain.no_more.cancelled() => return,
                        () = shared.timers.sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        }
    }
}

/// Serves one accepted connection in a task of its own.
fn serve(shared: &Arc<Shared>, kind: SocketKind, socket: UnixSeqpacket) {
    let local = if kind == SocketKind::Devices { Local::Devices } else { Local::Control };
    let Some(permit) = shared.limiters.tcp.acquire_local(local) else {
        let line = format_args!("turned away a connection to the {}: too many", kind.name());
        shared.audit(|| AuditRecord { reason: Some("too many connections"), ..AuditRecord::new(Outcome::Refused) });
        return shared
            .log_refusal(&RefusalRecord { reason: Some(&line), ..RefusalRecord::new("local_peer_refused", line) });
    };
    let role = if kind == SocketKind::Devices { Role::Device } else { Role::Http };
    let mut peer = Peer::anonymous(role);
    peer.is_local = true;
    if kind == SocketKind::Devices {
        peer.hears_errors = false;
        peer.max_message = max_packet(&socket).min(shared.settings().limits.max_message_size);
    }
    let context = shared.context(peer);
    let transport = PacketTransport::new(socket, shared.settings().limits.max_message_size);
    let (now, ours) = (shared.clock.now(), Arc::clone(shared));
    let pump: BoxFuture = match kind {
        SocketKind::Devices => {
            let session = DeviceSession::over_packets(context, now);
            Box::pin(MessagePump::new(ours, session, Step::Done, transport))
        }
        SocketKind::Control => Box::pin(MessagePump::new(ours, ControlSession::new(context), Step::Done, transport)),
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
    /// The connected socket.
    socket: UnixSeqpacket,
    /// Receives one packet, so it has the size of the largest message. Only pages that a packet touches use memory.
    buffer: Vec<u8>,
}

impl PacketTransport {
    /// Creates the transport and its receive buffer.
    fn new(socket: UnixSeqpacket, max_message_size: usize) -> Self {
        Self { socket, buffer: vec![0; max_message_size] }
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
            Ok(_) => Incoming::Gone(Closed::Fin),
            Err(_) => Incoming::Gone(Closed::Reset),
        })
    }

    fn poll_send(&mut self, cx: &mut TaskContext<'_>, text: &Text) -> Poll<io::Result<()>> {
        self.socket.poll_send(cx, text.as_bytes()).map_ok(|_| ())
    }
}
