//! `_native.Job`: one call of a hook, as Python gets it.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::oneshot;

use super::convert::{MetadataTuple, metadata_tuple, unix};
use super::turn::ice_servers;
use crate::access::hooks::HookError;
use crate::core::hub::Device;
use crate::core::peer::{KeptRequest, Peer, Request, Role};
use crate::protocol::IceServers;

/// The result of a hook.
pub(super) struct Settled {
    /// The result as JSON text; `None` for `ice_servers`.
    pub(super) json: Option<String>,
    /// For `ice_servers`: the servers.
    pub(super) servers: Option<IceServers>,
    /// For `authorize`: the patterns of the device ids that a grant covers.
    pub(super) devices: Option<Vec<String>>,
    /// For `authorize`: whether the peer may manage these devices on the dashboard.
    pub(super) manage: bool,
    /// For `authorize`: the rules for the addresses of the peer.
    pub(super) advertise: Option<Vec<String>>,
    /// For `authorize`: the seconds for which the grant holds.
    pub(super) valid_for: Option<f64>,
    /// For `authorize`: whether the peer has a device for itself.
    pub(super) exclusive: bool,
}

/// The outcome of a call.
pub(super) type Reply = Result<Settled, HookError>;

/// A call of a hook.
///
/// `settle`, `refuse` or `fail` completes it. Only the first of these calls has an effect.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Job {
    /// Identifies the job within its server.
    #[pyo3(get)]
    pub(super) key: u64,
    /// `authorize`, `ice_servers` or `filter_device_info`.
    #[pyo3(get)]
    pub(super) hook: &'static str,
    /// `device`, `client` or `http`.
    #[pyo3(get)]
    pub(super) role: &'static str,
    /// The id of the device, if it is known.
    #[pyo3(get)]
    pub(super) device_id: Option<String>,
    /// For the filter: the device info as JSON text.
    #[pyo3(get)]
    pub(super) info: Option<String>,
    /// For the filter: the device.
    pub(super) device: Option<Arc<Device>>,
    pub(super) peer: PeerFacts,
    pub(super) reply: Mutex<Option<oneshot::Sender<Reply>>>,
}

/// The facts about a peer that a hook gets.
pub(super) struct PeerFacts {
    pub(super) role: Role,
    pub(super) address: Option<SocketAddr>,
    pub(super) since: f64,
    /// Shared with the peer, and unpacked when a thread takes the call.
    pub(super) request: Option<Arc<KeptRequest>>,
    pub(super) certificate: Option<Arc<str>>,
    pub(super) identity: Option<Arc<str>>,
}

/// The arguments of Python's `Peer`: role, address, port, since, path, query, headers, certificate, identity as JSON.
type PeerTuple<'a> = (
    &'static str,
    Option<String>,
    Option<u16>,
    f64,
    String,
    String,
    Vec<(String, String)>,
    Option<&'a str>,
    Option<&'a str>,
);

#[pymethods]
impl Job {
    /// The peer for which the hook is called.
    #[getter]
    fn peer(&self) -> PeerTuple<'_> {
        let PeerFacts { role, address, since, request, certificate, identity } = &self.peer;
        let Request { path, query, headers } = request.as_deref().map(KeptRequest::unpack).unwrap_or_default();
        (
            role.as_str(),
            address.map(|address| address.ip().to_string()),
            address.map(|address| address.port()),
            *since,
            path,
            query,
            headers,
            certificate.as_deref(),
            identity.as_deref(),
        )
    }

    /// The metadata of the device: group, owner, name, adb port.
    #[getter]
    fn place(&self) -> MetadataTuple {
        self.device.as_deref().map(metadata_tuple).unwrap_or_default()
    }

    /// Whether the server still waits for the result.
    #[getter]
    fn wanted(&self) -> bool {
        self.reply.lock().as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// Completes the job with a result as JSON text, with the patterns of device ids that a grant covers, with whether the
    /// peer may manage these devices, with the rules for its addresses, with the seconds for which all that holds, and with
    /// whether it has a device for itself.
    #[pyo3(signature = (json, devices=None, manage=false, advertise=None, valid_for=None, exclusive=false))]
    fn settle(
        &self,
        json: Option<String>,
        devices: Option<Vec<String>>,
        manage: bool,
        advertise: Option<Vec<String>>,
        valid_for: Option<f64>,
        exclusive: bool,
    ) {
        self.answer(Ok(Settled { json, servers: None, devices, manage, advertise, valid_for, exclusive }));
    }

    /// Completes the job with the JSON text of ICE servers. Raises `ConfigError`, which names the entry, if it is not valid.
    fn settle_ice_servers(&self, py: Python<'_>, json: &str) -> PyResult<()> {
        let servers = Some(ice_servers(py, json)?);
        let (devices, manage, advertise, valid_for, exclusive) = (None, false, None, None, false);
        self.answer(Ok(Settled { json: None, servers, devices, manage, advertise, valid_for, exclusive }));
        Ok(())
    }

    /// Completes the job with a refusal. The peer gets `reason`, if there is one.
    fn refuse(&self, reason: Option<String>, status: u16) {
        self.answer(Err(HookError::Refused { reason, status }));
    }

    /// Completes the job with a failure.
    fn fail(&self) {
        self.answer(Err(HookError::Failed));
    }
}

impl Job {
    /// Describes the job as a call without an answer.
    pub(super) fn unanswered(&self) -> Unanswered {
        let peer = self.peer.address.map_or_else(|| "unknown address".to_owned(), |address| address.to_string());
        let device_id = self.device_id.clone();
        Unanswered { hook: self.hook, device_id, peer, deadline: None, key: self.key, not_called: None }
    }

    fn answer(&self, answer: Reply) {
        if let Some(reply) = self.reply.lock().take() {
            let _not_awaited = reply.send(answer);
        }
    }
}

impl PeerFacts {
    pub(super) fn of(peer: &Peer) -> Self {
        Self {
            role: peer.role,
            address: peer.address,
            since: unix(peer.since),
            request: peer.request.clone(),
            certificate: peer.certificate.clone(),
            identity: peer.grant.identity.clone(),
        }
    }
}

/// A hook call without an answer.
pub(super) struct Unanswered {
    pub(super) hook: &'static str,
    pub(super) device_id: Option<String>,
    pub(super) peer: String,
    /// The time that the hook had, in seconds; `None` if there was no room in the queue.
    pub(super) deadline: Option<f64>,
    /// The number of the call.
    pub(super) key: u64,
    /// Why the hook was not called; `None` if it was.
    pub(super) not_called: Option<String>,
}
