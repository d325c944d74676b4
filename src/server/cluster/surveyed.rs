//! The nodes as a dashboard shows them: the registry, and the answers of the survey.

use std::sync::Arc;

use super::details::NodeDetails;
use super::handle::Cluster;
use super::survey::{Answer, Standing};
use crate::core::cluster::Incarnation;
use crate::core::cluster::registry::NodeRecord;

/// An open dashboard: the other nodes are asked until it is dropped.
pub(crate) struct Viewing(Arc<Cluster>);

impl Drop for Viewing {
    fn drop(&mut self) {
        self.0.survey.close();
    }
}

/// A node, as the dashboard shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SurveyedNode {
    /// The name.
    pub(crate) name: String,
    /// Whether it is this node.
    pub(crate) is_this: bool,
    /// The state.
    pub(crate) standing: Standing,
    /// The address at which other nodes reach it.
    pub(crate) address: String,
    /// The version of its program.
    pub(crate) build: String,
    /// The devices that it has, by the registry.
    pub(crate) devices: usize,
    /// The clients of its devices, if it has told.
    pub(crate) clients: Option<usize>,
    /// Whether it has the program of this node, and other settings.
    pub(crate) differs: bool,
}

impl Cluster {
    /// Has the other nodes asked for their state, until the value is dropped.
    pub(crate) fn watch_nodes(self: &Arc<Self>) -> Viewing {
        self.survey.open();
        Viewing(Arc::clone(self))
    }

    /// A number that is another one whenever a node has answered otherwise than before.
    pub(crate) fn survey_revision(&self) -> u64 {
        self.survey.revision()
    }

    /// The state of this node.
    pub(crate) fn standing(&self, drains: bool) -> Standing {
        self.read(|membership| Standing::own(membership.is_member(), membership.has_joined(), drains))
    }

    /// The records of the other nodes that have a lease or devices.
    pub(in crate::server) fn others(&self) -> Vec<NodeRecord> {
        self.read(|membership| {
            let (nodes, directory) = (membership.nodes(), membership.directory());
            let is_there = |node: &Incarnation| nodes.is_live(node) || directory.devices_of(node) > 0;
            let is_other =
                |record: &&NodeRecord| record.incarnation != self.incarnation && is_there(&record.incarnation);
            nodes.records().filter(is_other).cloned().collect()
        })
    }

    /// The other nodes with a lease, and their facts.
    pub(in crate::server) fn living_others(&self) -> Vec<(Incarnation, Arc<NodeDetails>)> {
        self.read(|membership| {
            let nodes = membership.nodes();
            let others = nodes.live().filter(|node| **node != self.incarnation);
            others.filter_map(|node| Some((node.clone(), self.details.of(nodes.record(node)?)?))).collect()
        })
    }

    /// The number of other nodes that have the program of this one, and other settings.
    pub(crate) fn differing(&self) -> usize {
        let own = self.read(|membership| self.details.of(membership.own_record()));
        let differs = |record: &NodeRecord| differ(own.as_deref(), self.details.of(record).as_deref());
        self.others().iter().filter(|record| differs(record)).count()
    }

    /// All nodes that have a lease or devices, and this one, sorted by name. `clients` is the number of those of this node.
    pub(crate) fn surveyed(&self, drains: bool, clients: usize) -> Vec<SurveyedNode> {
        let own = self.read(|membership| membership.own_record().clone());
        let details = self.details.of(&own);
        let mut nodes: Vec<_> =
            self.others().iter().filter_map(|record| self.surveyed_other(record, details.as_deref())).collect();
        nodes.extend(details.map(|details| SurveyedNode {
            name: own.incarnation.node().to_owned(),
            is_this: true,
            standing: self.standing(drains),
            address: details.address.clone(),
            build: details.build.clone(),
            devices: self.read(|membership| membership.directory().devices_of(&own.incarnation)),
            clients: Some(clients),
            differs: false,
        }));
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        nodes
    }

    fn surveyed_other(&self, record: &NodeRecord, own: Option<&NodeDetails>) -> Option<SurveyedNode> {
        let details = self.details.of(record)?;
        let node = &record.incarnation;
        let (has_lease, devices) =
            self.read(|membership| (membership.nodes().is_live(node), membership.directory().devices_of(node)));
        let is_silent = self.survey.reach.is_unreachable(node);
        let answer = self.survey.answer_of(node).or(is_silent.then_some(Answer::Silent));
        let clients = match answer {
            Some(Answer::Told(told)) => told.clients,
            Some(Answer::Refused | Answer::Silent) | None => None,
        };
        Some(SurveyedNode {
            name: node.node().to_owned(),
            is_this: false,
            standing: Standing::of_other(has_lease, details.draining, answer),
            differs: differ(own, Some(&details)),
            address: details.address.clone(),
            build: details.build.clone(),
            devices,
            clients,
        })
    }
}

/// Whether two nodes of one version have other settings. Of another version, the digest of the same settings may differ.
fn differ(one: Option<&NodeDetails>, other: Option<&NodeDetails>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one.build == other.build && one.digest != other.digest)
}
