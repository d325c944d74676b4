//! The side of a driver that the harness plays: it answers questions, and has no rate limits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuttlefish_signaling::driver::Edge;
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::journal::JournalObserver;
use cuttlefish_signaling::protocol::{DeviceId, IceServers};
use cuttlefish_signaling::refusal::Refusal;
use cuttlefish_signaling::session::{Answer, Question};
use tokio::sync::oneshot;

/// The holder of an id, its answer to the ping, and the time of the ping.
pub(super) type Probe = (Arc<Device>, oneshot::Receiver<()>, Instant);

/// Answers questions as the server does without hooks.
pub(super) struct TestEdge<'a> {
    pub(super) ice: Option<&'a IceServers>,
    pub(super) good_for: Option<Duration>,
    pub(super) hold_device_info: bool,
    pub(super) now: Instant,
    pub(super) probe: &'a mut Option<Probe>,
    pub(super) name: &'a str,
    pub(super) asked: &'a mut VecDeque<(String, Question)>,
    pub(super) configured: &'a mut Vec<DeviceId>,
}

impl Edge for TestEdge<'_> {
    fn now(&mut self) -> Instant {
        self.now
    }

    fn ask(&mut self, question: Question) -> Option<Answer> {
        match question {
            Question::Config { device_id } => {
                self.configured.push(device_id);
                Some(match self.ice {
                    Some(ice) => Answer::Config(ice.config(), self.good_for),
                    None => Answer::Refused(Refusal::HookFailed),
                })
            }
            Question::DeviceInfo(_) if self.hold_device_info => None,
            Question::DeviceInfo(device) => Some(Answer::DeviceInfo(device.info.clone())),
            Question::Alive(holder) => {
                let probe = holder.outbox.probe();
                *self.probe = Some((holder, probe, self.now));
                None
            }
            Question::Claim(_) | Question::Locate { .. } | Question::Announce(_) => {
                self.asked.push_back((self.name.to_owned(), question));
                None
            }
        }
    }

    /// The harness has no rate limits.
    fn count_error(&mut self, _: Option<&Refusal>) -> Option<Refusal> {
        None
    }
}

/// A journal clock that stands at second 1.
pub(super) struct FixedClock;

impl JournalObserver for FixedClock {
    fn now(&self) -> f64 {
        1.0
    }

    fn recorded(&self) {}
}
