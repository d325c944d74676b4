//! The decisions left to whoever embeds the server: a trait, and [`NoHooks`].
//!
//! Each decision returns `None` where nobody wants to make it, so that the usual way costs nothing. Those that are
//! made run as futures, under a deadline, with no lock held, and fail closed: a hook that fails is an
//! `Internal error` (1011) to the peer it was asked for, and to nobody else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::core::hub::Device;
use crate::core::peer::{Grant, Peer, Request, Role};
use crate::protocol::{DeviceId, IceServers};

/// Why a hook gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookError {
    /// It says no, in public words or in none. `status` is the HTTP status before an upgrade: 401 or 403.
    Refused {
        /// What the peer hears instead of `Not authorized`.
        reason: Option<String>,
        /// 401 or 403.
        status: u16,
    },
    /// It raised, hung or returned rubbish. Whoever implements the hook has told the log.
    Failed,
}

/// The answer to come.
pub type HookFuture<T> = Pin<Box<dyn Future<Output = Result<T, HookError>> + Send>>;

/// Where ICE servers come from, when not from a list.
#[derive(Debug, Clone)]
pub struct IceQuestion {
    /// Who asks.
    pub peer: Arc<Peer>,
    /// As what: [`Role::Device`] or [`Role::Client`].
    pub role: Role,
    /// The device it registers as or connects to, if it has said so.
    pub device_id: Option<DeviceId>,
}

/// A request that wants in.
#[derive(Debug, Clone)]
pub struct AuthorizeRequest {
    /// What for.
    pub role: Role,
    /// From where.
    pub address: Option<std::net::SocketAddr>,
    /// Whom its TLS certificate is for, where one was asked for.
    pub certificate: Option<Arc<str>>,
    /// The request.
    pub request: Request,
}

/// The decisions.
pub trait Hooks: Send + Sync + 'static {
    /// Whether any decision wants to see requests: where none does, they are not kept.
    fn wants_requests(&self) -> bool {
        false
    }

    /// Whether [`Hooks::authorize`] decides: a server that anybody can reach needs that.
    fn authenticates(&self) -> bool {
        false
    }

    /// Whether to let a request in. Returns who it is, and for which devices.
    fn authorize(&self, _knock: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        None
    }

    /// The ICE servers for a peer. Asked only where the server's ICE source is [`crate::config::IceSource::Hook`].
    fn ice_servers(&self, _question: &IceQuestion) -> Option<HookFuture<IceServers>> {
        None
    }

    /// Whether [`Hooks::filter_device_info`] may hide a part of some device info from some client. Lists then show no group
    /// that only the device info names: they do not ask for each device. Return `false` only where every client may see
    /// all of it.
    fn filters_device_info(&self) -> bool {
        true
    }

    /// What a client may see of a device, as the JSON text of its device info. `None`: all of it, as it came.
    fn filter_device_info(&self, _device: &Arc<Device>, _client: &Arc<Peer>) -> Option<HookFuture<String>> {
        None
    }

    /// A decision took longer than the deadline and was given up.
    fn timed_out(&self, hook: &'static str, _peer: &str, deadline: Duration) {
        tracing::error!("hook {hook} gave no answer within {deadline:?}");
    }
}

/// Nobody decides anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn filters_device_info(&self) -> bool {
        false
    }
}
