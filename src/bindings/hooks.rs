//! Hooks written in Python. Each call becomes a [`Job`] in the event queue.
//!
//! A Python thread takes the job, calls the user's function and settles the job with the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::convert::unix;
use super::event_queue::{Added, EventQueue};
use super::job::{Job, PeerFacts, Reply, Settled, Unanswered};
use super::program::ProgramRequest;
use crate::access::hooks::{AuthorizeRequest, HookError, HookFuture, Hooks, IceQuestion, ProgramAnswer};
use crate::core::hub::Device;
use crate::core::peer::{Grant, Peer, Role};
use crate::protocol::candidates::AddressRules;
use crate::protocol::{IceServers, outbound};

/// The hooks that the user has given. They change at run time: `set_authorize` and its like.
pub(super) struct Hooked {
    pub(super) authorize: AtomicBool,
    pub(super) filter_device_info: AtomicBool,
    pub(super) ice_servers: AtomicBool,
}

impl Hooked {
    pub(super) fn new(names: &[String]) -> Self {
        let has = |name: &str| AtomicBool::new(names.iter().any(|hook| hook == name));
        Self {
            authorize: has("authorize"),
            filter_device_info: has("filter_device_info"),
            ice_servers: has("ice_servers"),
        }
    }
}

/// The hooks of one server, on the side of Rust.
pub(super) struct PyHooks {
    pub(super) hooked: Hooked,
    pub(super) events: Arc<EventQueue>,
    pub(super) last_key: AtomicU64,
}

/// Waits for the result of a job. A drop before the result takes the job out of the queue, or tells Python to cancel the
/// coroutine.
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
            // First: Python looks whether the job is wanted after it has stored the coroutine.
            self.answer.close();
            self.events.abandon(self.key);
        }
    }
}

/// A result that is not known yet.
type Pending = HookFuture<Settled>;

impl PyHooks {
    fn ask(
        &self,
        hook: &'static str,
        peer: PeerFacts,
        role: Role,
        device_id: Option<String>,
        device: Option<&Arc<Device>>,
    ) -> Pending {
        let key = self.last_key.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let reply = Mutex::new(Some(reply));
        let info = device.map(|device| outbound::info_of(&device.info).to_owned());
        let device = device.cloned();
        let job = Job { key, hook, role: role.as_str(), device_id, info, device, peer, reply };
        match self.events.add_call(job) {
            Added::Waits => {
                let wait = Wait { key, events: Arc::clone(&self.events), answer, answered: false };
                HookFuture::new(wait.reply()).numbered(key)
            }
            Added::Full => HookFuture::new(async { Err(HookError::NotCalled) }),
            Added::Closed => HookFuture::new(async { Err(HookError::Failed) }),
        }
    }
}

impl Hooks for PyHooks {
    fn wants_requests(&self) -> bool {
        // A hook may be set at any time, which sees the requests of the peers that are connected.
        true
    }

    fn authenticates(&self) -> bool {
        self.hooked.authorize.load(Ordering::Acquire)
    }

    fn filters_device_info(&self) -> bool {
        self.hooked.filter_device_info.load(Ordering::Acquire)
    }

    fn authorize(&self, request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        if !self.authenticates() {
            return None;
        }
        let peer = PeerFacts {
            role: request.role,
            address: request.address,
            since: unix(std::time::SystemTime::now()),
            request: Some(Arc::clone(&request.request)),
            certificate: request.certificate.clone(),
            identity: None,
        };
        let pending = self.ask("authorize", peer, request.role, None, None);
        let call = pending.call();
        let grant = async move {
            let Settled { json, devices, manage, advertise, valid_for, exclusive, .. } = pending.await?;
            let identity = json.map(Arc::from);
            let grant = match devices {
                Some(patterns) => Grant::of(identity, &patterns),
                None => Grant { identity, ..Grant::default() },
            };
            // Python has checked the rules.
            let rules = |texts: Vec<String>| AddressRules::parse(&texts).ok().flatten().unwrap_or_default();
            let valid_for = valid_for.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            Ok(Grant { manage, advertise: advertise.map(rules).map(Arc::new), valid_for, exclusive, ..grant })
        };
        Some(HookFuture::new(grant).numbered(call))
    }

    fn ice_servers(&self, question: &IceQuestion) -> Option<HookFuture<IceServers>> {
        let device_id = question.device_id.as_ref().map(ToString::to_string);
        let pending = self.ask("ice_servers", PeerFacts::of(&question.peer), question.role, device_id, None);
        let call = pending.call();
        let servers = async move { pending.await?.servers.ok_or(HookError::Failed) };
        Some(HookFuture::new(servers).numbered(call))
    }

    fn filter_device_info(&self, device: &Arc<Device>, client: &Arc<Peer>) -> Option<HookFuture<String>> {
        if !self.filters_device_info() {
            return None;
        }
        let device_id = Some(device.id.to_string());
        let pending = self.ask("filter_device_info", PeerFacts::of(client), client.role, device_id, Some(device));
        let call = pending.call();
        Some(HookFuture::new(async move { Ok(pending.await?.json.unwrap_or_default()) }).numbered(call))
    }

    fn timed_out(&self, hook: &'static str, call: u64, peer: &str, deadline: Duration) -> HookError {
        let deadline = Some(deadline.as_secs_f64());
        let peer = peer.to_owned();
        let unanswered = Unanswered { hook, device_id: None, peer, deadline, key: call, not_called: None };
        if self.events.timed_out(unanswered) { HookError::Failed } else { HookError::NotCalled }
    }

    fn ask_program(&self, question: &'static str, arguments: String) -> Option<HookFuture<ProgramAnswer>> {
        let (reply, answer) = oneshot::channel();
        self.events.ask(ProgramRequest { name: question, arguments, reply: Mutex::new(Some(reply)) });
        Some(HookFuture::new(async { answer.await.map_err(|_| HookError::Failed) }))
    }

    fn blocked(&self) -> Option<String> {
        self.events.blocked()
    }
}
