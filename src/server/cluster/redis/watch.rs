//! Looks whether the Sentinels still name the server of a connection as the master.
//!
//! A master that is demoted takes writes until it is told, which may be 10 s later. For the nodes that are still connected to
//! it, it is an engine of its own, without the devices of all others.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio_util::task::AbortOnDropHandle;

use super::errors::Explainer;
use super::sentinel;
use super::url::{Host, Target};
use crate::server::cluster::engine::EngineError;

/// Looks that have to name the same other master, one after the other: one Sentinel may be behind the others.
const AGREEING: usize = 2;

/// Time after which a Sentinel that does not answer is given up for the next one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Watches the master of one connection.
pub(super) struct Watch {
    sentinels: Arc<Sentinels>,
    explainer: Explainer,
    /// The server of the connection.
    host: Host,
    seen: Mutex<Seen>,
}

/// The Sentinels, and how they are asked.
struct Sentinels {
    target: Arc<Target>,
    tls: Option<Arc<ClientConfig>>,
    /// Name of the master.
    master: String,
}

#[derive(Default)]
struct Seen {
    looks: usize,
    /// The other master that the last looks have named, and their number.
    other: Option<(Host, usize)>,
    /// The last look, and when it began. It ends with the connection.
    look: Option<(AbortOnDropHandle<()>, Instant)>,
}

impl Watch {
    pub(super) fn new(
        target: Arc<Target>,
        tls: Option<Arc<ClientConfig>>,
        explainer: Explainer,
        master: &str,
        host: Host,
    ) -> Arc<Self> {
        let sentinels = Arc::new(Sentinels { target, tls, master: master.to_owned() });
        Arc::new(Self { sentinels, explainer, host, seen: Mutex::default() })
    }

    /// Begins a look, unless one is under way.
    ///
    /// # Errors
    /// [`EngineError`] if the looks before have found another master: the connection has to be dropped.
    pub(super) fn look(self: &Arc<Self>) -> Result<(), EngineError> {
        let mut seen = self.seen.lock();
        if let Some((other, _)) = seen.other.as_ref().filter(|(_, looks)| *looks >= AGREEING) {
            let what = format!("{} is no longer the master: the Sentinels name {other}, which is used now", self.host);
            return Err(self.explainer.error("demoted", &what));
        }
        if !seen.look.as_ref().is_some_and(|(look, since)| !look.is_finished() && since.elapsed() < PATIENCE) {
            seen.looks += 1;
            let look = ask(Arc::downgrade(self), Arc::clone(&self.sentinels), seen.looks);
            seen.look = Some((AbortOnDropHandle::new(tokio::spawn(look)), Instant::now()));
        }
        Ok(())
    }

    async fn note(&self, named: Host) {
        let is_same = named == self.host || have_one_address(&named, &self.host).await;
        let mut seen = self.seen.lock();
        let before = seen.other.take().filter(|(other, _)| *other == named).map_or(0, |(_, looks)| looks);
        seen.other = (!is_same).then_some((named, before + 1));
    }
}

/// Asks the next Sentinel. One that does not answer, or does not know the name, says nothing of the master.
async fn ask(watch: Weak<Watch>, sentinels: Arc<Sentinels>, look: usize) {
    let Sentinels { target, tls, master } = &*sentinels;
    let next = look.checked_rem(target.hosts.len()).and_then(|place| target.hosts.get(place));
    let Some(sentinel) = next else { return };
    let named = sentinel::master_address(sentinel, tls.as_ref(), target, master).await;
    if let (Ok(Some(named)), Some(watch)) = (named, watch.upgrade()) {
        watch.note(named).await;
    }
}

/// Returns whether two names are of one server: Sentinels may name it by its name or by its address.
async fn have_one_address(one: &Host, other: &Host) -> bool {
    let addresses = async |host: &Host| {
        let found = tokio::net::lookup_host((host.name.as_str(), host.port)).await;
        found.map(Iterator::collect::<Vec<_>>).unwrap_or_default()
    };
    let known = addresses(other).await;
    addresses(one).await.iter().any(|address| known.contains(address))
}
