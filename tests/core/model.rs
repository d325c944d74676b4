//! A model of the connections, compared with the harness: every message reaches its pair, and no other peer.

use std::collections::HashMap;

use crate::actors::{client_disconnected, client_msg, device_msg, error, harness};

/// Devices are numbered 0 to 3, clients 0 to 7.
#[derive(Debug, Clone)]
pub enum Act {
    Register(u8),
    Connect(u8, u8),
    Forward(u8),
    ForwardTo(u8, u8),
    /// A client, or from 8 on a device.
    Leave(u8),
}

#[derive(Default)]
struct Model {
    /// Device number to its clients by id, and the last id.
    devices: HashMap<u8, (HashMap<u32, u8>, u32)>,
    /// Client number to its device and id.
    clients: HashMap<u8, (u8, u32)>,
    /// Device number to the last id it was given before it left.
    last_ids: HashMap<u8, u32>,
}

/// Applies these actions in order to a harness and to the model. Returns the number of forwards that were delivered.
///
/// # Panics
/// If they differ.
pub fn run(acts: impl IntoIterator<Item = Act>) -> u64 {
    let mut harness = harness();
    let mut model = Model::default();
    for (turn, act) in acts.into_iter().enumerate() {
        let mut expected: Vec<(String, String)> = Vec::new();
        match act {
            Act::Register(d) if !model.devices.contains_key(&d) => {
                harness.registers(&format!("d{d}"), &format!("cvd-{d}"));
                harness.all_heard(&format!("d{d}"));
                model.devices.insert(d, (HashMap::new(), model.last_ids.get(&d).copied().unwrap_or(0)));
            }
            Act::Connect(c, d) if !model.clients.contains_key(&c) && model.devices.contains_key(&d) => {
                harness.connects(&format!("c{c}"), &format!("cvd-{d}"));
                harness.all_heard(&format!("c{c}"));
                let (clients, last) = model.devices.get_mut(&d).unwrap();
                *last += 1;
                clients.insert(*last, c);
                model.clients.insert(c, (d, *last));
            }
            Act::Forward(c) => {
                let Some((d, id)) = model.clients.get(&c) else { continue };
                harness.forwards(&format!("c{c}"), &turn.to_string());
                expected.push((format!("d{d}"), client_msg(*id, &turn.to_string())));
            }
            Act::ForwardTo(d, id) => {
                let Some((clients, last)) = model.devices.get(&d) else { continue };
                harness.forwards_to(&format!("d{d}"), id.into(), &turn.to_string());
                expected.push(match clients.get(&id.into()) {
                    Some(c) => (format!("c{c}"), device_msg(&turn.to_string())),
                    None if u32::from(id) <= *last => (format!("d{d}"), client_disconnected(id.into())),
                    None => (format!("d{d}"), error(&format!("Forward failed: Unknown client {id}"))),
                });
            }
            Act::Leave(peer) if peer < 8 => {
                let Some((d, id)) = model.clients.remove(&peer) else { continue };
                harness.leaves(&format!("c{peer}"));
                model.devices.get_mut(&d).unwrap().0.remove(&id);
                expected.push((format!("d{d}"), client_disconnected(id)));
            }
            Act::Leave(peer) => {
                let d = peer - 8;
                let Some((clients, last)) = model.devices.remove(&d) else { continue };
                model.last_ids.insert(d, last);
                harness.leaves(&format!("d{d}"));
                for c in clients.values() {
                    assert_eq!(harness.all_heard(&format!("c{c}")), vec![error("Device disconnected")]);
                    harness.leaves(&format!("c{c}"));
                    model.clients.remove(c);
                }
            }
            _ => continue,
        }
        for (peer, text) in expected {
            assert_eq!(harness.hears(&peer), Some(text));
        }
        let everyone =
            model.devices.keys().map(|d| format!("d{d}")).chain(model.clients.keys().map(|c| format!("c{c}")));
        for peer in everyone.collect::<Vec<_>>() {
            assert_eq!(harness.hears(&peer), None, "{peer} got a message of another pair");
        }
        assert!(harness.balance().balances());
    }
    harness.balance().delivered
}
