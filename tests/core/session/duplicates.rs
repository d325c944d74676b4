//! Registrations of one id in random order: a live holder keeps it, a dead holder is replaced, and a refused device
//! unregisters nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::protocol::{DeviceId, outbound};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::actors::harness;
use crate::harness::Harness;

#[derive(Debug, Clone)]
enum Act {
    Open(u8),
    Register(u8),
    /// Stops answering pings.
    Freeze(u8),
    Forward(u8),
    Leave(u8),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..4_u8).prop_map(Act::Open),
        5 => (0..4_u8).prop_map(Act::Register),
        1 => (0..4_u8).prop_map(Act::Freeze),
        1 => (0..4_u8).prop_map(Act::Forward),
        2 => (0..4_u8).prop_map(Act::Leave),
        2 => (0..2500_u64).prop_map(Act::Wait),
    ]
}

/// The holder of the id, by the device info it registered with.
fn holder(harness: &Harness) -> Option<String> {
    let device = harness.hub.device(&DeviceId::new("x"))?;
    Some(outbound::info_of(&device.info).trim_matches('"').to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn live_holder_keeps_its_id(acts in vec(act(), 1..25)) {
        let mut harness = harness();
        let (mut there, mut frozen) = (BTreeSet::new(), BTreeSet::new());
        for act in acts {
            let before = holder(&harness);
            let mut ends_itself = None;
            match act {
                Act::Open(n) => {
                    let name = format!("d{n}");
                    if there.insert(name.clone()) {
                        harness.opens(&name, Role::Device);
                    }
                }
                Act::Register(n) | Act::Forward(n) | Act::Freeze(n) | Act::Leave(n) if !there.contains(&format!("d{n}")) => {}
                Act::Register(n) => {
                    let name = format!("d{n}");
                    // A second registration on one connection closes it.
                    ends_itself = Some(name.clone());
                    harness.says(&name, &format!(r#"{{"message_type":"register","device_id":"x","device_info":"{name}"}}"#));
                }
                Act::Forward(n) => {
                    let name = format!("d{n}");
                    // A forward without a registration closes the connection.
                    harness.says(&name, r#"{"message_type":"forward","client_id":7,"payload":1}"#);
                }
                Act::Freeze(n) => {
                    harness.freezes(&format!("d{n}"));
                    frozen.insert(format!("d{n}"));
                }
                Act::Leave(n) => {
                    let name = format!("d{n}");
                    ends_itself = Some(name.clone());
                    there.remove(&name);
                    frozen.remove(&name);
                    harness.leaves(&name);
                }
                Act::Wait(time) => harness.after(Duration::from_millis(time)),
            }
            let after = holder(&harness);
            if let Some(before) = before
                && !frozen.contains(&before)
                && ends_itself.as_ref() != Some(&before)
            {
                prop_assert_eq!(after, Some(before), "a live holder lost its id");
            }
            prop_assert!(harness.hub.devices().len() <= 1);
        }
        for name in there {
            harness.leaves(&name);
        }
        prop_assert!(harness.hub.devices().is_empty());
        prop_assert!(harness.balance().balances());
        harness.registers("fresh", "x");
        prop_assert_eq!(holder(&harness), Some("fresh".into()), "and the id is free again");
    }
}
