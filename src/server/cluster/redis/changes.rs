//! Changes of the registry, as the scripts publish them: `NUMBER STAMP AFTER KIND FIELD...`, each field with its length
//! before it. AFTER is the stamp of the version before.

use super::records::{self, Unsigned};
use super::signer::Signer;
use crate::core::cluster::Incarnation;
use crate::core::cluster::registry::{BATCH, Change, Delta};

/// Longest change that is read, in bytes.
const MAX_CHANGE: usize = 8 * 1024 * 1024;

/// Reads a change. `None` if no script has published it, or a record of it has no signature of the cluster.
pub(super) fn read(signer: &Signer, payload: &[u8]) -> Result<Delta, Unsigned> {
    if payload.len() > MAX_CHANGE {
        return Err(Unsigned);
    }
    let mut parts = payload.splitn(5, |byte| *byte == b' ');
    let mut part = || parts.next().ok_or(Unsigned);
    let version = records::read_version(part()?, part()?)?;
    let (after, kind, fields) = (records::read_stamp(part()?)?, part()?, fields(part()?)?);
    let change = match (kind, fields.as_slice()) {
        (b"claimed", fields) if fields.len() % 3 == 0 => {
            let claim = |claim: &[&[u8]]| records::read_claim(signer, claim[0], claim[1], claim[2]);
            Change::Claimed(fields.chunks_exact(3).map(claim).collect::<Result<_, _>>()?)
        }
        (b"released", ids) => Change::Released(ids.iter().map(|id| records::read_id(id)).collect::<Result<_, _>>()?),
        (b"joined", [node, record]) => Change::Joined(records::read_node(signer, node, record)?),
        (b"ice", []) => Change::Ice,
        (b"announced", []) => Change::Announced,
        (b"left", [node]) => Change::Left(incarnation(node)?),
        _ => return Err(Unsigned),
    };
    Ok(Delta { version, after, change })
}

/// Reads `LENGTH:FIELD` until the end.
fn fields(mut rest: &[u8]) -> Result<Vec<&[u8]>, Unsigned> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let colon = rest.iter().take(10).position(|byte| *byte == b':').ok_or(Unsigned)?;
        let length = std::str::from_utf8(&rest[..colon]).ok().and_then(|length| length.parse::<usize>().ok());
        let (field, after) = rest[colon + 1..].split_at_checked(length.ok_or(Unsigned)?).ok_or(Unsigned)?;
        if fields.len() == 3 * BATCH {
            return Err(Unsigned);
        }
        fields.push(field);
        rest = after;
    }
    Ok(fields)
}

fn incarnation(name: &[u8]) -> Result<Incarnation, Unsigned> {
    std::str::from_utf8(name).ok().and_then(Incarnation::parse).ok_or(Unsigned)
}
