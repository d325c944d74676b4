//! The part of the membership that knows the ICE servers which all nodes share.

use std::sync::Arc;
use std::time::Instant;

use super::membership::{Asked, Membership};
use super::output::{Output, Report};
use super::registry::Operation;
use super::upkeep::{Setting, Signing};

impl Membership {
    /// Sets the ICE servers of all nodes, or removes them. Without the engine they are set once it is there.
    pub fn set_ice(&mut self, servers: Option<Arc<str>>, now: Instant) {
        self.wake(now);
        self.ice.wanted = Some(Setting { servers });
        if self.is_member() {
            self.look_for_ice(now);
        }
    }

    /// Sets the servers that the registry may not have, and reads those that it has.
    pub(super) fn look_for_ice(&mut self, now: Instant) {
        if let Some(Setting { servers }) = &self.ice.wanted {
            self.set_in_registry(servers.clone(), false, now);
        }
        if self.ice.seals {
            // That of the last join may have been sent before.
            self.send_record(now);
            self.send(Operation::SealIce, Asked::SealIce, now);
        }
        self.send(Operation::ReadIce, Asked::Ice, now);
    }

    /// Writes all of this node into the registry again, since records are signed with another secret now.
    pub fn sign_again(&mut self, now: Instant) {
        self.wake(now);
        // Otherwise all is written when the node joins, and the rest when it reads the registry.
        (self.ice.seals, self.ice.signing) = (true, None);
        if self.is_member() {
            self.reclaim_all(now);
            self.announce_all(now);
            self.look_for_ice(now);
        }
    }

    /// Handles the answer of the engine that the servers are encrypted with the new secret.
    pub(super) fn on_sealed(&mut self, number: u64) {
        // An answer that came before the last one may be to the earlier secret.
        if !self.is_asking(|asked| matches!(asked, Asked::SealIce)) && std::mem::take(&mut self.ice.seals) {
            self.ice.signing = Some(Signing { until: number, again: true });
        }
    }

    /// Reports that all is signed, once the engine has answered all that had to be written.
    pub(super) fn look_for_signed(&mut self, now: Instant) {
        while let Some(Signing { until, again }) = self.ice.signing
            && self.in_flight.keys().next().is_none_or(|oldest| *oldest > until)
        {
            self.ice.signing = None;
            if !again {
                return self.output(Output::Report(Report::Signed));
            }
            // Claims and announcements that were under way when the secret was replaced.
            self.reclaim_all(now);
            self.announce_all(now);
            self.ice.signing = Some(Signing { until: self.last_number, again: false });
        }
    }

    /// Begins again after a loss of the engine.
    pub(super) fn lose_signing(&mut self) {
        self.ice.seals |= self.ice.signing.take().is_some();
    }

    fn set_in_registry(&mut self, servers: Option<Arc<str>>, absent: bool, now: Instant) {
        self.send(Operation::SetIce { servers: servers.clone(), absent }, Asked::SetIce(servers), now);
    }

    /// Handles the answer of the engine that it has these servers.
    pub(super) fn on_ice_set(&mut self, servers: Option<&Arc<str>>) {
        if self.ice.wanted.as_ref().is_some_and(|wanted| wanted.servers.as_ref() == servers) {
            self.ice.wanted = None;
        }
    }

    pub(super) fn on_ice(&mut self, servers: Option<Arc<str>>, now: Instant) {
        let Some(epoch) = self.epoch else { return };
        let known = self.ice.known.take();
        match (known, servers) {
            (Some((before, lost)), None) if before != epoch => {
                // Not removed, but lost by the engine. The first node that knows them gives them back.
                self.ice.known = Some((epoch, Arc::clone(&lost)));
                self.set_in_registry(Some(lost), true, now);
                self.send(Operation::ReadIce, Asked::Ice, now);
            }
            (Some(_), None) => self.output(Output::Ice(None)),
            (None, None) => {}
            (known, Some(servers)) => {
                if known.is_none_or(|(_, known)| known != servers) {
                    self.output(Output::Ice(Some(Arc::clone(&servers))));
                }
                self.ice.known = Some((epoch, servers));
            }
        }
    }
}
