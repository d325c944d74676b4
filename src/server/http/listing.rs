//! Who is there, for whoever asks by HTTP (PROTOCOL.md 5.3).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Caller, InPath, denied, error, json, status_of};
use crate::hooks::HookError;
use crate::hub::Device;
use crate::peer::Role;
use crate::protocol::{DeviceId, outbound};
use crate::server::Shared;
use crate::server::answers::{Asked, Ice};
use crate::session::Answer;

/// One entry of `GET /devices`.
#[derive(Serialize)]
struct Listed<'a> {
    device_id: &'a str,
    group_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    owner: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    adb_port: u16,
    /// Of `GET /devices/{id}` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_info: Option<&'a RawValue>,
}

impl<'a> Listed<'a> {
    fn of(device: &'a Device, registration_info: Option<&'a RawValue>) -> Self {
        let place = device.place();
        Self {
            device_id: device.id.as_str(),
            group_name: &place.group_name,
            owner: &place.owner,
            name: &place.name,
            adb_port: place.adb_port,
            registration_info,
        }
    }
}

/// `GET /devices`: those that the caller may see, by id.
pub(super) async fn devices(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    let peer = match caller.authorize(&shared).await {
        Ok(peer) => peer,
        Err(refused) => return refused,
    };
    let (mut ids_only, mut group, mut owner) = (false, None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "format" => ids_only = value == "ids",
            "groupId" => group = Some(value),
            "owner" => owner = Some(value),
            _ => {}
        }
    }
    let devices = shared.hub.devices();
    let listed: Vec<_> = devices
        .iter()
        .filter(|device| peer.grant.covers(&device.id))
        .map(|device| Listed::of(device, None))
        .filter(|listed| group.as_ref().is_none_or(|group| group == listed.group_name))
        .filter(|listed| owner.as_ref().is_none_or(|owner| owner == listed.owner))
        .collect();
    let body = if ids_only {
        serde_json::to_string(&listed.iter().map(|listed| listed.device_id).collect::<Vec<_>>())
    } else {
        serde_json::to_string(&listed)
    };
    json(StatusCode::OK, body.unwrap_or_else(|_| "[]".into()))
}

/// `GET /devices/{id}`: one of them, with its device info as the caller may see it.
pub(super) async fn device(State(shared): State<Arc<Shared>>, InPath(id): InPath, request: Request) -> Response {
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    let peer = match caller.authorize(&shared).await {
        Ok(peer) => Arc::new(peer),
        Err(refused) => return refused,
    };
    let id = DeviceId::new(&id);
    let Some(device) = shared.hub.device(&id).filter(|_| peer.grant.covers(&id)) else {
        return error(StatusCode::NOT_FOUND, "Device not found");
    };
    let answer = match shared.device_info_for(&peer, &device) {
        Asked::Now(answer) => answer,
        Asked::Later(answer) => answer.await,
    };
    let info = match &answer {
        Answer::DeviceInfo(info) => outbound::info_of(info),
        Answer::Refused(refusal) => return error(status_of(refusal), &refusal.text()),
        _ => "null",
    };
    let info = serde_json::from_str::<&RawValue>(info).ok();
    match serde_json::to_string(&Listed::of(&device, info)) {
        Ok(body) => json(StatusCode::OK, body),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
    }
}

/// `GET /infra_config`: the `config` message, as a client would get it that has not said its device yet.
pub(super) async fn infra_config(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let caller = Caller::of(&shared, Role::Http, &request);
    drop(request);
    let peer = match caller.authorize(&shared).await {
        Ok(peer) => Arc::new(peer),
        Err(refused) => return refused,
    };
    let servers = match shared.ice_servers_for(&peer, Role::Client, None) {
        Ice::Now(servers, _) => Ok(servers),
        Ice::Failed => Err(HookError::Failed),
        Ice::Later(decision) => shared.wait_for_hook("ice_servers", &peer.to_string(), decision).await,
    };
    match servers {
        Ok(servers) => json(StatusCode::OK, servers.config().as_str().into()),
        Err(no) => denied(no, &peer),
    }
}
