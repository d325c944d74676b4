//! Target of the registry of a cluster: bytes of the engine as changes and as answers.

use cuttlefish_signaling::core::cluster::registry::{Change, Claimed, NodeRecord, Operation, Reply, Wanted};
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::cluster::redis::wire::Wire;

/// Checks that any bytes of the engine are read without a panic, and that no record without a signature is taken.
pub fn registry(data: &[u8]) {
    let signed = Wire::new("lab", &["a secret that no input has, of 32 bytes".to_owned()]);
    let open = Wire::new("lab", &[]);
    check_change(&signed, data);
    open.change(data);
    for operation in operations() {
        check_reply(signed.reply(&operation, data));
        open.reply(&operation, data);
    }
}

fn check_change(signed: &Wire, data: &[u8]) {
    match signed.change(data).map(|delta| delta.change) {
        Some(Change::Claimed(claimed)) => assert!(claimed.is_empty(), "{claimed:?} without a signature"),
        Some(Change::Joined(node)) => panic!("{node:?} without a signature"),
        Some(Change::Released(_) | Change::Left(_) | Change::Ice | Change::Announced) | None => {}
    }
}

fn check_reply(reply: Option<Reply>) {
    match reply {
        Some(Reply::Joined { nodes, .. } | Reply::Nodes(nodes)) => assert!(nodes.is_empty(), "{nodes:?}"),
        Some(Reply::Entry(entry)) => assert_eq!(entry, None),
        Some(Reply::Page { entries, .. }) => assert!(entries.is_empty(), "{entries:?}"),
        Some(Reply::Reclaimed(claimed)) => assert_eq!(claimed.len(), 2),
        Some(Reply::Claimed(Claimed::Held { lease, .. })) => assert!(lease.as_secs() <= 86_400),
        Some(Reply::Ice(servers)) => assert_eq!(servers, None),
        Some(Reply::NameHeld { node, .. }) => assert_eq!(&*node.details, "{}"),
        _ => {}
    }
}

/// Returns one of each operation.
fn operations() -> Vec<Operation> {
    let Some(node) = Incarnation::new("a", 7) else { panic!("no name") };
    let wanted = |id: &str| Wanted {
        id: DeviceId::new(id),
        registration: Registration::new(node.clone(), 1),
        details: "{}".into(),
    };
    vec![
        Operation::Join { node: NodeRecord { incarnation: node.clone(), details: "{}".into() }, replaces: None },
        Operation::Renew(node.clone()),
        Operation::Claim { wanted: wanted("cvd-1"), expected: None, place: None },
        Operation::Reclaim { node: node.clone(), wanted: vec![wanted("cvd-1"), wanted("cvd-2")] },
        Operation::Read(DeviceId::new("cvd-1")),
        Operation::Scan(0),
        Operation::Nodes,
        Operation::ReadIce,
        Operation::SetIce { servers: None, absent: false },
        Operation::Release(Vec::new()),
        Operation::Reap(node.clone()),
        Operation::Leave(node),
    ]
}
