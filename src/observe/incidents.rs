//! How often what should not happen did: counters, one for each kind. Only counts; says nothing to anybody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::protocol::refusal::Refusal;

/// A kind of incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incident {
    /// A connection was answered 503: too many, too many of one address, or too fast.
    TurnedAway,
    /// A connection that had not said what it wants was dropped to make room for another.
    OpeningCut,
    /// A request came with a `Host` or an `Origin` that is not allowed.
    Foreign,
    /// A hook refused a request, or a peer.
    Unauthorized,
    /// A peer broke the rules and was closed: 1002, 1003, 1007, 1008, 1009.
    Misbehaved,
    /// A peer sent faster than it may.
    TooFast,
    /// A peer did not read, and was closed.
    SlowConsumer,
    /// A peer did not answer a ping.
    Silent,
    /// One of Cuttlefish's own devices broke a rule that others are told by an error: it was not told.
    ErrorWithheld,
    /// A connection's task panicked: a bug.
    Panic,
}

impl Incident {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 10] = [
        Self::TurnedAway,
        Self::OpeningCut,
        Self::Foreign,
        Self::Unauthorized,
        Self::Misbehaved,
        Self::TooFast,
        Self::SlowConsumer,
        Self::Silent,
        Self::ErrorWithheld,
        Self::Panic,
    ];

    /// What a refusal tells of; `None` where nobody did anything wrong.
    pub fn of(refusal: &Refusal) -> Option<Self> {
        Some(match refusal {
            Refusal::NotAuthorized(_) => Self::Unauthorized,
            Refusal::TooManyDevices | Refusal::TooManyClients(_) => Self::TurnedAway,
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
            | Refusal::Replaced(_)
            | Refusal::UnknownClient(_)
            | Refusal::DeviceNotFound(_)
            | Refusal::ForwardTooLarge { .. }
            | Refusal::DeviceDisconnected
            | Refusal::ClientIdsExhausted => return None,
        })
    }

    /// Its name in `stats()`.
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
            Self::Panic => "panics",
        }
    }
}

/// One server's counters, from its start.
#[derive(Debug, Default)]
pub struct Incidents([AtomicU64; Incident::ALL.len()]);

impl Incidents {
    /// It happened.
    pub fn count(&self, incident: Incident) {
        self.0[incident as usize].fetch_add(1, Relaxed);
    }

    /// How often it has happened.
    pub fn of(&self, incident: Incident) -> u64 {
        self.0[incident as usize].load(Relaxed)
    }
}
