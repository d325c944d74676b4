//! The HTTP endpoints that list devices and ICE servers (docs/protocol.md 5.3.1 to 5.3.6).

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use serde_json::value::RawValue;

use super::auth::{Caller, denied};
use super::cluster_listing::{self, Facts};
use super::extract::PathId;
use super::listing::{DeviceEntry, Listings, counted};
use super::respond::{error, json, status_of};
use crate::access::hooks::HookError;
use crate::config::DevicesFormat;
use crate::core::hub::Device;
use crate::core::peer::{Peer, Role};
use crate::core::session::Answer;
use crate::protocol::{DeviceId, outbound};
use crate::server::resolver::{Resolved, ResolvedIce};
use crate::server::shared::Shared;

/// The query of `GET /devices`.
struct ListQuery<'a> {
    /// The shape of the answer.
    format: DevicesFormat,
    /// The group to list; empty for all.
    group: Cow<'a, str>,
    /// The owner whose devices to list; empty for all.
    owner: Cow<'a, str>,
    /// Whether the entries have numbers of clients.
    has_clients: bool,
}

impl<'a> ListQuery<'a> {
    /// Parses a query. An empty filter counts as absent, and an unknown format as the default.
    fn parse(text: &'a str, default: DevicesFormat) -> Self {
        let mut query = Self { format: default, group: Cow::default(), owner: Cow::default(), has_clients: false };
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match (&*key, &*value) {
                ("format", "ids") => query.format = DevicesFormat::Ids,
                ("format", "full") => query.format = DevicesFormat::Full,
                ("format", _) => query.format = default,
                ("groupId", _) => query.group = value,
                ("owner", _) => query.owner = value,
                ("clients", _) => query.has_clients = value == "true",
                _ => {}
            }
        }
        query
    }

    /// Whether the filters select all devices.
    fn is_all(&self) -> bool {
        self.owner.is_empty() && self.group.is_empty()
    }

    /// Whether the filters select a device.
    fn matches(&self, owner: &str, group: &str) -> bool {
        (self.owner.is_empty() || self.owner == owner) && (self.group.is_empty() || self.group == group)
    }
}

impl Shared {
    /// The group of a device, for a viewer that may see only a part of its device info.
    ///
    /// Where a hook filters device info, lists use the group of the pre-registration only.
    pub(in crate::server) fn group_of<'a>(&self, device: &'a Device) -> &'a str {
        if self.hooks.filters_device_info() { &device.metadata().group_name } else { device.group() }
    }
}

/// `GET /devices`: the devices that the caller may see, sorted by id (docs/protocol.md 5.3.2).
pub(in crate::server) async fn devices(
    State(shared): State<Arc<Shared>>,
    State(listings): State<Arc<Listings>>,
    request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    let peer = match caller.authorize(&shared).await {
        Ok(peer) => peer,
        Err(refused) => return refused,
    };
    let query = ListQuery::parse(&query, shared.settings().devices_format);
    if let Some(cluster) = &shared.cluster {
        let matches = |facts: &Facts<'_>| peer.grant.covers(facts.id) && query.matches(facts.owner, facts.group);
        let has_clients = query.has_clients && query.format == DevicesFormat::Full;
        let counts = if has_clients { Some(cluster_listing::client_counts(&shared, cluster).await) } else { None };
        let pieces = cluster_listing::list(&shared, cluster, query.format, counts.as_deref(), matches).await;
        return cluster_listing::with_age(cluster, json(StatusCode::OK, Body::new(pieces)));
    }
    if query.has_clients && query.format == DevicesFormat::Full {
        let selects = |device: &Device, group: &str| {
            peer.grant.covers(&device.id) && query.matches(&device.metadata().owner, group)
        };
        return json(StatusCode::OK, Body::new(counted(&shared, selects).await));
    }
    let listing = listings.current(&shared).await;
    let pieces = if peer.grant.devices.is_none() && query.is_all() {
        listing.all(query.format)
    } else {
        listing
            .only(query.format, |entry| peer.grant.covers(&entry.id) && query.matches(entry.owner(), entry.group()))
            .await
    };
    json(StatusCode::OK, Body::new(pieces))
}

/// `GET /devices/{id}`: one device, with its device info as the caller may see it (docs/protocol.md 5.3.6).
pub(in crate::server) async fn device(
    State(shared): State<Arc<Shared>>,
    PathId(id): PathId,
    request: Request,
) -> Response {
    let has_clients = ListQuery::parse(request.uri().query().unwrap_or_default(), DevicesFormat::Full).has_clients;
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    let peer = match caller.authorize(&shared).await {
        Ok(peer) => Arc::new(peer),
        Err(refused) => return refused,
    };
    let id = DeviceId::new(&id);
    let own = shared.cluster.as_ref().map(|cluster| cluster.incarnation.node());
    if let Some(device) = shared.hub.find(&id) {
        if peer.grant.covers(&device.id) {
            let clients = has_clients.then(|| device.client_count());
            return describe(&shared, &peer, &device, own, clients).await;
        }
        return error(StatusCode::NOT_FOUND, "Device not found");
    }
    let Some(cluster) = shared.cluster.as_ref().filter(|_| peer.grant.covers(&id)) else {
        return error(StatusCode::NOT_FOUND, "Device not found");
    };
    match cluster_listing::find(&shared, cluster, &id).await {
        Ok((device, node, clients)) => {
            describe(&shared, &peer, &Arc::new(device), Some(&node), clients.filter(|_| has_clients)).await
        }
        Err(refused) => refused,
    }
}

/// The answer with a device of a node, with its device info as the caller may see it.
async fn describe(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    device: &Arc<Device>,
    node: Option<&str>,
    clients: Option<usize>,
) -> Response {
    let answer = match shared.device_info_for(peer, device) {
        Resolved::Ready(answer) => answer,
        Resolved::Pending(answer) => answer.await,
    };
    let info = match &answer {
        Answer::DeviceInfo(info) => outbound::info_of(info),
        Answer::Refused(refusal) => return error(status_of(refusal), &refusal.text()),
        _ => "null",
    };
    // The group comes from the device info that this viewer sees.
    let group = device.metadata().group_of(info);
    let info = serde_json::from_str::<&RawValue>(info).ok();
    match serde_json::to_string(&DeviceEntry::of(device, &group, info).on(node).with_clients(clients)) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}

/// `GET /infra_config`: the `config` message for a client that has not named its device (docs/protocol.md 5.3.1).
pub(in crate::server) async fn infra_config(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    let peer = match caller.authorize(&shared).await {
        Ok(peer) => Arc::new(peer),
        Err(refused) => return refused,
    };
    let servers = match shared.ice_servers_for(&peer, Role::Client, None) {
        ResolvedIce::Ready(servers, _) => Ok(servers),
        ResolvedIce::Command(command) => Ok(Arc::clone(&shared).ice_servers_of(command).await.0),
        ResolvedIce::Failed => Err(HookError::Failed),
        ResolvedIce::Pending(call) => shared.wait_for_hook(call, &peer).await,
    };
    match servers {
        Ok(servers) => json(StatusCode::OK, servers.config().into_bytes()),
        Err(hook_error) => denied(&shared, hook_error, &peer),
    }
}
