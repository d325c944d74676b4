//! Whether another node has the engine while this one has not, for `GET /readyz`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HeaderName;

use super::node::Node;
use crate::core::cluster::registry::NodeRecord;

/// Whether a node has the engine, in each of its answers: also in those to a node whose lease has ended.
pub(super) const ENGINE_HEADER: HeaderName = HeaderName::from_static("x-cuttlefish-engine");

/// Nodes that are asked in one round. Where the engine is there for others, it is there for most.
const ASKED: usize = 3;

/// Time for the answers of one round.
const ROUND: Duration = Duration::from_secs(4);

/// Asks other nodes now and then, while this one has no engine.
pub(super) async fn watch(node: Arc<Node>) {
    let stopping = node.shared.stopping.clone();
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = node.shared.timers.sleep(node.timing.upkeep) => {}
        }
        let away = node.cluster.read(|membership| membership.away_for(Instant::now()));
        let asks = away.is_some_and(|away| away + node.timing.upkeep * 2 >= node.timing.unready);
        let heard = asks && node.shared.timers.timeout(ROUND, node.is_engine_elsewhere()).await == Some(true);
        node.cluster.engine.lock().elsewhere = heard.then(Instant::now);
    }
}

impl Node {
    /// Whether one of some other nodes has the engine.
    async fn is_engine_elsewhere(self: &Arc<Self>) -> bool {
        let own = &self.cluster.incarnation;
        let mut others: Vec<NodeRecord> = self.cluster.read(|membership| {
            membership.nodes().records().filter(|record| record.incarnation != *own).cloned().collect()
        });
        fastrand::shuffle(&mut others);
        let asked = others.iter().take(ASKED).map(|record| self.has_engine(record));
        futures_util::future::join_all(asked).await.contains(&true)
    }

    async fn has_engine(self: &Arc<Self>, record: &NodeRecord) -> bool {
        let Ok(neighbour) = self.neighbours.of(record) else { return false };
        let mut request = Request::new(Full::<Bytes>::default());
        *request.uri_mut() = hyper::Uri::from_static("/cluster/hello");
        // The connection has proved that it is the node of the record.
        let answer = self.send_to(&neighbour, request).await;
        answer.is_ok_and(|answer| answer.headers().get(ENGINE_HEADER).is_some_and(|value| value == "1"))
    }
}
