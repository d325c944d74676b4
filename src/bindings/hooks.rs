//! Hooks that Python answers: each question becomes a [`Job`] in a queue, which a thread of Python's takes, answers
//! with the user's function, and settles.

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

/// Which hooks there are.
pub(super) struct Hooked {
    pub(super) authorize: bool,
    pub(super) filter_device_info: bool,
    /// This one can come and go: `set_ice_servers`.
    pub(super) ice_servers: AtomicBool,
}

/// The Rust side of the hooks of one server.
pub(super) struct PyHooks {
    pub(super) hooked: Hooked,
    pub(super) jobs: Arc<Queue<Job>>,
    pub(super) events: Arc<EventQueue>,
    pub(super) last_key: AtomicU64,
}

/// JSON text, and for `authorize` the patterns of device ids it is for.
type Reply = Result<(Option<String>, Option<Vec<String>>), HookError>;

/// A question to a hook.
///
/// `settle`, `refuse` or `fail` answer it; the first counts.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Job {
    /// Tells jobs apart.
    #[pyo3(get)]
    key: u64,
    /// `authorize`, `ice_servers` or `filter_device_info`.
    #[pyo3(get)]
    hook: &'static str,
    /// `device`, `client` or `http`.
    #[pyo3(get)]
    role: &'static str,
    /// The device concerned, if it is known.
    #[pyo3(get)]
    device_id: Option<String>,
    /// The JSON text of its device info, for the filter.
    #[pyo3(get)]
    info: Option<String>,
    /// What is said of the device, for the filter.
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

/// A peer as Python's `Peer` takes it: role, address, port, since, path, query, headers, certificate, identity as JSON.
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
    /// The peer it is about.
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

    /// What is said of the device: group, owner, name, adb port.
    #[getter]
    fn place(&self) -> MetadataTuple {
        self.device.as_deref().map(metadata_tuple).unwrap_or_default()
    }

    /// Whether anybody still waits for the answer.
    #[getter]
    fn wanted(&self) -> bool {
        self.reply.lock().as_ref().is_some_and(|reply| !reply.is_closed())
    }

    /// The answer, as JSON text; where it is for some devices only, with the patterns of their ids.
    #[pyo3(signature = (json, devices=None))]
    fn settle(&self, json: Option<String>, devices: Option<Vec<String>>) {
        self.answer(Ok((json, devices)));
    }

    /// A no, in public words or in none.
    fn refuse(&self, reason: Option<String>, status: u16) {
        self.answer(Err(HookError::Refused { reason, status }));
    }

    /// There is no answer to be had.
    fn fail(&self) {
        self.answer(Err(HookError::Failed));
    }
}

impl Job {
    fn answer(&self, answer: Reply) {
        if let Some(reply) = self.reply.lock().take() {
            let _nobody_waits = reply.send(answer);
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

/// Tells Python when an answer is no longer waited for, so that a coroutine does not run on for nobody.
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
        // Where the queue is closed the job is dropped, and the wait fails at once.
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
            // Python has checked it, and told the user what was wrong.
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
