//! Tells which settings a server that runs can replace.

use crate::config::Config;
use crate::config::cluster::Cluster;

impl Config {
    /// The settings that are different in `new`, and that a server that runs cannot replace.
    ///
    /// A certificate can be replaced by another one only: the scheme of a listener goes by it. So can the secrets of a
    /// cluster.
    pub fn fixed_changes(&self, new: &Self) -> Vec<&'static str> {
        let changes = [
            ("host", self.host != new.host),
            ("port", self.port != new.port),
            ("listen", self.listen != new.listen),
            ("metrics", self.metrics != new.metrics),
            ("control_api", self.control.listen != new.control.listen),
            ("tls", self.tls.is_some() != new.tls.is_some()),
            ("device_socket", self.device_socket != new.device_socket),
            ("control_socket", self.control_socket != new.control_socket),
            ("audit_log", self.audit_log != new.audit_log),
            ("echo", self.echo != new.echo),
            ("dashboard", self.dashboard != new.dashboard),
            ("journal", self.journal != new.journal),
            ("cluster", is_another_cluster(self.cluster.as_ref(), new.cluster.as_ref())),
            ("upstream", self.upstream != new.upstream),
            ("workers", self.workers != new.workers),
        ];
        changes.into_iter().filter(|(_, is_changed)| *is_changed).map(|(setting, _)| setting).collect()
    }
}

/// Whether a node has other settings of its cluster than other secrets.
fn is_another_cluster(old: Option<&Cluster>, new: Option<&Cluster>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => !old.is_same_but_secrets(new),
        (old, new) => old.is_some() != new.is_some(),
    }
}
