//! A fault rule: its effect, its filter, its counters.

use std::time::Duration;

use crate::protocol::{ClientId, DeviceId, Role};

/// Effect of a rule on the forwards that it hits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// Loses the forward.
    Drop,
    /// Delivers the forward twice.
    Duplicate,
    /// Delivers only this fraction of the message, from 0 to 1: invalid JSON.
    Truncate(f64),
    /// Delivers the forward later. The delayed forwards keep their order.
    Delay {
        /// Mean delay.
        by: Duration,
        /// Greatest deviation from the mean, in both directions.
        jitter: Duration,
    },
    /// Collects forwards and delivers them in another order.
    Reorder {
        /// Number of forwards to collect.
        window: usize,
        /// Longest time that a forward is held for others to come.
        hold: Duration,
    },
    /// Holds all forwards for this time from the first one on; without a time, until the rule is removed.
    Stall(Option<Duration>),
    /// Delivers forwards at the rate of a link with this many bytes per second.
    Bandwidth(f64),
    /// Delivers the forward, then closes the receiver's connection with this close code.
    Disconnect(u16),
    /// Delivers the forward, then resets the receiver's connection (TCP RST).
    Reset,
}

impl Effect {
    /// Returns the name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Truncate(_) => "truncate",
            Self::Delay { .. } => "delay",
            Self::Reorder { .. } => "reorder",
            Self::Stall(_) => "stall",
            Self::Bandwidth(_) => "bandwidth",
            Self::Disconnect(_) => "disconnect",
            Self::Reset => "reset",
        }
    }
}

/// A fault: its effect, and the forwards that it applies to.
///
/// The fields from `to` to `payload_type` are the filter. `nth`, `times` and `probability` choose among the forwards
/// that match it.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Effect on each forward that the rule hits.
    pub effect: Effect,
    /// Role of the receiver: only forwards to devices, or only forwards to clients.
    pub to: Option<Role>,
    /// Only forwards between this device and its clients.
    pub device: Option<DeviceId>,
    /// Only forwards to or from the client with this id.
    pub client: Option<ClientId>,
    /// Only payloads with this `"type"`.
    pub payload_type: Option<String>,
    /// Only the n-th match, counting from 1.
    pub nth: Option<u64>,
    /// Probability of a hit, from 0 to 1.
    pub probability: f64,
    /// Greatest number of hits.
    pub times: Option<u64>,
}

/// Counters of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultStats {
    /// Forwards that matched the filter of the rule.
    pub matched: u64,
    /// Forwards that the rule hit.
    pub hits: u64,
    /// Forwards that the rule should have held back, and lost because a bound on held forwards was reached.
    pub overran: u64,
}

/// Number of a rule. A rule that is armed later has a larger one.
pub type RuleId = u64;
