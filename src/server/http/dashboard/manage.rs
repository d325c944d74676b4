//! Requests of viewers that may manage peers: to disconnect one, and to export payloads.
//!
//! Both pass the origin policy and `authorize` as every request does, and need the right to manage
//! ([`may_manage`]). A device outside of the viewer's grant is answered as one that is not registered.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};

use super::about::may_manage;
use super::cassette;
use crate::core::device::Found;
use crate::core::peer::{Peer, Role};
use crate::observe::incidents::Incident;
use crate::observe::quoted::Quoted;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, DeviceId};
use crate::server::http::audited::managed;
use crate::server::http::auth::Caller;
use crate::server::http::respond::{error, json};
use crate::server::shared::Shared;

/// The refusal of a viewer without the right.
const NOT_GRANTED: &str =
    "Not authorized: it takes a Grant with manage=True, or, on a server without authorize, a browser on its machine";

/// Adds the routes, if the settings enable the dashboard.
pub(in crate::server) fn add_to<S>(router: Router<S>, dashboard: bool) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Shared>: FromRef<S>,
{
    if !dashboard {
        return router;
    }
    router.route("/dashboard/disconnect", post(disconnect)).route("/dashboard/cassette", get(export))
}

/// The peer that a query names.
struct Target {
    /// The device.
    device: DeviceId,
    /// The client of the device; `None` for the device itself.
    client: Option<ClientId>,
}

impl Target {
    /// Parses a query. Only what is understood as a whole is done.
    fn parse(query: &str) -> Result<Self, &'static str> {
        let (mut device, mut client) = (None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let field: &mut Option<Cow<'_, str>> = match &*key {
                "device" => &mut device,
                "client" => &mut client,
                _ => return Err("The query may have device and client only"),
            };
            if field.replace(value).is_some() {
                return Err("The query has a field twice");
            }
        }
        let device = device.filter(|id| !id.is_empty()).ok_or("The query needs a device: ?device=ID")?;
        let client = match client {
            Some(id) => Some(id.parse().ok().and_then(ClientId::new).ok_or("client must be a client id")?),
            None => None,
        };
        Ok(Self { device: DeviceId::new(&device), client })
    }
}

/// `POST /dashboard/disconnect?device=ID&client=N`: ends the connection of a device, or of one of its clients.
async fn disconnect(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (viewer, Target { device: id, client }) = match admit(&shared, request).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let Some(device) = shared.hub.find(&id).filter(|device| viewer.grant.covers(&device.id)) else {
        return disconnect_elsewhere(&shared, &viewer, id, client).await;
    };
    let name = Quoted(id.as_str());
    match client.map(|client| (client, device.find(client))) {
        None => {
            tracing::info!(
                event = "dashboard_disconnects",
                device_id = id.as_str(),
                peer = %viewer,
                "the dashboard of {viewer} disconnects device {name}"
            );
            managed(&shared, &viewer, "disconnect", &id, None);
            device.outbox.refuse(&Refusal::EndedByOperator);
        }
        Some((number, Found::Here(client))) => {
            tracing::info!(
                event = "dashboard_disconnects",
                device_id = id.as_str(),
                client_id = number.get(),
                peer = %viewer,
                "the dashboard of {viewer} disconnects client {number} of device {name}"
            );
            managed(&shared, &viewer, "disconnect", &id, Some(number));
            client.outbox.refuse(&Refusal::EndedByOperator);
        }
        Some((_, Found::Left | Found::Never)) => return error(StatusCode::NOT_FOUND, "Client not found"),
    }
    json(StatusCode::OK, r#""ok""#)
}

/// Ends the connection of a device of another node, or of one of its clients.
async fn disconnect_elsewhere(shared: &Shared, viewer: &Peer, id: DeviceId, client: Option<ClientId>) -> Response {
    let cluster = shared.cluster.as_ref().filter(|_| viewer.grant.covers(&id) && shared.hub.find(&id).is_none());
    let Some(cluster) = cluster else { return error(StatusCode::NOT_FOUND, "Device not found") };
    tracing::info!(
        event = "dashboard_disconnects",
        device_id = id.as_str(),
        peer = %viewer,
        "the dashboard of {viewer} disconnects device {}, or a client of it, on another node",
        Quoted(id.as_str())
    );
    managed(shared, viewer, "disconnect", &id, client);
    let below = client.map(|client| format!("/clients/{client}")).unwrap_or_default();
    let missing = if client.is_some() { "Client not found" } else { "Device not found" };
    match cluster.ask(id, Method::DELETE, below).await {
        Ok(Some(_)) => json(StatusCode::OK, r#""ok""#),
        Ok(None) => error(StatusCode::NOT_FOUND, missing),
        Err(unreachable) => error(StatusCode::GATEWAY_TIMEOUT, &format!("It may have been done: {unreachable}")),
    }
}

/// `GET /dashboard/cassette?device=ID`: the payloads since the last registration of a device.
async fn export(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (viewer, Target { device, client }) = match admit(&shared, request).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    if client.is_some() {
        return error(StatusCode::BAD_REQUEST, "A cassette has all clients of its device");
    }
    let device = shared.hub.resolve(&device);
    let Some(journal) = shared.relay.journal() else {
        return error(StatusCode::NOT_FOUND, "The journal is off: --journal (journal=True) turns it on");
    };
    if !viewer.grant.covers(&device) {
        return error(StatusCode::NOT_FOUND, cassette::NO_REGISTRATION);
    }
    let Some(pieces) = cassette::of(journal, &device).await else {
        return error(StatusCode::NOT_FOUND, cassette::NO_REGISTRATION);
    };
    tracing::info!(
        event = "dashboard_exports",
        device_id = device.as_str(),
        peer = %viewer,
        "the dashboard of {viewer} exports the payloads of device {}",
        Quoted(device.as_str())
    );
    managed(&shared, &viewer, "export", &device, None);
    let mut response = Response::new(Body::new(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"cassette.jsonl\""));
    response
}

/// Admits a request: its site, its sender, and its query.
async fn admit(shared: &Arc<Shared>, request: Request) -> Result<(Peer, Target), Response> {
    if !is_of_own_site(request.headers()) {
        shared.incidents.count(Incident::Foreign);
        return Err(error(StatusCode::FORBIDDEN, "Only the dashboard of this server may do this"));
    }
    let target = Target::parse(request.uri().query().unwrap_or_default());
    let caller = Caller::of(shared, Role::Http, &request);
    drop(request);
    let viewer = caller.authorize(shared).await?;
    if !may_manage(shared, &viewer) {
        shared.incidents.count(Incident::Unauthorized);
        return Err(error(StatusCode::FORBIDDEN, NOT_GRANTED));
    }
    target.map(|target| (viewer, target)).map_err(|why| error(StatusCode::BAD_REQUEST, why))
}

/// Whether a browser says that the page of the request is of this server. Programs other than browsers say nothing.
///
/// The origin policy has refused pages of other sites already, except those that `allowed_origins` lists: they may
/// signal, but not manage.
fn is_of_own_site(headers: &HeaderMap) -> bool {
    headers.get_all("sec-fetch-site").iter().all(|site| site.as_bytes().eq_ignore_ascii_case(b"same-origin"))
}
