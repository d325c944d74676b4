//! The task of the node: it connects to the engine, and does what the [`Membership`] wants.
//!
//! It goes by real time. A test that moves the clock of the server ends no lease.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::locate;
use super::node::Node;
use crate::core::cluster::output::Report;
use crate::core::cluster::registry::{Answer, Operation, Reply};
use crate::core::cluster::{Membership, Output};
use crate::observe::cluster::ClusterCounts;
use crate::protocol::DeviceId;
use crate::protocol::refusal::Refusal;
use crate::server::cluster::engine::{Commands, Connection, EngineError, EngineFuture, Feed};
use crate::server::settings::Settings;
use crate::server::time::sleep::Sleep;

/// Time for the last acts of a node that stops: `stop()` waits for it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Time in which the sessions of a node that stops give up their ids.
const RELEASES: Duration = Duration::from_millis(200);

/// The pause between two lines about records without a signature.
const UNSIGNED: Duration = Duration::from_secs(60);

/// Drives the membership until the server stops, then leaves the registry.
pub(super) async fn drive(node: Arc<Node>) {
    let Some(mut requests) = node.cluster.take_requests() else { return };
    let mut task = Drive::new(Arc::clone(&node));
    let (stopping, draining) = (node.shared.stopping.clone(), node.shared.drain.begun.clone());
    let mut told = Told { drains: false, ..Told::now(&node) };
    loop {
        told.renew(&node);
        task.act();
        tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            () = task.step() => {}
            () = draining.cancelled(), if !told.drains => {}
            Some(question) = requests.recv() => {
                let asked = Arc::clone(&node);
                node.spawn(async move { locate::answer(&asked, question).await });
            }
        }
    }
    drop(requests);
    node.shared.timers.timeout(FAREWELL, task.leave()).await;
    node.commands.send_replace(None);
}

/// The state of this node that its record tells.
struct Told {
    drains: bool,
    settings: Arc<Settings>,
}

impl Told {
    fn now(node: &Node) -> Self {
        Self { drains: node.is_draining(), settings: node.shared.settings() }
    }

    /// Has the record written again if the node drains, or has other settings, since.
    fn renew(&mut self, node: &Node) {
        let now = Self::now(node);
        if now.drains == self.drains && Arc::ptr_eq(&now.settings, &self.settings) {
            return;
        }
        *self = now;
        let details: Arc<str> = node.details().to_json().into();
        if node.cluster.read(|membership| membership.own_record().details != details) {
            node.cluster.drive(|membership| membership.set_details(details, Instant::now()));
        }
    }
}

/// Waits for the answer to an operation.
struct Answering {
    number: u64,
    asked_at: Instant,
    counts: Arc<ClusterCounts>,
    answer: EngineFuture<Answer>,
}

impl Future for Answering {
    type Output = (u64, Result<Answer, EngineError>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.answer.as_mut().poll(cx));
        self.counts.observe_operation(self.asked_at.elapsed());
        Poll::Ready((self.number, answer))
    }
}

/// The state of the task.
struct Drive {
    node: Arc<Node>,
    /// The attempt to connect.
    connecting: Option<EngineFuture<Connection>>,
    commands: Option<Arc<dyn Commands>>,
    feed: Option<mpsc::Receiver<Feed>>,
    /// Answers of the engine that are due.
    answers: FuturesUnordered<Answering>,
    /// Wakes the task at a time. A deadline that is later does not replace it, since each operation has one: the task is
    /// woken once more, and sets the timer anew.
    timer: Option<(Instant, Sleep)>,
    /// Whether the log says last that the node is no member: then it tells of the next join.
    tells_join: bool,
    /// Whether the node has joined, and has not lost its membership since.
    joined: bool,
    /// When a record without a signature was logged.
    unsigned: Option<Instant>,
}

/// An event of the engine.
enum Event {
    Connected(Result<Connection, EngineError>),
    Fed(Option<Feed>),
    Answered(u64, Result<Answer, EngineError>),
    Time,
    Changed,
}

impl Drive {
    fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            connecting: None,
            commands: None,
            feed: None,
            answers: FuturesUnordered::new(),
            timer: None,
            tells_join: true,
            joined: false,
            unsigned: None,
        }
    }

    /// Waits for the next event, and handles it.
    async fn step(&mut self) {
        self.set_timer();
        let event = tokio::select! {
            biased;
            Some((number, answer)) = self.answers.next(), if !self.answers.is_empty() => Event::Answered(number, answer),
            fed = pending_or(self.feed.as_mut().map(mpsc::Receiver::recv)) => Event::Fed(fed),
            outcome = pending_or(self.connecting.as_mut()) => Event::Connected(outcome),
            () = self.node.cluster.changed.notified() => Event::Changed,
            () = pending_or(self.timer.as_mut().map(|(_, sleep)| sleep)) => Event::Time,
        };
        let now = Instant::now();
        let may_change = matches!(event, Event::Answered(_, Ok(_)) | Event::Fed(Some(_)));
        match event {
            Event::Answered(number, Ok(answer)) => {
                self.node.cluster.drive(|membership| membership.on_reply(number, answer, now));
            }
            Event::Fed(Some(Feed::Delta(delta))) => {
                self.node.cluster.drive(|membership| membership.on_delta(&delta, now));
            }
            Event::Fed(Some(Feed::Gap)) => self.node.cluster.drive(|membership| membership.on_gap(now)),
            Event::Fed(Some(Feed::Unsigned(text))) => self.log_unsigned(&text, now),
            Event::Fed(None) => self.lose(None),
            Event::Connected(Ok(Connection { commands, feed })) => {
                (self.connecting, self.commands, self.feed) = (None, Some(Arc::from(commands)), Some(feed));
                self.node.cluster.drive(|membership| membership.on_connected(now));
            }
            Event::Answered(_, Err(error)) | Event::Connected(Err(error)) => self.lose(Some(&error)),
            Event::Time => {
                self.timer = None;
                self.node.cluster.drive(|membership| membership.handle_timeout(now));
                self.node.neighbours.close_idle(self.node.fresh());
            }
            Event::Changed => {}
        }
        if may_change {
            self.node.shared.changes.mark();
            self.node.shared.observer.cluster_changed();
        }
    }

    /// Sets the timer to the next deadline of the membership, unless it fires before.
    fn set_timer(&mut self) {
        let at = self.node.cluster.read(Membership::poll_timeout);
        if self.timer.as_ref().is_none_or(|(set_to, _)| at < *set_to) {
            self.timer = Some((at, self.node.shared.timers.sleep_until(at)));
        }
    }

    /// Drops the connection to the engine.
    fn disconnect(&mut self) {
        (self.connecting, self.commands, self.feed, self.answers) = (None, None, None, FuturesUnordered::new());
        self.node.commands.send_replace(None);
    }

    fn lose(&mut self, error: Option<&EngineError>) {
        self.disconnect();
        let lost = EngineError { kind: "lost", what: "the connection was lost".to_owned() };
        self.log_failure(error.unwrap_or(&lost));
        self.node.cluster.drive(|membership| membership.on_lost(Instant::now()));
    }

    /// Keeps an error of the engine for a start that waits, and logs it once for each kind while it returns.
    fn log_failure(&mut self, error: &EngineError) {
        if self.node.cluster.engine.lock().failure.replace(error.clone()).is_none() {
            self.node.shared.changes.mark();
            self.node.shared.observer.cluster_changed();
        }
        if self.node.log_limit.is_due(("cluster_engine_lost", error.kind), Instant::now()) {
            self.tells_join = true;
            let what = "cannot use the engine of the cluster, trying again and again";
            tracing::warn!(event = "cluster_engine_lost", reason = error.kind, "{what}: {error}");
        }
    }

    /// Logs that a record or a change was ignored, once a minute at most.
    fn log_unsigned(&mut self, text: &str, now: Instant) {
        if self.unsigned.is_none_or(|last| last + UNSIGNED <= now) {
            self.unsigned = Some(now);
            let what = "ignored a record of the registry that no secret of this cluster has signed";
            let fix = "give all nodes the same --cluster-secret-file, and other clusters another --cluster-name";
            tracing::warn!(event = "cluster_unsigned", reason = text, "{what}: {text}; {fix}");
        }
    }

    /// Does what the membership wants.
    fn act(&mut self) {
        if let Some(secrets) = self.node.cluster.take_secrets() {
            self.node.engine.set_secrets(&secrets);
            self.node.cluster.drive(|membership| membership.sign_again(Instant::now()));
        }
        while let Some(output) = self.node.cluster.poll_output() {
            match output {
                Output::Connect => {
                    let (timers, limit) = (Arc::clone(&self.node.shared.timers), self.node.timing.operation * 2);
                    let connect = self.node.engine.connect();
                    self.connecting = Some(Box::pin(async move {
                        let what = format!("no connection within {limit:?}");
                        let late = Err(EngineError { kind: "unreachable", what });
                        timers.timeout(limit, connect).await.unwrap_or(late)
                    }));
                }
                Output::Disconnect => self.disconnect(),
                Output::Send { number, operation } => self.send(number, operation),
                Output::Report(report) => self.report(report),
                output => self.act_on_node(output),
            }
        }
    }

    fn send(&mut self, number: u64, operation: Operation) {
        if let Some(commands) = &self.commands {
            let (counts, asked_at) = (Arc::clone(&self.node.cluster.counts), Instant::now());
            if operation == Operation::Scan(0) {
                counts.count_resync();
            }
            let answer = commands.execute(operation);
            self.answers.push(Answering { number, asked_at, counts, answer });
        }
    }

    /// Does what concerns sessions or other nodes.
    fn act_on_node(&self, output: Output) {
        let node = &self.node;
        match output {
            Output::Tell { registration, outcome } => node.cluster.tell(&registration, outcome),
            Output::Place { registration, details } => node.cluster.place(&registration, &details),
            Output::Announced { number, outcomes } => node.cluster.announced(number, outcomes),
            Output::Registered(id) => {
                let names = node.shared.hub.local_names();
                let announced = names.and_then(|names| names.id_of(&id)).map_or_else(|| id.clone(), DeviceId::new);
                node.shared.preregistrations.registered_elsewhere(&id, &announced);
            }
            Output::End { registration, .. } => {
                if let Some(device) = node.cluster.device(&registration) {
                    device.outbox.refuse(&Refusal::Replaced(device.said_id().clone()));
                }
            }
            Output::Appeared(ids) => ids.iter().for_each(|id| node.shared.hub.wake_waiting(id)),
            Output::CloseProxied => node.neighbours.close_all(),
            Output::Hello(record) => node.greet(record),
            Output::Probe { id, claimant, holder } => node.probe(id, claimant, holder),
            Output::TellReplaced { id, holder } => node.tell_replaced(id, holder),
            Output::Ice(servers) => node.share_ice(servers.as_deref()),
            Output::Connect | Output::Disconnect | Output::Send { .. } | Output::Report(_) => {}
        }
    }

    fn report(&mut self, report: Report) {
        let cluster = Arc::clone(&self.node.cluster);
        let own = cluster.incarnation.node();
        match report {
            Report::Joined => self.on_joined(),
            Report::EngineLost => self.count_rejoin("lost"),
            Report::EngineSilent => {
                self.count_rejoin("silent");
                let what = format!("no answer to an operation within {:?}", self.node.timing.operation);
                self.log_failure(&EngineError { kind: "silent", what });
            }
            Report::Forgotten => self.on_forgotten(),
            Report::Signed => {
                let what = "all records of this node are signed with the first line of the new secret";
                tracing::info!(event = "cluster_secret_replaced", node = own, "{what}");
            }
            Report::NameTaken(other) => super::hello::log_name_taken(&self.node, &other),
            Report::Paused(time) => {
                self.count_rejoin("paused");
                let seconds = time.as_secs_f64();
                self.tells_join = true;
                tracing::warn!(
                    event = "cluster_paused",
                    duration = seconds,
                    "this process was paused for {seconds:.1} s: connections with other nodes are closed, joining again"
                );
            }
        }
    }

    fn on_joined(&mut self) {
        let own = self.node.cluster.incarnation.node().to_owned();
        self.joined = true;
        self.node.cluster.engine.lock().failure = None;
        self.node.commands.send_replace(self.commands.clone());
        if std::mem::take(&mut self.tells_join) {
            let nodes = self.node.cluster.read(|membership| membership.nodes().live().count());
            let what = format!("joined the cluster as {own}, with {nodes} nodes");
            tracing::info!(event = "cluster_joined", node = own, nodes, "{what}");
        }
        self.node.on_joined();
    }

    fn on_forgotten(&mut self) {
        let own = self.node.cluster.incarnation.node().to_owned();
        self.count_rejoin("forgotten");
        self.node.commands.send_replace(None);
        if self.node.log_limit.is_due("cluster_forgotten", Instant::now()) {
            self.tells_join = true;
            let what = "the registry has no lease of this node, or has begun again: joining again";
            tracing::warn!(event = "cluster_forgotten", node = own, "{what}");
        }
    }

    /// Counts that the node is no member any more, once until it joins again.
    fn count_rejoin(&mut self, cause: &str) {
        if std::mem::take(&mut self.joined) {
            self.node.cluster.counts.count_rejoin(cause);
        }
    }

    /// Leaves the registry, once the sessions have given up their ids or had time for it.
    async fn leave(&mut self) {
        let node = Arc::clone(&self.node);
        let releases = async {
            while node.cluster.claim_count() > 0 || !self.answers.is_empty() {
                self.step().await;
                self.act();
            }
        };
        node.shared.timers.timeout(RELEASES, releases).await;
        let Some(commands) = self.commands.clone() else { return };
        let own = node.cluster.incarnation.clone();
        while let Ok(Answer { reply: Reply::Reaped { more: true }, .. }) =
            commands.execute(Operation::Leave(own.clone())).await
        {}
        tracing::info!(event = "cluster_left", node = own.node(), "left the cluster");
    }
}

/// Waits for a future, or forever if there is none.
async fn pending_or<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
