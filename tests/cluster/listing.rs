//! The time of a list over all nodes, from the directory.

use std::time::Instant;

use cuttlefish_signaling::core::cluster::registry::Entry;
use cuttlefish_signaling::core::cluster::{Directory, Registration};
use cuttlefish_signaling::protocol::DeviceId;

const DEVICES: usize = 16_384;

fn directory() -> Directory {
    let mut directory = Directory::default();
    directory.reset(crate::driven::version(1));
    directory.begin_scan();
    for start in (0..DEVICES).step_by(512) {
        let page = (start..start + 512).map(|device| {
            let registration = Registration::parse(&format!("host-{}.0123456789abcdef/{device}", device % 50)).unwrap();
            let details = format!(
                r#"{{"since":1795600000.25,"group":"lab-{}","owner":"vsoc","name":"{device}","local_id":"cvd-{}","adb_port":6520}}"#,
                device % 7,
                device % 8
            );
            let details = details.as_str().into();
            (DeviceId::new(&format!("host-{}-cvd-{device}", device % 50)), Entry { registration, details, version: 1 })
        });
        directory.page(page.collect());
    }
    directory.end_scan();
    directory
}

#[test]
fn facts_are_read_once_and_listed_from_there() {
    let directory = directory();
    assert_eq!(directory.len(), DEVICES);
    let facts = &directory.get(&DeviceId::new("host-1-cvd-51")).unwrap().facts;
    let texts = [facts.group(false), facts.owner(), facts.name(), facts.local_id(), facts.own_group()];
    assert_eq!((texts, facts.adb_port, facts.since), (["lab-2", "vsoc", "51", "cvd-3", ""], 6520, 1_795_600_000.25));
    // The same facts, however often they are listed.
    let twice =
        [directory.iter(), directory.iter()].map(|mut all| std::sync::Arc::as_ptr(&all.next().unwrap().1.facts));
    assert_eq!(twice[0], twice[1]);
}

/// `cargo test --release --test cluster listing -- --ignored --nocapture` prints the times.
#[test]
#[ignore = "prints figures"]
fn time_of_a_list() {
    let read_at = Instant::now();
    let directory = directory();
    let read = read_at.elapsed();
    let listed_at = Instant::now();
    let listed: Vec<_> =
        directory.iter().map(|(id, known)| (id.clone(), std::sync::Arc::clone(&known.facts))).collect();
    let listed_in = listed_at.elapsed();
    println!("{} devices: {read:?} to read the registry, {listed_in:?} for each list", listed.len());
    assert!(listed_in * 4 < read, "a list reads records again: {listed_in:?} against {read:?} for all records");
}
