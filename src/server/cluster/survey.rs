//! The state of each node as a dashboard shows it: by the registry, and by the answers of the nodes themselves.
//!
//! While a dashboard is open, the task of the survey asks each other node every two seconds. A dashboard shows the last
//! answers. It waits for none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::reach::Reach;
use crate::core::cluster::Incarnation;
use crate::core::cluster::registry::NodeRecord;

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The registry has it, as far as is known.
    In,
    /// It has not reached the engine since its start.
    Alone,
    /// The registry had it, and it cannot use the engine now.
    Rejoining,
    /// It is about to stop, and takes no new peers.
    Draining,
    /// It does not answer this node, or the registry has only devices of it.
    Unreachable,
}

impl Standing {
    /// The name, as the dashboard gets it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Alone => "alone",
            Self::Rejoining => "rejoining",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
        }
    }

    /// The state of the node itself.
    pub(super) fn own(is_member: bool, has_joined: bool, drains: bool) -> Self {
        match (drains, is_member, has_joined) {
            (true, _, _) => Self::Draining,
            (_, true, _) => Self::In,
            (_, false, true) => Self::Rejoining,
            (_, false, false) => Self::Alone,
        }
    }

    /// The state of another node. Its own answer is better evidence than a lease.
    pub(super) fn of_other(has_lease: bool, drains: bool, answer: Option<Answer>) -> Self {
        match answer {
            Some(Answer::Silent) => Self::Unreachable,
            Some(Answer::Told(told)) if told.drains || drains => Self::Draining,
            Some(Answer::Told(told)) if told.has_engine => Self::In,
            Some(Answer::Told(_)) => Self::Rejoining,
            Some(Answer::Refused) if !has_lease => Self::Rejoining,
            None if !has_lease => Self::Unreachable,
            Some(Answer::Refused) | None if drains => Self::Draining,
            Some(Answer::Refused) | None => Self::In,
        }
    }
}

/// The facts that a node tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct Told {
    /// Whether it is a member, which needs the engine.
    pub(in crate::server) has_engine: bool,
    /// Whether it takes no new peers.
    pub(in crate::server) drains: bool,
    /// The number of clients of its devices. A node of an earlier version does not tell it.
    pub(in crate::server) clients: Option<usize>,
}

/// The answer of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Answer {
    /// It has told its facts.
    Told(Told),
    /// It is there, and does not tell: it does not know this node as a living one.
    Refused,
    /// It does not answer, or another process does in its place.
    Silent,
}

/// The answers of the other nodes, while a dashboard is open.
#[derive(Default)]
pub(in crate::server) struct Survey {
    /// The number of open dashboards.
    viewers: AtomicUsize,
    /// Notified when the first one opens.
    opened: Notify,
    answers: Mutex<HashMap<Incarnation, Answer>>,
    /// The nodes that this one cannot reach, whether or not a dashboard is open.
    pub(in crate::server) reach: Reach,
    /// The number of changes of the answers.
    revision: AtomicU64,
}

impl Survey {
    /// Counts a dashboard that opens.
    pub(super) fn open(&self) {
        if self.viewers.fetch_add(1, Ordering::AcqRel) == 0 {
            self.opened.notify_one();
        }
    }

    /// Counts a dashboard that closes. The answers are old when the next one opens.
    pub(super) fn close(&self) {
        if self.viewers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answers.lock().clear();
        }
    }

    /// Waits until a dashboard is open.
    pub(in crate::server) async fn opened(&self) {
        while self.viewers.load(Ordering::Acquire) == 0 {
            self.opened.notified().await;
        }
    }

    /// Notes the answer of a node.
    pub(in crate::server) fn note(&self, node: &Incarnation, answer: Answer) {
        if self.answers.lock().insert(node.clone(), answer) != Some(answer) {
            self.revision.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Counts a change of what is known of a node otherwise.
    pub(in crate::server) fn changed(&self) {
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// The number of changes of the answers.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Forgets the answers of all nodes but these.
    pub(in crate::server) fn retain(&self, nodes: &[NodeRecord]) {
        let is_kept = |node: &Incarnation| nodes.iter().any(|record| record.incarnation == *node);
        self.answers.lock().retain(|node, _| is_kept(node));
    }

    /// The last answer of a node.
    pub(super) fn answer_of(&self, node: &Incarnation) -> Option<Answer> {
        self.answers.lock().get(node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(has_engine: bool, drains: bool) -> Answer {
        Answer::Told(Told { has_engine, drains, clients: None })
    }

    #[test]
    fn own_state_is_that_of_the_membership_unless_it_drains() {
        let states = [
            ((true, true, false), "in"),
            ((true, false, false), "in"),
            ((false, true, false), "rejoining"),
            ((false, false, false), "alone"),
            ((false, false, true), "draining"),
            ((true, true, true), "draining"),
        ];
        for ((is_member, has_joined, drains), state) in states {
            assert_eq!(Standing::own(is_member, has_joined, drains).as_str(), state);
        }
    }

    #[test]
    fn answer_of_another_node_counts_more_than_its_lease() {
        let states = [
            ((true, false, None), "in"),
            ((true, true, None), "draining"),
            ((false, false, None), "unreachable"),
            ((false, true, None), "unreachable"),
            ((true, false, Some(told(true, false))), "in"),
            ((false, false, Some(told(true, false))), "in"),
            ((true, false, Some(told(true, true))), "draining"),
            ((true, true, Some(told(true, false))), "draining"),
            ((true, false, Some(told(false, false))), "rejoining"),
            ((false, false, Some(told(false, false))), "rejoining"),
            ((true, false, Some(Answer::Silent)), "unreachable"),
            ((true, true, Some(Answer::Silent)), "unreachable"),
            ((false, false, Some(Answer::Silent)), "unreachable"),
            ((true, false, Some(Answer::Refused)), "in"),
            ((true, true, Some(Answer::Refused)), "draining"),
            ((false, false, Some(Answer::Refused)), "rejoining"),
        ];
        for ((has_lease, drains, answer), state) in states {
            assert_eq!(
                Standing::of_other(has_lease, drains, answer).as_str(),
                state,
                "{has_lease} {drains} {answer:?}"
            );
        }
    }

    #[test]
    fn revision_moves_when_an_answer_differs_from_the_last_one() {
        let (survey, node) = (Survey::default(), Incarnation::new("b", 1).unwrap());
        for (answer, expected) in [(Answer::Silent, 1), (Answer::Silent, 1), (Answer::Refused, 2), (Answer::Silent, 3)]
        {
            survey.note(&node, answer);
            assert_eq!(survey.revision(), expected, "{answer:?}");
        }
        survey.retain(&[]);
        assert_eq!(survey.answer_of(&node), None);
    }
}
