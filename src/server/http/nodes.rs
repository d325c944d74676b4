//! `GET /nodes`: the nodes of the cluster (docs/protocol.md 5.3.20).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use serde::Serialize;

use super::auth::Caller;
use super::respond::{error, json};
use crate::core::peer::Role;
use crate::observe::incidents::Incident;
use crate::server::cluster::view::NodeView;
use crate::server::shared::Shared;

/// The answer to a caller that may see some devices only.
const LIMITED: &str = "Not authorized: the nodes are those of all devices";

/// An entry of the list.
#[derive(Serialize)]
struct NodeEntry<'a> {
    name: &'a str,
    incarnation: &'a str,
    address: &'a str,
    state: &'static str,
    build: &'a str,
    devices: usize,
}

impl<'a> NodeEntry<'a> {
    fn of(node: &'a NodeView) -> Self {
        let NodeView { name, incarnation, address, state, build, devices } = node;
        Self { name, incarnation, address, state: state.as_str(), build, devices: *devices }
    }
}

/// The list, sorted by name; empty without a cluster.
pub(in crate::server) async fn nodes(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    match caller.authorize(&shared).await {
        Ok(peer) if peer.grant.devices.is_some() => {
            shared.incidents.count(Incident::Unauthorized);
            return error(StatusCode::FORBIDDEN, LIMITED);
        }
        Ok(_) => {}
        Err(refused) => return refused,
    }
    let nodes = shared.cluster.as_ref().map(|cluster| cluster.nodes()).unwrap_or_default();
    match serde_json::to_string(&nodes.iter().map(NodeEntry::of).collect::<Vec<_>>()) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}
