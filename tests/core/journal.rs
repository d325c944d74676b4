//! The journal: its entries, their order, filters and eviction.

use cuttlefish_signaling::Config;
use cuttlefish_signaling::faults::{Effect, Rule};
use cuttlefish_signaling::journal::{Direction, Entry, Filter, Kind, Outcome};
use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::protocol::{ClientId, DeviceId};

use crate::harness::Harness;

fn harness() -> Harness {
    Harness::new(Config { journal: true, ..Config::default() })
}

fn entries(harness: &Harness, filter: &Filter) -> Vec<Entry> {
    harness.relay.journal().unwrap().find(filter, 0, usize::MAX)
}

/// `direction device#client message_type/payload type outcome`.
fn line(entry: &Entry) -> String {
    let client = entry.client.map_or(String::from("-"), |id| id.to_string());
    let device = entry.device.as_ref().map_or("-", DeviceId::as_str);
    let what = match entry.kind {
        Kind::Closed => format!("[{}]", entry.text.as_str()),
        Kind::Message => match entry.payload_type() {
            Some(name) => format!("{}/{name}", entry.message_type),
            None => entry.message_type.to_string(),
        },
    };
    format!("{} {device}#{client} {what} {}", entry.direction.as_str(), entry.outcome.as_str())
}

fn lines(harness: &Harness) -> Vec<String> {
    entries(harness, &Filter::default()).iter().map(line).collect()
}

#[test]
fn session_is_recorded_in_order() {
    let mut harness = harness();
    harness.registers("d", "x");
    harness.connects("c", "x");
    harness.forwards("c", r#"{"type":"request-offer"}"#);
    harness.forwards_to("d", 1, r#"{ "sdp": "…", "type" : "offer" }"#);
    harness.forwards_to("d", 7, "[]");
    harness.leaves("c");
    harness.forwards_to("d", 1, "1");
    harness.says("d", r#"{"message_type":"dance"}"#);
    harness.says("d", "invalid");
    assert_eq!(
        lines(&harness),
        [
            "device->server x#- register passed",
            "server->device x#- config passed",
            "client->server x#- connect passed",
            "server->client x#- config passed",
            "server->client x#1 device_info passed",
            "client->device x#1 forward/request-offer passed",
            "device->client x#1 forward/offer passed",
            "device->client x#7 forward refused",
            "server->device x#- error passed",
            "client->server x#1 [left] passed",
            "server->device x#- client_disconnected passed",
            "device->client x#1 forward gone",
            "server->device x#- client_disconnected passed",
            "device->server x#- dance passed",
            "server->device x#- error passed",
            "device->server x#-  passed",
            "server->device x#- error passed",
            "server->device x#- [1007 Received Invalid JSON] passed",
        ]
    );
    let offer = &entries(&harness, &Filter { payload_type: Some("offer".into()), ..Filter::default() })[0];
    assert_eq!(offer.payload(), Some(r#"{ "sdp": "…", "type" : "offer" }"#));
    assert_eq!((offer.number, offer.at), (7, 1.0));
    let invalid = &entries(&harness, &Filter::default())[15];
    assert_eq!((invalid.text.as_str(), invalid.payload()), ("invalid", None));
}

#[test]
fn refused_client_is_recorded_as_closed_by_the_server() {
    let mut harness = harness();
    harness.connects("c", "nobody");
    assert_eq!(
        lines(&harness)[2..],
        [
            "server->client nobody#- error passed",
            "server->client nobody#- [1008 Connection failed: Device not found: 'nobody'] passed"
        ]
    );
    harness.leaves("c");
    assert_eq!(lines(&harness).len(), 4, "it was sent away, it has not left");
}

#[test]
fn entries_name_their_connection() {
    let mut harness = harness();
    harness.registers("d", "x");
    harness.connects("c", "x");
    harness.connects("c2", "x");
    harness.forwards("c2", "1");
    harness.leaves("c");
    let numbers: Vec<u64> = entries(&harness, &Filter::default()).iter().map(|entry| entry.connection).collect();
    assert_eq!(
        numbers[..9],
        [1, 1, 2, 2, 2, 3, 3, 3, 0],
        "of a connection before it has a client id; none of a forward"
    );
    assert!(numbers[9..].contains(&2), "{numbers:?}");
}

#[test]
fn filters_select_entries() {
    let mut harness = harness();
    harness.registers("d", "x");
    harness.registers("e", "y");
    harness.connects("c", "x");
    harness.connects("c2", "x");
    harness.forwards("c2", r#"{"type":"request-offer"}"#);
    harness.forwards_to("d", 2, r#"{"type":"offer"}"#);
    let any = Filter::default;
    let count = |filter| entries(&harness, &filter).len();
    assert_eq!(count(any()), 12);
    assert_eq!(count(Filter { device: Some(DeviceId::new("y")), ..any() }), 2);
    assert_eq!(count(Filter { client: ClientId::new(2), ..any() }), 3);
    assert_eq!(count(Filter { message_type: Some("config".into()), ..any() }), 4);
    assert_eq!(count(Filter { direction: Some(Direction::ClientToDevice), ..any() }), 1);
    assert_eq!(count(Filter { payload_type: Some("offer".into()), client: ClientId::new(1), ..any() }), 0);
    assert_eq!(count(Filter { kind: Some(Kind::Closed), ..any() }), 0);
    let journal = harness.relay.journal().unwrap();
    let numbers =
        |after, limit| journal.find(&any(), after, limit).iter().map(|entry| entry.number).collect::<Vec<_>>();
    assert_eq!(numbers(9, 2), [10, 11]);
    assert_eq!(numbers(12, 2), [] as [u64; 0]);
    assert_eq!((journal.count(), journal.forgotten()), (12, 0));
}

#[test]
fn oldest_entry_is_evicted_beyond_either_bound() {
    let mut config = Config { journal: true, ..Config::default() };
    config.limits.journal_entries = 3;
    let mut few = Harness::new(config.clone());
    few.registers("d", "x");
    few.connects("c", "x");
    for number in 0..3 {
        few.forwards("c", &number.to_string());
    }
    let left = entries(&few, &Filter::default());
    assert_eq!(left.iter().map(|entry| entry.payload().unwrap()).collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(few.relay.journal().unwrap().forgotten(), 5);

    config.limits.journal_entries = 1000;
    config.limits.journal_bytes = 1000;
    let mut small = Harness::new(config);
    small.registers("d", "x");
    small.connects("c", "x");
    for _ in 0..3 {
        small.forwards("c", &format!("\"{}\"", "x".repeat(600)));
    }
    assert_eq!(entries(&small, &Filter::default()).len(), 1);
    small.forwards("c", &format!("\"{}\"", "x".repeat(6000)));
    assert_eq!(entries(&small, &Filter::default()).len(), 1, "the last one stays, whatever its size");
}

#[test]
fn faults_are_recorded_with_their_outcome() {
    let mut harness = harness();
    harness.registers("d", "x");
    harness.connects("c", "x");
    let any = Rule {
        effect: Effect::Duplicate,
        to: None,
        device: None,
        client: None,
        payload_type: None,
        nth: None,
        probability: 1.0,
        times: None,
    };
    let first = harness.relay.arm(any.clone());
    let second = harness.relay.arm(Rule { effect: Effect::Drop, to: Some(Role::Device), nth: Some(3), ..any.clone() });
    harness.forwards("c", "1");
    harness.forwards("c", "2");
    harness.relay.disarm(first, harness.now);
    harness.relay.disarm(second, harness.now);
    let third = harness.relay.arm(Rule { effect: Effect::Stall(None), ..any });
    harness.forwards("c", "3");
    harness.leaves("c");
    harness.relay.disarm(third, harness.now);
    let forwards = entries(&harness, &Filter { message_type: Some("forward".into()), ..Filter::default() });
    let told: Vec<_> = forwards.iter().map(|entry| (entry.faults.join("+"), entry.outcome)).collect();
    assert_eq!(
        told,
        [
            (String::from("duplicate"), Outcome::Passed),
            (String::from("duplicate+drop"), Outcome::Passed),
            (String::from("stall"), Outcome::Gone),
        ]
    );
    assert!(harness.balance().balances());
}

#[test]
fn nothing_is_recorded_without_a_journal() {
    let mut harness = Harness::new(Config::default());
    harness.registers("d", "x");
    assert!(harness.relay.journal().is_none());
    assert!(harness.peer("d").outbox.peer_journal().is_none());
}

/// A reader that takes the journal in chunks reads what one that takes it at once reads.
#[test]
fn chunks_of_a_device_are_its_entries() {
    let mut harness = harness();
    for device in ["a", "b"] {
        harness.registers(device, device);
        harness.connects(&format!("client of {device}"), device);
    }
    for number in 0..10 {
        let device = if number % 3 == 0 { "a" } else { "b" };
        harness.forwards(&format!("client of {device}"), &number.to_string());
    }
    let journal = harness.relay.journal().unwrap();
    for (device, scanned) in [("a", 1), ("a", 3), ("b", 7), ("b", 1000), ("c", 2)] {
        let id = DeviceId::new(device);
        let whole = journal.find(&Filter { device: Some(id.clone()), ..Filter::default() }, 0, usize::MAX);
        let (mut numbers, mut after) = (Vec::new(), 0);
        while let Some((entries, last)) = journal.next_of(&id, after, scanned) {
            assert!(entries.len() <= scanned && last > after);
            numbers.extend(entries.iter().map(|entry| entry.number));
            after = last;
        }
        assert_eq!(numbers, whole.iter().map(|entry| entry.number).collect::<Vec<_>>(), "{device} by {scanned}");
        assert_eq!(after, journal.count());
        assert_eq!(whole.is_empty(), device == "c");
    }
}
