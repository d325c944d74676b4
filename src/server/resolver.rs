//! Answers to the questions of sessions: at once from the settings, or from hooks with a timeout.

use serde_json::value::RawValue;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::hooks::{HookError, HookFuture, Hooks, IceQuestion};
use crate::config::IceSource;
use crate::config::ice_command::IceCommand;
use crate::core::cluster::registry::Expectation;
use crate::core::hub::Device;
use crate::core::outbox::Outbox;
use crate::core::peer::{Peer, Role};
use crate::core::session::{Answer, OnDuplicate, Question};
use crate::observe::hook_errors::{HookFailure, HowFailed};
use crate::observe::incidents::Incident;
use crate::observe::timings::{HookOutcome, since};
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, IceServers, Text, outbound};
use crate::server::cluster::handle::unavailable;
use crate::server::shared::Shared;

/// An answer, at once or later.
pub(super) enum Resolved {
    /// The answer is known.
    Ready(Answer),
    /// A future that resolves to the answer.
    Pending(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// The ICE servers, at once or later.
pub(super) enum ResolvedIce {
    /// The servers, and how long their credentials are valid.
    Ready(IceServers, Option<Duration>),
    /// The command whose run has to end first.
    Command(Arc<IceCommand>),
    /// The call of the hook.
    Pending(HookCall<IceServers>),
    /// No credentials could be made; the reason is in the log.
    Failed,
}

/// A call of a hook. Its time has begun before the hook was called.
pub(super) struct HookCall<T> {
    /// The name of the hook.
    hook: &'static str,
    /// The time of the call.
    called_at: Instant,
    /// The time at which the call has failed; `None` is never.
    due: Option<Instant>,
    /// The time that the call has.
    time: Duration,
    /// The pending result.
    result: HookFuture<T>,
}

impl Shared {
    /// Answers a session's question about its peer.
    pub(super) fn resolve(self: &Arc<Self>, question: Question, peer: &Arc<Peer>, outbox: &Arc<Outbox>) -> Resolved {
        match question {
            Question::Config { device_id } => self.config_for(peer, peer.role, Some(device_id)),
            Question::DeviceInfo(device) => self.device_info_for(peer, &device),
            Question::Claim(device) => match &self.cluster {
                Some(cluster) => {
                    let replaces = self.settings().on_duplicate == OnDuplicate::Replace;
                    Resolved::Pending(Box::pin(cluster.claim(&device, replaces)))
                }
                None => Resolved::Ready(unavailable(Role::Device)),
            },
            Question::Announce(devices) => match &self.cluster {
                Some(cluster) => {
                    let most = self.settings().limits.max_devices;
                    Resolved::Pending(Box::pin(cluster.announce(&devices, most)))
                }
                None => Resolved::Ready(Answer::Announced(vec![Expectation::Pending; devices.len()])),
            },
            Question::Locate { id, last } => match &self.cluster {
                Some(cluster) => Resolved::Pending(Box::pin(cluster.locate(id, last, peer, outbox))),
                None => Resolved::Ready(Answer::Nowhere),
            },
            Question::Alive(holder) => {
                let shared = Arc::clone(self);
                let due = self.clock.now().checked_add(self.settings().limits.probe_timeout);
                Resolved::Pending(Box::pin(async move {
                    let alive = matches!(shared.clock.timeout_at(due, holder.outbox.probe()).await, Some(Ok(())));
                    Answer::Alive { holder, alive }
                }))
            }
        }
    }

    /// Answers [`Question::Config`].
    fn config_for(self: &Arc<Self>, peer: &Arc<Peer>, role: Role, device_id: Option<DeviceId>) -> Resolved {
        match self.ice_servers_for(peer, role, device_id) {
            ResolvedIce::Ready(servers, good_for) => Resolved::Ready(Answer::Config(servers.config(), good_for)),
            ResolvedIce::Failed => Resolved::Ready(Answer::Refused(Refusal::HookFailed)),
            ResolvedIce::Command(command) => {
                let servers = Arc::clone(self).ice_servers_of(command);
                Resolved::Pending(Box::pin(async move {
                    let (servers, good_for) = servers.await;
                    Answer::Config(servers.config(), Some(good_for))
                }))
            }
            ResolvedIce::Pending(call) => {
                let (shared, peer) = (Arc::clone(self), Arc::clone(peer));
                Resolved::Pending(Box::pin(async move {
                    match shared.decide(call, &peer).await {
                        Ok(servers) => Answer::Config(servers.config(), None),
                        Err(refusal) => Answer::Refused(refusal),
                    }
                }))
            }
        }
    }

    /// Returns the ICE servers for a peer in this role.
    pub(super) fn ice_servers_for(&self, peer: &Arc<Peer>, role: Role, device_id: Option<DeviceId>) -> ResolvedIce {
        match &*self.ice.read() {
            IceSource::Fixed(servers) => ResolvedIce::Ready(servers.clone(), None),
            IceSource::TurnRest(turn) => match turn.credentials(self.clock.system_now()) {
                Ok(servers) => ResolvedIce::Ready(servers, Some(turn.ttl())),
                Err(error) => {
                    tracing::error!(event = "turn_failed", reason = %error, "{error}");
                    ResolvedIce::Failed
                }
            },
            IceSource::Command(command) => match self.known_ice_servers(command) {
                Some((servers, good_for)) => ResolvedIce::Ready(servers, Some(good_for)),
                None => ResolvedIce::Command(Arc::clone(command)),
            },
            IceSource::Hook => {
                let question = IceQuestion { peer: Arc::clone(peer), role, device_id };
                match self.call_hook("ice_servers", |hooks| hooks.ice_servers(&question)) {
                    Some(call) => ResolvedIce::Pending(call),
                    None => ResolvedIce::Ready(IceServers::default(), None),
                }
            }
        }
    }

    /// Answers [`Question::DeviceInfo`], through the hook `filter_device_info` if there is one.
    pub(super) fn device_info_for(self: &Arc<Self>, client: &Arc<Peer>, device: &Arc<Device>) -> Resolved {
        let call = self.call_hook("filter_device_info", |hooks| hooks.filter_device_info(device, client));
        let Some(call) = call else {
            return Resolved::Ready(Answer::DeviceInfo(device.info.clone()));
        };
        let (shared, client) = (Arc::clone(self), Arc::clone(client));
        Resolved::Pending(Box::pin(async move {
            let filtered = shared.decide(call, &client).await;
            match filtered.and_then(|json| device_info(&json)) {
                Ok(message) => Answer::DeviceInfo(message),
                Err(refusal) => Answer::Refused(refusal),
            }
        }))
    }

    /// Waits for a hook on behalf of a connected peer. An error becomes the refusal that the peer gets.
    async fn decide<T>(&self, call: HookCall<T>, peer: &Peer) -> Result<T, Refusal> {
        self.wait_for_hook(call, peer).await.map_err(|error| match error {
            HookError::Refused { reason, .. } => Refusal::NotAuthorized(reason),
            HookError::Failed | HookError::NotCalled => Refusal::HookFailed,
        })
    }

    /// Calls a hook. `None` if there is no such hook.
    pub(super) fn call_hook<T>(
        &self,
        hook: &'static str,
        call: impl FnOnce(&dyn Hooks) -> Option<HookFuture<T>>,
    ) -> Option<HookCall<T>> {
        // Read first: the hook may begin at once on another thread, where a test then moves the clock.
        let (called_at, time) = (self.clock.now(), self.settings().hook_timeout);
        let due = called_at.checked_add(time);
        call(&*self.hooks).map(|result| HookCall { hook, called_at, due, time, result })
    }

    /// Waits for a hook. A hook that exceeds the timeout counts as failed.
    pub(super) async fn wait_for_hook<T>(&self, call: HookCall<T>, peer: &Peer) -> Result<T, HookError> {
        let HookCall { hook, called_at, due, time, mut result } = call;
        let in_time = self.clock.timeout_at(due, &mut result).await;
        let late = if in_time.is_some() { HowFailed::Raised } else { HowFailed::TimedOut };
        let timed_out = || self.hooks.timed_out(hook, result.call(), &peer.to_string(), time);
        let answer = in_time.unwrap_or_else(|| Err(timed_out()));
        let (outcome, how) = match &answer {
            Ok(_) => (HookOutcome::Answered, None),
            Err(HookError::Refused { .. }) => (HookOutcome::Refused, None),
            Err(HookError::Failed) => (HookOutcome::Failed, Some(late)),
            Err(HookError::NotCalled) => {
                self.incidents.count(Incident::HookNotCalled);
                (HookOutcome::NotCalled, Some(HowFailed::NotCalled))
            }
        };
        self.timings.observe_hook(hook, outcome, since(called_at, self.clock.now()));
        if let Some(how) = how {
            self.hook_failures.add(HookFailure { at: self.clock.unix_now(), hook, peer: peer.to_string(), how });
        }
        answer
    }
}

/// Checks the JSON that the hook returned and puts it into a `device_info` message.
fn device_info(json: &str) -> Result<Text, Refusal> {
    match serde_json::from_str::<&RawValue>(json) {
        Ok(info) => Ok(outbound::device_info(info.get())),
        Err(error) => {
            let (hook, what) = ("filter_device_info", "returned no valid JSON");
            tracing::error!(event = "hook_failed", hook, reason = %error, "hook {hook} {what}: {error}");
            Err(Refusal::HookFailed)
        }
    }
}
