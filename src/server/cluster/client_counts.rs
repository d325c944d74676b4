//! The numbers of clients of devices, as the nodes of the devices have told them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::protocol::DeviceId;

/// The age up to which the numbers are used again. No request asks all nodes more often.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The numbers of the devices with clients, by device id.
pub(in crate::server) type OfNode = HashMap<String, usize>;

/// The answers of the other nodes.
#[derive(Debug)]
pub(in crate::server) struct ClientCounts {
    at: Instant,
    of_nodes: HashMap<String, OfNode>,
}

impl ClientCounts {
    /// The answers that came by now, by the names of the nodes.
    pub(in crate::server) fn new(of_nodes: HashMap<String, OfNode>, now: Instant) -> Self {
        Self { at: now, of_nodes }
    }

    /// The number of clients of a device; `None` if its node has not answered.
    pub(in crate::server) fn of(&self, node: &str, id: &DeviceId) -> Option<usize> {
        self.of_nodes.get(node).map(|counts| counts.get(id.as_str()).copied().unwrap_or(0))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < MAX_AGE
    }
}

/// The last answers. The lock is held while the nodes are asked, so that requests share the answers.
#[derive(Default)]
pub(in crate::server) struct LatestCounts(Mutex<Option<Arc<ClientCounts>>>);

impl LatestCounts {
    /// Returns answers that are at most a second old: the last ones, or those of `ask`.
    pub(in crate::server) async fn get(&self, ask: impl Future<Output = ClientCounts>) -> Arc<ClientCounts> {
        let mut latest = self.0.lock().await;
        if let Some(counts) = latest.as_ref().filter(|counts| counts.is_fresh(Instant::now())) {
            return Arc::clone(counts);
        }
        let counts = Arc::new(ask.await);
        *latest = Some(Arc::clone(&counts));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_of_a_node_that_has_answered_has_a_number() {
        let counts = HashMap::from([("b".to_owned(), HashMap::from([("cvd-1".to_owned(), 3)]))]);
        let counts = ClientCounts::new(counts, Instant::now());
        let of = |node, id| counts.of(node, &DeviceId::new(id));
        assert_eq!((of("b", "cvd-1"), of("b", "cvd-2"), of("c", "cvd-1")), (Some(3), Some(0), None));
    }

    #[test]
    fn answers_are_used_again_for_a_second() {
        let now = Instant::now();
        let counts = ClientCounts::new(HashMap::new(), now);
        assert!(counts.is_fresh(now + Duration::from_millis(999)) && !counts.is_fresh(now + MAX_AGE));
    }
}
