//! The directory holds what the registry holds, in whatever order changes and pages come.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::core::cluster::registry::{
    Change, Delta, Entry, NodeRecord, Operation, Reply, Timing, Version, Wanted,
};
use cuttlefish_signaling::core::cluster::{Directory, Incarnation, Registration};
use cuttlefish_signaling::protocol::DeviceId;
use proptest::prelude::*;

use crate::driven::{delta, version};
use crate::engine::Engine;

/// Time at which the registry has settled.
const SETTLED: Duration = Duration::from_secs(10);

fn registration(number: u64) -> Registration {
    Registration::new(Incarnation::new(&format!("lab-{}", number % 2), 1).unwrap(), number)
}

fn claimed(version: u64, id: &str, number: u64) -> Delta {
    delta(version, Change::Claimed(vec![(DeviceId::new(id), registration(number), Arc::from("{}"))]))
}

fn released(version: u64, id: &str) -> Delta {
    delta(version, Change::Released(vec![DeviceId::new(id)]))
}

fn holder(directory: &Directory, id: &str) -> Option<Registration> {
    directory.get(&DeviceId::new(id)).map(|entry| entry.registration.clone())
}

fn entry(number: u64, version: u64) -> Entry {
    Entry { registration: registration(number), details: Arc::from("{}"), version }
}

/// A directory that has read an empty registry at version 0.
fn empty() -> Directory {
    let mut directory = Directory::default();
    directory.reset(version(0));
    directory.begin_scan();
    directory.end_scan();
    assert!(directory.is_complete());
    directory
}

#[test]
fn a_change_that_is_missing_makes_a_scan_necessary() {
    let mut directory = empty();
    assert!(directory.apply(&claimed(1, "a", 1)));
    assert!(!directory.needs_scan());
    assert!(directory.apply(&claimed(3, "b", 1)));
    assert!(directory.needs_scan());
}

#[test]
fn an_entry_that_no_node_has_signed_says_nothing() {
    let mut directory = empty();
    assert!(directory.apply(&claimed(1, "a", 1)) && directory.apply(&claimed(2, "b", 1)));
    directory.miss();
    directory.begin_scan();
    directory.page(vec![]);
    directory.keep(vec![DeviceId::new("a"), DeviceId::new("c")]);
    directory.end_scan();
    assert_eq!(["a", "b", "c"].map(|id| holder(&directory, id)), [Some(registration(1)), None, None]);
    // Its node has claimed it again.
    assert!(directory.apply(&claimed(3, "a", 2)));
    assert_eq!(holder(&directory, "a"), Some(registration(2)));
}

#[test]
fn revision_moves_with_the_entries_and_not_when_one_is_only_confirmed() {
    let mut directory = empty();
    let mut moves = |change: &dyn Fn(&mut Directory)| {
        let before = directory.revision();
        change(&mut directory);
        directory.revision() != before
    };
    assert!(moves(&|directory| {
        directory.apply(&claimed(1, "a", 1));
    }));
    assert!(!moves(&|directory| {
        directory.apply(&claimed(2, "a", 1));
    }));
    assert!(!moves(&|directory| {
        directory.apply(&released(3, "b"));
    }));
    assert!(!moves(&|directory| {
        directory.reset(version(3));
        directory.begin_scan();
        directory.page(vec![(DeviceId::new("a"), entry(1, 2))]);
        directory.end_scan();
    }));
    assert!(moves(&|directory| {
        directory.apply(&claimed(4, "a", 2));
    }));
    // A registry that is empty.
    assert!(moves(&|directory| {
        directory.reset(version(5));
        directory.begin_scan();
        directory.end_scan();
    }));
}

#[test]
fn a_change_that_comes_again_is_ignored() {
    let mut directory = empty();
    directory.apply(&claimed(1, "a", 1));
    directory.apply(&released(2, "a"));
    assert!(!directory.apply(&claimed(1, "a", 1)));
    assert_eq!(holder(&directory, "a"), None);
}

#[test]
fn a_version_of_the_engine_that_is_ahead_makes_a_scan_necessary() {
    let mut directory = empty();
    directory.check(version(0));
    assert!(!directory.needs_scan());
    directory.check(version(1));
    assert!(directory.needs_scan());
}

#[test]
fn a_page_does_not_bring_back_a_device_that_was_released_after_it_was_read() {
    let mut directory = empty();
    directory.reset(version(5));
    directory.begin_scan();
    directory.apply(&released(6, "a"));
    directory.page(vec![(DeviceId::new("a"), entry(1, 3))]);
    directory.end_scan();
    assert_eq!(holder(&directory, "a"), None);
}

#[test]
fn a_page_does_not_replace_a_newer_holder() {
    let mut directory = empty();
    directory.reset(version(5));
    directory.begin_scan();
    directory.apply(&claimed(6, "a", 2));
    directory.page(vec![(DeviceId::new("a"), entry(1, 3))]);
    directory.end_scan();
    assert_eq!(holder(&directory, "a"), Some(registration(2)));
}

#[test]
fn an_entry_of_before_is_replaced_by_an_older_version_of_an_engine_that_has_lost_writes() {
    let mut directory = empty();
    directory.apply(&claimed(1, "a", 1));
    directory.apply(&claimed(2, "a", 2));
    directory.reset(version(1));
    assert_eq!(holder(&directory, "a"), Some(registration(2)), "the best that is known stays until the scan");
    directory.begin_scan();
    directory.page(vec![(DeviceId::new("a"), entry(1, 1))]);
    directory.end_scan();
    assert_eq!(holder(&directory, "a"), Some(registration(1)));
}

#[test]
fn a_pass_replaces_what_an_engine_has_lost_that_names_versions_again() {
    let mut directory = empty();
    assert!(directory.apply(&claimed(1, "a", 1)) && directory.apply(&claimed(2, "a", 2)));
    // Rolled back to the first version, without that this node is told.
    let again = Version { number: 2, stamp: 9 };
    assert!(!directory.apply(&Delta { version: again, after: 1, change: Change::Announced }));
    assert!(directory.has_lost());
    directory.begin_scan();
    directory.page(vec![(DeviceId::new("a"), entry(1, 1))]);
    directory.end_scan();
    assert_eq!(holder(&directory, "a"), Some(registration(1)));
}

#[test]
fn a_device_that_no_page_shows_is_gone_after_the_scan() {
    let mut directory = empty();
    directory.apply(&claimed(1, "a", 1));
    directory.reset(version(7));
    directory.begin_scan();
    directory.apply(&claimed(8, "b", 2));
    directory.end_scan();
    assert_eq!((holder(&directory, "a"), holder(&directory, "b")), (None, Some(registration(2))));
}

#[test]
fn a_device_of_a_page_that_was_ahead_of_the_feed_is_gone_after_the_next_scan() {
    let mut directory = empty();
    directory.reset(version(1));
    directory.begin_scan();
    // The change that made version 2 is lost, and so is the one that made version 3.
    directory.page(vec![(DeviceId::new("a"), entry(1, 2))]);
    directory.end_scan();
    directory.check(version(3));
    assert!(directory.needs_scan());
    directory.begin_scan();
    directory.end_scan();
    assert_eq!(holder(&directory, "a"), None);
}

/// A step of a world of one engine and one directory.
#[derive(Debug, Clone)]
enum Act {
    Claim {
        id: u8,
        number: u64,
    },
    Release {
        id: u8,
        number: u64,
    },
    /// The directory receives this many of the changes that wait for it.
    Deliver(usize),
    /// A change is lost on its way.
    Lose,
    /// The directory begins a scan, or reads its next page.
    Page,
    /// The engine is copied.
    Save,
    /// The engine is restored from the copy.
    RollBack,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..8_u8, 0..3_u64).prop_map(|(id, number)| Act::Claim { id, number }),
        2 => (0..8_u8, 0..3_u64).prop_map(|(id, number)| Act::Release { id, number }),
        3 => (1..4_usize).prop_map(Act::Deliver),
        1 => Just(Act::Lose),
        2 => Just(Act::Page),
        1 => Just(Act::Save),
        1 => Just(Act::RollBack),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #[test]
    fn the_directory_equals_the_registry_once_all_has_arrived(acts in acts()) {
        let mut world = Pair::new();
        for act in &acts {
            world.act(act);
        }
        world.calm();
        let expected: Vec<_> = world.engine.devices.iter().map(|(id, entry)| (id, &entry.registration)).collect();
        let known: Vec<_> = world.directory.iter().map(|(id, entry)| (id, &entry.registration)).collect();
        prop_assert_eq!(known, expected);
    }

    #[test]
    fn counts_and_revision_follow_the_entries(acts in acts(), most in 1..5_usize) {
        let mut world = Pair::new();
        let (mut before, mut revision) = (world.known(), world.directory.revision());
        for act in &acts {
            world.act(act);
            let (known, directory) = (world.known(), &world.directory);
            let mut counts = BTreeMap::new();
            for (_, registration) in &known {
                *counts.entry(registration.incarnation().clone()).or_insert(0) += 1;
            }
            let counted: BTreeMap<_, _> = directory.nodes().map(|(node, devices)| (node.clone(), devices)).collect();
            prop_assert_eq!(&counted, &counts);
            for number in 0..2 {
                let node = registration(number).incarnation().clone();
                prop_assert_eq!(directory.devices_of(&node), counts.get(&node).copied().unwrap_or(0));
            }
            prop_assert!(before == known || revision != directory.revision());
            (before, revision) = (known, directory.revision());
            prop_assert_eq!(&world.in_parts(most), &before);
        }
    }
}

/// An engine, a directory, and the changes between them. Pages come at once, changes late.
struct Pair {
    engine: Engine,
    /// A copy of before.
    saved: Engine,
    directory: Directory,
    feed: VecDeque<Delta>,
    cursor: Option<u64>,
}

impl Pair {
    fn new() -> Self {
        let mut engine = Engine::new(Timing::default(), 1, Duration::ZERO);
        for number in 0..2 {
            let node = NodeRecord { incarnation: registration(number).incarnation().clone(), details: Arc::from("{}") };
            engine.execute(&Operation::Join { node, replaces: None }, SETTLED);
        }
        let mut directory = Directory::default();
        directory.reset(engine.version);
        Self { saved: engine.clone(), engine, directory, feed: VecDeque::new(), cursor: None }
    }

    fn known(&self) -> Vec<(DeviceId, Registration)> {
        self.directory.iter().map(|(id, entry)| (id.clone(), entry.registration.clone())).collect()
    }

    /// Reads the directory in parts of `most` entries.
    fn in_parts(&self, most: usize) -> Vec<(DeviceId, Registration)> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|(id, _): &(DeviceId, Registration)| id.clone());
            let part = self.directory.after(after.as_ref(), most);
            let before = all.len();
            all.extend(part.map(|(id, entry)| (id.clone(), entry.registration.clone())));
            if all.len() == before {
                return all;
            }
        }
    }

    fn act(&mut self, act: &Act) {
        let id = |id: &u8| DeviceId::new(&format!("cvd-{id}"));
        match act {
            Act::Claim { id: name, number } => {
                let wanted = Wanted { id: id(name), registration: registration(*number), details: Arc::from("{}") };
                let expected = self.engine.devices.get(&wanted.id).map(|entry| entry.registration.clone());
                self.execute(&Operation::Claim { wanted, expected, place: None });
            }
            Act::Release { id: name, number } => {
                self.execute(&Operation::Release(vec![(id(name), registration(*number))]));
            }
            Act::Deliver(count) => {
                for delta in self.feed.drain(..(*count).min(self.feed.len())) {
                    self.directory.apply(&delta);
                }
            }
            Act::Lose => drop(self.feed.pop_front()),
            Act::Page => self.page(),
            Act::Save => self.saved = self.engine.clone(),
            Act::RollBack => self.engine = self.saved.clone(),
        }
    }

    fn execute(&mut self, operation: &Operation) {
        let (_, changes) = self.engine.execute(operation, SETTLED);
        self.feed.extend(changes);
    }

    fn page(&mut self) {
        if self.directory.needs_scan() {
            self.directory.begin_scan();
            self.cursor = Some(0);
        }
        let Some(cursor) = self.cursor else { return };
        let (answer, _) = self.engine.execute(&Operation::Scan(cursor), SETTLED);
        let Reply::Page { version, cursor, entries, .. } = answer.reply else { panic!("{answer:?}") };
        self.directory.on_named(version, self.directory.greatest_number());
        self.directory.page(entries);
        self.cursor = Some(cursor).filter(|cursor| *cursor != 0);
        if self.cursor.is_none() {
            self.directory.end_scan();
        }
    }

    /// Delivers all changes, lets the engine name its version, and reads until nothing is missing. An engine that has lost
    /// writes is noticed, whatever changes were lost on their way.
    fn calm(&mut self) {
        self.act(&Act::Deliver(usize::MAX));
        self.directory.on_named(self.engine.version, self.directory.greatest_number());
        self.directory.check(self.engine.version);
        if self.directory.has_lost() {
            self.directory.reset(self.engine.version);
        }
        while !self.directory.is_complete() {
            self.page();
        }
    }
}
