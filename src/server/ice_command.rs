//! ICE servers from a command (`--ice-servers-command`): one run at a time, whose result is shared and kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::ice_cache::Good;
use super::ice_process::Run;
use crate::config::ice_command::IceCommand;
use crate::observe::incidents::Incident;
use crate::protocol::IceServers;
use crate::server::shared::Shared;

/// The pause after a failed run, if the servers of a run are used for longer.
const RETRY: Duration = Duration::from_secs(10);

/// The time for a killed command to end. A process that has left its process group may hold the output open.
const KILLED: Duration = Duration::from_secs(1);

impl Shared {
    /// Returns the servers that are known now, and how long they are valid; `None` if a run has to end first.
    pub(super) fn known_ice_servers(&self, command: &Arc<IceCommand>) -> Option<(IceServers, Duration)> {
        let now = self.clock.now();
        let mut entry = self.ice_cache.0.lock();
        let entry = entry.of(command);
        let good = entry.good.as_ref().filter(|good| now < good.valid_until);
        let is_fresh = good.is_some_and(|good| now < good.fresh_until);
        if !is_fresh && (entry.running.is_some() || entry.retry_at.is_none_or(|at| at <= now)) {
            return None;
        }
        Some(match good {
            Some(good) => (good.servers.clone(), good.valid_until.saturating_duration_since(now)),
            None => (command.fallback().clone(), command.ttl()),
        })
    }

    /// Waits for the servers: those of the run that is under way, or of a new one. A failure is in the log.
    pub(super) async fn ice_servers_of(self: Arc<Self>, command: Arc<IceCommand>) -> (IceServers, Duration) {
        loop {
            if let Some(known) = self.known_ice_servers(&command) {
                return known;
            }
            let mut running = self.run_under_way(&command);
            // Disconnected, so an error, when the run has ended.
            while running.changed().await.is_ok() {}
            if self.stopping.is_cancelled() {
                return (command.fallback().clone(), command.ttl());
            }
        }
    }

    /// The run that is under way, or a new one.
    fn run_under_way(self: &Arc<Self>, command: &Arc<IceCommand>) -> watch::Receiver<()> {
        let mut entry = self.ice_cache.0.lock();
        let entry = entry.of(command);
        if let Some(running) = &entry.running {
            return running.clone();
        }
        let (over, running) = watch::channel(());
        entry.running = Some(running.clone());
        let (shared, command) = (Arc::clone(self), Arc::clone(command));
        // A task of its own: the peer that asked first may leave while others wait.
        self.tasks.spawn(async move {
            let outcome = shared.run(&command).await;
            shared.keep(&command, outcome);
            drop(over);
        });
        running
    }

    /// Runs the command once.
    async fn run(&self, command: &IceCommand) -> Result<(IceServers, Option<Duration>), String> {
        let mut run = Run::start(command.argv().to_vec()).map_err(|error| format!("cannot be started: {error}"))?;
        let ended = tokio::select! {
            biased;
            () = self.stopping.cancelled() => Err("was killed, since the server stops".into()),
            ended = self.clock.timeout(command.timeout(), &mut run.outcome) => {
                ended.ok_or_else(|| format!("did not end within {:?}, and was killed", command.timeout()))
            }
        };
        match ended {
            Ok(outcome) => {
                let output = outcome.unwrap_or_else(|_| Err("ended without an outcome".into()))?;
                IceServers::from_command(&output).map_err(|error| format!("printed no ICE servers: {error}"))
            }
            Err(why) => {
                run.kill();
                if self.timers.timeout(KILLED, &mut run.outcome).await.is_none() {
                    return Err(format!("{why}; a process outside of its process group holds its output open"));
                }
                Err(why)
            }
        }
    }

    /// Keeps the outcome of a run, and reports a failure.
    fn keep(&self, command: &Arc<IceCommand>, outcome: Result<(IceServers, Option<Duration>), String>) {
        let now = self.clock.now();
        let after = |time: Duration| now.checked_add(time).unwrap_or(now);
        let mut entry = self.ice_cache.0.lock();
        let entry = entry.of(command);
        entry.running = None;
        match outcome {
            Ok((servers, lifetime)) => {
                let lifetime = lifetime.unwrap_or(command.lifetime());
                // Credentials with less than half of their time left are not given out.
                let fresh = command.ttl().min(lifetime / 2);
                entry.good = Some(Good { servers, fresh_until: after(fresh), valid_until: after(lifetime) });
                entry.retry_at = None;
            }
            Err(_) if self.stopping.is_cancelled() => {}
            Err(why) => {
                entry.retry_at = Some(after(RETRY.min(command.ttl())));
                let used = used_meanwhile(entry.good.as_ref(), now);
                self.incidents.count(Incident::IceCommandFailed);
                let program = command.program();
                tracing::error!(
                    event = "ice_command_failed",
                    reason = why,
                    "the command for ICE servers, {program:?}, {why}. {used}"
                );
            }
        }
    }
}

/// Tells which servers are used while the command fails.
fn used_meanwhile(good: Option<&Good>, now: Instant) -> String {
    match good.filter(|good| now < good.valid_until) {
        Some(good) => {
            let left = good.valid_until.saturating_duration_since(now).as_secs();
            format!("Those of its last good run are used for {left} s more")
        }
        None => "The fixed ICE servers are used".into(),
    }
}
