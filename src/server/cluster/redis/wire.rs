//! The texts that nodes and the engine exchange, apart from any connection. Fuzzing and properties reach the parsers here.

use redis::parse_redis_value;

use super::keys::Keys;
use super::signer::Signer;
use super::{changes, records, reply};
use crate::core::cluster::registry::{Delta, NodeRecord, Operation, Reply, Wanted};

/// Reads and writes the texts of one service.
pub struct Wire {
    signer: Signer,
}

impl Wire {
    /// Creates the form of the texts of the service `name`, whose nodes share these secrets.
    pub fn new(name: &str, secrets: &[String]) -> Self {
        Self { signer: Signer::new(Keys::new(name, 0).prefix(), secrets) }
    }

    /// Reads a change, as a script publishes it. `None` for all else, and without the signatures of the service.
    pub fn change(&self, payload: &[u8]) -> Option<Delta> {
        changes::read(&self.signer, payload).ok()
    }

    /// Reads the answer to an operation from the bytes of RESP. `None` if it is none.
    pub fn reply(&self, operation: &Operation, bytes: &[u8]) -> Option<Reply> {
        let value = parse_redis_value(bytes).ok()?;
        reply::read(&self.signer, operation, &value).ok().map(|read| read.answer.reply)
    }

    /// Writes the record of a node, with its signature.
    pub fn node_record(&self, node: &NodeRecord) -> String {
        records::of_node(&self.signer, node)
    }

    /// Writes the record of a device, with its signature. In the registry, registration and version precede it.
    pub fn device_record(&self, wanted: &Wanted) -> String {
        records::of_device(&self.signer, wanted, &wanted.registration.to_string())
    }
}
