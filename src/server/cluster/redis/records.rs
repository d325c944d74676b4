//! Text forms of the records in the engine, with their signatures.

use std::sync::Arc;

use super::signer::{Signed, Signer};
use crate::core::cluster::registry::{Entry, NodeRecord, Place, Version, Wanted};
use crate::core::cluster::{Incarnation, Registration};
use crate::protocol::DeviceId;

/// Longest record, id or name that is read, in bytes.
pub(super) const MAX_RECORD: usize = 64 * 1024;

/// A record that no node of this cluster has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsigned;

/// Returns `SIGNATURE DETAILS` of a node.
pub(super) fn of_node(signer: &Signer, node: &NodeRecord) -> String {
    let key = node.incarnation.to_string();
    let signature = signer.sign(Signed { kind: "node", key: &key, owner: "", details: &node.details });
    format!("{signature} {}", node.details)
}

/// Returns `SIGNATURE DETAILS` of a device. `owner` is the text of its registration.
pub(super) fn of_device(signer: &Signer, wanted: &Wanted, owner: &str) -> String {
    let signature = signer.sign(Signed { kind: "device", key: wanted.id.as_str(), owner, details: &wanted.details });
    format!("{signature} {}", wanted.details)
}

/// Returns `SIGNATURE DETAILS` of an announcement.
pub(super) fn of_place(signer: &Signer, id: &DeviceId, place: &Place) -> String {
    let owner = place.by.to_string();
    let signature = signer.sign(Signed { kind: "place", key: id.as_str(), owner: &owner, details: &place.details });
    format!("{signature} {}", place.details)
}

/// Reads `NODE SIGNATURE DETAILS` of an announced device.
pub(super) fn read_place(signer: &Signer, id: &DeviceId, record: &[u8]) -> Result<Place, Unsigned> {
    let (owner, record) = text(record)?.split_once(' ').ok_or(Unsigned)?;
    let by = Incarnation::parse(owner).ok_or(Unsigned)?;
    let details = verified(signer, "place", id.as_str(), owner, record)?;
    Ok(Place { by, details })
}

/// Reads a node and `SIGNATURE DETAILS`.
pub(super) fn read_node(signer: &Signer, node: &[u8], record: &[u8]) -> Result<NodeRecord, Unsigned> {
    let (key, record) = (text(node)?, text(record)?);
    let incarnation = Incarnation::parse(key).ok_or(Unsigned)?;
    let details = verified(signer, "node", key, "", record)?;
    Ok(NodeRecord { incarnation, details })
}

/// Reads an id, a registration and `SIGNATURE DETAILS`, as a change has them.
pub(super) fn read_claim(
    signer: &Signer,
    id: &[u8],
    registration: &[u8],
    record: &[u8],
) -> Result<(DeviceId, Registration, Arc<str>), Unsigned> {
    let (id, owner, record) = (read_id(id)?, text(registration)?, text(record)?);
    let registration = Registration::parse(owner).ok_or(Unsigned)?;
    let details = verified(signer, "device", id.as_str(), owner, record)?;
    Ok((id, registration, details))
}

/// Reads an id and `REGISTRATION VERSION SIGNATURE DETAILS`, as the registry has them.
pub(super) fn read_entry(signer: &Signer, id: &[u8], record: &[u8]) -> Result<(DeviceId, Entry), Unsigned> {
    let mut parts = text(record)?.splitn(3, ' ');
    let mut part = || parts.next().ok_or(Unsigned);
    let (owner, version, record) = (part()?, part()?, part()?);
    let (id, registration, details) = read_claim(signer, id, owner.as_bytes(), record.as_bytes())?;
    Ok((id, Entry { registration, details, version: version.parse().map_err(|_| Unsigned)? }))
}

/// Reads the registration of `REGISTRATION VERSION SIGNATURE DETAILS`, which may have been written by anyone.
pub(super) fn read_owner(record: &[u8]) -> Result<Registration, Unsigned> {
    let owner = record.split(|byte| *byte == b' ').next().unwrap_or_default();
    Registration::parse(text(owner)?).ok_or(Unsigned)
}

/// Reads the number and the stamp of a version.
pub(super) fn read_version(number: &[u8], stamp: &[u8]) -> Result<Version, Unsigned> {
    let number = text(number)?.parse().map_err(|_| Unsigned)?;
    Ok(Version { number, stamp: read_stamp(stamp)? })
}

/// Reads a stamp, which is a hexadecimal number.
pub(super) fn read_stamp(stamp: &[u8]) -> Result<u64, Unsigned> {
    u64::from_str_radix(text(stamp)?, 16).map_err(|_| Unsigned)
}

/// Reads an id.
pub(super) fn read_id(id: &[u8]) -> Result<DeviceId, Unsigned> {
    text(id).map(DeviceId::new)
}

fn verified(signer: &Signer, kind: &'static str, key: &str, owner: &str, record: &str) -> Result<Arc<str>, Unsigned> {
    let (signature, details) = record.split_once(' ').ok_or(Unsigned)?;
    let record = Signed { kind, key, owner, details };
    signer.verify(record, signature).then(|| details.into()).ok_or(Unsigned)
}

fn text(bytes: &[u8]) -> Result<&str, Unsigned> {
    if bytes.len() > MAX_RECORD {
        return Err(Unsigned);
    }
    std::str::from_utf8(bytes).map_err(|_| Unsigned)
}
