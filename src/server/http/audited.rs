//! The records of requests in the audit log: those that were refused, and those that changed something.

use std::net::SocketAddr;

use axum::response::Response;
use hyper::{Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::access_log::shown_path;
use super::respond::{ErrorBody, PassedOn};
use crate::access::origin_policy::Scheme;
use crate::core::peer::Peer;
use crate::observe::audit::{AuditRecord, Outcome};
use crate::protocol::{ClientId, DeviceId};
use crate::server::audit_log::of_peer;
use crate::server::connect_info::ConnectInfo;
use crate::server::shared::Shared;

/// The path below which all requests of the control API are.
const CONTROL: &str = "/control/v1/";

/// A mark in the extensions of a refusal that has its record already.
#[derive(Clone, Copy)]
pub(in crate::server) struct Recorded;

/// Marks a refusal that has its record already.
pub(in crate::server) fn recorded(mut refusal: Response) -> Response {
    refusal.extensions_mut().insert(Recorded);
    refusal
}

/// The text of a refusal that has no [`ErrorBody`], in the extensions of its response.
#[derive(Clone)]
pub(in crate::server) struct Reason(pub(in crate::server) String);

impl Reason {
    /// Reads the text of the body of an error.
    pub(in crate::server) fn of(body: &str) -> Option<Self> {
        let body: Value = serde_json::from_str(body).ok()?;
        body.get("error").and_then(Value::as_str).map(|text| Self(text.to_owned()))
    }
}

/// The parts of a request that a record has. `None` without an audit log, and for requests without a record.
#[derive(Default)]
pub(in crate::server) struct Place(Option<Parts>);

struct Parts {
    address: Option<SocketAddr>,
    scheme: Option<Scheme>,
    method: Method,
    path: String,
}

impl Place {
    /// Notes a request.
    pub(in crate::server) fn of<B>(
        shared: &Shared,
        request: &Request<B>,
        address: Option<SocketAddr>,
        connect_info: Option<&ConnectInfo>,
    ) -> Self {
        if shared.audit.is_none() {
            return Self(None);
        }
        let (method, path) = (request.method().clone(), shown_path(request.uri().path()).to_owned());
        Self(Some(Parts { address, scheme: connect_info.map(|info| info.scheme), method, path }))
    }

    /// Adds the record of the decision of `authorize`. `refusal` is the response that refuses the request.
    pub(in crate::server) fn decided(&self, shared: &Shared, peer: &Peer, refusal: Option<&Response>) {
        let Self(Some(parts)) = self else { return };
        let outcome = if refusal.is_some() { Outcome::Refused } else { Outcome::Admitted };
        let (reason, status) = (refusal.and_then(reason_of), refusal.map(|response| response.status().as_u16()));
        let (path, scheme) = (Some(&*parts.path), parts.scheme.map(scheme_name));
        shared.audit(|| AuditRecord { path, scheme, status, reason: reason.as_deref(), ..of_peer(outcome, peer) });
    }

    /// Adds the record of a refusal that `authorize` has not made: by a limit, a rate, the origin policy or a missing
    /// right.
    pub(in crate::server) fn answered(&self, shared: &Shared, response: &Response) {
        let Self(Some(parts)) = self else { return };
        let (extensions, status) = (response.extensions(), response.status());
        let is_other = extensions.get::<Recorded>().is_some() || extensions.get::<PassedOn>().is_some();
        if is_other || !is_refusal(status) || matches!(&*parts.path, "/healthz" | "/readyz") {
            return;
        }
        let (status, reason) = (Some(status.as_u16()), reason_of(response));
        shared.audit(|| AuditRecord { status, reason: reason.as_deref(), ..parts.record(Outcome::Refused) });
    }

    /// Adds the record of a request to the control API, if it was refused, or was to change something.
    pub(in crate::server) fn controlled(&self, shared: &Shared, response: &Response) {
        if is_refusal(response.status()) {
            return self.answered(shared, response);
        }
        let Self(Some(parts)) = self else { return };
        let rest = parts.path.strip_prefix(CONTROL).unwrap_or(&parts.path);
        let is_reading = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        if is_reading || rest == "journal/expect" {
            return;
        }
        let (device, client) = match rest.strip_prefix("devices/").map(|rest| rest.rsplit_once("/clients/")) {
            Some(Some((device, client))) => (Some(device), client.parse().ok()),
            _ => (rest.strip_prefix("devices/"), None),
        };
        let device = device.map(|part| percent_decode_str(part).decode_utf8_lossy());
        let action = if device.is_some() { "disconnect".to_owned() } else { format!("{} {rest}", parts.method) };
        let reason = reason_of(response);
        shared.audit(|| AuditRecord {
            device_id: device.as_deref(),
            client_id: client,
            action: Some(&action),
            status: Some(response.status().as_u16()),
            reason: reason.as_deref(),
            ..parts.record(Outcome::Managed)
        });
    }
}

impl Parts {
    fn record(&self, outcome: Outcome) -> AuditRecord<'_> {
        let (path, scheme) = (Some(&*self.path), self.scheme.map(scheme_name));
        AuditRecord { address: self.address, path, scheme, ..AuditRecord::new(outcome) }
    }
}

/// Adds the record of an action of a viewer of the dashboard.
pub(in crate::server) fn managed(
    shared: &Shared,
    viewer: &Peer,
    action: &str,
    device: &DeviceId,
    client: Option<ClientId>,
) {
    let (device_id, client_id) = (Some(device.as_str()), client.map(ClientId::get));
    shared.audit(|| AuditRecord { device_id, client_id, action: Some(action), ..of_peer(Outcome::Managed, viewer) });
}

/// Whether a status refuses a request, rather than tells of a mistake in it.
fn is_refusal(status: StatusCode) -> bool {
    let refusals = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ];
    refusals.contains(&status)
}

fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    }
}

/// The text of an error response.
fn reason_of(response: &Response) -> Option<String> {
    let (known, body) = (response.extensions().get::<Reason>(), response.extensions().get::<ErrorBody>());
    let reason = known.cloned().or_else(|| body.and_then(|ErrorBody(body)| Reason::of(body.as_str())));
    reason.map(|Reason(text)| text)
}
