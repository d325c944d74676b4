//! The ICE servers that peers are told.

use std::sync::Arc;

use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Control;
use super::about::{Answer, ok};
use super::body;
use super::problem::Problem;
use super::query::Query;
use crate::config::IceSource;
use crate::protocol::IceServers;

#[derive(Deserialize)]
struct Config<'a> {
    #[serde(borrow)]
    ice_servers: &'a RawValue,
}

#[derive(Serialize)]
struct Source<'a> {
    source: &'static str,
    ice_servers: Option<&'a RawValue>,
}

/// `GET /control/v1/ice_servers`: where they come from, and a fixed list itself.
pub(super) async fn read(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let source = control.shared.ice.read().clone();
    let name = match &source {
        IceSource::Fixed(_) => "fixed",
        IceSource::TurnRest(_) => "turn_rest",
        IceSource::Command(_) => "command",
        IceSource::Hook => "hook",
    };
    let message = if let IceSource::Fixed(servers) = &source { Some(servers.config()) } else { None };
    let config = message.as_ref().and_then(|text| serde_json::from_str::<Config<'_>>(text.as_str()).ok());
    ok(&Source { source: name, ice_servers: config.map(|config| config.ice_servers) })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    ice_servers: Box<RawValue>,
}

/// `PUT /control/v1/ice_servers`: replaces them by a fixed list. In a cluster, all nodes get it.
pub(super) async fn set(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let Wanted { ice_servers } = body::read(&control, request).await?;
    let servers = IceServers::from_json(ice_servers.get())
        .map_err(|error| Problem::bad_request(&format!("$.{}", error.place), error.what))?;
    control.shared.replace_ice_servers(IceSource::Fixed(servers));
    ok(&serde_json::json!({}))
}
