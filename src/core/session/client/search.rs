//! The search of a client for its device: on this node, and on the others of a cluster.

use std::sync::Arc;
use std::time::Instant;

use super::{ClientSession, Framing, Search, State, Wait};
use crate::core::hub::{Device, Waiter};
use crate::core::outbox::End;
use crate::core::session::upstream::NOT_HERE;
use crate::core::session::{Answer, Context, Question, Step};
use crate::core::upstream::Upstream;
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, Text, is_plain};

impl ClientSession {
    /// Looks for the device that the client waits for. If it has come, and the ICE servers of the client are outdated, the
    /// client gets a new config first (docs/protocol.md 4.2.10).
    pub(super) fn find_after_wait(&mut self, id: DeviceId, deadline: Option<Instant>, now: Instant) -> Step {
        let step = self.find(id.clone(), deadline, now);
        let has_come = matches!(self.state, State::AwaitingDeviceInfo { .. });
        if has_come && self.has_outdated_config(now) {
            return self.configure(id, Wait::Continues(deadline));
        }
        step
    }

    /// Returns whether the client has waited so long that its ICE servers are outdated.
    pub(super) fn has_outdated_config(&self, now: Instant) -> bool {
        let expiring = self.renew_at.is_some_and(|at| at <= now);
        let outdated = expiring || self.generation != self.context.hub.ice_generation();
        outdated && self.waits_since.is_some() && self.framing == Framing::Enveloped
    }

    /// Looks for the device, until the deadline: here, then on other nodes.
    ///
    /// A device outside the client's grant takes the same steps and is never found, so that a client cannot tell it
    /// from one that does not exist.
    pub(super) fn find(&mut self, id: DeviceId, deadline: Option<Instant>, now: Instant) -> Step {
        let Context { peer, rules, .. } = &self.context;
        // No device can register such an id. It is not waited for, since the text may be long.
        let can_register = !id.as_str().is_empty() && is_plain(id.as_str(), rules.max_device_id);
        let over = deadline.is_some_and(|deadline| deadline <= now) || !can_register;
        let is_granted = peer.grant.covers(&id);
        if let Some(device) = self.device_here(&id) {
            return self.meet(id, device, None, deadline, now);
        }
        if rules.is_clustered && self.framing != Framing::Node && can_register && is_granted {
            return self.locate(Search { id, deadline, waits: false, woken: false, last: over });
        }
        if over { self.not_found(id) } else { self.wait(id, deadline, now) }
    }

    /// Asks which other node has the device.
    pub(super) fn locate(&mut self, search: Search) -> Step {
        let question = Question::Locate { id: search.id.clone(), last: search.last };
        self.state = State::Locating(search);
        Step::Ask(question)
    }

    /// Handles the answer to the question which node has the device.
    pub(super) fn on_located(&mut self, search: Search, answer: Answer, now: Instant) -> Step {
        match answer {
            Answer::Away(upstream) => self.on_away(search, upstream, now),
            Answer::Nowhere => self.on_nowhere(search, now),
            // It has registered here meanwhile.
            Answer::Refused(_) if self.device_here(&search.id).is_some() => self.find(search.id, search.deadline, now),
            Answer::Refused(refusal) => {
                self.state = State::Locating(search);
                self.refuse(&refusal)
            }
            Answer::Ended { last, end } => {
                self.state = State::Locating(search);
                self.unregister();
                self.context.outbox.close(last, end);
                Step::Done
            }
            _ => {
                self.state = State::Locating(search);
                Step::Done
            }
        }
    }

    /// Gives the client the info of a device on another node, and lets the messages of the device through.
    pub(super) fn attach_away(
        &mut self,
        upstream: Box<Upstream>,
        info: Text,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Step {
        // The device left while a hook filtered its info, so the client looks for it again.
        if upstream.is_lost() {
            return self.find(upstream.device().id.clone(), deadline, now);
        }
        // Before the messages of the device (docs/protocol.md 2.4).
        self.context.outbox.push(self.rendered(info));
        if !upstream.start() {
            return self.refuse(&Refusal::DeviceDisconnected);
        }
        self.state = State::Proxied(upstream);
        self.has_its_device(now);
        Step::Done
    }

    /// Asks again, since no other node had the device, or lets the client wait, or refuses it.
    pub(super) fn on_nowhere(&mut self, search: Search, now: Instant) -> Step {
        let Search { id, deadline, waits, woken, last } = search;
        if last {
            // It may have registered here.
            let is_here = self.device_here(&id).is_some();
            return if is_here { self.find(id, deadline, now) } else { self.not_found(id) };
        }
        if waits && woken {
            return self.find_after_wait(id, deadline, now);
        }
        if waits {
            self.state = State::Waiting { id, deadline };
            return Step::Done;
        }
        if let Some(device) = self.device_or_wait(&id) {
            return self.meet(id, device, None, deadline, now);
        }
        // It may have registered elsewhere before the hub was told to wake the client.
        self.waits_since.get_or_insert(now);
        self.locate(Search { id, deadline, waits: true, woken: false, last })
    }

    /// Goes on with a device on another node.
    pub(super) fn on_away(&mut self, search: Search, upstream: Box<Upstream>, now: Instant) -> Step {
        let Search { id, deadline, .. } = search;
        self.context.hub.stop_waiting(&id, &self.context.outbox);
        if self.has_outdated_config(now) {
            return self.configure(id, Wait::Found(upstream, deadline));
        }
        self.meet(id, Arc::clone(upstream.device()), Some(upstream), deadline, now)
    }

    /// Goes on with a device that is registered.
    pub(super) fn meet(
        &mut self,
        id: DeviceId,
        device: Arc<Device>,
        upstream: Option<Box<Upstream>>,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Step {
        if self.framing == Framing::Node {
            return self.attach(id, &device, device.info.clone(), deadline, now);
        }
        if let Some(peer_journal) = self.context.outbox.peer_journal().filter(|_| id != device.id) {
            peer_journal.concerns(&device.id);
        }
        self.state = State::AwaitingDeviceInfo { id, device: Arc::clone(&device), upstream, deadline };
        Step::Ask(Question::DeviceInfo(device))
    }

    /// Waits for the device to register here.
    pub(super) fn wait(&mut self, id: DeviceId, deadline: Option<Instant>, now: Instant) -> Step {
        if let Some(device) = self.device_or_wait(&id) {
            return self.meet(id, device, None, deadline, now);
        }
        self.state = State::Waiting { id, deadline };
        self.waits_since.get_or_insert(now);
        Step::Done
    }

    /// Finds a device of this node that the client may use. Another node says the id of the device in the cluster.
    fn device_here(&self, id: &DeviceId) -> Option<Arc<Device>> {
        let Context { hub, peer, .. } = &self.context;
        let device = if self.framing == Framing::Node { hub.device(id) } else { hub.find(id) };
        device.filter(|device| peer.grant.covers(&device.id))
    }

    pub(super) fn device_or_wait(&self, id: &DeviceId) -> Option<Arc<Device>> {
        let Context { hub, peer, outbox, .. } = &self.context;
        let waiter = Waiter { peer: Arc::clone(peer), outbox: Arc::clone(outbox) };
        hub.device_or_wait(id, &waiter, self.framing == Framing::Node)
    }

    /// Refuses the client, whose device is not registered.
    pub(super) fn not_found(&mut self, id: DeviceId) -> Step {
        self.state = State::Waiting { id: id.clone(), deadline: None };
        if self.framing == Framing::Node {
            self.unregister();
            self.context.outbox.close(None, End::close(NOT_HERE, "device not found"));
            return Step::Done;
        }
        self.refuse(&Refusal::DeviceNotFound(id))
    }
}
