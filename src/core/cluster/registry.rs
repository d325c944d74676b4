//! The contract with the engine: what a node asks of the registry, and what it is answered.
//!
//! The engine executes one operation at a time, and each one whole or not at all. An operation without an answer has
//! an *unknown* outcome: it may have been executed. So each may be repeated, with the same effect.
//!
//! Time in the registry is the engine's own. No node's clock is compared with another's.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::names::{Incarnation, Registration};
use crate::protocol::DeviceId;

/// Devices of one [`Operation::Reclaim`], and entries of one page of a scan, at most.
pub const BATCH: usize = 512;

/// Fields of an announcement in the facts of a device.
const PLACE_FIELDS: [&str; 5] = ["group", "owner", "name", "adb_port", "advertise"];

/// Times of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Time for which a renewal keeps the lease of a node.
    pub lease: Duration,
    /// Pause between renewals.
    pub renew: Duration,
    /// Time for the answer to an operation. Without it, the connection to the engine is dropped.
    pub operation: Duration,
    /// Time from the birth of a registry in which a device that no node has reclaimed cannot be claimed by another.
    pub settle: Duration,
    /// Time that a newcomer waits for a holder whose node cannot be reached. It is longer than the lease, so that the
    /// lease of a node that has died ends first.
    pub hold: Duration,
    /// Silence after which a node was paused, and the others have closed their connections to it.
    pub pause: Duration,
    /// Time after which a node without the engine serves alone.
    pub patience: Duration,
    /// Time that a device waits for the engine where no device is admitted without a claim.
    pub outage_hold: Duration,
    /// Time without the engine after which a node is not ready, if another node has the engine.
    pub unready: Duration,
    /// Pause between looks at what the registry says of this node.
    pub upkeep: Duration,
    /// Time from the end of the lease of a node to the removal of its devices.
    pub reap: Duration,
    /// First pause before another attempt to reach the engine.
    pub backoff: Duration,
    /// Longest pause before another attempt to reach the engine.
    pub max_backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(6),
            renew: Duration::from_secs(1),
            operation: Duration::from_secs(1),
            settle: Duration::from_secs(3),
            hold: Duration::from_secs(7),
            pause: Duration::from_secs(5),
            patience: Duration::from_secs(2),
            outage_hold: Duration::from_secs(5),
            unready: Duration::from_secs(30),
            upkeep: Duration::from_secs(5),
            reap: Duration::from_secs(60),
            backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
        }
    }
}

/// A registry from its creation to its loss: 64 random bits. An engine that restarts empty begins another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A state of the registry: the number of its changes, and the stamp of the operation that has made the last one.
///
/// An engine that has lost writes gives their numbers to other changes, and never their stamps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Version {
    /// Number of changes since the creation of the registry.
    pub number: u64,
    /// Random bits of the operation; 0 before the first change.
    pub stamp: u64,
}

/// A node, as it stands in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// This start of the node.
    pub incarnation: Incarnation,
    /// Facts for other nodes, such as its address, as JSON. The engine does not read them.
    pub details: Arc<str>,
}

/// A device, as it stands in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Registration that holds the id.
    pub registration: Registration,
    /// Facts for other nodes, such as the group, as JSON. The engine does not read them.
    pub details: Arc<str>,
    /// Number of the change that made this entry.
    pub version: u64,
}

/// A device that a node wants to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Id of the device.
    pub id: DeviceId,
    /// Registration for which it is claimed.
    pub registration: Registration,
    /// Facts for other nodes, as JSON.
    pub details: Arc<str>,
}

/// A pre-registration: a device that is announced on a node, and has not registered on any (docs/protocol.md 5.4.21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Node on which it was announced.
    pub by: Incarnation,
    /// Facts of the announcement, such as the group, as JSON. The engine does not read them.
    pub details: Arc<str>,
}

impl Place {
    /// Puts the facts of the announcement into those of a device, in the place of all of an earlier one. Both are JSON.
    pub(super) fn described(&self, device: &str) -> Arc<str> {
        let object = |text| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
        let mut facts = object(device);
        facts.retain(|field, _| !PLACE_FIELDS.contains(&&**field));
        facts.extend(object(&self.details).into_iter().filter(|(field, _)| PLACE_FIELDS.contains(&&**field)));
        Value::Object(facts).to_string().into()
    }
}

/// A device that a node announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Id of the device.
    pub id: DeviceId,
    /// Facts of the announcement, as JSON.
    pub details: Arc<str>,
}

/// Outcome of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// The device is announced by this node. It has not registered.
    Pending,
    /// Another node has announced it, and it has not registered.
    Taken,
    /// The id has a holder.
    Registered,
    /// The registry has as many announcements as it may have.
    Full,
}

/// Question or order of a node to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Becomes a member, with a lease. If an earlier incarnation has the name, it is removed with its devices, but only
    /// if it is `replaces`.
    Join {
        /// The node.
        node: NodeRecord,
        /// Incarnation of the same name that is known to be gone.
        replaces: Option<Incarnation>,
    },
    /// Renews the lease.
    Renew(Incarnation),
    /// Claims an id. Granted if no registration holds it, or `expected` does, or the claimant itself. The announcement of
    /// the device ends with the grant.
    Claim {
        /// The device.
        wanted: Wanted,
        /// Holder that is known to be gone.
        expected: Option<Registration>,
        /// Announcement of the device that is known. Nothing is granted where the registry has another one.
        place: Option<Place>,
    },
    /// Claims ids after a loss of the connection: each is granted if no other registration holds it. An entry of the
    /// claimant with other details is written again.
    Reclaim {
        /// The claimant.
        node: Incarnation,
        /// The devices, at most [`BATCH`].
        wanted: Vec<Wanted>,
    },
    /// Gives ids up. An id that another registration holds stays.
    Release(Vec<(DeviceId, Registration)>),
    /// Reads the entry of one id.
    Read(DeviceId),
    /// Reads some entries, from this cursor on; 0 begins.
    Scan(u64),
    /// Removes at most [`BATCH`] devices of a node whose lease ended long ago ([`Timing::reap`]).
    Reap(Incarnation),
    /// Reads the records of all nodes with a lease.
    Nodes,
    /// Ends the lease of this node, and removes at most [`BATCH`] devices of it. The node is removed with the last one.
    Leave(Incarnation),
    /// Sets the ICE servers that all nodes share, or removes them.
    SetIce {
        /// The servers as JSON. The engine does not read them.
        servers: Option<Arc<str>>,
        /// Whether those that are there stay.
        absent: bool,
    },
    /// Reads the ICE servers that all nodes share.
    ReadIce,
    /// Encrypts the ICE servers that all nodes share again, with the secret of now.
    SealIce,
    /// Announces devices, at most [`BATCH`]. Announcements of a node whose lease ended long ago ([`Timing::reap`]) make way.
    Expect {
        /// The node.
        node: Incarnation,
        /// The devices.
        expected: Vec<Expected>,
        /// Greatest number of announcements in the registry.
        most: usize,
    },
    /// Takes back announcements of a node, all of them if it names none. Those of other nodes stay.
    Cancel {
        /// The node.
        node: Incarnation,
        /// The devices, at most [`BATCH`].
        ids: Vec<DeviceId>,
    },
}

/// Answer of the engine to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer.
    pub reply: Reply,
    /// Version of the registry after the operation, where the reply has no place for it.
    pub named: Option<Version>,
}

impl Answer {
    /// Returns the version of the registry after the operation, if the engine names it.
    pub(super) fn version(&self) -> Option<Version> {
        match self.reply {
            Reply::Joined { version, .. } | Reply::Renewed { version, .. } | Reply::Page { version, .. } => {
                Some(version)
            }
            _ => self.named,
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, named: None }
    }
}

/// Content of an answer of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Operation::Join`].
    Joined {
        /// The registry.
        epoch: Epoch,
        /// Its version. Changes after it arrive on the feed.
        version: Version,
        /// Age of the registry.
        age: Duration,
        /// All nodes with a lease, this one included.
        nodes: Vec<NodeRecord>,
    },
    /// To [`Operation::Join`]: another incarnation has the name.
    NameHeld {
        /// The other incarnation.
        node: NodeRecord,
        /// Time that is left of its lease; zero if it has none.
        lease: Duration,
    },
    /// To [`Operation::Renew`].
    Renewed {
        /// The registry.
        epoch: Epoch,
        /// Its version.
        version: Version,
        /// All nodes with a lease, this one included.
        nodes: Vec<Incarnation>,
    },
    /// To any operation of a node that has no lease: it has to join first. Nothing was done.
    NotAMember,
    /// To [`Operation::Claim`].
    Claimed(Claimed),
    /// To [`Operation::Reclaim`]: one for each device, in order.
    Reclaimed(Vec<Claimed>),
    /// To [`Operation::Expect`]: one for each device, in order.
    Expected(Vec<Expectation>),
    /// To [`Operation::Release`], [`Operation::SetIce`], [`Operation::SealIce`] and [`Operation::Cancel`].
    Done,
    /// To [`Operation::Read`].
    Entry(Option<Entry>),
    /// To [`Operation::Scan`].
    Page {
        /// The registry.
        epoch: Epoch,
        /// Its version.
        version: Version,
        /// Cursor of the next page; 0 after the last one.
        cursor: u64,
        /// Entries. An entry that stays during the whole scan is on one page at least.
        entries: Vec<(DeviceId, Entry)>,
        /// Ids whose entries no node has signed. They say nothing: another user of the engine has written them.
        unsigned: Vec<DeviceId>,
    },
    /// To [`Operation::Nodes`]: all nodes with a lease.
    Nodes(Vec<NodeRecord>),
    /// To [`Operation::ReadIce`].
    Ice(Option<Arc<str>>),
    /// To [`Operation::Reap`] and [`Operation::Leave`]: whether there is more to remove.
    Reaped {
        /// Whether devices of the node are left.
        more: bool,
    },
}

/// Outcome of the claim of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The claimant holds the id.
    Granted,
    /// Another registration holds the id.
    Held {
        /// The holder.
        holder: Registration,
        /// Time that is left of the lease of its node; zero if it has none.
        lease: Duration,
    },
    /// The registry is new, and the node that held the id before may not have reclaimed it yet.
    Settling(Duration),
    /// The device is announced with these facts. The claim is granted once it knows them.
    Expected(Place),
}

/// A change of the registry, as it is published on the feed. Each makes one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// Version that the change made.
    pub version: Version,
    /// Stamp of the version before.
    pub after: u64,
    /// The change.
    pub change: Change,
}

/// Kind of a change of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Ids have a holder.
    Claimed(Vec<(DeviceId, Registration, Arc<str>)>),
    /// Ids have no holder.
    Released(Vec<DeviceId>),
    /// A node has joined, or its record was replaced.
    Joined(NodeRecord),
    /// A node has left, or was replaced by its next start.
    Left(Incarnation),
    /// The ICE servers that all nodes share were set or removed: they have to be read.
    Ice,
    /// Devices were announced, or announcements were removed without a claim. It has a version of its own, so that nodes
    /// notice an engine that has lost it.
    Announced,
}
