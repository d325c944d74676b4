//! The access log: a record for each response, once it has ended.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::USER_AGENT;
use hyper::{Method, Request};

use crate::observe::quoted::Quoted;
use crate::observe::request_counts::RequestCounts;
use crate::server::catch_panic::peer_name;
use crate::server::events::rounded;
use crate::server::shared::Shared;

/// Begins paths that have the id of a polled connection.
const POLLED: &str = "/polled_connections/";

/// A request whose response has not ended.
pub(in crate::server) struct Access {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// The method.
    method: Method,
    /// The decoded path, without a query.
    path: String,
    /// The address of the peer.
    peer: String,
    /// The header `User-Agent`.
    user_agent: Option<String>,
    /// The time of the request.
    began: Instant,
}

impl Access {
    /// Notes a request. `None` if there is no access log.
    ///
    /// The query may have a token, and is left out.
    pub(in crate::server) fn begin<B>(
        shared: &Arc<Shared>,
        request: &Request<B>,
        address: Option<SocketAddr>,
    ) -> Option<Self> {
        if !shared.settings().access_log {
            return None;
        }
        let shown = shown_path(request.uri().path());
        let user_agent = request.headers().get(USER_AGENT);
        Some(Self {
            shared: Arc::clone(shared),
            method: request.method().clone(),
            path: shown.to_owned(),
            peer: peer_name(address),
            user_agent: user_agent.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            began: Instant::now(),
        })
    }

    /// Watches the body of the response, whose end is logged if there is an access log.
    pub(in crate::server) fn watch(access: Option<Self>, response: Response) -> Response {
        let Some(access) = access else { return response };
        let status = response.status().as_u16();
        response.map(|body| Body::new(Watched { body, access, status, bytes: 0 }))
    }

    /// Logs the end of a response.
    fn log(&self, status: u16, bytes: u64) {
        let Some(left_out) = self.shared.admit_request_record() else { return };
        let Self { method, path, peer, user_agent, .. } = self;
        let (method, user_agent) = (method.as_str(), user_agent.as_deref());
        let duration = rounded(self.began.elapsed());
        let agent = Quoted(user_agent.unwrap_or_default());
        let line = format_args!("{method} {} {status} {bytes} bytes {duration} s {peer} {agent}", Quoted(path));
        let event = "http_request";
        if left_out == 0 {
            tracing::info!(event, method, path, status, bytes, duration, peer, user_agent, "{line}");
        } else {
            let more = format_args!("{line}, and {left_out} more before it");
            tracing::info!(event, method, path, status, bytes, duration, peer, user_agent, left_out, "{more}");
        }
    }
}

/// The path of a request as logs show it.
///
/// The id of a polled connection is all that a request to it needs, so the path has `{id}` in its place.
pub(super) fn shown_path(path: &str) -> &str {
    match RequestCounts::pattern_of(path) {
        pattern if pattern != path && path.starts_with(POLLED) => pattern,
        _ if path.starts_with(POLLED) => "/polled_connections/{id}/{path}",
        _ => path,
    }
}

/// The body of a response, which counts its bytes and logs its end.
struct Watched {
    /// The body.
    body: Body,
    /// Its request.
    access: Access,
    /// The status of the response.
    status: u16,
    /// Bytes that the connection has taken.
    bytes: u64,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.access.log(self.status, self.bytes);
    }
}
