//! Bodies of lines that are written as they come: JSON lines, or server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use hyper::header::{self, HeaderMap, HeaderValue};
use serde::Serialize;
use tokio::sync::mpsc;

use super::admit::Slot;
use crate::server::http::extract::members;
use crate::server::http::pieces::Pace;
use crate::server::shared::Shared;

/// The form of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON value on each line.
    JsonLines,
    /// Server-sent events (HTML, 9.2).
    Events,
}

impl Form {
    /// The form that a request prefers.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let is_events = |member: &str| member.split(';').next().map(str::trim) == Some("text/event-stream");
        if members(headers, &header::ACCEPT).any(is_events) { Self::Events } else { Self::JsonLines }
    }

    /// Appends a JSON text, which has no line ends.
    pub(super) fn append(self, text: &mut Vec<u8>, json: &[u8]) {
        let (begin, end): (&[u8], &[u8]) = match self {
            Self::JsonLines => (b"", b"\n"),
            Self::Events => (b"data: ", b"\n\n"),
        };
        text.extend_from_slice(begin);
        text.extend_from_slice(json);
        text.extend_from_slice(end);
    }

    /// Appends a value.
    pub(super) fn append_value(self, text: &mut Vec<u8>, value: &impl Serialize) {
        self.append(text, &serde_json::to_vec(value).unwrap_or_default());
    }
}

/// Writes to the body.
pub(super) struct Writer {
    shared: Arc<Shared>,
    sender: mpsc::Sender<Bytes>,
}

impl Writer {
    /// Writes a text once there is room, and clears it. Returns false if the reader is gone or does not read, or if the
    /// server stops; the text stays then.
    pub(super) async fn write(&self, text: &mut Vec<u8>) -> bool {
        let room = self.shared.timers.timeout(self.shared.settings().limits.write_timeout, self.sender.reserve());
        let room = tokio::select! {
            biased;
            () = self.shared.stopping.cancelled() => return false,
            room = room => room,
        };
        let Some(Ok(room)) = room else { return false };
        room.send(std::mem::take(text).into());
        true
    }

    /// Writes the last text of a server that stops, if there is room for it soon.
    pub(super) async fn write_last(&self, text: Vec<u8>) {
        let limit = self.shared.settings().limits.goodbye_timeout;
        if let Some(Ok(room)) = self.shared.timers.timeout(limit, self.sender.reserve()).await {
            room.send(text.into());
        }
    }

    /// Waits until the reader is gone.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// The body of a response.
struct Lines {
    receiver: mpsc::Receiver<Bytes>,
    /// The rest of the text that is being written.
    rest: Bytes,
    /// Yields between two pieces.
    pace: Pace,
    /// The place of the request among those that are under way.
    _slot: Option<Slot>,
}

/// Begins a response of lines.
pub(super) fn begin(shared: &Arc<Shared>, request: &Request, form: Form) -> (Writer, Response) {
    let (sender, receiver) = mpsc::channel(1);
    let slot = request.extensions().get().cloned();
    let body = Lines { receiver, rest: Bytes::new(), pace: Pace::default(), _slot: slot };
    let mut response = Response::new(Body::new(body));
    let kind = if form == Form::Events { "text/event-stream" } else { "application/x-ndjson" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    (Writer { shared: Arc::clone(shared), sender }, response)
}

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pace.poll_ready(cx));
        while self.rest.is_empty() {
            let Some(text) = ready!(self.receiver.poll_recv(cx)) else { return Poll::Ready(None) };
            self.rest = text;
        }
        let mut rest = std::mem::take(&mut self.rest);
        let piece = self.pace.piece_of(&mut rest);
        self.rest = rest;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
