//! Answers to what sessions ask: from the settings where they say it, from hooks under a deadline where they do not.

use serde_json::value::RawValue;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::access::hooks::{Decision, HookError, IceQuestion};
use crate::config::IceSource;
use crate::core::hub::Device;
use crate::core::peer::{Peer, Role};
use crate::core::session::{Answer, Question};
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, IceServers, Text, outbound};
use crate::server::shared::Shared;

/// An answer that is there, or one that takes its time.
pub(super) enum Asked {
    Now(Answer),
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

/// The ICE servers, there or to come.
pub(super) enum Ice {
    Now(IceServers, Option<std::time::Duration>),
    Later(Decision<IceServers>),
    Failed,
}

impl Shared {
    /// Answers a session's question about its peer.
    pub(super) fn answer(self: &Arc<Self>, question: Question, peer: &Arc<Peer>) -> Asked {
        match question {
            Question::Config { device_id } => self.config_for(peer, peer.role, Some(device_id)),
            Question::DeviceInfo(device) => self.device_info_for(peer, &device),
            Question::Alive(holder) => {
                let shared = Arc::clone(self);
                Asked::Later(Box::pin(async move {
                    let limit = shared.config.limits.probe_timeout;
                    let alive = matches!(shared.clock.timeout(limit, holder.outbox.probe()).await, Some(Ok(())));
                    Answer::Alive { holder, alive }
                }))
            }
        }
    }

    fn config_for(self: &Arc<Self>, peer: &Arc<Peer>, role: Role, device_id: Option<DeviceId>) -> Asked {
        match self.ice_servers_for(peer, role, device_id) {
            Ice::Now(servers, good_for) => Asked::Now(Answer::Config(servers.config(), good_for)),
            Ice::Failed => Asked::Now(Answer::Refused(Refusal::HookFailed)),
            Ice::Later(decision) => {
                let (shared, peer) = (Arc::clone(self), peer.to_string());
                Asked::Later(Box::pin(async move {
                    match shared.decide("ice_servers", &peer, decision).await {
                        Ok(servers) => Answer::Config(servers.config(), None),
                        Err(refusal) => Answer::Refused(refusal),
                    }
                }))
            }
        }
    }

    /// The ICE servers for a peer in this role.
    pub(super) fn ice_servers_for(&self, peer: &Arc<Peer>, role: Role, device_id: Option<DeviceId>) -> Ice {
        match &*self.ice.read() {
            IceSource::Fixed(servers) => Ice::Now(servers.clone(), None),
            IceSource::TurnRest(turn) => match turn.credentials(self.clock.system_now()) {
                Ok(servers) => Ice::Now(servers, Some(turn.ttl())),
                Err(error) => {
                    tracing::error!("{error}");
                    Ice::Failed
                }
            },
            IceSource::Hook => {
                let question = IceQuestion { peer: Arc::clone(peer), role, device_id };
                match self.hooks.ice_servers(&question) {
                    Some(decision) => Ice::Later(decision),
                    None => Ice::Now(IceServers::default(), None),
                }
            }
        }
    }

    pub(super) fn device_info_for(self: &Arc<Self>, client: &Arc<Peer>, device: &Arc<Device>) -> Asked {
        let Some(decision) = self.hooks.filter_device_info(device, client) else {
            return Asked::Now(Answer::DeviceInfo(device.info.clone()));
        };
        let (shared, peer) = (Arc::clone(self), client.to_string());
        Asked::Later(Box::pin(async move {
            let filtered = shared.decide("filter_device_info", &peer, decision).await;
            match filtered.and_then(|json| device_info(&json)) {
                Ok(message) => Answer::DeviceInfo(message),
                Err(refusal) => Answer::Refused(refusal),
            }
        }))
    }

    /// Waits for a hook, for a peer that is connected.
    async fn decide<T>(&self, hook: &'static str, peer: &str, decision: Decision<T>) -> Result<T, Refusal> {
        self.wait_for_hook(hook, peer, decision).await.map_err(|error| match error {
            HookError::Refused { reason, .. } => Refusal::NotAuthorized(reason),
            HookError::Failed => Refusal::HookFailed,
        })
    }

    /// Waits for a hook, until the deadline: one that takes longer has failed.
    pub(super) async fn wait_for_hook<T>(
        &self,
        hook: &'static str,
        peer: &str,
        decision: Decision<T>,
    ) -> Result<T, HookError> {
        let deadline = self.config.hook_timeout;
        self.clock.timeout(deadline, decision).await.unwrap_or_else(|| {
            self.hooks.timed_out(hook, peer, deadline);
            Err(HookError::Failed)
        })
    }
}

fn device_info(json: &str) -> Result<Text, Refusal> {
    match serde_json::from_str::<&RawValue>(json) {
        Ok(info) => Ok(outbound::device_info(info.get())),
        Err(error) => {
            tracing::error!("hook filter_device_info returned no valid JSON: {error}");
            Err(Refusal::HookFailed)
        }
    }
}
