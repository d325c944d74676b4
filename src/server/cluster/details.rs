//! The facts of a node for the others, as they stand in its [`NodeRecord`].

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::core::cluster::Incarnation;
use crate::core::cluster::registry::NodeRecord;

/// The version of the requests between nodes. Nodes of another version do not talk to each other.
pub const PROTOCOL: u32 = 1;

/// The greatest length of the details of a node, in bytes. Longer ones are not read.
const MAX_DETAILS: usize = 8 * 1024;

/// The facts of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDetails {
    /// The address at which other nodes reach it, `HOST:PORT`.
    pub address: String,
    /// SHA-256 of its certificate, as [`crate::config::certificates::fingerprint`] writes it.
    pub fingerprint: String,
    /// The version of the program.
    #[serde(default)]
    pub build: String,
    /// The version of its requests to other nodes.
    pub protocol: u32,
    /// A digest of the settings that all nodes should have in common.
    #[serde(default)]
    pub digest: String,
    /// Whether it takes no new peers, since it is about to stop.
    #[serde(default)]
    pub draining: bool,
    /// Facts that a later version has added.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl NodeDetails {
    /// Reads the details of a record. `None` if they are not those of a node.
    pub fn of(record: &NodeRecord) -> Option<Self> {
        (record.details.len() <= MAX_DETAILS).then(|| serde_json::from_str(&record.details).ok())?
    }

    /// Writes the details.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The facts of nodes that have been read, so that lists and metrics do not read them again.
#[derive(Debug, Default)]
pub(in crate::server) struct ReadDetails(Mutex<HashMap<Incarnation, Read>>);

/// The details of a record, and the facts in them.
type Read = (Arc<str>, Option<Arc<NodeDetails>>);

/// The most nodes whose facts are kept. Beyond it all are read again.
const MAX_READ: usize = 1024;

impl ReadDetails {
    /// Returns the facts of a record, which are read once.
    pub(in crate::server) fn of(&self, record: &NodeRecord) -> Option<Arc<NodeDetails>> {
        let mut read = self.0.lock();
        if let Some((details, facts)) = read.get(&record.incarnation)
            && *details == record.details
        {
            return facts.clone();
        }
        if read.len() >= MAX_READ {
            read.clear();
        }
        let facts = NodeDetails::of(record).map(Arc::new);
        read.insert(record.incarnation.clone(), (Arc::clone(&record.details), facts.clone()));
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(details: &str) -> NodeRecord {
        NodeRecord { incarnation: Incarnation::new("a", 1).unwrap(), details: details.into() }
    }

    #[test]
    fn facts_of_a_later_version_are_kept() {
        let text = r#"{"address":"10.0.0.5:7443","fingerprint":"AB","build":"9.1","protocol":1,"digest":"d","draining":true,"zone":{"name":"x"}}"#;
        let details = NodeDetails::of(&record(text)).unwrap();
        assert_eq!((details.address.as_str(), details.draining), ("10.0.0.5:7443", true));
        assert_eq!(
            serde_json::from_str::<Value>(&details.to_json()).unwrap(),
            serde_json::from_str::<Value>(text).unwrap()
        );
    }

    #[test]
    fn facts_are_read_once_until_the_record_has_others() {
        let text = |address: &str| format!(r#"{{"address":"{address}","fingerprint":"AB","protocol":1}}"#);
        let read = ReadDetails::default();
        let [first, again] = ["a:1"; 2].map(|address| read.of(&record(&text(address))).unwrap());
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(read.of(&record(&text("a:2"))).unwrap().address, "a:2");
        assert_eq!((read.of(&record("{}")), read.of(&record("{}"))), (None, None));
        for start in 0..2 * MAX_READ as u64 {
            let incarnation = Incarnation::new("a", start).unwrap();
            read.of(&NodeRecord { incarnation, details: text("a:3").into() });
            assert!(read.0.lock().len() <= MAX_READ);
        }
    }

    #[test]
    fn details_that_are_not_those_of_a_node_are_none() {
        let long = format!(r#"{{"address":"a:1","fingerprint":"AB","protocol":1,"x":"{}"}}"#, "x".repeat(MAX_DETAILS));
        for wrong in ["", "[]", "{}", r#"{"address":7,"fingerprint":"AB","protocol":1}"#, &long] {
            assert_eq!(NodeDetails::of(&record(wrong)), None, "{wrong:.40}");
        }
    }
}
