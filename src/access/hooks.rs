//! Hooks: decisions that the program that embeds the server can make. A trait, and [`NoHooks`].
//!
//! A method returns `None` if there is no such hook, so that the default path costs nothing. Otherwise it returns a
//! future, which the server polls under a deadline and with no lock held. Hooks fail closed: the peer of a failed call
//! gets `Internal error` (1011, docs/protocol.md 4.3.15), and no other peer is affected.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::core::hub::Device;
use crate::core::peer::{Grant, Peer, Request, Role};
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
}

/// The pending result of a hook.
pub type HookFuture<T> = Pin<Box<dyn Future<Output = Result<T, HookError>> + Send>>;

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
    /// Path, query and headers.
    pub request: Request,
}

/// The hooks of a server.
pub trait Hooks: Send + Sync + 'static {
    /// Whether any hook reads requests. If none does, the server does not keep them.
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

    /// Called when a hook has exceeded its deadline. The server has dropped its future.
    fn timed_out(&self, hook: &'static str, _peer: &str, deadline: Duration) {
        tracing::error!("hook {hook} gave no answer within {deadline:?}");
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
