//! Hooks written in Python. Each call becomes a [`Job`] in a queue.
//!
//! A Python thread takes the job, calls the user's function and settles the job with the result.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::oneshot;

use super::convert::{MetadataTuple, metadata_tuple, unix};
use super::event_queue::{EventQueue, Queue};
use crate::access::hooks::{AuthorizeRequest, HookError, HookFuture, Hooks, IceQuestion};
use crate::core::hub::Device;
use crate::core::peer::{Grant, Peer, Request, Role};
use crate::protocol::{IceServers, outbound};

/// The hooks that the user has given.
pub(super) struct Hooked {
    pub(super) authorize: bool,
    pub(super) filter_device_info: bool,
    /// Changes at run time: `set_ice_servers`.
    pub(super) ice_servers: AtomicBool,
}

/// The hooks of one server, on the side of Rust.
pub(super) struct PyHooks {
    pub(super) hooked: Hooked,
    pub(super) jobs: Arc<Queue<Job>>,
    pub(super) events: Arc<EventQueue>,
    pub(super) last_key: AtomicU64,
}

/// The result as JSON text; for `authorize` also the patterns of the device ids that a grant covers.
type Reply = Result<(Option<String>, Option<Vec<String>>), HookError>;

/// A call of a hook.
///
/// `settle`, `refuse` or `fail` completes it. Only the first of these calls has an effect.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Job {
    /// Identifies the job within its server.
    #[pyo3(get)]
    key: u64,
    /// `authorize`, `ice_servers` or `filter_device_info`.
    #[pyo3(get)]
    hook: &'static str,
    /// `device`, `client` or `http`.
    #[pyo3(get)]
    role: &'static str,
    /// The id of the device, if it is known.
    #[pyo3(get)]
    device_id: Option<String>,
    /// For the filter: the device info as JSON text.
    #[pyo3(get)]
    info: Option<String>,
    /// For the filter: the device.
    device: Option<Arc<Device>>,
    peer: PeerFacts,
    reply: Mutex<Option<oneshot::Sender<Reply>>>,
}

struct PeerFacts {
    role: Role,
    address: Option<SocketAddr>,
    since: f64,
    request: Request,
    certificate: Option<Arc<str>>,
    identity: Option<Arc<str>>,
}

/// The arguments of Python's `Peer`: role, address, port, since, path, query, headers, certificate, identity as JSON.
type PeerTuple<'a> = (
    &'static str,
    Option<String>,
    Option<u16>,
    f64,
    &'a str,
    &'a str,
    &'a [(String, String)],
    Option<&'a str>,
    Option<&'a str>,
);

#[pymethods]
impl Job {
    /// The peer for which the hook is called.
    #[getter]
    fn peer(&self) -> PeerTuple<'_> {
        let PeerFacts { role, address, since, request, certificate, identity } = &self.peer;
        (
            role.as_str(),
            address.map(|address| address.ip().to_string()),
            address.map(|address| address.port()),
            *since,
            &request.path,
            &request.query,
            &request.headers,
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

    /// Completes the job with a result as JSON text, and with the patterns of device ids that a grant covers.
    #[pyo3(signature = (json, devices=None))]
    fn settle(&self, json: Option<String>, devices: Option<Vec<String>>) {
        self.answer(Ok((json, devices)));
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
    fn answer(&self, answer: Reply) {
        if let Some(reply) = self.reply.lock().take() {
            let _not_awaited = reply.send(answer);
        }
    }
}

impl PeerFacts {
    fn of(peer: &Peer) -> Self {
        Self {
            role: peer.role,
            address: peer.address,
            since: unix(peer.since),
            request: peer.request.as_deref().cloned().unwrap_or_default(),
            certificate: peer.certificate.clone(),
            identity: peer.grant.identity.clone(),
        }
    }
}

/// Waits for the result of a job. Drop before the result tells Python, so that it cancels the coroutine.
struct Wait {
    key: u64,
    events: Arc<EventQueue>,
    answer: oneshot::Receiver<Reply>,
    answered: bool,
}

impl Wait {
    async fn reply(mut self) -> Reply {
        let answer = (&mut self.answer).await;
        self.answered = true;
        answer.unwrap_or(Err(HookError::Failed))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if !self.answered {
            self.events.push(|batch| batch.abandoned.push(self.key));
        }
    }
}

impl PyHooks {
    fn ask(
        &self,
        hook: &'static str,
        peer: PeerFacts,
        role: Role,
        device_id: Option<String>,
        device: Option<&Arc<Device>>,
    ) -> Wait {
        let key = self.last_key.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let reply = Mutex::new(Some(reply));
        let info = device.map(|device| outbound::info_of(&device.info).to_owned());
        let device = device.cloned();
        // A closed queue drops the job, so that the wait fails at once.
        self.jobs.put(Job { key, hook, role: role.as_str(), device_id, info, device, peer, reply });
        Wait { key, events: Arc::clone(&self.events), answer, answered: false }
    }
}

impl Hooks for PyHooks {
    fn wants_requests(&self) -> bool {
        let Hooked { authorize, filter_device_info, ice_servers } = &self.hooked;
        *authorize || *filter_device_info || ice_servers.load(Ordering::Relaxed)
    }

    fn authenticates(&self) -> bool {
        self.hooked.authorize
    }

    fn filters_device_info(&self) -> bool {
        self.hooked.filter_device_info
    }

    fn authorize(&self, request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        if !self.hooked.authorize {
            return None;
        }
        let peer = PeerFacts {
            role: request.role,
            address: request.address,
            since: unix(std::time::SystemTime::now()),
            request: request.request.clone(),
            certificate: request.certificate.clone(),
            identity: None,
        };
        let wait = self.ask("authorize", peer, request.role, None, None);
        Some(Box::pin(async move {
            let (identity, devices) = wait.reply().await?;
            let identity = identity.map(Arc::from);
            Ok(match devices {
                Some(patterns) => Grant::of(identity, &patterns),
                None => Grant { identity, devices: None },
            })
        }))
    }

    fn ice_servers(&self, question: &IceQuestion) -> Option<HookFuture<IceServers>> {
        let device_id = question.device_id.as_ref().map(ToString::to_string);
        let wait = self.ask("ice_servers", PeerFacts::of(&question.peer), question.role, device_id, None);
        Some(Box::pin(async move {
            let json = wait.reply().await?.0.unwrap_or_default();
            // Python has validated the list, and has reported an error to the user.
            IceServers::from_json(&json).map_err(|_| HookError::Failed)
        }))
    }

    fn filter_device_info(&self, device: &Arc<Device>, client: &Arc<Peer>) -> Option<HookFuture<String>> {
        if !self.hooked.filter_device_info {
            return None;
        }
        let device_id = Some(device.id.to_string());
        let wait = self.ask("filter_device_info", PeerFacts::of(client), client.role, device_id, Some(device));
        Some(Box::pin(async move { Ok(wait.reply().await?.0.unwrap_or_default()) }))
    }

    fn timed_out(&self, hook: &'static str, peer: &str, deadline: Duration) {
        let timeout = (hook, peer.to_owned(), deadline.as_secs_f64());
        self.events.push(|batch| batch.timeouts.push(timeout));
    }
}
