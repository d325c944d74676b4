//! Answers to the questions of sessions: at once from the settings, or from hooks with a timeout.

use serde_json::value::RawValue;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::access::hooks::{HookError, HookFuture, IceQuestion};
use crate::config::IceSource;
use crate::core::hub::Device;
use crate::core::peer::{Peer, Role};
use crate::core::session::{Answer, Question};
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, IceServers, Text, outbound};
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
    Ready(IceServers, Option<std::time::Duration>),
    /// The hook's future.
    Pending(HookFuture<IceServers>),
    /// No credentials could be made; the reason is in the log.
    Failed,
}

impl Shared {
    /// Answers a session's question about its peer.
    pub(super) fn resolve(self: &Arc<Self>, question: Question, peer: &Arc<Peer>) -> Resolved {
        match question {
            Question::Config { device_id } => self.config_for(peer, peer.role, Some(device_id)),
            Question::DeviceInfo(device) => self.device_info_for(peer, &device),
            Question::Alive(holder) => {
                let shared = Arc::clone(self);
                Resolved::Pending(Box::pin(async move {
                    let limit = shared.config.limits.probe_timeout;
                    let alive = matches!(shared.clock.timeout(limit, holder.outbox.probe()).await, Some(Ok(())));
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
            ResolvedIce::Pending(future) => {
                let (shared, peer) = (Arc::clone(self), peer.to_string());
                Resolved::Pending(Box::pin(async move {
                    match shared.decide("ice_servers", &peer, future).await {
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
                    tracing::error!("{error}");
                    ResolvedIce::Failed
                }
            },
            IceSource::Hook => {
                let question = IceQuestion { peer: Arc::clone(peer), role, device_id };
                match self.hooks.ice_servers(&question) {
                    Some(future) => ResolvedIce::Pending(future),
                    None => ResolvedIce::Ready(IceServers::default(), None),
                }
            }
        }
    }

    /// Answers [`Question::DeviceInfo`], through the hook `filter_device_info` if there is one.
    pub(super) fn device_info_for(self: &Arc<Self>, client: &Arc<Peer>, device: &Arc<Device>) -> Resolved {
        let Some(future) = self.hooks.filter_device_info(device, client) else {
            return Resolved::Ready(Answer::DeviceInfo(device.info.clone()));
        };
        let (shared, peer) = (Arc::clone(self), client.to_string());
        Resolved::Pending(Box::pin(async move {
            let filtered = shared.decide("filter_device_info", &peer, future).await;
            match filtered.and_then(|json| device_info(&json)) {
                Ok(message) => Answer::DeviceInfo(message),
                Err(refusal) => Answer::Refused(refusal),
            }
        }))
    }

    /// Waits for a hook on behalf of a connected peer. An error becomes the refusal that the peer gets.
    async fn decide<T>(&self, hook: &'static str, peer: &str, future: HookFuture<T>) -> Result<T, Refusal> {
        self.wait_for_hook(hook, peer, future).await.map_err(|error| match error {
            HookError::Refused { reason, .. } => Refusal::NotAuthorized(reason),
            HookError::Failed => Refusal::HookFailed,
        })
    }

    /// Waits for a hook. A hook that exceeds the timeout counts as failed.
    pub(super) async fn wait_for_hook<T>(
        &self,
        hook: &'static str,
        peer: &str,
        future: HookFuture<T>,
    ) -> Result<T, HookError> {
        let deadline = self.config.hook_timeout;
        self.clock.timeout(deadline, future).await.unwrap_or_else(|| {
            self.hooks.timed_out(hook, peer, deadline);
            Err(HookError::Failed)
        })
    }
}

/// Checks the JSON that the hook returned and puts it into a `device_info` message.
fn device_info(json: &str) -> Result<Text, Refusal> {
    match serde_json::from_str::<&RawValue>(json) {
        Ok(info) => Ok(outbound::device_info(info.get())),
        Err(error) => {
            tracing::error!("hook filter_device_info returned no valid JSON: {error}");
            Err(Refusal::HookFailed)
        }
    }
}
