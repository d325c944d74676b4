//! TLS over the socket of a peer, by rustls without buffers of its own: a connection at rest has none.
//!
//! The stream of tokio-rustls keeps 4 KiB to read into for each connection, which was a third of what an idle device over
//! TLS took. Here a thread has one buffer for all of its connections, as for a WebSocket
//! ([`io_buffer`](super::ws::io_buffer)). A connection keeps only the beginning of a record that has not come whole, what
//! its reader had no room for, and what the socket has not taken.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that one read takes at most. More would wait here for a reader that has no room for them.
const MAX_READ: usize = 64 * 1024;

/// Bytes that one read takes at least, whatever the room of the reader.
const MIN_READ: usize = 4 * 1024;

/// Bytes of incomplete records that are kept. rustls refuses a longer handshake message or record before.
const MAX_INCOMING: usize = 128 * 1024;

/// Bytes that one write encrypts at most.
const MAX_WRITE: usize = 64 * 1024;

/// Room for the header and the tag of a record, and for a message of the protocol before it. rustls tells if it is not
/// enough.
const OVERHEAD: usize = 256;

thread_local! {
    /// The buffer of this thread, while it is not lent.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends the thread's buffer, with at least this many bytes. A panic loses the buffer; the next call makes a new one.
fn with_scratch<T>(bytes: usize, use_it: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    SCRATCH.with(|free| {
        let mut scratch = free.take();
        if scratch.len() < bytes {
            scratch.resize(bytes, 0);
        }
        let outcome = use_it(&mut scratch);
        free.set(scratch);
        outcome
    })
}

/// The server's side of a TLS connection.
pub(in crate::server) struct TlsStream<S> {
    /// The transport below.
    inner: S,
    /// The state of the protocol, and the keys.
    connection: UnbufferedServerConnection,
    /// Bytes that were read and belong to a record that has not come whole.
    incoming: Vec<u8>,
    /// Decrypted bytes that wait for the reader.
    plaintext: Waiting,
    /// Encrypted bytes that wait for the transport.
    outgoing: Waiting,
    /// How far the peer has closed its side.
    input: Input,
    /// `close_notify` was sent.
    has_closed: bool,
}

/// How far the peer has closed its side.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// More may come.
    Open,
    /// The peer has sent `close_notify`.
    Closed,
    /// The input has ended without one.
    Ended,
    /// The input breaks the protocol. rustls must not be asked again.
    Failed,
}

/// Bytes that wait to be taken. Takes no memory when there are none.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    taken: usize,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn add(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// Gives bytes to the reader, and adds those that it has no room for.
    fn add_beyond(&mut self, bytes: &[u8], reader: &mut ReadBuf<'_>) {
        let fits = if self.is_empty() { bytes.len().min(reader.remaining()) } else { 0 };
        reader.put_slice(&bytes[..fits]);
        self.add(&bytes[fits..]);
    }

    /// Gives the reader as much as it has room for.
    fn give(&mut self, reader: &mut ReadBuf<'_>) {
        if !self.is_empty() {
            let count = self.rest().len().min(reader.remaining());
            reader.put_slice(&self.rest()[..count]);
            self.take(count);
        }
    }

    /// Adds a message of the protocol.
    fn encode<D>(&mut self, message: &mut EncodeTlsData<'_, D>) -> Result<(), rustls::Error> {
        let start = self.bytes.len();
        loop {
            match message.encode(&mut self.bytes[start..]) {
                Ok(count) => {
                    self.bytes.truncate(start + count);
                    return Ok(());
                }
                Err(EncodeError::InsufficientSize(more)) => self.bytes.resize(start + more.required_size, 0),
                Err(error @ EncodeError::AlreadyEncoded) => return Err(rustls::Error::General(error.to_string())),
            }
        }
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
        if self.taken == self.bytes.len() {
            *self = Self::default();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Performs the handshake.
    ///
    /// # Errors
    /// `InvalidData` with the error of rustls if the peer breaks the protocol or shows no valid certificate, else that of
    /// the transport.
    pub(in crate::server) async fn accept(config: Arc<ServerConfig>, inner: S) -> io::Result<Self> {
        let mut stream = Self {
            inner,
            connection: UnbufferedServerConnection::new(config).map_err(invalid)?,
            incoming: Vec::new(),
            plaintext: Waiting::default(),
            outgoing: Waiting::default(),
            input: Input::Open,
            has_closed: false,
        };
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// The transport below.
    pub(in crate::server) fn inner(&self) -> &S {
        &self.inner
    }

    /// The transport below.
    pub(in crate::server) fn inner_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The certificates that the peer has shown, its own first.
    pub(in crate::server) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_drain(cx))?;
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.input != Input::Open {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
            ready!(self.poll_fill(cx, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Reads once from the transport and processes the records that are whole. Bytes beyond the room of the reader wait.
    fn poll_fill(&mut self, cx: &mut Context<'_>, reader: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (kept, room) = (self.incoming.len(), reader.remaining().clamp(MIN_READ, MAX_READ));
        if kept > MAX_INCOMING {
            return Poll::Ready(Err(invalid(rustls::Error::General("a record is too long".to_owned()))));
        }
        with_scratch(kept + room, |scratch| {
            let mut space = ReadBuf::new(&mut scratch[kept..kept + room]);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut space))?;
            let count = space.filled().len();
            if count == 0 {
                self.input = Input::Ended;
                return Poll::Ready(Ok(()));
            }
            scratch[..kept].copy_from_slice(&self.incoming);
            let whole = &mut scratch[..kept + count];
            let processed = self.process(whole, reader);
            if let Ok(processed) = processed {
                self.keep(&whole[processed..]);
            }
            // Alerts, and answers to key updates, if the transport takes them.
            let sent = self.poll_drain(cx);
            if let Err(error) = processed {
                (self.input, self.incoming) = (Input::Failed, Vec::new());
                return Poll::Ready(Err(invalid(error)));
            }
            Poll::Ready(match sent {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => Ok(()),
            })
        })
    }

    /// Keeps the beginning of a record.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
    }

    /// Processes records. Returns the number of bytes that are processed.
    ///
    /// # Errors
    /// That of the protocol. Its alert is behind the bytes that wait for the transport.
    fn process(&mut self, records: &mut [u8], reader: &mut ReadBuf<'_>) -> Result<usize, rustls::Error> {
        let (mut start, mut failure) = (0, None);
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut records[start..]);
            let (mut is_over, has_failed) = (false, failure.is_some());
            match (state, has_failed) {
                (Ok(ConnectionState::ReadTraffic(mut traffic)), false) => {
                    while let Some(record) = traffic.next_record() {
                        self.plaintext.add_beyond(record?.payload, reader);
                    }
                }
                (Ok(ConnectionState::EncodeTlsData(mut message)), _) => self.outgoing.encode(&mut message)?,
                // They are in `outgoing`, in their order.
                (Ok(ConnectionState::TransmitTlsData(sent)), false) => sent.done(),
                (Ok(ConnectionState::PeerClosed), false) => self.input = Input::Closed,
                // Once more, for the alert. To process the same records again would be a second alert.
                (Err(error), false) => failure = Some(error),
                _ => is_over = true,
            }
            start += discard;
            is_over |= has_failed;
            if is_over {
                return failure.map_or(Ok(start), Err);
            }
        }
    }

    /// Writes what waits for the transport.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, self.outgoing.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.take(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts bytes, or `close_notify`, into the buffer. Returns the number of encrypted bytes.
    ///
    /// Messages of the protocol that come before it are behind the bytes that wait for the transport.
    fn encrypt(&mut self, bytes: Option<&[u8]>, encrypted: &mut Vec<u8>) -> io::Result<usize> {
        if self.input == Input::Failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        loop {
            // No record in `incoming` is whole, so none is read here.
            match self.connection.process_tls_records(&mut self.incoming).state.map_err(invalid)? {
                ConnectionState::WriteTraffic(mut traffic) => loop {
                    let outcome = match bytes {
                        Some(bytes) => traffic.encrypt(bytes, encrypted),
                        None => traffic.queue_close_notify(encrypted),
                    };
                    match outcome {
                        Ok(count) => return Ok(count),
                        Err(EncryptError::InsufficientSize(more)) => encrypted.resize(more.required_size, 0),
                        Err(error @ EncryptError::EncryptExhausted) => return Err(io::Error::other(error)),
                    }
                },
                ConnectionState::EncodeTlsData(mut message) => self.outgoing.encode(&mut message).map_err(invalid)?,
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::PeerClosed => self.input = Input::Closed,
                _ => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
    }

    /// Encrypts bytes, or `close_notify`, and writes as much as the transport takes. The rest waits.
    fn send(&mut self, cx: &mut Context<'_>, bytes: Option<&[u8]>) -> io::Result<()> {
        with_scratch(bytes.map_or(0, <[u8]>::len) + OVERHEAD, |encrypted| {
            let count = self.encrypt(bytes, encrypted)?;
            let mut encrypted = &encrypted[..count];
            if self.outgoing.is_empty()
                && let Poll::Ready(written) = Pin::new(&mut self.inner).poll_write(cx, encrypted)
            {
                encrypted = &encrypted[written?..];
            }
            self.outgoing.add(encrypted);
            match self.poll_drain(cx) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => Ok(()),
            }
        })
    }
}

/// An error of the protocol, as tokio-rustls tells it.
fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (this, before) = (self.get_mut(), buffer.filled().len());
        loop {
            this.plaintext.give(buffer);
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match this.input {
                Input::Open => ready!(this.poll_fill(cx, buffer))?,
                Input::Closed => return Poll::Ready(Ok(())),
                Input::Ended | Input::Failed => {
                    let text = "the peer closed the connection without a close_notify of TLS";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let bytes = &bytes[..bytes.len().min(MAX_WRITE)];
        if !bytes.is_empty() {
            this.send(cx, Some(bytes))?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_closed && this.input != Input::Failed {
            ready!(this.poll_drain(cx))?;
            this.has_closed = true;
            this.send(cx, None)?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
