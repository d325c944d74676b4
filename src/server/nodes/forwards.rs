//! Sends requests of clients to the nodes that answer them, and answers those of clients of other nodes.

#![allow(clippy::result_large_err, reason = "a response is made once for a request, and passed on at once")]

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use hyper::upgrade::OnUpgrade;

use super::client::CLIENT_HEADER;
use super::node::Node;
use crate::server::cluster::client_facts::ClientFacts;
use crate::server::cluster::forwards::{Forward, Forwarded, PREFIX, may_be_passed_on};
use crate::server::connect_info::ConnectInfo;
use crate::server::http::auth::PassedOn;
use crate::server::http::path::{self, OriginalTarget};
use crate::server::http::respond::error;

/// Sends the requests until the server stops.
pub(super) async fn send_all(node: Arc<Node>) {
    let Some(mut forwards) = node.cluster.forwards.take() else { return };
    let stopping = node.shared.stopping.clone();
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            Some(forward) = forwards.recv() => {
                let sender = Arc::clone(&node);
                node.spawn(async move { sender.pass_on(forward).await });
            }
        }
    }
}

impl Node {
    async fn pass_on(self: &Arc<Self>, forward: Forward) {
        let Forward { node, facts, mut request, mut answer } = forward;
        request.headers_mut().insert(CLIENT_HEADER, facts);
        let forwarded: Forwarded = tokio::select! {
            biased;
            // The client has left.
            () = answer.closed() => return,
            forwarded = async {
                let neighbour = self.neighbour(&node).await?;
                self.send_to(&neighbour, request).await
            } => forwarded.map_err(|error| error.to_string()),
        };
        let _left = answer.send(forwarded);
    }
}

/// `/cluster/local/…`: a request of a client of another node, which has admitted the client.
pub(super) async fn local(State(node): State<Arc<Node>>, mut request: Request) -> Response {
    let facts = request.headers().get(&CLIENT_HEADER).and_then(|facts| facts.to_str().ok());
    let Some(facts) = facts.and_then(ClientFacts::parse) else {
        return error(StatusCode::BAD_REQUEST, "The facts of the client are missing, or are invalid");
    };
    let target = request.uri().path_and_query().and_then(|target| target.as_str().strip_prefix(PREFIX));
    let Some(target) = target.and_then(|target| target.parse().ok()) else {
        return error(StatusCode::NOT_FOUND, "Not found");
    };
    *request.uri_mut() = target;
    path::decode(&mut request);
    if !may_be_passed_on(request.uri().path()) {
        return error(StatusCode::NOT_FOUND, "Not found");
    }
    request.headers_mut().remove(&CLIENT_HEADER);
    // Without the parameters of this route, which the other router would take for its own.
    let mut extensions = std::mem::take(request.extensions_mut());
    let own = request.extensions_mut();
    own.insert(PassedOn(Arc::new(facts.into_peer())));
    if let Some(original) = extensions.remove::<OriginalTarget>() {
        own.insert(original);
    }
    if let Some(connect_info) = extensions.remove::<ConnectInfo>() {
        own.insert(connect_info);
    }
    if let Some(upgrade) = extensions.remove::<OnUpgrade>() {
        own.insert(upgrade);
    }
    node.routes.call(&node.shared, request).await
}
