//! Pre-registered devices and their groups.

use std::borrow::Cow;
use std::sync::Arc;

use cuttlefish_signaling::outbox::{Outbox, OutboxBounds};
use cuttlefish_signaling::preregistrations::{DeviceMetadata, NO_METADATA, PreRegisterError, PreRegistrations};
use cuttlefish_signaling::protocol::DeviceId;

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
