//! The claim of one registration, from the request of the session to the grant or the refusal.
//!
//! A holder that is alive keeps its id, and a holder that is gone loses it. The node of the holder decides which of the
//! two it is: it pings the device. Its lease counts only where it cannot be asked.

use std::time::{Duration, Instant};

use super::holders::Holders;
use super::names::Registration;
use super::registry::{Claimed, Place, Timing, Wanted};

/// Pause between questions to the node of a holder that cannot be reached.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Answer of a node about a holder that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// The device has answered a ping.
    Alive,
    /// The device has not answered, or the node does not have this registration.
    Gone,
    /// The node could not be asked.
    Unreachable,
}

/// Outcome of a claim, for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The registration holds the id.
    Granted,
    /// The engine cannot be asked. The node serves the device, and claims its id later.
    Unclaimed,
    /// Another registration holds the id, and its device is alive.
    Refused,
    /// The engine cannot be asked, and the settings want no device without a claim.
    Unavailable,
}

/// Next act for a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, until the next event.
    Wait,
    /// Ask the engine, with the holder that is known to be gone.
    Ask(Option<Registration>),
    /// Ask the node of this holder whether it is alive.
    Probe(Registration),
    /// Tell the session. The claim is over if it is refused.
    Tell(Outcome),
    /// Tell the session, and the node of the holder that was replaced.
    Replace(Registration),
    /// End the session, which the engine does not grant.
    End,
    /// Give the id up and refuse the session: the engine has forgotten a holder that is alive.
    GiveBack,
}

/// A claim.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) wanted: Wanted,
    /// Announcement of the device, if one is known.
    pub(super) place: Option<Place>,
    /// Whether a holder is replaced without a question (docs/protocol.md 4.1.14).
    pub(super) replaces: bool,
    /// Whether the session has been told that its device is admitted.
    pub(super) admitted: bool,
    state: State,
    /// Time until which an unreachable holder is waited for, once there was one.
    hold_until: Option<Instant>,
    /// Time until which an engine is waited for that was lost since its last answer.
    lost_until: Option<Instant>,
    /// The other holders that it has met.
    pub(super) holders: Holders,
}

#[derive(Debug)]
enum State {
    /// Waits for the engine until this time, forever if there is none.
    Pending(Option<Instant>),
    /// The engine was asked, with this expected holder.
    Asked(Option<Registration>),
    /// The node of the holder was asked. `lease_end` is the time at which the lease of that node ends, unless it is renewed.
    Probing { holder: Registration, lease_end: Instant },
    /// The node of a possible holder was asked, since the engine cannot be.
    ProbingAlone,
    /// Granted, but the directory names another holder, whose node was asked.
    Confirming,
    /// The engine is asked again at this time.
    AskAt(Instant),
    /// The registration holds the id.
    Held,
    /// Admitted without a claim.
    Unclaimed,
}

impl Claim {
    /// Begins a claim that waits for the engine until `until`, if it is away.
    pub(super) fn new(wanted: Wanted, replaces: bool, until: Instant) -> Self {
        Self {
            wanted,
            place: None,
            replaces,
            admitted: false,
            state: State::Pending(Some(until)),
            hold_until: None,
            lost_until: None,
            holders: Holders::default(),
        }
    }

    /// Returns whether the registration holds the id.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held)
    }

    /// Returns whether the engine may have granted the id: it was asked, or has said so.
    pub(super) fn may_be_held(&self) -> bool {
        matches!(self.state, State::Held | State::Asked(_) | State::Confirming)
    }

    /// Handles the connection to the engine: asks, if the claim waits for it.
    pub(super) fn on_engine(&mut self) -> Next {
        match self.state {
            State::Pending(_) | State::ProbingAlone | State::Unclaimed => self.ask(None),
            _ => Next::Wait,
        }
    }

    /// Handles the loss of the engine. An operation without an answer is repeated: its outcome is unknown.
    pub(super) fn on_engine_lost(&mut self, until: Instant) {
        self.holders.forget_unreachable();
        self.state = match self.state {
            State::Asked(_) | State::AskAt(_) | State::Confirming | State::Probing { .. } if self.admitted => {
                State::Unclaimed
            }
            // Counted from the first loss: an engine may be lost at each question.
            State::Asked(_) | State::AskAt(_) | State::Confirming | State::Probing { .. } => {
                State::Pending(Some(*self.lost_until.get_or_insert(until)))
            }
            _ => return,
        };
    }

    /// Handles the answer of the engine. `contradicted` is a living holder that the directory names instead.
    pub(super) fn on_reply(&mut self, claimed: Claimed, contradicted: Option<&Registration>, now: Instant) -> Next {
        let State::Asked(expected) = &self.state else { return Next::Wait };
        let expected = expected.clone();
        self.lost_until = None;
        match claimed {
            Claimed::Granted => match contradicted.filter(|holder| Some(*holder) != expected.as_ref()) {
                Some(holder) => {
                    self.state = State::Confirming;
                    Next::Probe(holder.clone())
                }
                None => self.grant(expected),
            },
            Claimed::Held { holder, lease } => self.on_held(holder, lease, now),
            Claimed::Settling(left) => {
                self.state = State::AskAt(now + left);
                Next::Wait
            }
            Claimed::Expected(place) if self.place.as_ref() == Some(&place) => {
                // Answered twice, by an engine that does not compare. It is not asked at once again and again.
                self.state = State::AskAt(now + ASK_AGAIN);
                Next::Wait
            }
            Claimed::Expected(place) => {
                self.wanted.details = place.described(&self.wanted.details);
                self.place = Some(place);
                self.ask(expected)
            }
        }
    }

    /// Handles the word of the engine that another registration holds the id, whose node has this lease.
    fn on_held(&mut self, holder: Registration, lease: Duration, now: Instant) -> Next {
        if self.replaces && !self.admitted {
            return self.ask(Some(holder));
        }
        if self.holders.is_unreachable(&holder) {
            // Its node did not answer. Without a lease it is gone, by the engine's word of now.
            if lease.is_zero() {
                return self.ask(Some(holder));
            }
            if self.has_waited(now) {
                return self.refuse();
            }
        }
        self.state = State::Probing { holder: holder.clone(), lease_end: now + lease };
        Next::Probe(holder)
    }

    /// Handles the answer of the node of a holder.
    pub(super) fn on_probe(&mut self, holder: &Registration, probe: Probe, timing: &Timing, now: Instant) -> Next {
        if probe == Probe::Gone || matches!(self.state, State::Confirming) {
            self.holders.pass(holder);
        }
        match (&self.state, probe) {
            (State::Probing { holder: asked, .. }, _) if asked != holder => Next::Wait,
            (State::Probing { .. } | State::ProbingAlone, Probe::Alive) => self.refuse(),
            (State::Probing { .. }, Probe::Gone) => self.ask(Some(holder.clone())),
            (State::Probing { lease_end, .. }, Probe::Unreachable) => {
                let lease_end = *lease_end;
                self.holders.miss(holder);
                self.hold(lease_end, timing, now)
            }
            (State::ProbingAlone, _) => self.admit(),
            (State::Confirming, Probe::Alive) => Next::GiveBack,
            // Once more: another may have the id since the grant.
            (State::Confirming, _) => {
                self.holders.forget_known();
                self.ask(None)
            }
            _ => Next::Wait,
        }
    }

    /// Handles the time. `alone` says that the engine is away, `known` is the holder that the directory names.
    pub(super) fn on_time(&mut self, alone: bool, known: Option<&Registration>, hold: bool, now: Instant) -> Next {
        match self.state {
            State::AskAt(at) if at <= now && !alone => self.ask(None),
            State::Pending(Some(until)) if until <= now && alone => match known {
                _ if hold => Next::Tell(Outcome::Unavailable),
                Some(holder) => {
                    self.state = State::ProbingAlone;
                    Next::Probe(holder.clone())
                }
                None => self.admit(),
            },
            _ => Next::Wait,
        }
    }

    /// Returns the time of the next [`Claim::on_time`].
    pub(super) fn timeout(&self, alone: bool) -> Option<Instant> {
        match self.state {
            State::AskAt(at) if !alone => Some(at),
            State::Pending(until) if alone => until,
            _ => None,
        }
    }

    /// Takes the id back from a registration that stands in its place, and is known to be gone.
    pub(super) fn take_back(&mut self, gone: Registration) -> Next {
        if self.is_held() { self.ask(Some(gone)) } else { Next::Wait }
    }

    /// Holds the claim again, which the engine has confirmed.
    pub(super) fn confirm(&mut self) {
        self.state = State::Held;
    }

    fn ask(&mut self, expected: Option<Registration>) -> Next {
        self.state = State::Asked(expected.clone());
        Next::Ask(expected)
    }

    /// Waits for a holder whose node cannot be reached. Another node with a lease keeps its devices in the end.
    fn hold(&mut self, lease_end: Instant, timing: &Timing, now: Instant) -> Next {
        // Counted from the first question without an answer: the node may have died while it asked its device.
        self.hold_until.get_or_insert(now + timing.hold);
        if lease_end <= now || self.has_waited(now) {
            // The lease may have been renewed while its node was asked, and the holder may have left.
            return self.ask(None);
        }
        self.state = State::AskAt(lease_end.min(now + ASK_AGAIN));
        Next::Wait
    }

    /// Returns whether an unreachable holder has been waited for long enough.
    fn has_waited(&self, now: Instant) -> bool {
        self.hold_until.is_some_and(|until| until <= now)
    }

    fn refuse(&self) -> Next {
        if self.admitted { Next::End } else { Next::Tell(Outcome::Refused) }
    }

    fn grant(&mut self, replaced: Option<Registration>) -> Next {
        self.state = State::Held;
        self.hold_until = None;
        self.holders.forget_known();
        let first = !std::mem::replace(&mut self.admitted, true);
        match replaced.filter(|_| self.replaces && first) {
            Some(holder) => Next::Replace(holder),
            None => Next::Tell(Outcome::Granted),
        }
    }

    fn admit(&mut self) -> Next {
        self.state = State::Unclaimed;
        self.admitted = true;
        Next::Tell(Outcome::Unclaimed)
    }
}
