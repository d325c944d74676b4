//! Faults: armed, counted and disarmed by programs. They stay until they are disarmed, or until a reset.

use std::sync::Arc;

use axum::extract::{Request, State};
use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use serde::{Deserialize, Serialize};

use super::Control;
use super::about::{Answer, answer, ok};
use super::body::Whole;
use super::problem::Problem;
use super::query::{Query, whole};
use super::{body, fault_body};
use crate::observe::faults::{FaultStats, RuleId};
use crate::observe::quoted::Quoted;
use crate::protocol::DeviceId;
use crate::server::cluster::view::RemoteDevice;
use crate::server::http::extract::PathId;

/// The counters of a fault.
#[derive(Serialize)]
pub(super) struct Tally {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<RuleId>,
    matched: u64,
    hits: u64,
    overran: u64,
}

impl Tally {
    fn of(id: Option<RuleId>, stats: FaultStats) -> Self {
        let FaultStats { matched, hits, overran } = stats;
        Self { id, matched, hits, overran }
    }
}

#[derive(Serialize)]
struct Armed {
    id: RuleId,
}

#[derive(Serialize)]
struct Listed {
    origin: &'static str,
    fault: fault_body::Fault,
    #[serde(flatten)]
    tally: Tally,
}

#[derive(Serialize)]
struct List {
    faults: Vec<Listed>,
}

#[derive(Serialize)]
pub(super) struct Disarmed {
    pub(super) disarmed: Vec<Tally>,
}

/// `POST /control/v1/faults`: arms a fault behind those that are armed.
pub(super) async fn arm(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let fault: fault_body::Fault = body::read(&control, request).await?;
    if let Some(device) = fault.device_here() {
        control.check_is_here(&device)?;
    }
    let rule = fault.rule()?;
    // Under the lock, so that a reset at the same time leaves no fault behind.
    let mut armed = control.armed.lock();
    let id = control.shared.relay.arm(rule);
    armed.insert(id);
    drop(armed);
    let mut response = answer(StatusCode::CREATED, &Armed { id })?;
    if let Ok(location) = HeaderValue::from_str(&format!("/control/v1/faults/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /control/v1/faults`: all that are armed, in the order in which they apply.
pub(super) async fn list(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    ok(&List { faults: control.listed() })
}

/// `GET /control/v1/faults/{id}`.
pub(super) async fn one(State(control): State<Arc<Control>>, PathId(id): PathId, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let id = id_of(&id)?;
    let found = control.listed().into_iter().find(|fault| fault.tally.id == Some(id));
    found.map_or_else(|| Err(not_armed()), |fault| ok(&fault))
}

/// `DELETE /control/v1/faults/{id}`: disarms a fault, and relays the forwards that it holds.
pub(super) async fn disarm(State(control): State<Arc<Control>>, PathId(id): PathId, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let id = id_of(&id)?;
    control.armed.lock().remove(&id);
    let stats = control.shared.relay.disarm(id, control.shared.clock.now());
    stats.map_or_else(|| Err(not_armed()), |stats| ok(&Tally::of(None, stats)))
}

/// `DELETE /control/v1/faults`: disarms all that requests have armed.
pub(super) async fn disarm_all(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    ok(&Disarmed { disarmed: control.disarm_all() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    seed: Whole,
}

/// `PUT /control/v1/faults/seed`.
pub(super) async fn seed(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let Seed { seed: Whole(seed) } = body::read(&control, request).await?;
    control.shared.relay.set_seed(seed);
    ok(&serde_json::json!({}))
}

impl Control {
    /// Refuses a fault for a device of another node: forwards pass the faults of the node that has the device.
    fn check_is_here(&self, id: &DeviceId) -> Result<(), Problem> {
        let Some(cluster) = self.shared.cluster.as_ref().filter(|_| self.shared.hub.find(id).is_none()) else {
            return Ok(());
        };
        let Some(RemoteDevice { node, .. }) = cluster.remote_device(id) else { return Ok(()) };
        let (device, on) = (Quoted(id.as_str()), Quoted(&node));
        let error = format!(
            "Device {device} is on node {on}, and faults act on the node of the device: arm it there, or send \
             \"absent_ok\": true for a device that registers here later"
        );
        Err(Problem::new(StatusCode::CONFLICT, "other_node", error).with("node", node))
    }

    fn listed(&self) -> Vec<Listed> {
        let armed = self.armed.lock();
        let all = self.shared.relay.faults().into_iter();
        all.map(|(id, rule, stats)| {
            let origin = if armed.contains(&id) { "api" } else { "process" };
            Listed { origin, fault: fault_body::Fault::of(&rule), tally: Tally::of(Some(id), stats) }
        })
        .collect()
    }

    /// Disarms the faults that requests have armed, the last one first.
    pub(super) fn disarm_all(&self) -> Vec<Tally> {
        let mut armed = self.armed.lock();
        let ids = std::mem::take(&mut *armed).into_iter().rev();
        let now = self.shared.clock.now();
        ids.filter_map(|id| Some(Tally::of(Some(id), self.shared.relay.disarm(id, now)?))).collect()
    }
}

/// The number of a fault.
fn id_of(text: &str) -> Result<RuleId, Problem> {
    whole(text).ok_or_else(|| Problem::bad_request("/id", "must be the number of a fault"))
}

fn not_armed() -> Problem {
    Problem::not_found("There is no such fault: it was disarmed, or the server was restarted")
}
