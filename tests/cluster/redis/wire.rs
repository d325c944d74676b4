//! Texts of the engine, without one: all that is written is read again, and nothing else is.

use cuttlefish_signaling::core::cluster::registry::{Change, Delta, NodeRecord, Operation, Reply, Version, Wanted};
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::cluster::redis::wire::Wire;
use proptest::prelude::*;

use super::server::SECRET;
use crate::fuzzed;
use crate::replay::replay;

fn wire() -> Wire {
    Wire::new("lab", &[SECRET.to_owned()])
}

fn incarnations() -> impl Strategy<Value = Incarnation> {
    ("[A-Za-z0-9._-]{1,64}", any::<u64>()).prop_map(|(name, start)| Incarnation::new(&name, start).unwrap())
}

fn devices() -> impl Strategy<Value = Wanted> {
    (".{0,40}", incarnations(), 0..u64::MAX / 10, ".{0,60}").prop_map(|(id, node, number, details)| Wanted {
        id: DeviceId::new(&id),
        registration: Registration::new(node, number),
        details: details.into(),
    })
}

/// The version of the first change.
const FIRST: Version = Version { number: 1, stamp: 7 };

/// Writes fields as `publish` of the scripts does.
fn published(version: Version, after: u64, kind: &str, fields: &[String]) -> Vec<u8> {
    let fields: Vec<_> = fields.iter().map(|field| format!("{}:{field}", field.len())).collect();
    let Version { number, stamp } = version;
    format!("{number} {stamp:x} {after:x} {kind} {}", fields.concat()).into_bytes()
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

proptest! {
    #[test]
    fn changes_are_read_as_they_were_written(
        number: u64,
        stamp: u64,
        after: u64,
        wanted in prop::collection::vec(devices(), 0..5),
    ) {
        let wire = wire();
        let fields: Vec<_> = wanted
            .iter()
            .flat_map(|wanted| {
                [wanted.id.to_string(), wanted.registration.to_string(), wire.device_record(wanted)]
            })
            .collect();
        let claimed = wanted.iter().map(|wanted| {
            (wanted.id.clone(), wanted.registration.clone(), wanted.details.clone())
        });
        let version = Version { number, stamp };
        let expected = Delta { version, after, change: Change::Claimed(claimed.collect()) };
        prop_assert_eq!(wire.change(&published(version, after, "claimed", &fields)), Some(expected));
    }

    #[test]
    fn a_record_with_one_other_byte_is_no_record(
        wanted in devices(),
        version: u64,
        place: prop::sample::Index,
        byte: u8,
    ) {
        let wire = wire();
        let id = wanted.id.clone();
        let record = format!("{} {version} {}", wanted.registration, wire.device_record(&wanted)).into_bytes();
        let mut changed = record.clone();
        changed[place.index(record.len())] = byte;
        let header = format!("${}\r\n", record.len());
        let read = |record: &[u8]| {
            let bytes = [header.as_bytes(), record, b"\r\n"].concat();
            match wire.reply(&Operation::Read(id.clone()), &bytes) {
                Some(Reply::Entry(entry)) => entry,
                other => panic!("{other:?}"),
            }
        };
        let entry = read(&record).unwrap();
        prop_assert_eq!((&entry.registration, &entry.details), (&wanted.registration, &wanted.details));
        // The version is the engine's, and not signed.
        if let Some(other) = read(&changed) {
            prop_assert_eq!((other.registration, other.details), (entry.registration, entry.details));
        }
    }

    #[test]
    fn a_signature_is_for_one_service_and_one_record(first in devices(), second in devices(), name in "[a-z]{1,9}") {
        let (wire, node) = (wire(), first.registration.incarnation().clone());
        let signed = wire.device_record(&first);
        let other = Wire::new(&name, &[SECRET.to_owned()]);
        let as_change = |record: &str, wanted: &Wanted| {
            published(FIRST, 0, "claimed", &[wanted.id.to_string(), wanted.registration.to_string(), record.to_owned()])
        };
        prop_assert!(wire.change(&as_change(&signed, &first)).is_some());
        prop_assert!(name == "lab" || other.change(&as_change(&signed, &first)).is_none());
        if (&first.id, &first.registration) != (&second.id, &second.registration) {
            prop_assert!(wire.change(&as_change(&signed, &second)).is_none());
        }
        // A record of a device is none of a node.
        prop_assert!(wire.change(&published(FIRST, 0, "joined", &[node.to_string(), signed])).is_none());
        let record = NodeRecord { incarnation: node.clone(), details: first.details };
        let joined = published(FIRST, 0, "joined", &[node.to_string(), wire.node_record(&record)]);
        prop_assert_eq!(wire.change(&joined), Some(Delta { version: FIRST, after: 0, change: Change::Joined(record) }));
    }

    #[test]
    fn bytes_without_a_signature_are_no_records(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzzed::registry(&data);
    }

    #[test]
    fn answers_of_any_words_are_no_records(words in prop::collection::vec(words(), 0..8)) {
        let list: Vec<_> = words.iter().map(|word| bulk(word)).collect();
        fuzzed::registry(format!("*{}\r\n{}", words.len(), list.concat()).as_bytes());
    }
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("joined".to_owned()),
        Just("renewed".into()),
        Just("name_held".into()),
        Just("held".into()),
        Just("settling".into()),
        Just("nodes".into()),
        Just("a.0000000000000007".into()),
        Just("a.0000000000000007/1 1 - {}".into()),
        Just("- {}".into()),
        any::<u64>().prop_map(|number| number.to_string()),
        ".{0,9}",
    ]
}

#[test]
fn engine_holds_on_all_seeds() {
    replay("registry", fuzzed::registry);
}
