//! Whether a node of a cluster is to be sent peers: the part of `GET /readyz` that concerns the engine.

use std::time::{Duration, Instant};

use super::handle::Cluster;
use crate::core::cluster::registry::Timing;

/// The answer of a node to balancers, as far as its cluster is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Readiness {
    /// The node has the engine, or is about to.
    Ready,
    /// The node has not reached the engine since its start, and serves alone.
    Alone,
    /// The engine is lost. The node serves on.
    Away,
    /// The engine is lost for long, and another node has it: balancers have a better node.
    Unreachable,
}

/// A time without the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outage {
    /// Its time so far.
    pub(super) lasts: Duration,
    /// Whether the node had the engine before.
    pub(super) has_joined: bool,
    /// Time since which the last answer of another node is known that it has the engine, if that was the last answer.
    pub(super) elsewhere: Option<Duration>,
}

impl Readiness {
    /// Decides. An engine that is away for all nodes takes none of them from the balancer.
    pub(super) fn of(outage: Option<Outage>, timing: &Timing) -> Self {
        let Some(Outage { lasts, has_joined, elsewhere }) = outage else { return Self::Ready };
        let is_elsewhere = elsewhere.is_some_and(|age| age <= timing.upkeep * 3);
        match has_joined {
            true if lasts >= timing.unready && is_elsewhere => Self::Unreachable,
            true => Self::Away,
            false if lasts >= timing.patience => Self::Alone,
            false => Self::Ready,
        }
    }
}

impl Cluster {
    /// The answer to balancers now.
    pub(in crate::server) fn readiness(&self) -> Readiness {
        let now = Instant::now();
        let elsewhere = self.engine.lock().elsewhere.map(|heard| now.saturating_duration_since(heard));
        self.read(|membership| {
            let away = membership.away_for(now);
            let outage = away.map(|lasts| Outage { lasts, has_joined: membership.has_joined(), elsewhere });
            Readiness::of(outage, membership.timing())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, has_joined: bool, elsewhere: Option<u64>) -> Readiness {
        let (lasts, elsewhere) = (Duration::from_secs(seconds), elsewhere.map(Duration::from_secs));
        Readiness::of(Some(Outage { lasts, has_joined, elsewhere }), &Timing::default())
    }

    #[test]
    fn node_without_the_engine_is_ready_until_another_has_it_for_long() {
        assert_eq!(Readiness::of(None, &Timing::default()), Readiness::Ready);
        for seconds in [0, 1, 29] {
            assert_eq!(after(seconds, true, Some(0)), Readiness::Away, "{seconds}");
        }
        assert_eq!(after(30, true, Some(0)), Readiness::Unreachable);
        assert_eq!(after(86_400, true, Some(15)), Readiness::Unreachable);
    }

    #[test]
    fn engine_that_is_away_for_all_nodes_takes_none_of_them_out() {
        assert_eq!(after(86_400, true, None), Readiness::Away);
        assert_eq!(after(86_400, true, Some(16)), Readiness::Away, "an answer that is as old as three rounds");
    }

    #[test]
    fn node_that_starts_without_the_engine_says_so_after_its_patience() {
        assert_eq!(after(1, false, None), Readiness::Ready);
        assert_eq!(after(2, false, None), Readiness::Alone);
        assert_eq!(after(86_400, false, Some(0)), Readiness::Alone);
    }
}
