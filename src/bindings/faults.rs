//! `_native.Faults` and `_native.Clock`: what tests do to a server that runs. Python has checked the arguments.

use std::time::Duration;

use pyo3::prelude::*;

use super::error::{config_error, detached};
use super::event_queue::SLACK;
use crate::config::error::ConfigError;
use crate::core::peer::Role;
use crate::observe::faults::{Effect, FaultStats, Rule};
use crate::protocol::{ClientId, DeviceId};
use crate::server::Running;

/// The faults of one server.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Faults(pub(super) Running);

/// matched, hits, overran.
type TallyTuple = (u64, u64, u64);

#[pymethods]
impl Faults {
    /// Arms a rule: the name of its effect, and the two numbers that go with it. Times are in seconds.
    #[pyo3(signature = (
        effect, first = None, second = None, *, to = None, device = None, client = None, payload_type = None, nth = None,
        probability = 1.0, times = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they have names in Python")]
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

    /// Removes a rule and returns its tally, if it is armed.
    fn disarm(&self, py: Python<'_>, id: u64) -> PyResult<Option<TallyTuple>> {
        detached(py, || self.0.disarm_fault(id).map(tally_tuple))
    }

    /// The tally of a rule, if it is armed.
    fn tally(&self, py: Python<'_>, id: u64) -> PyResult<Option<TallyTuple>> {
        detached(py, || self.0.fault_tally(id).map(tally_tuple))
    }

    /// What is left to chance goes by this seed.
    fn seed(&self, seed: u64) {
        self.0.seed_faults(seed);
    }
}

fn tally_tuple(tally: FaultStats) -> TallyTuple {
    (tally.matched, tally.hits, tally.overran)
}

fn effect_of(name: &str, first: Option<f64>, second: Option<f64>) -> Result<Effect, ConfigError> {
    let time = |seconds: Option<f64>| {
        Duration::try_from_secs_f64(seconds.unwrap_or_default())
            .map_err(|_| ConfigError::new(name, format!("{seconds:?} is no number of seconds")))
    };
    // Small whole numbers, checked in Python.
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

/// The clock of one server. Whoever turns it comes back when all that was due is done.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Clock(pub(super) Running);

#[pymethods]
impl Clock {
    /// Stops it.
    fn freeze(&self, py: Python<'_>) -> PyResult<()> {
        self.turn(py, crate::server::Clock::freeze)
    }

    /// Lets it go on from where it stands.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.turn(py, crate::server::Clock::resume)
    }

    /// Moves it on by so many seconds.
    fn advance(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        let by = Duration::try_from_secs_f64(seconds).map_err(|_| {
            config_error(py, &ConfigError::new("seconds", format!("{seconds} is no number of seconds, 0 or more")))
        })?;
        self.turn(py, |clock| clock.advance(by))
    }

    /// The time it shows, in seconds since 1970.
    #[getter]
    fn now(&self) -> f64 {
        self.0.clock().unix_now()
    }

    /// Whether it stands.
    #[getter]
    fn is_frozen(&self) -> bool {
        self.0.clock().is_frozen()
    }
}

impl Clock {
    fn turn(&self, py: Python<'_>, turn: impl FnOnce(&crate::server::Clock) + Send) -> PyResult<()> {
        detached(py, || {
            turn(self.0.clock());
            // Hung up on when all is done; a server under such load that it takes longer has other worries.
            let _done = self.0.clock_turned().recv_timeout(SLACK);
        })
    }
}
