//! A fault as JSON: its kind, its numbers, and the forwards that it applies to.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::body::Whole;
use super::problem::Problem;
use super::query::time;
use crate::core::peer::Role;
use crate::observe::faults::{Effect, Rule};
use crate::protocol::DeviceId;

/// The codes that a close frame may have (RFC 6455, 7.4).
const CLOSE_CODES: [std::ops::RangeInclusive<u64>; 3] = [1000..=1003, 1007..=1014, 3000..=4999];

/// A fault. A field that is missing is null.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fault {
    #[serde(rename = "fault")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<Whole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_s: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Whole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Whole>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    payload_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nth: Option<Whole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<Whole>,
    /// Whether the device may be on another node, and register here later.
    #[serde(skip_serializing)]
    absent_ok: Option<bool>,
}

fn fault(name: &str, wanted: &str) -> Problem {
    Problem::bad_request(&format!("$.{name}"), format!("must be {wanted}"))
}

/// A number in a range.
fn in_range(name: &str, given: Option<&Number>, default: f64, (least, most): (f64, f64)) -> Result<f64, Problem> {
    let number = given.map_or(Some(default), Number::as_f64).filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| fault(name, &format!("a number from {least} to {most}")))
}

/// A time in seconds.
fn seconds(name: &str, given: Option<&Number>, default: Duration) -> Result<Duration, Problem> {
    given.map_or(Some(default), time).ok_or_else(|| fault(name, "a number of seconds, from 0 to 1000000000"))
}

fn count(name: &str, given: Option<Whole>) -> Result<Option<u64>, Problem> {
    match given {
        Some(Whole(0)) => Err(fault(name, "a whole number, 1 or more")),
        given => Ok(given.map(|Whole(number)| number)),
    }
}

impl Fault {
    /// The device that has to be on this node, or on none.
    pub(super) fn device_here(&self) -> Option<DeviceId> {
        self.device.as_deref().filter(|_| self.absent_ok != Some(true)).map(DeviceId::new)
    }

    /// Checks the fault, and makes its rule.
    pub(super) fn rule(self) -> Result<Rule, Problem> {
        let effect = self.effect()?;
        self.check_numbers()?;
        let to = match self.to.as_deref() {
            None => None,
            Some("device") => Some(Role::Device),
            Some("client") => Some(Role::Client),
            Some(_) => return Err(fault("to", "device or client")),
        };
        let client = match self.client.map(Whole::client) {
            Some(None) => return Err(fault("client", "a client id, from 0 to 2147483647")),
            client => client.flatten(),
        };
        Ok(Rule {
            effect,
            to,
            device: self.device.as_deref().map(DeviceId::new),
            client,
            nth: count("nth", self.nth)?,
            probability: in_range("probability", self.probability.as_ref(), 1.0, (0.0, 1.0))?,
            times: count("times", self.times)?,
            payload_type: self.payload_type,
        })
    }

    fn effect(&self) -> Result<Effect, Problem> {
        Ok(match &*self.kind {
            "drop" => Effect::Drop,
            "duplicate" => Effect::Duplicate,
            "reset" => Effect::Reset,
            "truncate" => Effect::Truncate(in_range("keep", self.keep.as_ref(), 0.5, (0.0, 1.0))?),
            "delay" => {
                let by = self.by.as_ref().ok_or_else(|| fault("by", "there: the delay in seconds"))?;
                Effect::Delay {
                    by: seconds("by", Some(by), Duration::ZERO)?,
                    jitter: seconds("jitter", self.jitter.as_ref(), Duration::ZERO)?,
                }
            }
            "reorder" => {
                let window = self.window.map_or(2, |Whole(window)| window);
                if !(2..=1000).contains(&window) {
                    return Err(fault("window", "a whole number from 2 to 1000"));
                }
                let hold = seconds("hold", self.hold.as_ref(), Duration::from_millis(500))?;
                Effect::Reorder { window: usize::try_from(window).unwrap_or(2), hold }
            }
            "stall" => Effect::Stall(self.by.as_ref().map(|by| seconds("by", Some(by), Duration::ZERO)).transpose()?),
            "bandwidth" => {
                let given = self.bytes_per_s.as_ref().ok_or_else(|| fault("bytes_per_s", "there"))?;
                Effect::Bandwidth(in_range("bytes_per_s", Some(given), 1.0, (1.0, 1e12))?)
            }
            "disconnect" => {
                let code = self.code.map_or(1011, |Whole(code)| code);
                let is_code = CLOSE_CODES.iter().any(|codes| codes.contains(&code));
                let code = u16::try_from(code).ok().filter(|_| is_code);
                Effect::Disconnect(code.ok_or_else(|| fault("code", "1000 to 1003, 1007 to 1014 or 3000 to 4999"))?)
            }
            _ => {
                let kinds = "one of drop, duplicate, delay, reorder, truncate, stall, bandwidth, disconnect, reset";
                return Err(fault("fault", kinds));
            }
        })
    }

    /// Refuses numbers of other kinds of faults.
    fn check_numbers(&self) -> Result<(), Problem> {
        let own: &[&str] = match &*self.kind {
            "truncate" => &["keep"],
            "delay" => &["by", "jitter"],
            "reorder" => &["window", "hold"],
            "stall" => &["by"],
            "bandwidth" => &["bytes_per_s"],
            "disconnect" => &["code"],
            _ => &[],
        };
        let given = [
            ("keep", self.keep.is_some()),
            ("by", self.by.is_some()),
            ("jitter", self.jitter.is_some()),
            ("window", self.window.is_some()),
            ("hold", self.hold.is_some()),
            ("bytes_per_s", self.bytes_per_s.is_some()),
            ("code", self.code.is_some()),
        ];
        match given.into_iter().find(|(name, is_given)| *is_given && !own.contains(name)) {
            Some((name, _)) => {
                let error = format!("is no number of the fault {}", self.kind);
                Err(Problem::bad_request(&format!("$.{name}"), error))
            }
            None => Ok(()),
        }
    }

    /// The JSON of a rule that is armed.
    pub(super) fn of(rule: &Rule) -> Self {
        let number = |value: f64| Number::from_f64(value);
        let mut fault = Self {
            kind: rule.effect.name().to_owned(),
            to: rule.to.map(|role| role.as_str().to_owned()),
            device: rule.device.as_ref().map(ToString::to_string),
            client: rule.client.map(|id| Whole(id.get().into())),
            payload_type: rule.payload_type.clone(),
            nth: rule.nth.map(Whole),
            probability: Some(rule.probability).filter(|share| *share < 1.0).and_then(number),
            times: rule.times.map(Whole),
            ..Self::default()
        };
        match rule.effect {
            Effect::Drop | Effect::Duplicate | Effect::Reset => {}
            Effect::Truncate(keep) => fault.keep = number(keep),
            Effect::Delay { by, jitter } => {
                (fault.by, fault.jitter) = (number(by.as_secs_f64()), number(jitter.as_secs_f64()));
            }
            Effect::Reorder { window, hold } => {
                (fault.window, fault.hold) = (u64::try_from(window).ok().map(Whole), number(hold.as_secs_f64()));
            }
            Effect::Stall(by) => fault.by = by.and_then(|by| number(by.as_secs_f64())),
            Effect::Bandwidth(rate) => fault.bytes_per_s = number(rate),
            Effect::Disconnect(code) => fault.code = Some(Whole(code.into())),
        }
        fault
    }
}
