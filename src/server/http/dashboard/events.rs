//! The dashboard's server-sent events: up to four times a second, if something has changed, and up to
//! `viewer_bytes_per_second`.
//!
//! `GET /dashboard/events?search=&device=` sends four events. `overview` has the server and the devices that match
//! `search`. `device` has the device that the query names. `entries` has the new journal entries of that device, where
//! there is a journal. `about` has the rights of the viewer and the ICE servers that peers are told.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request, State};
use axum::response::Response;
use axum::routing::get;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use hyper::header::{self, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::overview::Overviews;
use super::pause_after;
use super::snapshot::Snapshot;
use super::view::View;
use crate::config::HttpLimits;
use crate::core::address::counted;
use crate::core::peer::Role;
use crate::observe::incidents::Incident;
use crate::server::http::auth::Caller;
use crate::server::http::pieces::Pace;
use crate::server::http::respond::too_many;
use crate::server::shared::Shared;

/// The silence after which a comment is sent. Only a write reveals that the page is gone.
const QUIET: Duration = Duration::from_secs(10);

/// The open event streams, by the address that their viewer counts for.
#[derive(Default)]
pub(crate) struct ViewerSlots(Mutex<HashMap<Option<IpAddr>, usize>>);

/// One of the slots for event streams. It is free again when dropped.
struct ViewerSlot {
    /// All slots.
    slots: Arc<ViewerSlots>,
    /// The address that the viewer counts for.
    address: Option<IpAddr>,
}

impl ViewerSlot {
    /// Takes a slot.
    ///
    /// # Errors
    /// The limit that leaves none.
    fn take(slots: &Arc<ViewerSlots>, address: Option<IpAddr>, limits: &HttpLimits) -> Result<Self, &'static str> {
        let address = address.map(counted);
        let mut taken = slots.0.lock();
        if taken.values().sum::<usize>() >= limits.max_viewers {
            return Err("Too many viewers");
        }
        let is_exempt = address.is_none_or(|address| address.is_loopback());
        if !is_exempt && taken.get(&address).is_some_and(|count| *count >= limits.max_viewers_per_address) {
            return Err("Too many viewers from this address");
        }
        *taken.entry(address).or_default() += 1;
        Ok(Self { slots: Arc::clone(slots), address })
    }
}

impl Drop for ViewerSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock();
        if let Some(of_address) = taken.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

/// Adds the route, if the settings enable the dashboard.
pub(in crate::server) fn add_to<S>(router: Router<S>, dashboard: bool) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Shared>: FromRef<S>,
    Arc<ViewerSlots>: FromRef<S>,
    Arc<Overviews>: FromRef<S>,
{
    if dashboard { router.route("/dashboard/events", get(events)) } else { router }
}

/// `GET /dashboard/events`.
async fn events(
    State(shared): State<Arc<Shared>>,
    State(viewers): State<Arc<ViewerSlots>>,
    State(overviews): State<Arc<Overviews>>,
    request: Request,
) -> Response {
    let view = View::of_query(request.uri().query().unwrap_or_default());
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    let peer = match caller.authorize(&shared).await {
        Ok(peer) => peer,
        Err(refused) => return refused,
    };
    let address = peer.address.map(|address| address.ip());
    let slot = match ViewerSlot::take(&viewers, address, &shared.settings().limits.http) {
        Ok(slot) => slot,
        Err(why) => {
            shared.incidents.count(Incident::TurnedAway);
            return too_many(why);
        }
    };
    let (events, receiver) = mpsc::channel(1);
    let expires = peer.expires;
    let snapshot = Snapshot::new(Arc::clone(&shared), overviews, peer, view);
    let (clock, updates) = (Arc::clone(&shared.clock), send_updates(Arc::clone(&shared), slot, snapshot, events));
    // The page then asks for its events again, and for another token.
    shared.tasks.spawn(async move { clock.timeout_at(expires, updates).await });
    let body = EventStream { receiver, parts: VecDeque::new(), pace: Pace::default() };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Sends changes until the page is gone, does not read, or the server stops.
///
/// It makes an update only when there is room for it. So a page that does not read has at most two updates waiting, and
/// costs no more rendering.
async fn send_updates(shared: Arc<Shared>, _slot: ViewerSlot, mut snapshot: Snapshot, events: mpsc::Sender<Update>) {
    let (mut pause, mut last_sent) = (Duration::ZERO, Instant::now());
    loop {
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            () = events.closed() => return,
            () = shared.timers.sleep(pause) => {}
        }
        let room = shared.timers.timeout(shared.settings().limits.write_timeout, events.reserve());
        let room = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            room = room => room,
        };
        let Some(Ok(room)) = room else { return };
        let began = Instant::now();
        let mut update = snapshot.updates().await;
        let took = began.elapsed();
        if update.is_empty() && last_sent.elapsed() >= QUIET {
            update.push(Bytes::from_static(b":\n\n"));
        }
        // A search among the devices of a large cluster takes a fifth of a processor at most.
        pause = pause_after(&shared, update.iter().map(Bytes::len).sum()).max(took * 4);
        if !update.is_empty() {
            last_sent = Instant::now();
            room.send(update);
        }
    }
}

/// Events that are sent together. Pages share the parts that are the same for all.
type Update = Vec<Bytes>;

/// The body of the response.
struct EventStream {
    /// Gives the updates.
    receiver: mpsc::Receiver<Update>,
    /// The rest of the update that is being written.
    parts: VecDeque<Bytes>,
    /// Yields between two pieces.
    pace: Pace,
}

impl HttpBody for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pace.poll_ready(cx));
        while self.parts.is_empty() {
            let Some(update) = ready!(self.receiver.poll_recv(cx)) else { return Poll::Ready(None) };
            self.parts = update.into();
        }
        let Some(mut part) = self.parts.pop_front() else { return Poll::Ready(None) };
        let piece = self.pace.piece_of(&mut part);
        if !part.is_empty() {
            self.parts.push_front(part);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
