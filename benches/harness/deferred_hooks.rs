//! Three hooks that a task of their own answers: a stand-in for the threads of Python, which answers at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cuttlefish_signaling::hooks::{AuthorizeRequest, HookError, HookFuture, Hooks, IceQuestion};
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::peer::{Grant, KeptRequest, Peer};
use cuttlefish_signaling::protocol::IceServers;
use tokio::sync::{mpsc, oneshot};

/// A call: the request of its peer, if the hook reads it, and the way back of the result.
type Call = (Option<Arc<KeptRequest>>, oneshot::Sender<&'static str>);

/// The hooks. Each result comes from another task, as JSON, after the connection has waited for it.
pub struct DeferredHooks {
    queue: mpsc::UnboundedSender<Call>,
    calls: AtomicUsize,
}

impl DeferredHooks {
    /// Starts the task.
    pub fn start() -> Self {
        let (queue, mut waiting) = mpsc::unbounded_channel::<Call>();
        tokio::spawn(async move {
            while let Some((request, reply)) = waiting.recv().await {
                // Python unpacks the request when a hook reads it, as `authorize` does.
                let request = request.as_deref().map(KeptRequest::unpack);
                let is_read = request.is_none_or(|request| !request.headers.is_empty());
                let _not_awaited = reply.send(if is_read { RESULT } else { "" });
            }
        });
        Self { queue, calls: AtomicUsize::new(0) }
    }

    /// The number of calls so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn ask<T>(
        &self,
        request: Option<Arc<KeptRequest>>,
        result: impl FnOnce(&'static str) -> T + Send + 'static,
    ) -> Option<HookFuture<T>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.queue.send((request, reply)).ok()?;
        Some(HookFuture::new(async { Ok(result(answer.await.map_err(|_| HookError::Failed)?)) }))
    }
}

/// The result of each hook: valid as an identity, as ICE servers and as device info.
const RESULT: &str = r#"[{"urls":["stun:stun.example.com:3478"]}]"#;

impl Hooks for DeferredHooks {
    fn wants_requests(&self) -> bool {
        true
    }

    fn authenticates(&self) -> bool {
        true
    }

    fn authorize(&self, request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        self.ask(Some(Arc::clone(&request.request)), |json| Grant {
            identity: Some(Arc::from(json)),
            ..Grant::default()
        })
    }

    fn ice_servers(&self, _: &IceQuestion) -> Option<HookFuture<IceServers>> {
        self.ask(None, |json| IceServers::from_json(json).unwrap())
    }

    fn filter_device_info(&self, _: &Arc<Device>, _: &Arc<Peer>) -> Option<HookFuture<String>> {
        self.ask(None, str::to_owned)
    }
}
