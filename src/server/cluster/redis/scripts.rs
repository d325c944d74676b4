//! The scripts, which the engine executes whole or not at all.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, cmd};

use super::keys::Keys;

/// A script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Join,
    Renew,
    Claim,
    Reclaim,
    Release,
    Reap,
    Nodes,
    Leave,
    SetIce,
    Expect,
    Cancel,
}

/// The scripts in the order of [`Script`]. Those that each device calls begin without the functions that all share.
const SOURCES: [&str; 11] = [
    concat!(include_str!("prelude.lua"), include_str!("join.lua")),
    concat!(include_str!("prelude.lua"), include_str!("renew.lua")),
    concat!(include_str!("claim_free.lua"), include_str!("prelude.lua"), include_str!("claim.lua")),
    concat!(include_str!("prelude.lua"), include_str!("reclaim.lua")),
    include_str!("release.lua"),
    concat!(include_str!("prelude.lua"), include_str!("reap.lua")),
    concat!(include_str!("prelude.lua"), include_str!("nodes.lua")),
    concat!(include_str!("prelude.lua"), include_str!("leave.lua")),
    concat!(include_str!("prelude.lua"), include_str!("set_ice.lua")),
    concat!(include_str!("prelude.lua"), include_str!("expect.lua")),
    concat!(include_str!("prelude.lua"), include_str!("cancel.lua")),
];

/// Arguments of a claim, and the bytes of nearly all of them: room that a call is given at once.
const MOST_ARGUMENTS: usize = 24;
const MOST_BYTES: usize = 1_000;

/// Names that the engine has given to the scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    names: Vec<String>,
}

impl Scripts {
    /// Loads the scripts. An engine that has forgotten them since answers `NOSCRIPT`, and the connection begins anew: a
    /// script that is loaded and called again would be executed after later calls.
    pub(super) async fn load(connection: &mut MultiplexedConnection) -> RedisResult<Self> {
        let mut names = Vec::new();
        for source in SOURCES {
            names.push(cmd("SCRIPT").arg("LOAD").arg(source).query_async(connection).await?);
        }
        Ok(Self { names })
    }

    /// Returns a call of a script. `held` are the keys after those that all scripts have, and arguments follow
    /// the channel and the stamp of a change.
    pub(super) fn call(&self, script: Script, keys: &Keys, held: &[&str]) -> Cmd {
        let mut call = Cmd::with_capacity(MOST_ARGUMENTS, MOST_BYTES);
        call.arg("EVALSHA").arg(self.names.get(script as usize)).arg(4 + held.len());
        call.arg(&keys.meta).arg(&keys.nodes).arg(&keys.records).arg(&keys.devices).arg(held).arg(&keys.channel);
        call.arg(format!("{:016x}", fastrand::u64(..)));
        call
    }
}
