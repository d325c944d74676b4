//! `_native.Faults` and `_native.Clock`: fault injection and the clock of a running server.
//!
//! Python has checked the arguments.

use std::time::Duration;

use pyo3::prelude::*;

use super::error::{config_error, detached};
use super::event_queue::SLACK;
use crate::config::error::ConfigError;
use crate::core::peer::Role;
use crate::observe::faults::{Effect, FaultStats, Rule};
use crate::protocol::{ClientId, DeviceId};
use crate::server::Running;

/// The fault rules of one server.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Faults(pub(super) Running);

/// matched, hits, overran.
type StatsTuple = (u64, u64, u64);

#[pymethods]
impl Faults {
    /// Arms a rule, and returns its id. `effect` is a name; the effect defines `first` and `second`. Times are in seconds.
    #[pyo3(signature = (
        effect, first = None, second = None, *, to = None, device = None, client = None, payload_type = None, nth = None,
        probability = 1.0, times = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keyword arguments in Python")]
    fn arm(
        &self,
        py: Python<'_>,
        effect: &str,
        first: Option<f64>,
        second: Option<f64>,
        to: Option<&str>,
        device: Option<&str>,
        client: Option<u32>,
        payload_type: Option<String>,
        nth: Option<u64>,
        probability: f64,
        times: Option<u64>,
    ) -> PyResult<u64> {
        let rule = Rule {
            effect: effect_of(effect, first, second).map_err(|error| config_error(py, &error))?,
            to: to.map(|role| if role == "device" { Role::Device } else { Role::Client }),
            device: device.map(DeviceId::new),
            client: client.and_then(ClientId::new),
            payload_type,
            nth,
            probability,
            times,
        };
        detached(py, || self.0.arm_fault(rule))
    }

    /// Removes a rule and returns its statistics; `None` if it is not armed.
    fn disarm(&self, py: Python<'_>, id: u64) -> PyResult<Option<StatsTuple>> {
        detached(py, || self.0.disarm_fault(id).map(stats_tuple))
    }

    /// Returns the statistics of a rule; `None` if it is not armed.
    fn stats(&self, py: Python<'_>, id: u64) -> PyResult<Option<StatsTuple>> {
        detached(py, || self.0.fault_stats(id).map(stats_tuple))
    }

    /// Seeds the random numbers of all faults.
    fn seed(&self, seed: u64) {
        self.0.seed_faults(seed);
    }
}

fn stats_tuple(stats: FaultStats) -> StatsTuple {
    (stats.matched, stats.hits, stats.overran)
}

fn effect_of(name: &str, first: Option<f64>, second: Option<f64>) -> Result<Effect, ConfigError> {
    let time = |seconds: Option<f64>| {
        Duration::try_from_secs_f64(seconds.unwrap_or_default())
            .map_err(|_| ConfigError::new(name, format!("must be a number of seconds, got {seconds:?}")))
    };
    // Python has checked that these are small integers.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = first.unwrap_or_default() as u16;
    Ok(match name {
        "drop" => Effect::Drop,
        "duplicate" => Effect::Duplicate,
        "truncate" => Effect::Truncate(first.unwrap_or_default()),
        "delay" => Effect::Delay { by: time(first)?, jitter: time(second)? },
        "reorder" => Effect::Reorder { window: usize::from(whole), hold: time(second)? },
        "stall" => Effect::Stall(if first.is_some() { Some(time(first)?) } else { None }),
        "bandwidth" => Effect::Bandwidth(first.unwrap_or(1.0)),
        "disconnect" => Effect::Disconnect(whole),
        "reset" => Effect::Reset,
        _ => return Err(ConfigError::new("effect", format!("there is no fault {name:?}"))),
    })
}

/// The clock of one server. A call that changes it returns when every connection has handled its due timers.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Clock(pub(super) Running);

#[pymethods]
impl Clock {
    /// Stops the clock.
    fn freeze(&self, py: Python<'_>) -> PyResult<()> {
        self.turn(py, crate::server::Clock::freeze)
    }

    /// Lets the clock run again from its current time.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.turn(py, crate::server::Clock::resume)
    }

    /// Moves the clock forward by a number of seconds.
    fn advance(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        let by = Duration::try_from_secs_f64(seconds).map_err(|_| {
            config_error(
                py,
                &ConfigError::new("seconds", format!("must be a number of seconds, 0 or more, got {seconds}")),
            )
        })?;
        self.turn(py, |clock| clock.advance(by))
    }

    /// The time of the clock, in Unix seconds.
    #[getter]
    fn now(&self) -> f64 {
        self.0.clock().unix_now()
    }

    /// Whether the clock is stopped.
    #[getter]
    fn is_frozen(&self) -> bool {
        self.0.clock().is_frozen()
    }
}

impl Clock {
    fn turn(&self, py: Python<'_>, turn: impl FnOnce(&crate::server::Clock) + Send) -> PyResult<()> {
        detached(py, || {
            turn(self.0.clock());
            // The channel closes when all due timers are handled. Under extreme load the call returns earlier.
            let _done = self.0.clock_turned().recv_timeout(SLACK);
        })
    }
}
