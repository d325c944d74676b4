//! Requests of clients that another node answers. The endpoints make them, and a task of the node sends them.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::core::cluster::Incarnation;

/// The most requests that wait for the task of the node. No setting: it only begins each of them.
const MAX_FORWARDS: usize = 1024;

/// A request of a client, for another node.
pub(in crate::server) struct Forward {
    /// The start of the node.
    pub(in crate::server) node: Incarnation,
    /// The facts of the client, for the other node.
    pub(in crate::server) facts: HeaderValue,
    /// The request, with a target below [`PREFIX`].
    pub(in crate::server) request: Request<Full<Bytes>>,
    /// Told the answer. Closed if it is not needed any more.
    pub(in crate::server) answer: oneshot::Sender<Forwarded>,
}

/// Where a node answers the requests of clients of other nodes.
pub(in crate::server) const PREFIX: &str = "/cluster/local";

/// The answer, or the reason why there is none.
pub(in crate::server) type Forwarded = Result<Response<Incoming>, String>;

/// The queue of requests.
pub(in crate::server) struct Forwards {
    sender: mpsc::Sender<Forward>,
    /// The receiver, until the task of the node takes it.
    received: Mutex<Option<mpsc::Receiver<Forward>>>,
}

impl Default for Forwards {
    fn default() -> Self {
        let (sender, received) = mpsc::channel(MAX_FORWARDS);
        Self { sender, received: Mutex::new(Some(received)) }
    }
}

impl Forwards {
    /// Takes the requests. `None` if they were taken already.
    pub(in crate::server) fn take(&self) -> Option<mpsc::Receiver<Forward>> {
        self.received.lock().take()
    }

    /// Sends a request to a node. Dropping the future gives it up.
    pub(in crate::server) async fn send(
        &self,
        node: Incarnation,
        facts: HeaderValue,
        request: Request<Full<Bytes>>,
    ) -> Forwarded {
        let (answer, answered) = oneshot::channel();
        if self.sender.try_send(Forward { node, facts, request, answer }).is_err() {
            return Err("too many requests to other nodes are under way".to_owned());
        }
        answered.await.unwrap_or_else(|_| Err("this node stops".to_owned()))
    }
}

/// Whether a node answers a path for clients of other nodes.
pub fn may_be_passed_on(path: &str) -> bool {
    let of_device =
        |rest: &str| rest.split_once('/').is_some_and(|(_, below)| below == "adb" || below.starts_with("files/"));
    matches!(path, "/forward" | "/poll_messages")
        || path.starts_with("/polled_connections/")
        || path.strip_prefix("/devices/").is_some_and(of_device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_this_node_is_answered_for_others() {
        for path in [
            "/forward",
            "/poll_messages",
            "/polled_connections/x/messages",
            "/polled_connections/x/:forward",
            "/devices/cvd-1/adb",
            "/devices/cvd-1/files/client.html",
        ] {
            assert!(may_be_passed_on(path), "{path}");
        }
        for path in [
            "/",
            "/connect",
            "/devices",
            "/devices/cvd-1",
            "/devices/cvd-1/connect",
            "/devices/cvd-1/filesystem",
            "/dashboard/disconnect",
            "/metrics",
            "/polled_connections",
            "/register_device",
        ] {
            assert!(!may_be_passed_on(path), "{path}");
        }
    }
}
