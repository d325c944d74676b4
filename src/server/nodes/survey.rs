//! Asks the other nodes for their state while a dashboard is open.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hyper::{Method, StatusCode};

use super::hello::Hello;
use super::node::Node;
use crate::core::cluster::registry::NodeRecord;
use crate::server::cluster::survey::{Answer, Told};

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(2);

/// Nodes that are asked at the same time.
const AT_ONCE: usize = 16;

/// Asks, until the server stops.
pub(super) async fn ask_all(node: Arc<Node>) {
    loop {
        node.cluster.survey.opened().await;
        let others = node.cluster.others();
        node.cluster.survey.retain(&others);
        let ask = |record| {
            let node = Arc::clone(&node);
            async move { node.survey(&record).await }
        };
        stream::iter(others).for_each_concurrent(AT_ONCE, ask).await;
        node.shared.timers.sleep(PAUSE).await;
    }
}

impl Node {
    /// Asks a node, and notes its answer.
    async fn survey(self: &Arc<Self>, record: &NodeRecord) {
        let answer = match self.neighbours.of(record) {
            Ok(neighbour) => match self.ask(&neighbour, Method::GET, "/cluster/hello").await {
                Ok((StatusCode::OK, body)) => told(&body),
                // Another process has the address and the certificate, or the node has a new start.
                Ok((StatusCode::CONFLICT, _)) | Err(_) => Answer::Silent,
                // Its certificate has proved which process it is.
                Ok(_) => Answer::Refused,
            },
            Err(_) => Answer::Silent,
        };
        self.cluster.survey.note(&record.incarnation, answer);
    }
}

/// Reads an answer.
fn told(body: &[u8]) -> Answer {
    serde_json::from_slice::<Hello>(body).map_or(Answer::Refused, |hello| {
        Answer::Told(Told { has_engine: hello.engine, drains: hello.draining, clients: hello.clients })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_of_an_earlier_version_does_not_tell_its_clients() {
        let earlier =
            r#"{"node":"b","incarnation":"b.1","build":"1","protocol":1,"digest":"","engine":true,"draining":false}"#;
        assert_eq!(told(earlier.as_bytes()), Answer::Told(Told { has_engine: true, drains: false, clients: None }));
        let of_today = earlier.replace("true,", r#"false,"clients":7,"zone":{"of":"a later version"},"#);
        assert_eq!(
            told(of_today.as_bytes()),
            Answer::Told(Told { has_engine: false, drains: false, clients: Some(7) })
        );
        assert_eq!(told(b"[]"), Answer::Refused);
    }
}
