//! Requests that another node of the cluster has to answer: each is passed on to it once, with the facts of its sender,
//! which this node has admitted (docs/protocol.md 5.4.13 to 5.4.15).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::copy_bidirectional;

use super::auth::{Caller, PassedOn};
use super::respond::error;
use super::upgrade::handshake;
use crate::core::cluster::Incarnation;
use crate::core::peer::{Peer, Role};
use crate::observe::quoted::Quoted;
use crate::protocol::DeviceId;
use crate::server::cluster::client_facts::ClientFacts;
use crate::server::cluster::forwards::PREFIX;
use crate::server::connect_info::ConnectInfo;
use crate::server::shared::Shared;

/// Time to reach a node, beyond the time that it has for the answer itself.
pub(super) const TO_REACH: Duration = Duration::from_secs(4);

/// The longest error of another node that is passed on, in bytes. Ids in errors are cut.
const MAX_ERROR: usize = 64 * 1024;

/// Headers of a response that concern its own connection (RFC 9110, 7.6.1), or the nodes.
const OWN_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::DATE,
    HeaderName::from_static("x-cuttlefish-cluster"),
];

/// Headers that a node needs for an upgrade.
const UPGRADE_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
];

/// A request for another node.
pub(super) struct Onward {
    /// The method.
    pub(super) method: Method,
    /// The target, as the client sent it.
    pub(super) target: Uri,
    /// The headers that the node needs.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Bytes,
}

/// Returns the node of a polled connection, if it is another one that lives.
pub(super) fn node_of_connection(shared: &Shared, id: &str) -> Option<Incarnation> {
    let (tag, _) = id.split_once('.')?;
    shared.cluster.as_ref()?.other_node_with(tag)
}

/// Returns the node of a device, if it is another one. A request that was passed on is not passed on again.
pub(super) fn node_of_device(shared: &Shared, id: &DeviceId, was_passed_on: bool) -> Option<Incarnation> {
    let cluster = shared.cluster.as_ref().filter(|_| !was_passed_on)?;
    if shared.hub.find(id).is_some() {
        return None;
    }
    cluster.elsewhere(id).map(|registration| registration.incarnation().clone())
}

/// Whether another node has passed a request on.
pub(super) fn was_passed_on<B>(request: &hyper::Request<B>) -> bool {
    request.extensions().get::<PassedOn>().is_some()
}

/// Passes a request on. The answer has to begin `within` this time.
pub(super) async fn pass_on(
    shared: &Arc<Shared>,
    node: Incarnation,
    sender: &Peer,
    onward: Onward,
    within: Duration,
) -> Response {
    match send(shared, &node, sender, onward, within).await {
        Ok(response) => answer(response).await,
        Err(refused) => refused,
    }
}

/// Sends a request to a node, within a time.
async fn send(
    shared: &Arc<Shared>,
    node: &Incarnation,
    sender: &Peer,
    onward: Onward,
    within: Duration,
) -> Result<hyper::Response<Incoming>, Response> {
    let Some(facts) = ClientFacts::with_grant(sender, shared.clock.now()).and_then(|facts| facts.to_whole_header())
    else {
        let why = "The identity or the grant of the sender is too long for another node";
        return Err(error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
    };
    let Onward { method, target, headers, body } = onward;
    let mut request = hyper::Request::new(Full::new(body));
    let below = target.path_and_query().map_or("/", |target| target.as_str());
    let (Ok(target), Some(cluster)) = (format!("{PREFIX}{below}").parse(), &shared.cluster) else {
        return Err(error(StatusCode::BAD_REQUEST, "This is no path"));
    };
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, target, headers);
    let sent = shared.timers.timeout(within, cluster.forwards.send(node.clone(), facts, request)).await;
    let late = || Err(format!("no answer within {} s", within.as_secs()));
    sent.unwrap_or_else(late).map_err(|why| {
        let (node, id) = (node.node(), node.to_string());
        tracing::debug!(
            event = "cluster_request_failed",
            node,
            reason = why,
            "cannot pass a request on to {id}: {why}"
        );
        error(StatusCode::GATEWAY_TIMEOUT, &format!("Node {} cannot be reached: {why}", Quoted(node)))
    })
}

/// The answer of a node, as the client gets it.
async fn answer(response: hyper::Response<Incoming>) -> Response {
    let (head, body) = response.into_parts();
    if head.status.is_client_error() || head.status.is_server_error() {
        let mut answer = error(head.status, &reason_of(body).await);
        for name in [header::RETRY_AFTER, header::ALLOW] {
            answer.headers_mut().extend(head.headers.get(&name).map(|value| (name.clone(), value.clone())));
        }
        return answer;
    }
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    for name in &OWN_HEADERS {
        answer.headers_mut().remove(name);
    }
    answer
}

/// The text of an error.
async fn reason_of(body: Incoming) -> String {
    #[derive(Deserialize)]
    struct Reason {
        error: String,
    }
    let body = Limited::new(body, MAX_ERROR).collect().await.map(http_body_util::Collected::to_bytes);
    let reason = body.ok().and_then(|body| serde_json::from_slice::<Reason>(&body).ok());
    reason.map_or_else(|| "The other node has answered with an error".to_owned(), |reason| reason.error)
}

/// Passes an upgrade on, and then the bytes of the WebSocket, both ways.
pub(super) async fn tunnel(shared: &Arc<Shared>, node: Incarnation, mut request: Request) -> Response {
    let accepted = match handshake(&request) {
        Ok(response) => response,
        Err(refused) => return refused,
    };
    let caller = Caller::of(shared, Role::Client, &request);
    let permit = request.extensions().get::<ConnectInfo>().map(|info| Arc::clone(&info.permit));
    let mut headers = HeaderMap::new();
    for name in &UPGRADE_HEADERS {
        headers.extend(request.headers().get_all(name).iter().map(|value| (name.clone(), value.clone())));
    }
    let onward = Onward { method: Method::GET, target: request.uri().clone(), headers, body: Bytes::new() };
    let client = hyper::upgrade::on(&mut request);
    drop(request);
    let peer = match caller.authorize(shared).await {
        Ok(peer) => peer,
        Err(refused) => return refused,
    };
    let response = match send(shared, &node, &peer, onward, TO_REACH).await {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => response,
        Ok(response) => return answer(response).await,
        Err(refused) => return refused,
    };
    if response.headers().get(header::SEC_WEBSOCKET_ACCEPT) != accepted.headers().get(header::SEC_WEBSOCKET_ACCEPT) {
        return error(StatusCode::BAD_GATEWAY, "The other node has answered the upgrade with an invalid key");
    }
    let over = shared.over.clone();
    shared.tasks.spawn(async move {
        let copy = async {
            let Ok((client, node)) = tokio::try_join!(client, hyper::upgrade::on(response)) else { return };
            // The end of one side is the end of the other, which tells its peer.
            let _lost = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(node)).await;
        };
        over.run_until_cancelled(copy).await;
        drop(permit);
    });
    accepted
}
