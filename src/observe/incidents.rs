//! Counters of incidents, one for each kind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::protocol::refusal::Refusal;

/// Kind of incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// A connection or request was refused because a limit was reached: in all, for one address, or for its rate.
    TurnedAway,
    /// A connection without a complete request was closed to make room for another.
    OpeningCut,
    /// A request had a `Host` or an `Origin` that is not allowed.
    Foreign,
    /// A hook refused a request or a peer.
    Unauthorized,
    /// A peer violated the protocol and was closed with 1002, 1003, 1007, 1008 or 1009.
    Misbehaved,
    /// A peer sent faster than its rate limit allows.
    TooFast,
    /// A peer did not read and was closed (docs/protocol.md 4.3.10).
    SlowConsumer,
    /// A peer did not answer a ping (docs/protocol.md 4.3.9).
    Silent,
    /// A Cuttlefish device broke a rule, and got neither an error nor a close (docs/protocol.md 4.1.4).
    ErrorWithheld,
    /// A hook was not called: no thread was free in time, or too many calls waited for one.
    HookNotCalled,
    /// A request had headers of a proxy, and did not come from a trusted one.
    ForwardedIgnored,
    /// The command for ICE servers failed.
    IceCommandFailed,
    /// The server behind a proxy gave no answer that can be passed on.
    UpstreamFailed,
    /// The task of a connection panicked, which is a bug.
    Panic,
}

impl Incident {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 14] = [
        Self::TurnedAway,
        Self::OpeningCut,
        Self::Foreign,
        Self::Unauthorized,
        Self::Misbehaved,
        Self::TooFast,
        Self::SlowConsumer,
        Self::Silent,
        Self::ErrorWithheld,
        Self::HookNotCalled,
        Self::ForwardedIgnored,
        Self::IceCommandFailed,
        Self::UpstreamFailed,
        Self::Panic,
    ];

    /// Returns the incident that a refusal stands for; `None` if neither side did anything wrong.
    pub fn of(refusal: &Refusal) -> Option<Self> {
        Some(match refusal {
            Refusal::NotAuthorized(_) => Self::Unauthorized,
            Refusal::TooManyDevices | Refusal::TooManyClients(_) | Refusal::TooManyClientsOf(..) => Self::TurnedAway,
            Refusal::TooFast { .. } => Self::TooFast,
            Refusal::InvalidJson
            | Refusal::InvalidFormat
            | Refusal::Binary
            | Refusal::FirstMessageTimeout
            | Refusal::RegisterWithoutId
            | Refusal::InvalidDeviceId
            | Refusal::AlreadyRegistered(_)
            | Refusal::NotRegistered
            | Refusal::InvalidClientId
            | Refusal::DeviceForwardWithoutPayload
            | Refusal::ConnectWithoutId
            | Refusal::AlreadyConnected
            | Refusal::NotConnected
            | Refusal::ClientForwardWithoutPayload => Self::Misbehaved,
            Refusal::UnknownMessageType(_)
            | Refusal::HookFailed
            | Refusal::EndedByOperator
            | Refusal::Expired
            | Refusal::Replaced(_)
            | Refusal::UnknownClient(_)
            | Refusal::DeviceNotFound(_)
            | Refusal::DeviceInUse(_)
            | Refusal::ForwardTooLarge { .. }
            | Refusal::DeviceDisconnected
            | Refusal::ClusterUnavailable(_)
            | Refusal::ClientIdsExhausted => return None,
        })
    }

    /// Returns its name in `stats()`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TurnedAway => "turned_away",
            Self::OpeningCut => "openings_cut",
            Self::Foreign => "foreign",
            Self::Unauthorized => "unauthorized",
            Self::Misbehaved => "misbehaved",
            Self::TooFast => "too_fast",
            Self::SlowConsumer => "slow_consumers",
            Self::Silent => "silent",
            Self::ErrorWithheld => "errors_withheld",
            Self::HookNotCalled => "hooks_not_called",
            Self::ForwardedIgnored => "forwarded_ignored",
            Self::IceCommandFailed => "ice_command_failures",
            Self::UpstreamFailed => "upstream_failures",
            Self::Panic => "panics",
        }
    }
}

/// Counters of one server, since its start.
#[derive(Debug, Default)]
pub struct Incidents([AtomicU64; Incident::ALL.len()]);

impl Incidents {
    /// Counts one incident.
    pub fn count(&self, incident: Incident) {
        self.0[incident as usize].fetch_add(1, Relaxed);
    }

    /// Returns the count of a kind.
    pub fn of(&self, incident: Incident) -> u64 {
        self.0[incident as usize].load(Relaxed)
    }
}
