//! Pre-registered devices and their groups.

use std::borrow::Cow;
use std::sync::Arc;

use cuttlefish_signaling::outbox::{End, Outbox, OutboxBounds};
use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::preregistrations::{DeviceMetadata, NO_METADATA, PreRegisterError, PreRegistrations};
use cuttlefish_signaling::protocol::control::{Announced, ControlMessage, PreRegister};
use cuttlefish_signaling::protocol::{DeviceId, Malformed, PollBody, inbound, payload};

use crate::actors::{client_disconnected, client_msg, device_msg, error, harness};

fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(OutboxBounds { messages: 10, bytes: 100_000 }))
}

fn metadata(name: &str) -> DeviceMetadata {
    DeviceMetadata { group_name: Cow::Borrowed("lab"), owner: String::new(), name: name.to_owned(), adb_port: 0 }
}

#[test]
fn id_is_pre_registered_by_one_connection_until_it_registers() {
    let (preregistrations, id, one, other) = (PreRegistrations::default(), DeviceId::new("a"), outbox(), outbox());
    assert_eq!(
        preregistrations.pre_register(&id, metadata("1"), &one, true, 10),
        Err(PreRegisterError::AlreadyRegistered)
    );
    assert_eq!(preregistrations.pre_register(&id, metadata("1"), &one, false, 10), Ok(()));
    assert_eq!(
        preregistrations.pre_register(&id, metadata("2"), &other, false, 10),
        Err(PreRegisterError::AlreadyPreRegistered)
    );
    preregistrations.registered(&id);
    preregistrations.registered(&id);
    assert_eq!(preregistrations.pending(), 0);
    preregistrations.cancel(&one);
    assert_eq!(preregistrations.metadata_of(&id).unwrap().name, "1", "the metadata stays for its next registration");
    assert_eq!(preregistrations.pre_register(&id, metadata("2"), &other, false, 10), Ok(()));
    assert_eq!(preregistrations.metadata_of(&id).unwrap().name, "2");
}

#[test]
fn closed_connection_cancels_only_its_own_pending_pre_registrations() {
    let (preregistrations, one, other) = (PreRegistrations::default(), outbox(), outbox());
    for (name, by) in [("a", &one), ("b", &one), ("c", &other)] {
        preregistrations.pre_register(&DeviceId::new(name), metadata(name), by, false, 10).unwrap();
    }
    preregistrations.cancel(&one);
    assert_eq!(preregistrations.pending(), 1);
    assert!(preregistrations.metadata_of(&DeviceId::new("a")).is_none());
    assert!(preregistrations.metadata_of(&DeviceId::new("c")).is_some());
}

#[test]
fn pre_registrations_are_limited() {
    let (preregistrations, by) = (PreRegistrations::default(), outbox());
    assert_eq!(preregistrations.pre_register(&DeviceId::new("a"), metadata("a"), &by, false, 1), Ok(()));
    assert_eq!(
        preregistrations.pre_register(&DeviceId::new("b"), metadata("b"), &by, false, 1),
        Err(PreRegisterError::TooMany)
    );
    preregistrations.registered(&DeviceId::new("a"));
    assert_eq!(
        preregistrations.pre_register(&DeviceId::new("a"), metadata("a"), &by, false, 1),
        Ok(()),
        "in its own metadata"
    );
}

#[test]
fn group_is_the_pre_registered_one_or_that_of_the_device_info() {
    let info = r#"{"group_id":"own"}"#;
    let unnamed = DeviceMetadata { group_name: Cow::Borrowed(""), ..metadata("1") };
    for (metadata, info, group) in [
        (&metadata("1"), info, "lab"),
        (&unnamed, info, "own"),
        (&NO_METADATA, info, "own"),
        (&NO_METADATA, "null", ""),
        (&NO_METADATA, "", ""),
        (&NO_METADATA, r#"{"group_id":7}"#, ""),
    ] {
        assert_eq!(metadata.group_of(info), group, "{metadata:?} {info}");
    }
}

#[test]
fn group_id_is_used_if_it_is_a_valid_group_name() {
    let [longest, too_long] = [256, 257].map(|length| "x".repeat(length));
    let of = |text: &str| format!(r#"{{"a":[{{}}],"group_id":"{text}","b":1.50}}"#);
    for (info, group) in [
        (of("lab"), Some("lab")),
        (of(""), Some("")),
        (of(r"\u00e9/"), Some("é/")),
        (of(&longest), Some(&*longest)),
        (of(&too_long), None),
        (of(r"a\nb"), None),
        (of(r"a\u0000"), None),
        (of(r"a\u0085b"), None),
        (of("a\u{2028}b"), None),
        (r#" {"group\u005fid" : "lab"}"#.into(), Some("lab")),
        (r#"{"group_id":"a","group_id":"b"}"#.into(), None),
        (r#"{"a":{"group_id":"lab"}}"#.into(), None),
        (r#"["group_id"]"#.into(), None),
        (r#"["lab"]"#.into(), None),
        (r#""group_id""#.into(), None),
        (r#"{"group_id":null}"#.into(), None),
    ] {
        assert_eq!(payload::group_id_of(&info).as_deref(), group, "{info}");
    }
}

#[test]
fn only_an_object_payload_has_a_type() {
    assert_eq!(payload::type_of(r#" {"type":"offer"}"#).as_deref(), Some("offer"));
    assert_eq!(payload::type_of(r#"["offer"]"#), None);
}

#[test]
fn pre_register_messages_are_parsed_strictly() {
    let text = r#"{"message_type":"pre-register","group_name":"g","owner":"o","devices":[{"id":"a","name":"n","adb_port":1},{"id":"b"}]}"#;
    let device = |id: &str, name: &str, adb_port| Announced { id: id.into(), name: name.into(), adb_port };
    let message = PreRegister {
        group_name: "g".into(),
        owner: "o".into(),
        devices: vec![device("a", "n", 1), device("b", "", 0)],
    };
    assert_eq!(ControlMessage::parse(text), Ok(ControlMessage::PreRegister(message)));
    let rows = [
        (r#"["pre-register","g","o",[]]"#, Malformed::Envelope),
        (r#"{"message_type":"pre-register"}"#, Malformed::Envelope),
        (r#"{"message_type":"pre-register","devices":[{"id":""}]}"#, Malformed::Envelope),
        (r#"{"message_type":"pre-register","devices":[{"id":"a","adb_port":-1}]}"#, Malformed::Envelope),
        (r#"{"message_type":"pre-register","devices":[],"devices":[]}"#, Malformed::Envelope),
        ("{", Malformed::Json),
        (&"[".repeat(10_000), Malformed::Json),
    ];
    for (text, malformed) in rows {
        assert_eq!(ControlMessage::parse(text), Err(malformed), "{text:.60}");
    }
}

#[test]
fn polling_bodies_and_bare_payloads_are_parsed_strictly() {
    let body = PollBody::parse(r#"{"connection_id":"\u0061","payload":null,"device_id":7}"#).unwrap();
    assert_eq!((body.device_id, body.connection_id.as_deref(), body.payload), (None, Some("a"), Some("null")));
    assert_eq!(PollBody::parse("[]"), Err(Malformed::Envelope));
    assert_eq!(PollBody::parse(r#"{"payload":1,"payload":1}"#), Err(Malformed::Envelope));
    assert_eq!(inbound::bare_payload(" {\"a\" : 1.0}\n"), Ok(r#"{"a" : 1.0}"#));
    assert_eq!(inbound::bare_payload("\u{a0}1"), Err(Malformed::Json), "white space is JSON's");
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(inbound::bare_payload(&nested(127)).is_ok(), "with its envelope 128");
    assert_eq!(inbound::bare_payload(&nested(128)), Err(Malformed::Json));
}

#[test]
fn client_of_a_device_path_sends_and_receives_bare_payloads() {
    let mut harness = harness();
    harness.registers("d", "x");
    harness.hears("d");
    harness.opens_at("c", "x");
    assert_eq!(harness.all_heard("c"), [r#"{"device_info":"d"}"#], "no config");
    for payload in [r#"{"message_type":"connect"}"#, "1.0", "null"] {
        harness.says("c", payload);
        assert_eq!(harness.all_heard("d"), [client_msg(1, payload)]);
        harness.forwards_to("d", 1, payload);
        assert_eq!(harness.all_heard("c"), [device_msg(payload)]);
    }
    harness.leaves("d");
    assert_eq!(harness.all_heard("c"), [error("Device disconnected")]);
    assert_eq!(harness.peer("c").ended, Some(End::close(1000, "Device disconnected")));
}

#[test]
fn client_of_a_device_path_receives_errors() {
    let mut harness = harness();
    harness.opens_at("early", "x");
    assert_eq!(harness.all_heard("early"), [error("Connection failed: Device not found: 'x'")]);
    harness.registers("d", "x");
    harness.hears("d");
    harness.opens_at("c", "x");
    harness.hears("c");
    harness.says("c", "{");
    assert_eq!(harness.all_heard("c"), [error("Received Invalid JSON")]);
    assert_eq!(harness.all_heard("d"), [client_disconnected(1)]);
}

#[test]
fn packet_device_receives_client_disconnected_for_an_unknown_client() {
    let mut harness = harness();
    harness.opens_over_packets("d");
    harness.says("d", r#"{"message_type":"register","device_id":"x","device_port":8443}"#);
    harness.hears("d");
    harness.forwards_to("d", 9, "1");
    assert_eq!(harness.all_heard("d"), [client_disconnected(9)]);
    assert_eq!(harness.balance().refused, 1);
    assert_eq!(harness.hub.device(&DeviceId::new("x")).unwrap().port, Some(8443));
    harness.opens("remote", Role::Device);
    harness.says("remote", r#"{"message_type":"register","device_id":"y","device_port":22}"#);
    assert_eq!(harness.hub.device(&DeviceId::new("y")).unwrap().port, None, "a stranger's word names no local port");
}
