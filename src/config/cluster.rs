//! The settings of a node of a cluster: one service over several servers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::core::cluster::registry::Timing;

/// The settings of a node of a cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The URL of the engine: `redis://`, `rediss://` or `redis+sentinel://`. It may have a password.
    pub engine: String,
    /// The name of the service. Nodes of one name share a registry.
    pub name: String,
    /// The name of this node, unique in the cluster.
    pub node: String,
    /// The address to listen on for other nodes. Port 0: the system picks a free port.
    pub listen: SocketAddr,
    /// The address at which other nodes reach this one, `HOST:PORT`. Default: `listen`.
    pub address: Option<String>,
    /// The secrets that all nodes share. The first signs, all verify. None only where engine and listener are loopback.
    pub secrets: Vec<String>,
    /// A file with the certificate authority of the engine, in PEM. Default: those of the system.
    pub ca: Option<PathBuf>,
    /// Whether a device that cannot be claimed is refused. Default no: its node serves it alone.
    pub hold_on_outage: bool,
    /// The name in the cluster of a device on a local socket, with `{node}` and `{id}`. Default: its own id.
    pub device_id_template: Option<String>,
    /// Times of leases and pauses.
    pub timing: Timing,
}

impl fmt::Debug for Cluster {
    /// Leaves out the URL, which may have a password, and the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, node, listen, .. } = self;
        f.debug_struct("Cluster")
            .field("name", name)
            .field("node", node)
            .field("listen", listen)
            .finish_non_exhaustive()
    }
}
