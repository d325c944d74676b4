//! The engine on Redis, with real servers on loopback. They need Debian's `redis-server` and `redis-sentinel`.

mod connection;
mod differential;
mod errors;
mod sentinel;
pub(crate) mod server;
mod signatures;
mod tls;
mod wire;

use cuttlefish_signaling::core::cluster::registry::{NodeRecord, Operation, Reply, Timing, Wanted};
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::cluster::engine::{Connection, Engine as _, EngineError};
use cuttlefish_signaling::server::cluster::redis::Redis;

use self::server::settings;

/// Connects to a URL with the settings of the tests.
async fn connect(url: &str) -> Result<Connection, EngineError> {
    Redis::new(&settings(url, Timing { settle: std::time::Duration::ZERO, ..Timing::default() }))?.connect().await
}

/// Connects and joins as this node.
async fn join(url: &str, node: &str) -> Connection {
    let connection = connect(url).await.unwrap();
    let reply = connection.commands.execute(join_as(node)).await.unwrap().reply;
    assert!(matches!(reply, Reply::Joined { .. }), "{reply:?}");
    connection
}

fn join_as(node: &str) -> Operation {
    Operation::Join { node: NodeRecord { incarnation: incarnation(node), details: "{}".into() }, replaces: None }
}

fn incarnation(node: &str) -> Incarnation {
    Incarnation::new(node, 7).unwrap()
}

fn registration(node: &str, number: u64) -> Registration {
    Registration::new(incarnation(node), number)
}

fn wanted(node: &str, id: &str, number: u64) -> Wanted {
    Wanted { id: DeviceId::new(id), registration: registration(node, number), details: "{}".into() }
}

fn claim(node: &str, id: &str, number: u64) -> Operation {
    Operation::Claim { wanted: wanted(node, id, number), expected: None, place: None }
}

fn read(id: &str) -> Operation {
    Operation::Read(DeviceId::new(id))
}
