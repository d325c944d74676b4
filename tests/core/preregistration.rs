//! Pre-registered devices and their groups.

use std::sync::Arc;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::outbox::{Budget, Outbox};
use cuttlefish_signaling::preregistrations::{
    DeviceMetadata, NO_METADATA, PreRegisterError, PreRegistrations, SharedText,
};
use cuttlefish_signaling::protocol::DeviceId;

fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(&Budget::new(Config::default().limits.backpressure.outbox_bounds())))
}

fn metadata(name: &str) -> DeviceMetadata {
    DeviceMetadata { name: name.into(), group_name: "lab".into(), ..NO_METADATA.clone() }
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
    preregistrations.registered(&id, &id);
    preregistrations.registered(&id, &id);
    assert_eq!(preregistrations.pending(), 0);
    preregistrations.cancel(&one);
    assert_eq!(
        preregistrations.metadata_of(&id).unwrap().name.to_string(),
        "1",
        "the metadata stays for its next registration"
    );
    assert_eq!(preregistrations.pre_register(&id, metadata("2"), &other, false, 10), Ok(()));
    assert_eq!(preregistrations.metadata_of(&id).unwrap().name.to_string(), "2");
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
    preregistrations.registered(&DeviceId::new("a"), &DeviceId::new("a"));
    assert_eq!(
        preregistrations.pre_register(&DeviceId::new("a"), metadata("a"), &by, false, 1),
        Ok(()),
        "in its own metadata"
    );
}
#[test]
fn metadata_of_the_device_that_left_first_makes_room() {
    let (preregistrations, by) = (PreRegistrations::default(), outbox());
    let announce = |id: &str| preregistrations.pre_register(&DeviceId::new(id), metadata(id), &by, false, 3);
    let comes = |id: &str| preregistrations.registered(&DeviceId::new(id), &DeviceId::new(id));
    let leaves = |id: &str| preregistrations.left(&DeviceId::new(id));
    let is_known = |id: &str| preregistrations.metadata_of(&DeviceId::new(id)).is_some();
    for id in ["a", "b", "c"] {
        announce(id).unwrap();
        comes(id);
    }
    assert_eq!(announce("d"), Err(PreRegisterError::TooMany), "all of them are there");
    // A device that is replaced is still there.
    comes("b");
    leaves("b");
    assert_eq!(announce("d"), Err(PreRegisterError::TooMany));
    leaves("c");
    leaves("a");
    assert!(is_known("a") && is_known("c"), "until there is no room");
    // A device that comes back is not one that has left.
    comes("c");
    announce("d").unwrap();
    assert!(!is_known("a") && is_known("b") && is_known("c"));
    assert_eq!(announce("e"), Err(PreRegisterError::TooMany), "the announced one is still expected");
    leaves("c");
    leaves("b");
    // A device that is announced again leaves its place in the order.
    announce("c").unwrap();
    announce("e").unwrap();
    assert!(is_known("c") && !is_known("b"));
    assert_eq!(preregistrations.len(), 3);
    preregistrations.cancel(&by);
    assert!(preregistrations.is_empty());
}
#[test]
fn any_number_of_devices_come_and_leave_one_after_the_other() {
    let (preregistrations, by) = (PreRegistrations::default(), outbox());
    for number in 0..1000 {
        let id = DeviceId::new(&format!("run-{number}"));
        preregistrations.pre_register(&id, metadata("x"), &by, false, 50).unwrap();
        preregistrations.registered(&id, &id);
        preregistrations.left(&id);
        assert!(preregistrations.len() <= 50);
    }
}
#[test]
fn devices_of_one_message_share_its_texts() {
    let (group, none) = (SharedText::from("lab"), SharedText::from(""));
    let texts: Vec<_> = (0..3).map(|_| group.clone()).collect();
    assert!(texts.iter().all(|text| text.as_ptr() == group.as_ptr()));
    assert_eq!((&*none, &none), ("", &NO_METADATA.owner));
}
#[test]
fn group_is_the_pre_registered_one_or_that_of_the_device_info() {
    let info = r#"{"group_id":"own"}"#;
    let unnamed = DeviceMetadata { group_name: "".into(), ..metadata("1") };
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
