//! Answers of the engine. They are read as a stranger's: an answer of another form is an error, and a record without the
//! signature of the cluster is left out.

use std::time::Duration;

use redis::Value;

use super::records::{self, Unsigned};
use super::signer::Signer;
use crate::core::cluster::registry::{Answer, Claimed, Epoch, Expectation, NodeRecord, Operation, Reply, Version};
use crate::core::cluster::{Incarnation, Registration};
use crate::protocol::DeviceId;

/// Longest list that is read. A page of a scan may be longer than it was asked to be.
const MAX_LIST: usize = 65_536;

/// An answer that is not one to the operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// The registry is of another version.
    Schema(String),
    /// The answer has another form.
    Form,
}

/// An answer, and what was left out of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) answer: Answer,
    /// Claims that a record without a signature stands against: the number of the device, and the registration there.
    pub(super) against: Vec<(usize, Registration)>,
    /// A record without a signature that has the name of the node.
    pub(super) name: Option<Incarnation>,
    /// The node of an announcement without a signature that stands against a claim.
    pub(super) announced_by: Option<String>,
    /// Names of records without a signature.
    pub(super) unsigned: Vec<String>,
}

impl Read {
    /// Returns whether nothing was left out that stands against the operation.
    pub(super) fn is_final(&self) -> bool {
        self.against.is_empty() && self.name.is_none() && self.announced_by.is_none()
    }
}

/// Reads the answer to an operation.
pub(super) fn read(signer: &Signer, operation: &Operation, value: &Value) -> Result<Read, Unreadable> {
    let (against, unsigned) = (Vec::new(), Vec::new());
    let mut reader = Reader { signer, named: None, against, name: None, announced_by: None, unsigned };
    let reply = match operation {
        Operation::Read(id) => reader.entry(id, value),
        Operation::Scan(_) => reader.page(value),
        Operation::ReadIce => reader.ice(value),
        // An answer without a content is its name alone.
        _ if matches!(value, Value::BulkString(_)) => reader.answer(operation, std::slice::from_ref(value)),
        _ => reader.answer(operation, list(value)?),
    }?;
    let Reader { named, against, name, announced_by, unsigned, .. } = reader;
    Ok(Read { answer: Answer { reply, named }, against, name, announced_by, unsigned })
}

/// Reads the version of the registry that the answer of a script names.
pub(super) fn read_named(value: &Value) -> Result<Option<Version>, Unreadable> {
    let name = match value {
        Value::Array(parts) => bytes(parts.first().ok_or(Unreadable::Form)?)?,
        name => bytes(name)?,
    };
    split_name(name).map(|(_, named)| named)
}

/// Splits the name of an answer from the version of the registry.
fn split_name(name: &[u8]) -> Result<(&[u8], Option<Version>), Unreadable> {
    let Some(space) = name.iter().position(|byte| *byte == b' ') else { return Ok((name, None)) };
    Ok((&name[..space], Some(read_version(&name[space + 1..])?)))
}

struct Reader<'a> {
    signer: &'a Signer,
    named: Option<Version>,
    against: Vec<(usize, Registration)>,
    name: Option<Incarnation>,
    announced_by: Option<String>,
    unsigned: Vec<String>,
}

impl Reader<'_> {
    /// Reads the answer of a script: its name, with the version of the registry, and what follows.
    fn answer(&mut self, operation: &Operation, parts: &[Value]) -> Result<Reply, Unreadable> {
        let (kind, parts) = parts.split_first().ok_or(Unreadable::Form)?;
        let (kind, named) = split_name(bytes(kind)?)?;
        self.named = named;
        match (operation, kind, parts) {
            (_, b"not_a_member", []) => Ok(Reply::NotAMember),
            (Operation::Join { .. }, kind, parts) => self.joined(kind, parts),
            (Operation::Renew(_), b"renewed", [epoch, version, nodes]) => Ok(Reply::Renewed {
                epoch: read_epoch(epoch)?,
                version: read_version(bytes(version)?)?,
                nodes: sorted(self.names(list(nodes)?)?),
            }),
            (Operation::Claim { wanted, .. }, _, _) if kind_of_claim(kind) => {
                Ok(Reply::Claimed(self.claimed(0, &wanted.id, kind, parts)?))
            }
            (Operation::Reclaim { wanted, .. }, b"reclaimed", answers) if answers.len() == wanted.len() => {
                let mut claimed = Vec::with_capacity(wanted.len());
                for (place, (wanted, answer)) in wanted.iter().zip(answers).enumerate() {
                    let (kind, parts) = list(answer)?.split_first().ok_or(Unreadable::Form)?;
                    claimed.push(self.claimed(place, &wanted.id, bytes(kind)?, parts)?);
                }
                Ok(Reply::Reclaimed(claimed))
            }
            (Operation::Release(_) | Operation::SetIce { .. } | Operation::Cancel { .. }, b"done", []) => {
                Ok(Reply::Done)
            }
            (Operation::Expect { expected, .. }, b"expected", outcomes) if outcomes.len() == expected.len() => {
                outcomes.iter().map(expectation).collect::<Result<_, _>>().map(Reply::Expected)
            }
            (Operation::Nodes, b"nodes", nodes) => Ok(Reply::Nodes(self.nodes(nodes)?)),
            (Operation::Reap(_) | Operation::Leave(_), b"reaped", [more]) => {
                Ok(Reply::Reaped { more: number(more)? != 0 })
            }
            _ => Err(Unreadable::Form),
        }
    }

    /// Reads the answer to a join.
    fn joined(&mut self, kind: &[u8], parts: &[Value]) -> Result<Reply, Unreadable> {
        match (kind, parts) {
            (b"schema", [schema]) => {
                Err(Unreadable::Schema(String::from_utf8_lossy(bytes(schema)?).chars().take(32).collect()))
            }
            (b"joined", [epoch, version, age, nodes @ ..]) => Ok(Reply::Joined {
                epoch: read_epoch(epoch)?,
                version: read_version(bytes(version)?)?,
                age: time(age)?,
                nodes: self.nodes(nodes)?,
            }),
            (b"name_held", [node, record, lease]) => self.name_held(bytes(node)?, bytes(record)?, time(lease)?),
            _ => Err(Unreadable::Form),
        }
    }

    fn claimed(&mut self, place: usize, id: &DeviceId, kind: &[u8], parts: &[Value]) -> Result<Claimed, Unreadable> {
        match (kind, parts) {
            (b"granted", []) => Ok(Claimed::Granted),
            (b"settling", [left]) => Ok(Claimed::Settling(time(left)?)),
            (b"expected", [record]) => Ok(self.expected(id, bytes(record)?)),
            (b"held", [record, lease]) => {
                let record = bytes(record)?;
                // The script has seen that the record begins with a registration.
                let holder = records::read_owner(record).map_err(|Unsigned| Unreadable::Form)?;
                if records::read_entry(self.signer, id.as_str().as_bytes(), record).is_err() {
                    self.unsigned.push(format!("device {id}"));
                    self.against.push((place, holder.clone()));
                }
                Ok(Claimed::Held { holder, lease: time(lease)? })
            }
            _ => Err(Unreadable::Form),
        }
    }

    /// Reads the announcement of a device that is claimed.
    fn expected(&mut self, id: &DeviceId, record: &[u8]) -> Claimed {
        if let Ok(place) = records::read_place(self.signer, id, record) {
            return Claimed::Expected(place);
        }
        let by = record.split(|byte| *byte == b' ').next().unwrap_or_default();
        self.announced_by = Some(String::from_utf8_lossy(by).into_owned());
        self.unsigned.push(format!("announced device {id}"));
        // It is taken away, and the claim is repeated.
        Claimed::Settling(Duration::ZERO)
    }

    fn name_held(&mut self, node: &[u8], record: &[u8], lease: Duration) -> Result<Reply, Unreadable> {
        let incarnation = read_incarnation(node).ok_or(Unreadable::Form)?;
        let node = records::read_node(self.signer, node, record).unwrap_or_else(|Unsigned| {
            self.unsigned.push(format!("node {incarnation}"));
            self.name = Some(incarnation.clone());
            NodeRecord { incarnation, details: "{}".into() }
        });
        Ok(Reply::NameHeld { node, lease })
    }

    /// Reads nodes with their records.
    fn nodes(&mut self, parts: &[Value]) -> Result<Vec<NodeRecord>, Unreadable> {
        let mut nodes = Vec::new();
        for pair in pairs(parts)? {
            let (node, record) = (bytes(&pair[0])?, bytes(&pair[1])?);
            match records::read_node(self.signer, node, record) {
                Ok(node) => nodes.push(node),
                Err(Unsigned) => self.unsigned.push(format!("node {}", String::from_utf8_lossy(node))),
            }
        }
        nodes.sort_by(|a, b| a.incarnation.cmp(&b.incarnation));
        Ok(nodes)
    }

    /// Reads the names of nodes.
    fn names(&mut self, parts: &[Value]) -> Result<Vec<Incarnation>, Unreadable> {
        let mut nodes = Vec::new();
        for name in parts {
            let name = bytes(name)?;
            match read_incarnation(name) {
                Some(node) => nodes.push(node),
                None => self.unsigned.push(format!("node {}", String::from_utf8_lossy(name))),
            }
        }
        Ok(nodes)
    }

    fn entry(&mut self, id: &DeviceId, value: &Value) -> Result<Reply, Unreadable> {
        if matches!(value, Value::Nil) {
            return Ok(Reply::Entry(None));
        }
        let entry = records::read_entry(self.signer, id.as_str().as_bytes(), bytes(value)?);
        if entry.is_err() {
            self.unsigned.push(format!("device {id}"));
        }
        Ok(Reply::Entry(entry.ok().map(|(_, entry)| entry)))
    }

    fn ice(&mut self, value: &Value) -> Result<Reply, Unreadable> {
        if matches!(value, Value::Nil) {
            return Ok(Reply::Ice(None));
        }
        let servers = std::str::from_utf8(bytes(value)?).ok().and_then(|sealed| self.signer.open("ice", sealed));
        if servers.is_none() {
            self.unsigned.push("the ICE servers of the cluster".to_owned());
        }
        Ok(Reply::Ice(servers.map(Into::into)))
    }

    /// Reads the registry and a page of its devices.
    fn page(&mut self, value: &Value) -> Result<Reply, Unreadable> {
        let [registry, page] = list(value)? else { return Err(Unreadable::Form) };
        let ([epoch, version], [cursor, parts]) = (list(registry)?, list(page)?) else { return Err(Unreadable::Form) };
        if matches!(epoch, Value::Nil) {
            return Ok(Reply::NotAMember);
        }
        let (epoch, version) = (read_epoch(epoch)?, read_version(bytes(version)?)?);
        let (mut entries, mut unsigned) = (Vec::new(), Vec::new());
        for pair in pairs(list(parts)?)? {
            let id = bytes(&pair[0])?;
            if let Ok(entry) = records::read_entry(self.signer, id, bytes(&pair[1])?) {
                entries.push(entry);
            } else {
                self.unsigned.push(format!("device {}", String::from_utf8_lossy(id)));
                unsigned.extend(records::read_id(id));
            }
        }
        Ok(Reply::Page { epoch, version, cursor: number(cursor)?, entries, unsigned })
    }
}

fn kind_of_claim(kind: &[u8]) -> bool {
    matches!(kind, b"granted" | b"settling" | b"held" | b"expected")
}

fn read_version(version: &[u8]) -> Result<Version, Unreadable> {
    let mut parts = version.splitn(2, |byte| *byte == b' ');
    let (number, stamp) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    records::read_version(number, stamp).map_err(|Unsigned| Unreadable::Form)
}

fn expectation(value: &Value) -> Result<Expectation, Unreadable> {
    match bytes(value)? {
        b"pending" => Ok(Expectation::Pending),
        b"taken" => Ok(Expectation::Taken),
        b"registered" => Ok(Expectation::Registered),
        b"full" => Ok(Expectation::Full),
        _ => Err(Unreadable::Form),
    }
}

fn list(value: &Value) -> Result<&[Value], Unreadable> {
    match value {
        Value::Array(items) if items.len() <= MAX_LIST => Ok(items),
        _ => Err(Unreadable::Form),
    }
}

fn pairs(items: &[Value]) -> Result<impl Iterator<Item = &[Value]>, Unreadable> {
    if items.len().is_multiple_of(2) { Ok(items.chunks_exact(2)) } else { Err(Unreadable::Form) }
}

fn bytes(value: &Value) -> Result<&[u8], Unreadable> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(Unreadable::Form),
    }
}

fn number(value: &Value) -> Result<u64, Unreadable> {
    let digits = std::str::from_utf8(bytes(value)?).map_err(|_| Unreadable::Form)?;
    digits.parse().map_err(|_| Unreadable::Form)
}

/// Reads a time in ms. The scripts limit it to a day.
fn time(value: &Value) -> Result<Duration, Unreadable> {
    number(value).map(|ms| Duration::from_millis(ms).min(Duration::from_secs(86_400)))
}

fn read_epoch(value: &Value) -> Result<Epoch, Unreadable> {
    let digits = std::str::from_utf8(bytes(value)?).map_err(|_| Unreadable::Form)?;
    u64::from_str_radix(digits, 16).map(Epoch).map_err(|_| Unreadable::Form)
}

fn read_incarnation(name: &[u8]) -> Option<Incarnation> {
    Incarnation::parse(std::str::from_utf8(name).ok()?)
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}
