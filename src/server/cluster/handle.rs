//! The cluster as the sessions of this node see it: they claim ids, and ask where a device is.
//!
//! Nothing here dials. The task of the node, above, drives the [`Membership`] and answers the questions that need another
//! node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use hyper::Method;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::ask::{Answered, Asks};
use super::client_counts::LatestCounts;
use super::details::ReadDetails;
use super::engine::EngineState;
use super::forwards::Forwards;
use super::survey::Survey;
use crate::core::cluster::claim::{Outcome, Probe};
use crate::core::cluster::registry::{Expectation, Expected, NodeRecord, Timing, Wanted};
use crate::core::cluster::{Incarnation, Membership, Output, Registration};
use crate::core::device::Device;
use crate::core::outbox::Outbox;
use crate::core::peer::{Peer, Role};
use crate::core::preregistration::DeviceMetadata;
use crate::core::session::{Answer, ClaimGuard};
use crate::observe::cluster::ClusterCounts;
use crate::observe::quoted::Quoted;
use crate::protocol::DeviceId;
use crate::protocol::refusal::Refusal;

/// The most claims without an outcome. No setting: each has a device with an open connection, which the limits on
/// connections bound. At the bound, the engine does not answer as fast as devices come, and one more would only wait.
const MAX_CLAIMS: usize = 4096;

/// The most questions that wait for the task of the node. No setting: each takes a hundred bytes, and the task only begins
/// an answer, which other tasks end.
const MAX_REQUESTS: usize = 4096;

/// The longest group of a device info in the registry, in bytes. Lists of other nodes have no longer one.
const MAX_GROUP: usize = 256;

/// The cluster, for the sessions of one node.
pub(crate) struct Cluster {
    /// This start of this node.
    pub(in crate::server) incarnation: Incarnation,
    /// Counts claims, operations and clients between nodes.
    pub(in crate::server) counts: Arc<ClusterCounts>,
    state: Mutex<State>,
    /// The engine, as far as this node cannot use it.
    pub(in crate::server) engine: Mutex<EngineState>,
    /// The facts of the nodes.
    pub(in crate::server) details: ReadDetails,
    /// Secrets that replace those of the engine.
    secrets: Mutex<Option<Vec<String>>>,
    /// Notified when the membership has something to do.
    pub(in crate::server) changed: Notify,
    requests: mpsc::Sender<Locate>,
    /// Requests about devices of other nodes.
    pub(in crate::server) asks: Asks,
    /// Requests of clients that other nodes answer.
    pub(in crate::server) forwards: Forwards,
    /// The answers of other nodes, for dashboards.
    pub(in crate::server) survey: Survey,
    /// The numbers of clients on other nodes, for lists.
    pub(in crate::server) client_counts: LatestCounts,
    /// The receiver, until the task of the node takes it.
    received: Mutex<Option<mpsc::Receiver<Locate>>>,
}

/// The membership, and the sessions of the registrations that it knows.
struct State {
    membership: Membership,
    sessions: HashMap<Registration, Claimant>,
    /// The number of claims without an outcome.
    under_way: usize,
    /// The number of the latest registration, or announcement.
    last: u64,
    /// Control connections that wait for the outcomes of an announcement, by its number.
    announcements: HashMap<u64, oneshot::Sender<Vec<Expectation>>>,
}

/// A device that claims its id, or has it.
struct Claimant {
    device: Arc<Device>,
    /// Metadata of the device, if another node has announced it.
    place: Option<Arc<DeviceMetadata>>,
    /// Told the outcome, once.
    outcome: Option<oneshot::Sender<Told>>,
}

/// The outcome of a claim, and the metadata of a device that another node has announced.
type Told = (Outcome, Option<Arc<DeviceMetadata>>);

/// A question of a session: which other node has a device.
pub(in crate::server) struct Locate {
    /// The id of the device.
    pub(in crate::server) id: DeviceId,
    /// Whether the client waits no longer: the registry itself is asked.
    pub(in crate::server) last: bool,
    /// The client.
    pub(in crate::server) peer: Arc<Peer>,
    /// The queue of messages to the client.
    pub(in crate::server) outbox: Arc<Outbox>,
    /// The registration of the device by the directory, if there is one.
    pub(in crate::server) known: Option<Registration>,
    /// Told the answer. Closed if the client has left.
    pub(in crate::server) answer: oneshot::Sender<Answer>,
}

impl Cluster {
    /// Creates the cluster of a node that has not joined.
    pub(in crate::server) fn new(record: NodeRecord, timing: Timing, hold_on_outage: bool) -> Arc<Self> {
        let (requests, received) = mpsc::channel(MAX_REQUESTS);
        let incarnation = record.incarnation.clone();
        let membership = Membership::new(record, timing, hold_on_outage, fastrand::u64(..), Instant::now());
        Arc::new(Self {
            incarnation,
            counts: Arc::default(),
            state: Mutex::new(State {
                membership,
                sessions: HashMap::new(),
                under_way: 0,
                last: 0,
                announcements: HashMap::new(),
            }),
            engine: Mutex::default(),
            details: ReadDetails::default(),
            secrets: Mutex::default(),
            changed: Notify::new(),
            requests,
            asks: Asks::new(),
            forwards: Forwards::default(),
            survey: Survey::default(),
            client_counts: LatestCounts::default(),
            received: Mutex::new(Some(received)),
        })
    }

    /// Asks the node that has a device, behind the path of the device.
    pub(in crate::server) fn ask(
        &self,
        id: DeviceId,
        method: Method,
        below: String,
    ) -> impl Future<Output = Answered> + Send + use<> {
        self.asks.ask(self.incarnation.node(), id, method, below)
    }

    /// Takes the questions of sessions. `None` if they were taken already.
    pub(in crate::server) fn take_requests(&self) -> Option<mpsc::Receiver<Locate>> {
        self.received.lock().take()
    }

    /// Calls a function with the membership. The task of the node then does what the membership wants.
    pub(in crate::server) fn with<T>(&self, call: impl FnOnce(&mut Membership) -> T) -> T {
        let result = call(&mut self.state.lock().membership);
        self.changed.notify_one();
        result
    }

    /// Calls a function with the membership, in the task of the node, which then does what the membership wants: no
    /// notification wakes it once more.
    pub(in crate::server) fn drive<T>(&self, call: impl FnOnce(&mut Membership) -> T) -> T {
        call(&mut self.state.lock().membership)
    }

    /// Replaces the secrets of the cluster. The task of the node does so, and writes its records again.
    pub(in crate::server) fn replace_secrets(&self, secrets: Vec<String>) {
        *self.secrets.lock() = Some(secrets);
        self.changed.notify_one();
    }

    /// Takes secrets that replace those of the engine.
    pub(in crate::server) fn take_secrets(&self) -> Option<Vec<String>> {
        self.secrets.lock().take()
    }

    /// Returns the next act that the membership wants.
    pub(in crate::server) fn poll_output(&self) -> Option<Output> {
        self.state.lock().membership.poll_output()
    }

    /// Reads the membership.
    pub(in crate::server) fn read<T>(&self, read: impl FnOnce(&Membership) -> T) -> T {
        read(&self.state.lock().membership)
    }

    /// Claims the id of a device, which `replaces` the holder, if there is one.
    ///
    /// The future resolves to the answer for the session. Dropping the future or the claim gives the id up.
    pub(in crate::server) fn claim(
        self: &Arc<Self>,
        device: &Arc<Device>,
        replaces: bool,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let id = device.id.clone();
        let begun = self.begin_claim(device, replaces);
        async move {
            let Some((release, outcome)) = begun else { return unavailable(Role::Device) };
            match outcome.await {
                Ok((Outcome::Granted | Outcome::Unclaimed, place)) => {
                    Answer::Claimed(ClaimGuard::announced(release, place))
                }
                Ok((Outcome::Refused, _)) => Answer::Refused(Refusal::AlreadyRegistered(id)),
                Ok((Outcome::Unavailable, _)) | Err(_) => unavailable(Role::Device),
            }
        }
    }

    fn begin_claim(
        self: &Arc<Self>,
        device: &Arc<Device>,
        replaces: bool,
    ) -> Option<(Release, oneshot::Receiver<Told>)> {
        let (tell, outcome) = oneshot::channel();
        let mut state = self.state.lock();
        if state.under_way >= MAX_CLAIMS {
            return None;
        }
        state.under_way += 1;
        state.last += 1;
        let registration = Registration::new(self.incarnation.clone(), state.last);
        let claimant = Claimant { device: Arc::clone(device), place: None, outcome: Some(tell) };
        state.sessions.insert(registration.clone(), claimant);
        let wanted =
            Wanted { id: device.id.clone(), registration: registration.clone(), details: details_of(device).into() };
        state.membership.claim(wanted, replaces, Instant::now());
        drop(state);
        self.changed.notify_one();
        Some((Release { cluster: Arc::clone(self), id: device.id.clone(), registration }, outcome))
    }

    /// Tells a session the outcome of its claim.
    pub(in crate::server) fn tell(&self, registration: &Registration, outcome: Outcome) {
        let mut state = self.state.lock();
        let Some(claimant) = state.sessions.get_mut(registration) else { return };
        // Later outcomes say that a device that was admitted without a claim has one now.
        let Some(tell) = claimant.outcome.take() else { return };
        let place = claimant.place.take();
        state.under_way -= 1;
        self.counts.count_claim(match outcome {
            Outcome::Granted => "granted",
            Outcome::Unclaimed => "unclaimed",
            Outcome::Refused => "refused",
            Outcome::Unavailable => "unavailable",
        });
        // A session that has left drops the claim itself.
        let _left = tell.send((outcome, place));
    }

    /// Keeps the announcement of a device that claims its id, until its session is told the outcome.
    pub(in crate::server) fn place(&self, registration: &Registration, details: &str) {
        let place = DeviceMetadata::from_json(details).map(Arc::new);
        if place.is_none() {
            let what = "cannot read the pre-registration of another node, which has another version";
            tracing::warn!(event = "cluster_place_invalid", reason = details, "{what}: {}", Quoted(details));
        }
        if let Some(claimant) = self.state.lock().sessions.get_mut(registration) {
            claimant.place = place;
        }
    }

    /// Announces devices of a control connection. Without the engine, they are announced on this node alone.
    pub(in crate::server) fn announce(
        &self,
        devices: &[Expected],
        most: usize,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let (tell, outcomes) = oneshot::channel();
        let alone = vec![Expectation::Pending; devices.len()];
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        state.announcements.insert(number, tell);
        state.membership.announce(number, devices, most, Instant::now());
        drop(state);
        self.changed.notify_one();
        // Without an answer, the node stops.
        async move { Answer::Announced(outcomes.await.unwrap_or(alone)) }
    }

    /// Tells a control connection the outcomes of its announcement.
    pub(in crate::server) fn announced(&self, number: u64, outcomes: Vec<Expectation>) {
        if let Some(tell) = self.state.lock().announcements.remove(&number) {
            // A connection that has left has taken its announcements back.
            let _left = tell.send(outcomes);
        }
    }

    /// Returns the device of a registration of this node.
    pub(in crate::server) fn device(&self, registration: &Registration) -> Option<Arc<Device>> {
        self.state.lock().sessions.get(registration).map(|claimant| Arc::clone(&claimant.device))
    }

    /// Returns the number of registrations that claim an id or have one.
    pub(in crate::server) fn claim_count(&self) -> usize {
        self.state.lock().sessions.len()
    }

    /// Passes on the answer of the node of a holder.
    pub(in crate::server) fn probed(
        &self,
        id: &DeviceId,
        claimant: &Registration,
        holder: &Registration,
        probe: Probe,
    ) {
        self.with(|membership| membership.on_probe(id, claimant, holder, probe, Instant::now()));
    }

    /// Returns the registration of a device on another node, if the directory has one. It is called under the lock of the
    /// hub.
    pub(in crate::server) fn elsewhere(&self, id: &DeviceId) -> Option<Registration> {
        let known = self.read(|membership| membership.directory().get(id).map(|known| known.registration.clone()));
        known.filter(|registration| *registration.incarnation() != self.incarnation)
    }

    /// Returns the other node with this tag, if it lives.
    pub(in crate::server) fn other_node_with(&self, tag: &str) -> Option<Incarnation> {
        let has = |node: &&Incarnation| **node != self.incarnation && node.tag() == tag;
        self.read(|membership| membership.nodes().live().find(has).cloned())
    }

    /// Asks which other node has a device, for a client. `last`: the client waits no longer.
    pub(in crate::server) fn locate(
        &self,
        id: DeviceId,
        last: bool,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
    ) -> impl Future<Output = Answer> + Send + use<> {
        let known = self.elsewhere(&id);
        let (answer, answered) = oneshot::channel();
        let is_known = known.is_some();
        let question = Locate { id, last, peer: Arc::clone(peer), outbox: Arc::clone(outbox), known, answer };
        let asked = (is_known || last).then(|| self.requests.try_send(question).is_ok());
        async move {
            match (asked, last) {
                (None, _) | (Some(false), false) => Answer::Nowhere,
                (Some(false), true) => unavailable(Role::Client),
                // Without an answer, the node stops.
                (Some(true), _) => answered.await.unwrap_or_else(|_| unavailable(Role::Client)),
            }
        }
    }
}

/// Gives an id up when it is dropped.
struct Release {
    cluster: Arc<Cluster>,
    id: DeviceId,
    registration: Registration,
}

impl Drop for Release {
    fn drop(&mut self) {
        let mut state = self.cluster.state.lock();
        let claimant = state.sessions.remove(&self.registration);
        if claimant.as_ref().is_some_and(|claimant| claimant.outcome.is_some()) {
            state.under_way -= 1;
        }
        state.membership.release(&self.id, &self.registration, Instant::now());
        drop(state);
        // Outside of the lock: the device may have the last waker of a task that has another claim.
        drop(claimant);
        self.cluster.changed.notify_one();
    }
}

/// The answer to a peer for which the registry is needed, and cannot be asked.
pub(in crate::server) fn unavailable(role: Role) -> Answer {
    Answer::Refused(Refusal::ClusterUnavailable(role))
}

/// The facts of a device for lists on other nodes, as JSON.
fn details_of(device: &Device) -> String {
    let metadata = device.metadata();
    let mut details = serde_json::json!({
        "since": device.peer.since.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
    });
    // The names of a pre-registration have a bound. The group of the device info has none.
    let own_group = device.own_group().filter(|group| group.len() <= MAX_GROUP).map_or("", |group| &**group);
    let local_id = device.local_id.as_ref().map_or("", DeviceId::as_str);
    let texts = [
        ("group", &*metadata.group_name),
        ("own_group", own_group),
        ("owner", &*metadata.owner),
        ("name", &*metadata.name),
        ("local_id", local_id),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        details[key] = text.into();
    }
    if metadata.adb_port != 0 {
        details["adb_port"] = metadata.adb_port.into();
    }
    details.to_string()
}
