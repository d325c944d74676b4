//! The scripts on a real server against the model of the engine: the same answers, changes and tables.

use std::time::Duration;

use cuttlefish_signaling::core::cluster::registry::{
    Answer, Claimed, Delta, Epoch, Expected, NodeRecord, Operation, Place, Reply, Timing, Version, Wanted,
};
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::cluster::engine::{Connection, Engine as _, Feed};
use cuttlefish_signaling::server::cluster::redis::Redis;
use tokio::sync::mpsc::error::TryRecvError;

use super::server::{Server, runtime, settings};
use crate::engine::Engine;

/// Time goes by in steps of this. A whole run takes less, so that both engines round the rest of a lease up to the same.
const STEP: Duration = Duration::from_secs(600);

const STEPS: usize = 60;

/// Ids of devices, also those that a script could mistake.
const IDS: [&str; 7] = ["cvd-1", "cvd-2", "with space", "\"quoted\" 3:abc", "ünï/cödé", "%d.{x}", ":"];

fn timing() -> Timing {
    Timing { lease: STEP * 6, settle: STEP * 2, reap: STEP * 12, ..Timing::default() }
}

struct Both<'a> {
    rng: fastrand::Rng,
    server: &'a Server,
    connection: Connection,
    model: Engine,
    /// The last version that the server has published.
    version: Version,
    now: Duration,
    seed: u64,
}

impl Both<'_> {
    /// Lets time go by: instead of a clock, all times in the registry are changed.
    fn pass(&mut self, steps: u32) {
        let mut admin = self.server.admin();
        let ms = -i64::from(steps) * i64::try_from(STEP.as_millis()).unwrap();
        let nodes: Vec<String> =
            redis::cmd("ZRANGE").arg("{cuttlefish:lab}:nodes").arg(0).arg(-1).query(&mut admin).unwrap();
        for node in nodes {
            redis::cmd("ZINCRBY").arg("{cuttlefish:lab}:nodes").arg(ms).arg(node).exec(&mut admin).unwrap();
        }
        redis::cmd("HINCRBY").arg("{cuttlefish:lab}:meta").arg("born").arg(ms).exec(&mut admin).unwrap();
        self.now += STEP * steps;
    }

    async fn execute(&mut self, operation: Operation) {
        let seed = self.seed;
        let (expected, changes) = self.model.execute(&operation, self.now);
        let answer = self.connection.commands.execute(operation.clone()).await.unwrap();
        let (named, before) = (answer.named, self.version);
        assert_eq!(unstamped(rounded(answer)), unstamped(expected), "seed {seed}: {operation:?}");
        for change in changes {
            let Some(Feed::Delta(pushed)) = self.connection.feed.recv().await else { panic!("no change") };
            let Delta { version, after, .. } = pushed;
            assert_eq!(
                (version.number, after),
                (self.version.number + 1, self.version.stamp),
                "seed {seed}: {operation:?}"
            );
            assert!(version.stamp != before.stamp && version.number == change.version.number, "{version:?}");
            assert_eq!(pushed.change, change.change, "seed {seed}: {operation:?}");
            self.version = version;
        }
        assert!(named.is_none_or(|named| named == self.version), "seed {seed}: {operation:?}");
        assert_eq!(self.connection.feed.try_recv(), Err(TryRecvError::Empty), "seed {seed}: {operation:?}");
    }

    async fn compare_tables(&mut self) {
        let (mut cursor, mut entries) = (0, Vec::new());
        loop {
            let Reply::Page { cursor: next, entries: page, .. } =
                self.connection.commands.execute(Operation::Scan(cursor)).await.unwrap().reply
            else {
                panic!("no page");
            };
            entries.extend(page);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let mut admin = self.server.admin();
        let mut count = |command, key: &str| -> usize {
            redis::cmd(command).arg(format!("{{cuttlefish:lab}}:{key}")).query(&mut admin).unwrap()
        };
        let (announced, pending) = (count("HLEN", "preregistrations"), count("ZCARD", "pending"));
        assert_eq!((announced, pending), (self.model.places.len(), announced), "seed {}", self.seed);
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup();
        let model: Vec<_> = self.model.devices.iter().map(|(id, entry)| (id.clone(), entry.clone())).collect();
        assert_eq!(entries, model, "seed {}", self.seed);
    }

    fn node(&mut self) -> Incarnation {
        Incarnation::new(["a", "b.c", "c_3"][self.rng.usize(..3)], self.rng.u64(..2)).unwrap()
    }

    fn registration(&mut self) -> Registration {
        Registration::new(self.node(), self.rng.u64(..3))
    }

    fn wanted(&mut self, node: &Incarnation) -> Wanted {
        let registration = Registration::new(node.clone(), self.rng.u64(..3));
        let details =
            ["{}", r#"{"place":"a/b","n":12345678901234567890}"#, "{\"text\": \"5:a b\"}"][self.rng.usize(..3)];
        Wanted { id: self.id(), registration, details: details.into() }
    }

    fn id(&mut self) -> DeviceId {
        DeviceId::new(IDS[self.rng.usize(..IDS.len())])
    }

    fn place(&mut self) -> Place {
        let details = ["{}", r#"{"group":"a b","advertise":["10.0.0.1=192.0.2.1"]}"#, "-"][self.rng.usize(..3)];
        Place { by: self.node(), details: details.into() }
    }

    /// Returns the holder of an id, or any registration.
    fn holder(&mut self, id: &DeviceId) -> Registration {
        let held = self.model.devices.get(id).map(|entry| entry.registration.clone());
        held.filter(|_| self.rng.u8(..3) > 0).unwrap_or_else(|| self.registration())
    }

    fn operation(&mut self) -> Operation {
        let node = self.node();
        match self.rng.u8(..22) {
            0 | 1 => {
                let details = if self.rng.bool() { "{}" } else { r#"{"address":"10.0.0.5:7443"}"# };
                let replaces = self.rng.bool().then(|| Incarnation::new(node.node(), self.rng.u64(..2)).unwrap());
                Operation::Join { node: NodeRecord { incarnation: node, details: details.into() }, replaces }
            }
            2 => Operation::Renew(node),
            3..=6 => {
                let wanted = self.wanted(&node);
                let expected = self.rng.bool().then(|| self.holder(&wanted.id));
                let known = self.model.places.get(&wanted.id).cloned();
                let place = known.filter(|_| self.rng.bool()).or_else(|| self.rng.bool().then(|| self.place()));
                Operation::Claim { wanted, expected, place }
            }
            7 | 8 => {
                let mut wanted: Vec<_> = (0..self.rng.usize(1..5)).map(|_| self.wanted(&node)).collect();
                wanted.sort_by(|a, b| a.id.cmp(&b.id));
                wanted.dedup_by(|a, b| a.id == b.id);
                Operation::Reclaim { node, wanted }
            }
            9 => {
                let mut ids: Vec<_> = (0..self.rng.usize(1..4)).map(|_| self.id()).collect();
                ids.sort();
                ids.dedup();
                let pairs = ids.into_iter().map(|id| (id.clone(), self.holder(&id)));
                Operation::Release(pairs.collect())
            }
            10 => Operation::Read(self.id()),
            11 | 12 => Operation::Nodes,
            13 => Operation::Leave(node),
            14 | 15 => {
                let servers = [None, Some("[]".into()), Some(r#"[{"urls":"turn:x","credential":"ü/"}]"#.into())];
                Operation::SetIce { servers: servers[self.rng.usize(..3)].clone(), absent: self.rng.bool() }
            }
            16 if self.rng.bool() => Operation::SealIce,
            16 => Operation::ReadIce,
            17..=19 => {
                let mut expected: Vec<_> = (0..self.rng.usize(1..4))
                    .map(|_| Expected { id: self.id(), details: self.place().details })
                    .collect();
                expected.dedup_by(|a, b| a.id == b.id);
                Operation::Expect { node, expected, most: [1, 3, 100][self.rng.usize(..3)] }
            }
            20 => {
                let ids = (0..self.rng.usize(..4)).map(|_| self.id()).collect();
                Operation::Cancel { node, ids }
            }
            _ => Operation::Reap(node),
        }
    }
}

/// Takes out the stamps, which are random bits.
fn unstamped(mut answer: Answer) -> Answer {
    use Reply::{Joined, Page, Renewed};
    if let Joined { version, .. } | Renewed { version, .. } | Page { version, .. } = &mut answer.reply {
        version.stamp = 0;
    }
    answer.named = answer.named.map(|named| Version { stamp: 0, ..named });
    answer
}

/// Rounds times up to whole steps: the clock of the server goes on during the test.
fn rounded(answer: Answer) -> Answer {
    let up = |time: Duration| {
        let steps = time.as_millis().div_ceil(STEP.as_millis());
        STEP * u32::try_from(steps).unwrap()
    };
    // An age goes up with the clock, and all others down.
    let down = |time: Duration| STEP * u32::try_from(time.as_millis() / STEP.as_millis()).unwrap();
    let claimed = |claimed| match claimed {
        Claimed::Held { holder, lease } => Claimed::Held { holder, lease: up(lease) },
        Claimed::Settling(left) => Claimed::Settling(up(left)),
        other @ (Claimed::Granted | Claimed::Expected(_)) => other,
    };
    let reply = match answer.reply {
        Reply::Joined { epoch, version, age, nodes } => Reply::Joined { epoch, version, age: down(age), nodes },
        Reply::NameHeld { node, lease } => Reply::NameHeld { node, lease: up(lease) },
        Reply::Claimed(outcome) => Reply::Claimed(claimed(outcome)),
        Reply::Reclaimed(outcomes) => Reply::Reclaimed(outcomes.into_iter().map(claimed).collect()),
        other => other,
    };
    Answer { reply, ..answer }
}

async fn follow(server: &Server, seed: u64) {
    server.run::<()>("FLUSHALL");
    let connection = Redis::new(&settings(&server.url(), timing())).unwrap().connect().await.unwrap();
    let node = NodeRecord { incarnation: Incarnation::new("a", 0).unwrap(), details: "{}".into() };
    let join = Operation::Join { node, replaces: None };
    let Reply::Joined { epoch: Epoch(epoch), version, .. } =
        connection.commands.execute(join.clone()).await.unwrap().reply
    else {
        panic!("seed {seed}: not joined");
    };
    let mut model = Engine::new(timing(), epoch, Duration::ZERO);
    model.execute(&join, Duration::ZERO);
    let rng = fastrand::Rng::with_seed(seed);
    let mut both = Both { rng, server, connection, model, version, now: Duration::ZERO, seed };
    assert!(matches!(both.connection.feed.recv().await, Some(Feed::Delta(_))));
    for _ in 0..STEPS {
        if both.rng.u8(..4) == 0 {
            let steps = both.rng.u32(..8);
            both.pass(steps);
        }
        let operation = both.operation();
        both.execute(operation).await;
        both.compare_tables().await;
    }
}

/// `CLUSTER_RUNS` is the number of runs.
#[test]
fn scripts_answer_and_publish_what_the_model_does() {
    let server = Server::start(&[]);
    let runs = std::env::var("CLUSTER_RUNS").map_or(60, |text| text.parse().unwrap());
    for seed in 0..runs {
        runtime().block_on(follow(&server, seed));
    }
}

/// A node with more devices than one batch has is replaced, and another one is reaped.
#[test]
fn batches_are_removed_one_after_the_other() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut both = start_with(&server, 1_100).await;
        both.pass(20);
        let node = Incarnation::new("a", 0).unwrap();
        for _ in 0..3 {
            both.execute(Operation::Reap(node.clone())).await;
        }
        both.compare_tables().await;
        assert!(both.model.devices.is_empty());

        let mut both = start_with(&server, 1_100).await;
        let record = NodeRecord { incarnation: Incarnation::new("a", 1).unwrap(), details: "{}".into() };
        both.execute(Operation::Join { node: record, replaces: Some(node) }).await;
        both.compare_tables().await;

        let mut both = start_with(&server, 1_100).await;
        let announced = (0..1_100).map(|n| Expected { id: DeviceId::new(&format!("new-{n}")), details: "{}".into() });
        for batch in announced.collect::<Vec<_>>().chunks(512) {
            let node = Incarnation::new("a", 0).unwrap();
            both.execute(Operation::Expect { node, expected: batch.to_vec(), most: 2_000 }).await;
        }
        for _ in 0..5 {
            both.execute(Operation::Leave(Incarnation::new("a", 0).unwrap())).await;
            both.execute(Operation::Nodes).await;
        }
        both.compare_tables().await;
        assert!(both.model.places.is_empty());
        let left: usize = redis::cmd("ZCARD").arg("{cuttlefish:lab}:pending").query(&mut server.admin()).unwrap();
        assert_eq!(left, 0);
    });
}

async fn start_with(server: &Server, devices: usize) -> Both<'_> {
    server.run::<()>("FLUSHALL");
    let connection = Redis::new(&settings(&server.url(), timing())).unwrap().connect().await.unwrap();
    let node = Incarnation::new("a", 0).unwrap();
    let join = Operation::Join { node: NodeRecord { incarnation: node.clone(), details: "{}".into() }, replaces: None };
    let Reply::Joined { epoch, version, .. } = connection.commands.execute(join.clone()).await.unwrap().reply else {
        panic!()
    };
    let mut model = Engine::new(timing(), epoch.0, Duration::ZERO);
    model.execute(&join, Duration::ZERO);
    let rng = fastrand::Rng::with_seed(0);
    let mut both = Both { rng, server, connection, model, version, now: Duration::ZERO, seed: 0 };
    both.connection.feed.recv().await.unwrap();
    let wanted: Vec<_> = (0..devices)
        .map(|number| Wanted {
            id: DeviceId::new(&format!("cvd-{number}")),
            registration: Registration::new(node.clone(), number as u64),
            details: "{}".into(),
        })
        .collect();
    for batch in wanted.chunks(512) {
        both.execute(Operation::Reclaim { node: node.clone(), wanted: batch.to_vec() }).await;
    }
    both
}

/// Returns one of each operation of the node `a`.
pub(super) fn one_of_each() -> Vec<Operation> {
    let (node, claim) = (super::incarnation("a"), super::wanted("a", "cvd-1", 1));
    vec![
        super::join_as("a"),
        Operation::Renew(node.clone()),
        Operation::Claim { wanted: claim.clone(), expected: None, place: None },
        Operation::Reclaim { node: node.clone(), wanted: vec![super::wanted("a", "cvd-2", 2)] },
        Operation::Read(claim.id.clone()),
        Operation::Scan(0),
        Operation::Nodes,
        Operation::SetIce { servers: Some("[]".into()), absent: false },
        Operation::SetIce { servers: None, absent: false },
        Operation::ReadIce,
        Operation::SealIce,
        Operation::Expect {
            node: node.clone(),
            expected: vec![Expected { id: DeviceId::new("cvd-3"), details: "{}".into() }],
            most: 1,
        },
        Operation::Cancel { node: node.clone(), ids: vec![DeviceId::new("cvd-3")] },
        Operation::Release(vec![(claim.id, claim.registration)]),
        Operation::Reap(Incarnation::new("b", 0).unwrap()),
        Operation::Leave(node),
    ]
}
