//! Pings of devices for other nodes, and the news that a device was replaced.

use std::sync::Arc;

use hyper::{Method, StatusCode};

use super::error::Unreachable;
use super::node::Node;
use crate::core::cluster::Registration;
use crate::core::cluster::claim::Probe;
use crate::core::hub::Device;
use crate::protocol::DeviceId;

impl Node {
    /// Asks the node of a holder, which may be this one, whether its device is alive, and tells the membership.
    pub(super) fn probe(self: &Arc<Self>, id: DeviceId, claimant: Registration, holder: Registration) {
        let node = Arc::clone(self);
        self.spawn(async move {
            let probe = if *holder.incarnation() == node.cluster.incarnation {
                node.probe_here(&holder).await
            } else {
                node.probe_there(&id, &holder).await
            };
            node.cluster.probed(&id, &claimant, &holder, probe);
        });
    }

    /// Pings a device of this node.
    pub(super) async fn probe_here(&self, holder: &Registration) -> Probe {
        let Some(device) = self.cluster.device(holder) else { return Probe::Gone };
        if self.is_alive(&device).await { Probe::Alive } else { Probe::Gone }
    }

    /// Pings a device.
    async fn is_alive(&self, device: &Device) -> bool {
        // By real time, as all of the cluster.
        let limit = self.shared.settings().limits.probe_timeout;
        matches!(self.shared.timers.timeout(limit, device.outbox.probe()).await, Some(Ok(())))
    }

    async fn probe_there(self: &Arc<Self>, id: &DeviceId, holder: &Registration) -> Probe {
        let path = format!("{}/probe?registration={}", path_of(id), encoded(&holder.to_string()));
        let asked = match self.neighbour(holder.incarnation()).await {
            Ok(neighbour) => self.ask(&neighbour, Method::POST, &path).await,
            Err(error) => Err(error),
        };
        match asked {
            Ok((StatusCode::OK, body)) if &*body == ALIVE.as_bytes() => Probe::Alive,
            // 409: another process answers for the node, and this start of it has ended.
            Ok((StatusCode::OK | StatusCode::CONFLICT | StatusCode::NOT_FOUND, _)) => Probe::Gone,
            Ok(_) => Probe::Unreachable,
            Err(error) => self.probe_of(&error),
        }
    }

    /// The answer about a node that could not be asked.
    ///
    /// It is gone if another living node is at its address. A process that is no node proves nothing.
    pub(super) fn probe_of(&self, error: &Unreachable) -> Probe {
        match error {
            Unreachable::Other(fingerprint) if self.is_own_or_living(fingerprint) => Probe::Gone,
            _ => Probe::Unreachable,
        }
    }

    /// Tells the node of a holder that it was replaced.
    pub(super) fn tell_replaced(self: &Arc<Self>, id: DeviceId, holder: Registration) {
        let node = Arc::clone(self);
        self.spawn(async move {
            if *holder.incarnation() == node.cluster.incarnation {
                return node.check(&id);
            }
            // If it cannot be told, its node hears of it from the feed.
            let path = format!("{}/replaced?registration={}", path_of(&id), encoded(&holder.to_string()));
            if let Ok(neighbour) = node.neighbour(holder.incarnation()).await {
                let _told = node.ask(&neighbour, Method::POST, &path).await;
            }
        });
    }
}

/// The answer about a device that is alive.
pub(super) const ALIVE: &str = r#"{"device":"alive"}"#;

/// The answer about a device that is not there, or does not answer.
pub(super) const GONE: &str = r#"{"device":"gone"}"#;

/// The path of a device on its node.
pub(super) fn path_of(id: &DeviceId) -> String {
    format!("/cluster/devices/{}", encoded(id.as_str()))
}

/// Encodes a part of a path or of a query.
pub(super) fn encoded(part: &str) -> String {
    percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string()
}
