//! Operations as commands of the engine.

use redis::{Cmd, Pipeline, cmd};

use super::keys::{Keys, SCHEMA};
use super::records;
use super::scripts::{Script, Scripts};
use super::signer::Signer;
use crate::core::cluster::registry::{BATCH, Expected, NodeRecord, Operation, Place, Timing, Wanted};
use crate::core::cluster::{Incarnation, Registration};
use crate::protocol::DeviceId;

/// Request to the engine.
pub(super) enum Request {
    /// One command.
    Command(Cmd),
    /// Commands that the engine executes without those of others between them. The answer is that of the last one.
    Transaction(Pipeline),
}

/// Writes operations as requests.
pub(super) struct Requests<'a> {
    pub(super) keys: &'a Keys,
    pub(super) scripts: &'a Scripts,
    pub(super) signer: &'a Signer,
    pub(super) timing: &'a Timing,
}

impl Requests<'_> {
    /// Returns the request of an operation.
    pub(super) fn request(&self, operation: &Operation) -> Request {
        Request::Command(match operation {
            Operation::Scan(cursor) => return Request::Transaction(self.scan(*cursor)),
            Operation::Join { node, replaces } => self.join(node, replaces.as_ref()),
            Operation::Renew(node) => {
                let mut call = self.scripts.call(Script::Renew, self.keys, &[]);
                call.arg(ms(self.timing.lease)).arg(node.to_string());
                call
            }
            Operation::Claim { wanted, expected, place } => self.claim(wanted, expected.as_ref(), place.as_ref()),
            Operation::Reclaim { node, wanted } => self.reclaim(node, wanted),
            Operation::Release(ids) => self.release(ids),
            Operation::Read(id) => self.read(id),
            Operation::Reap(node) => {
                let mut call = self.call_about(Script::Reap, node);
                call.arg(ms(self.timing.reap)).arg(BATCH).arg(node.to_string());
                call
            }
            Operation::Nodes => self.scripts.call(Script::Nodes, self.keys, &[]),
            Operation::SetIce { servers, absent } => self.set_ice(servers.as_deref(), *absent),
            Operation::ReadIce | Operation::SealIce => {
                let mut read = cmd("GET");
                read.arg(&self.keys.ice);
                read
            }
            Operation::Leave(node) => {
                let mut call = self.call_about(Script::Leave, node);
                call.arg(BATCH).arg(node.to_string());
                call
            }
            Operation::Expect { node, expected, most } => self.expect(node, expected, *most),
            Operation::Cancel { node, ids } => self.cancel(&node.to_string(), ids),
        })
    }

    /// Reads a page of the devices together with the registry that it shows.
    fn scan(&self, cursor: u64) -> Pipeline {
        let Keys { meta, devices, .. } = self.keys;
        // The crate's own transactions panic where the user may not call MULTI.
        let mut scan = redis::pipe();
        scan.cmd("MULTI").cmd("HMGET").arg(meta).arg("epoch").arg("version");
        scan.cmd("HSCAN").arg(devices).arg(cursor).arg("COUNT").arg(BATCH).cmd("EXEC");
        scan
    }

    fn read(&self, id: &DeviceId) -> Cmd {
        let mut read = cmd("HGET");
        read.arg(&self.keys.devices).arg(id.as_str());
        read
    }

    /// Calls a script about the devices and the announcements of a node.
    fn call_about(&self, script: Script, node: &Incarnation) -> Cmd {
        let [places, pending] = self.keys.announced();
        self.scripts.call(script, self.keys, &[&self.keys.held(node), places, pending])
    }

    fn expect(&self, node: &Incarnation, expected: &[Expected], most: usize) -> Cmd {
        let mut call = self.scripts.call(Script::Expect, self.keys, &self.keys.announced());
        call.arg(ms(self.timing.reap)).arg(most).arg(BATCH).arg(node.to_string());
        for Expected { id, details } in expected {
            let place = Place { by: node.clone(), details: details.clone() };
            call.arg(id.as_str()).arg(records::of_place(self.signer, id, &place));
        }
        call
    }

    /// Takes back announcements of a node, or of another program that has written as one.
    pub(super) fn cancel(&self, node: &str, ids: &[DeviceId]) -> Cmd {
        let mut call = self.scripts.call(Script::Cancel, self.keys, &self.keys.announced());
        call.arg(BATCH).arg(node);
        for id in ids {
            call.arg(id.as_str());
        }
        call
    }

    fn join(&self, node: &NodeRecord, replaces: Option<&Incarnation>) -> Cmd {
        let own = &node.incarnation;
        let mut call = self.call_about(Script::Join, replaces.unwrap_or(own));
        // The epoch of a registry that this call creates.
        call.arg(SCHEMA).arg(format!("{:016x}", fastrand::u64(..))).arg(ms(self.timing.lease)).arg(BATCH);
        call.arg(own.to_string()).arg(own.node()).arg(records::of_node(self.signer, node)).arg(name(replaces));
        call
    }

    fn claim(&self, wanted: &Wanted, expected: Option<&Registration>, place: Option<&Place>) -> Cmd {
        let node = wanted.registration.incarnation();
        let [places, pending] = self.keys.announced();
        let held = self.keys.held(node);
        let gone = expected.map(|gone| self.keys.held(gone.incarnation()));
        let keys = [held.as_str(), gone.as_deref().unwrap_or(&held), places, pending];
        let mut call = self.scripts.call(Script::Claim, self.keys, &keys);
        call.arg(ms(self.timing.settle)).arg(node.to_string()).arg(name(expected));
        self.wanted(&mut call, wanted);
        call.arg(name(place.map(|place| &place.by))).arg(place.map_or("", |place| &place.details));
        call.arg(ms(self.timing.reap));
        call
    }

    fn reclaim(&self, node: &Incarnation, wanted: &[Wanted]) -> Cmd {
        let mut call = self.call_about(Script::Reclaim, node);
        call.arg(node.to_string());
        for wanted in wanted {
            self.wanted(&mut call, wanted);
        }
        call
    }

    fn set_ice(&self, servers: Option<&str>, absent: bool) -> Cmd {
        let mut call = self.scripts.call(Script::SetIce, self.keys, &[&self.keys.ice]);
        let sealed = servers.map(|servers| self.signer.seal("ice", servers)).unwrap_or_default();
        call.arg(sealed).arg(u8::from(absent)).arg("");
        call
    }

    /// Replaces the servers that are encrypted as `sealed` with the same ones.
    pub(super) fn seal_again(&self, sealed: &str, servers: &str) -> Cmd {
        let mut call = self.scripts.call(Script::SetIce, self.keys, &[&self.keys.ice]);
        call.arg(self.signer.seal("ice", servers)).arg(0).arg(sealed);
        call
    }

    fn wanted(&self, call: &mut Cmd, wanted: &Wanted) {
        let owner = wanted.registration.to_string();
        let record = records::of_device(self.signer, wanted, &owner);
        call.arg(wanted.id.as_str()).arg(owner).arg(record);
    }

    fn release(&self, ids: &[(DeviceId, Registration)]) -> Cmd {
        let mut nodes: Vec<_> = ids.iter().map(|(_, registration)| registration.incarnation()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let held: Vec<_> = nodes.iter().map(|node| self.keys.held(node)).collect();
        let held: Vec<_> = held.iter().map(String::as_str).collect();
        let mut call = self.scripts.call(Script::Release, self.keys, &held);
        for (id, registration) in ids {
            // The number of the key in KEYS, which begins at 1 with four others.
            let key = 5 + nodes.partition_point(|node| *node < registration.incarnation());
            call.arg(id.as_str()).arg(registration.to_string()).arg(key);
        }
        call
    }
}

/// Returns whole milliseconds.
fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn name(name: Option<&impl ToString>) -> String {
    name.map(ToString::to_string).unwrap_or_default()
}
