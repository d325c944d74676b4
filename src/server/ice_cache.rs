//! The ICE servers that a command has printed, and the run that is under way.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::ice_command::IceCommand;
use crate::protocol::IceServers;

/// The state of one server's command. Nothing else in it is waited for.
#[derive(Default)]
pub(super) struct IceCache(pub(super) Mutex<Entry>);

/// The servers of the last runs.
#[derive(Default)]
pub(super) struct Entry {
    /// The command that they are of.
    pub(super) command: Option<Arc<IceCommand>>,
    /// The servers of the last run that has succeeded.
    pub(super) good: Option<Good>,
    /// The time before which no further run begins: the last one has failed.
    pub(super) retry_at: Option<Instant>,
    /// Disconnected when the run that is under way has ended.
    pub(super) running: Option<watch::Receiver<()>>,
}

/// Servers of a run.
#[derive(Clone)]
pub(super) struct Good {
    pub(super) servers: IceServers,
    /// The time up to which they are used without another run.
    pub(super) fresh_until: Instant,
    /// The time up to which they are used while runs fail.
    pub(super) valid_until: Instant,
}

impl Entry {
    /// Returns the entry of a command. That of an earlier command is dropped.
    pub(super) fn of(&mut self, command: &Arc<IceCommand>) -> &mut Self {
        if !self.command.as_ref().is_some_and(|known| Arc::ptr_eq(known, command)) {
            *self = Self { command: Some(Arc::clone(command)), ..Self::default() };
        }
        self
    }
}
