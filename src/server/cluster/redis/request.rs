//! Operations as commands of the engine.

use redis::{Cmd, cmd};

use super::keys::{Keys, SCHEMA};
use super::records;
use super::scripts::{Script, Scripts};
use super::signer::Signer;
use crate::core::cluster::registry::{BATCH, NodeRecord, Operation, Timing, Wanted};
use crate::core::cluster::{Incarnation, Registration};
use crate::protocol::DeviceId;

/// Writes operations as commands.
pub(super) struct Requests<'a> {
    pub(super) keys: &'a Keys,
    pub(super) scripts: &'a Scripts,
    pub(super) signer: &'a Signer,
    pub(super) timing: &'a Timing,
}

impl Requests<'_> {
    /// Returns the command of an operation.
    pub(super) fn command(&self, operation: &Operation) -> Cmd {
        match operation {
            Operation::Join { node, replaces } => self.join(node, replaces.as_ref()),
            Operation::Renew(node) => {
                let mut call = self.scripts.call(Script::Renew, self.keys, &[]);
                call.arg(ms(self.timing.lease)).arg(node.to_string());
                call
            }
            Operation::Claim { wanted, expected } => self.claim(wanted, expected.as_ref()),
            Operation::Reclaim { node, wanted } => self.reclaim(node, wanted),
            Operation::Release(ids) => self.release(ids),
            Operation::Read(id) => {
                let mut read = cmd("HGET");
                read.arg(&self.keys.devices).arg(id.as_str());
                read
            }
            Operation::Scan(cursor) => {
                let mut scan = cmd("HSCAN");
                scan.arg(&self.keys.devices).arg(*cursor).arg("COUNT").arg(BATCH);
                scan
            }
            Operation::Reap(node) => {
                let mut call = self.scripts.call(Script::Reap, self.keys, &[self.keys.held(node)]);
                call.arg(ms(self.timing.reap)).arg(BATCH).arg(node.to_string());
                call
            }
            Operation::Nodes => self.scripts.call(Script::Nodes, self.keys, &[]),
            Operation::SetIce { servers, absent } => self.set_ice(servers.as_deref(), *absent),
            Operation::ReadIce => {
                let mut read = cmd("GET");
                read.arg(&self.keys.ice);
                read
            }
            Operation::Leave(node) => {
                let mut call = self.scripts.call(Script::Leave, self.keys, &[self.keys.held(node)]);
                call.arg(BATCH).arg(node.to_string());
                call
            }
        }
    }

    fn join(&self, node: &NodeRecord, replaces: Option<&Incarnation>) -> Cmd {
        let own = &node.incarnation;
        let mut call = self.scripts.call(Script::Join, self.keys, &[self.keys.held(replaces.unwrap_or(own))]);
        // The epoch of a registry that this call creates.
        call.arg(SCHEMA).arg(format!("{:016x}", fastrand::u64(..))).arg(ms(self.timing.lease)).arg(BATCH);
        call.arg(own.to_string()).arg(own.node()).arg(records::of_node(self.signer, node)).arg(name(replaces));
        call
    }

    fn claim(&self, wanted: &Wanted, expected: Option<&Registration>) -> Cmd {
        let node = wanted.registration.incarnation();
        let gone = expected.map_or(node, Registration::incarnation);
        let mut call = self.scripts.call(Script::Claim, self.keys, &[self.keys.held(node), self.keys.held(gone)]);
        call.arg(ms(self.timing.settle)).arg(node.to_string()).arg(name(expected));
        self.wanted(&mut call, wanted);
        call
    }

    fn reclaim(&self, node: &Incarnation, wanted: &[Wanted]) -> Cmd {
        let mut call = self.scripts.call(Script::Reclaim, self.keys, &[self.keys.held(node)]);
        call.arg(node.to_string());
        for wanted in wanted {
            self.wanted(&mut call, wanted);
        }
        call
    }

    fn set_ice(&self, servers: Option<&str>, absent: bool) -> Cmd {
        let mut call = self.scripts.call(Script::SetIce, self.keys, std::slice::from_ref(&self.keys.ice));
        let sealed = servers.map(|servers| self.signer.seal("ice", servers)).unwrap_or_default();
        call.arg(sealed).arg(u8::from(absent));
        call
    }

    fn wanted(&self, call: &mut Cmd, wanted: &Wanted) {
        call.arg(wanted.id.as_str()).arg(wanted.registration.to_string()).arg(records::of_device(self.signer, wanted));
    }

    fn release(&self, ids: &[(DeviceId, Registration)]) -> Cmd {
        let mut nodes: Vec<_> = ids.iter().map(|(_, registration)| registration.incarnation()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let held: Vec<_> = nodes.iter().map(|node| self.keys.held(node)).collect();
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
