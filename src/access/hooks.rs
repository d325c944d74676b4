//! Hooks: decisions that the program that embeds the server can make. A trait, and [`NoHooks`].
//!
//! A method returns `None` if there is no such hook, so that the default path costs nothing. Otherwise it returns a
//! future, which the server polls under a deadline and with no lock held. Hooks fail closed: the peer of a failed call
//! gets `Internal error` (1011, docs/protocol.md 4.3.15), and no other peer is affected.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::core::hub::Device;
use crate::core::peer::{Grant, KeptRequest, Peer, Role};
use crate::protocol::{DeviceId, IceServers};

/// The reason why a hook returned no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookError {
    /// The hook refused the peer.
    Refused {
        /// The text that the peer gets instead of `Not authorized`.
        reason: Option<String>,
        /// The HTTP status before an upgrade: 401 or 403.
        status: u16,
    },
    /// The hook raised, timed out or returned an invalid value. Its implementation has written the log.
    Failed,
    /// The hook was never called, since nothing was free to call it. Its implementation has written the log.
    NotCalled,
}

/// The pending result of a hook.
pub struct HookFuture<T> {
    /// Resolves to the result.
    result: Pin<Box<dyn Future<Output = Result<T, HookError>> + Send>>,
    /// The number of the call.
    call: u64,
}

impl<T> HookFuture<T> {
    /// Creates the result of a call without a number.
    pub fn new(result: impl Future<Output = Result<T, HookError>> + Send + 'static) -> Self {
        Self { result: Box::pin(result), call: 0 }
    }

    /// Sets the number by which [`Hooks::timed_out`] knows the call.
    #[must_use]
    pub fn numbered(self, call: u64) -> Self {
        Self { call, ..self }
    }

    /// Returns the number of the call; 0 if it has none.
    pub fn call(&self) -> u64 {
        self.call
    }
}

impl<T> Future for HookFuture<T> {
    type Output = Result<T, HookError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.result.as_mut().poll(cx)
    }
}

impl<T> std::fmt::Debug for HookFuture<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookFuture").field("call", &self.call).finish_non_exhaustive()
    }
}

/// The arguments of [`Hooks::ice_servers`].
#[derive(Debug, Clone)]
pub struct IceQuestion {
    /// The peer that needs ICE servers.
    pub peer: Arc<Peer>,
    /// [`Role::Device`] or [`Role::Client`].
    pub role: Role,
    /// The device that the peer registers as or connects to, if it is known yet.
    pub device_id: Option<DeviceId>,
}

/// The arguments of [`Hooks::authorize`].
#[derive(Debug, Clone)]
pub struct AuthorizeRequest {
    /// The role that the request asks for.
    pub role: Role,
    /// The address of the peer.
    pub address: Option<std::net::SocketAddr>,
    /// The subject of the client certificate, if the server requires one.
    pub certificate: Option<Arc<str>>,
    /// Path, query and headers. Shared with the peer: a call that waits for a thread has no copy of its own.
    pub request: Arc<KeptRequest>,
}

/// The answer of the program to a request of the control API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Whether the body is plain text; otherwise it is JSON.
    pub is_text: bool,
    /// The body.
    pub body: String,
}

/// The hooks of a server.
pub trait Hooks: Send + Sync + 'static {
    /// Whether any hook reads requests, now or later. If none does, the server does not keep them.
    fn wants_requests(&self) -> bool {
        false
    }

    /// Whether there is an [`Hooks::authorize`]. A server on an address other than loopback needs it.
    fn authenticates(&self) -> bool {
        false
    }

    /// Admits or refuses a request. Returns the identity of the peer and the devices that it may use.
    fn authorize(&self, _request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        None
    }

    /// Returns the ICE servers for a peer. Called only if the source is [`crate::config::IceSource::Hook`].
    fn ice_servers(&self, _question: &IceQuestion) -> Option<HookFuture<IceServers>> {
        None
    }

    /// Whether [`Hooks::filter_device_info`] may hide a part of some device info from some client.
    ///
    /// If so, lists show no group that comes from device info, since they do not call the hook for each device. Return
    /// `false` only if every client may see all device info.
    fn filters_device_info(&self) -> bool {
        true
    }

    /// Returns the device info that a client may see, as JSON text. `None`: all of it, byte for byte.
    fn filter_device_info(&self, _device: &Arc<Device>, _client: &Arc<Peer>) -> Option<HookFuture<String>> {
        None
    }

    /// Asks the program around the server to answer a request of the control API, whose arguments are a JSON object.
    ///
    /// `None`: it does not answer such requests.
    fn ask_program(&self, _question: &'static str, _arguments: String) -> Option<HookFuture<ProgramAnswer>> {
        None
    }

    /// Called when a call has exceeded its deadline. The server drops its future afterwards.
    ///
    /// Returns [`HookError::NotCalled`] if the hook has not been called yet, else [`HookError::Failed`].
    fn timed_out(&self, hook: &'static str, _call: u64, _peer: &str, deadline: Duration) -> HookError {
        let what = "gave no answer in time";
        tracing::error!(event = "hook_failed", hook, reason = what, "hook {hook} gave no answer within {deadline:?}");
        HookError::Failed
    }

    /// Returns why no hook can be called at present. `None`: nothing is known that prevents it.
    ///
    /// The server is not ready meanwhile (`GET /readyz`).
    fn blocked(&self) -> Option<String> {
        None
    }
}

/// No hooks: every decision has its default.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn filters_device_info(&self) -> bool {
        false
    }
}
