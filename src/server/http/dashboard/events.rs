//! The dashboard's server-sent events: up to four times a second, if something has changed.
//!
//! `GET /dashboard/events?search=&device=` sends three events. `overview` has the server and the devices that match
//! `search`. `device` has the device that the query names. `entries` has the new journal entries of that device, where
//! there is a journal.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request, State};
use axum::response::Response;
use axum::routing::get;
use futures_util::stream;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use tokio::sync::mpsc;

use super::snapshot::{Snapshot, View};
use crate::core::peer::Role;
use crate::observe::incidents::Incident;
use crate::server::http::auth::Caller;
use crate::server::http::respond::too_many;
use crate::server::shared::Shared;

/// The interval between checks for changes.
const TICK: Duration = Duration::from_millis(250);
/// The silence after which a comment is sent. Only a write reveals that the page is gone.
const QUIET: Duration = Duration::from_secs(10);

/// The number of open event streams.
#[derive(Default)]
pub(crate) struct ViewerSlots(AtomicUsize);

/// One of the slots for event streams. It is free again when dropped.
struct ViewerSlot(Arc<ViewerSlots>);

impl ViewerSlot {
    /// Takes a slot, if one is free.
    fn take(viewers: &Arc<ViewerSlots>, limit: usize) -> Option<Self> {
        let more = |taken: usize| (taken < limit).then_some(taken + 1);
        viewers.0.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Self(Arc::clone(viewers)))
    }
}

impl Drop for ViewerSlot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// Adds the route, if the settings enable the dashboard.
pub(in crate::server) fn add_to<S>(router: Router<S>, dashboard: bool) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Shared>: FromRef<S>,
    Arc<ViewerSlots>: FromRef<S>,
{
    if dashboard { router.route("/dashboard/events", get(events)) } else { router }
}

/// `GET /dashboard/events`.
async fn events(
    State(shared): State<Arc<Shared>>,
    State(viewers): State<Arc<ViewerSlots>>,
    request: Request,
) -> Response {
    let view = View::of_query(request.uri().query().unwrap_or_default());
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    let peer = match caller.authorize(&shared).await {
        Ok(peer) => peer,
        Err(refused) => return refused,
    };
    let Some(slot) = ViewerSlot::take(&viewers, shared.config.limits.max_viewers) else {
        shared.incidents.count(Incident::TurnedAway);
        return too_many("Too many viewers");
    };
    let (events, receiver) = mpsc::channel(1);
    let snapshot = Snapshot::new(Arc::clone(&shared), peer.grant, view);
    shared.tasks.spawn(send_updates(Arc::clone(&shared), slot, snapshot, events));
    let body = stream::unfold(receiver, async |mut receiver| {
        let event: Bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(event), receiver))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Sends changes until the page is gone, does not read, or the server stops.
async fn send_updates(shared: Arc<Shared>, _slot: ViewerSlot, mut snapshot: Snapshot, events: mpsc::Sender<Bytes>) {
    let (mut pause, mut last_sent) = (Duration::ZERO, Instant::now());
    loop {
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            () = events.closed() => return,
            () = shared.timers.sleep(pause) => {}
        }
        pause = TICK;
        let mut updates = snapshot.updates();
        if updates.is_empty() && last_sent.elapsed() >= QUIET {
            updates.push_str(":\n\n");
        }
        if !updates.is_empty() {
            last_sent = Instant::now();
            let sent = shared.timers.timeout(shared.config.limits.write_timeout, events.send(updates.into())).await;
            if !matches!(sent, Some(Ok(()))) {
                return;
            }
        }
    }
}
