//! Carries bytes both ways, in one task, with backpressure.
//!
//! One message of the client and one chunk of the device wait at most. While the device takes nothing, the client is
//! not read; while the client takes nothing, the device is not read.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::core::outbox::End;
use crate::observe::adb::AdbSeat;
use crate::observe::incidents::Incident;
use crate::protocol::refusal::Refusal;
use crate::server::settings::Settings;
use crate::server::shared::Shared;
use crate::server::ws::close::{self, ReadFailure};
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::{Received, WebSocketStream};
use crate::server::ws::transport::Transport;

/// Bytes that are read from the device at a time, and sent to the client as one message.
const CHUNK: usize = 32 * 1024;

/// Rounds in one poll, before the task yields to others.
const ROUNDS: usize = 16;

/// The end when the server stops, as for all peers (docs/protocol.md 4.3.14).
pub(super) fn stopping() -> End {
    End::close(1001, "server stopping")
}

/// One adb connection.
#[allow(clippy::struct_excessive_bools, reason = "the two directions end independently of each other")]
pub(super) struct Relay<S> {
    shared: Arc<Shared>,
    /// The settings that the connection began with.
    settings: Arc<Settings>,
    /// The place among the adb connections, and its counters.
    seat: AdbSeat,
    client: WebSocketStream<S>,
    device: TcpStream,
    /// The rest of the client's message that the device has not taken.
    to_device: Bytes,
    /// The space that the device is read into.
    chunk: Box<[u8]>,
    /// Bytes to the client were written and not flushed: as many of the device's.
    unflushed: Option<usize>,
    /// The client has sent its close frame.
    client_closed: bool,
    /// The device has closed its sending side, and the client was sent a close frame.
    device_closed: bool,
    /// The device was told that nothing more comes.
    device_shut: bool,
    /// The last sign of life of the client.
    last_received: Instant,
    /// The time of the ping that has no answer yet.
    pinged_at: Option<Instant>,
    /// The time since which the client has taken nothing.
    client_stuck_since: Option<Instant>,
    /// The time since which the device has taken nothing.
    device_stuck_since: Option<Instant>,
    /// The time at which one of both sides has closed.
    closing_since: Option<Instant>,
    /// Bytes to the device, and from it.
    bytes: (u64, u64),
}

impl<S: Transport> Relay<S> {
    /// Creates the relay.
    pub(super) fn new(shared: Arc<Shared>, client: WebSocketStream<S>, device: TcpStream, seat: AdbSeat) -> Self {
        Self {
            last_received: shared.clock.now(),
            settings: shared.settings(),
            shared,
            seat,
            client,
            device,
            to_device: Bytes::new(),
            chunk: vec![0; CHUNK].into(),
            unflushed: None,
            client_closed: false,
            device_closed: false,
            device_shut: false,
            pinged_at: None,
            client_stuck_since: None,
            device_stuck_since: None,
            closing_since: None,
            bytes: (0, 0),
        }
    }

    /// Bytes to the device, and from it.
    pub(super) fn bytes(&self) -> (u64, u64) {
        self.bytes
    }

    /// The client's side, for the closing handshake. The connection to the device ends.
    pub(super) fn into_client(self) -> WebSocketStream<S> {
        self.client
    }

    /// Carries bytes until one side ends. Returns the end for the client.
    pub(super) async fn run(&mut self) -> End {
        let shared = Arc::clone(&self.shared);
        loop {
            let due = self.due();
            let timer = async {
                match due {
                    Some(due) => shared.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            // `None` where a deadline has come nearer meanwhile.
            let polled = poll_fn(|cx| match self.poll(cx) {
                Poll::Ready(end) => Poll::Ready(Some(end)),
                Poll::Pending if is_earlier(self.due(), due) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let ended = tokio::select! {
                biased;
                () = shared.stopping.cancelled() => Some(stopping()),
                ended = polled => ended,
                () = timer => self.on_deadline(shared.clock.now()),
            };
            if let Some(end) = ended {
                return end;
            }
        }
    }

    /// Runs both directions until they are pending.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        IoBuffer::with(|buffer| {
            let polled = self.poll_rounds(cx, buffer);
            self.client.save_unread(buffer);
            polled
        })
    }

    fn poll_rounds(&mut self, cx: &mut Context<'_>, buffer: &mut IoBuffer) -> Poll<End> {
        for _ in 0..ROUNDS {
            let outcome =
                self.poll_to_device(cx, buffer).and_then(|again| Ok(again | self.poll_from_device(cx, buffer)?));
            match outcome {
                Err(end) => return Poll::Ready(end),
                Ok(_) if self.client_closed && self.device_closed && self.device_shut => {
                    return Poll::Ready(End::close(1000, "closed"));
                }
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    // To the device ---------------------------------------------------------------------------------------------------

    /// Writes to the device what waits, else reads the client. Returns true if there may be more to do.
    fn poll_to_device(&mut self, cx: &mut Context<'_>, buffer: &mut IoBuffer) -> Result<bool, End> {
        while !self.to_device.is_empty() {
            match Pin::new(&mut self.device).poll_write(cx, &self.to_device) {
                Poll::Ready(Ok(taken)) if taken > 0 => {
                    self.to_device.advance(taken);
                    self.seat.count_to_device(taken);
                    self.bytes.0 += taken as u64;
                    if self.device_stuck_since.take().is_some() {
                        // The client's pongs were behind these bytes.
                        self.on_life();
                    }
                }
                Poll::Ready(Ok(_)) => return Err(device_lost(&io::ErrorKind::WriteZero.into())),
                Poll::Ready(Err(error)) => return Err(device_lost(&error)),
                Poll::Pending => {
                    self.device_stuck_since = self.device_stuck_since.or_else(|| Some(self.shared.clock.now()));
                    return Ok(false);
                }
            }
        }
        if !self.client_closed {
            return self.read_client(cx, buffer);
        }
        if !self.device_shut {
            // An error means that the device is gone, which the other direction finds out.
            self.device_shut = Pin::new(&mut self.device).poll_shutdown(cx).is_ready();
        }
        Ok(false)
    }

    /// Reads the client. Returns false if it has sent nothing.
    fn read_client(&mut self, cx: &mut Context<'_>, buffer: &mut IoBuffer) -> Result<bool, End> {
        let received = self.client.poll_read(cx, buffer);
        let received = match received {
            Poll::Pending => None,
            Poll::Ready(None) => return Err(End::Drop),
            Poll::Ready(Some(received)) => Some(received.map(|received| match received {
                Received::Text(_) => Message::text(""),
                Received::Message(message) => message,
            })),
        };
        if self.client.take_bytes_read() > 0 {
            self.on_life();
        }
        match received {
            None => return Ok(false),
            Some(Ok(Message::Binary(bytes))) => self.to_device = bytes,
            Some(Ok(Message::Text(_))) => {
                self.shared.incidents.count(Incident::Misbehaved);
                return Err(End::close(1003, "adb is carried in binary messages"));
            }
            Some(Ok(Message::Close(_))) => {
                self.client_closed = true;
                self.begin_closing();
                self.unflushed.get_or_insert(0);
            }
            // The answer to a ping waits to be flushed.
            Some(Ok(_)) => _ = self.unflushed.get_or_insert(0),
            Some(Err(error)) => return Err(self.client_failed(&error)),
        }
        Ok(true)
    }

    /// The end after a read error. A violation is told, and counted.
    fn client_failed(&self, error: &WebSocketError) -> End {
        let end = match ReadFailure::of(error) {
            ReadFailure::Lost(_) => return End::Drop,
            ReadFailure::Close(end) => end,
            ReadFailure::Refuse(refusal) => refused(&refusal),
        };
        self.shared.incidents.count(Incident::Misbehaved);
        end
    }

    // From the device -------------------------------------------------------------------------------------------------

    /// Flushes what was written to the client, then reads the device. Returns true if there may be more to do.
    fn poll_from_device(&mut self, cx: &mut Context<'_>, buffer: &mut IoBuffer) -> Result<bool, End> {
        if !self.flush(cx, buffer)? || self.device_closed {
            return Ok(false);
        }
        let mut space = ReadBuf::new(&mut self.chunk);
        match Pin::new(&mut self.device).poll_read(cx, &mut space) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(_)) if self.client_closed => self.device_closed = true,
            Poll::Ready(Err(error)) => return Err(device_lost(&error)),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = space.filled().len();
        let message = if bytes > 0 {
            Message::binary(Bytes::copy_from_slice(space.filled()))
        } else {
            self.device_closed = true;
            self.begin_closing();
            close::close(1000, "The device closed the adb connection")
        };
        // A client that has closed takes no more. The device is still read, up to its end, so that it is not reset
        // before it has read all that the client sent.
        if !self.client_closed {
            self.client.send(message, buffer).map_err(|_| End::Drop)?;
            self.unflushed = Some(bytes);
        }
        Ok(true)
    }

    /// Flushes. Returns false if the client has not taken everything.
    fn flush(&mut self, cx: &mut Context<'_>, buffer: &mut IoBuffer) -> Result<bool, End> {
        let Some(bytes) = self.unflushed else { return Ok(true) };
        match self.client.poll_flush(cx, buffer) {
            Poll::Ready(Ok(())) => {
                self.unflushed = None;
                self.seat.count_from_device(bytes);
                self.bytes.1 += bytes as u64;
                if self.client_stuck_since.take().is_some() {
                    // It has taken bytes, although its pong may be late.
                    self.on_life();
                }
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(End::Drop),
            Poll::Pending => {
                self.client_stuck_since = self.client_stuck_since.or_else(|| Some(self.shared.clock.now()));
                Ok(false)
            }
        }
    }

    // Deadlines -------------------------------------------------------------------------------------------------------

    /// Records a sign of life of the client.
    fn on_life(&mut self) {
        self.last_received = self.shared.clock.now();
        self.pinged_at = None;
    }

    /// Starts the time in which the other side has to close as well.
    fn begin_closing(&mut self) {
        self.closing_since = self.closing_since.or_else(|| Some(self.shared.clock.now()));
    }

    /// The next deadline.
    fn due(&self) -> Option<Instant> {
        let limits = &self.settings.limits;
        let after = |since: Option<Instant>, time| since.and_then(|since| since.checked_add(time));
        [
            self.ping_due(),
            after(self.client_stuck_since, limits.write_timeout),
            after(self.device_stuck_since, self.settings.adb.timeout),
            after(self.closing_since, limits.close_timeout),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the client is pinged, or counts as gone. Never while one side takes nothing: ping or pong would wait behind
    /// bytes of adb, and each side has a deadline of its own.
    fn ping_due(&self) -> Option<Instant> {
        let is_stuck = self.device_stuck_since.is_some() || self.client_stuck_since.is_some();
        if self.closing_since.is_some() || is_stuck {
            return None;
        }
        let keepalive = &self.settings.keepalive;
        match self.pinged_at {
            Some(at) => at.checked_add(keepalive.timeout),
            None => keepalive.interval.and_then(|interval| self.last_received.checked_add(interval)),
        }
    }

    /// Handles an expired deadline. Returns the end, if it is one.
    fn on_deadline(&mut self, now: Instant) -> Option<End> {
        let limits = &self.settings.limits;
        let is_over = |since: Option<Instant>, time| {
            since.and_then(|since: Instant| since.checked_add(time)).is_some_and(|due| due <= now)
        };
        if is_over(self.client_stuck_since, limits.write_timeout) {
            self.shared.incidents.count(Incident::SlowConsumer);
            return Some(End::close(1013, "slow consumer"));
        }
        if is_over(self.device_stuck_since, self.settings.adb.timeout) {
            return Some(End::close(1013, "The device's adb port takes no bytes"));
        }
        if is_over(self.closing_since, limits.close_timeout) {
            return Some(End::Drop);
        }
        if self.ping_due().is_some_and(|due| due <= now) {
            if self.pinged_at.is_some() {
                self.shared.incidents.count(Incident::Silent);
                return Some(End::Drop);
            }
            self.pinged_at = Some(now);
            // A failure shows with the flush, which the next poll does.
            let _failed = IoBuffer::with(|buffer| self.client.send(Message::Ping(Bytes::new()), buffer));
            self.unflushed.get_or_insert(0);
        }
        None
    }
}

/// The end when the connection to the device has failed.
fn device_lost(error: &io::Error) -> End {
    End::Close { code: 1011, reason: format!("The adb connection to the device was lost: {error}").into() }
}

fn refused(refusal: &Refusal) -> End {
    End::Close { code: refusal.close_code().unwrap_or(1002), reason: refusal.text() }
}

/// Whether a deadline is earlier than the one that the timer is set to.
fn is_earlier(due: Option<Instant>, set: Option<Instant>) -> bool {
    due.is_some_and(|due| set.is_none_or(|set| due < set))
}
