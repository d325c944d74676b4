//! Operations on one connection to the engine.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use tokio_util::task::AbortOnDropHandle;

use super::errors::Explainer;
use super::feed::Pushes;
use super::keys::Keys;
use super::reply::{self, Read};
use super::request::{Request, Requests};
use super::scripts::Scripts;
use super::signer::Signer;
use super::watch::Watch;
use crate::core::cluster::Registration;
use crate::core::cluster::registry::{Answer, Claimed, Operation, Reply, Timing, Version, Wanted};
use crate::protocol::DeviceId;
use crate::server::cluster::engine::{Commands, EngineError, EngineFuture, Feed};

/// Most tries of an operation that a record without a signature stands against.
const TRIES: usize = 3;

/// One connection to the engine. It is closed when the last operation on it is dropped.
#[derive(Clone)]
pub(super) struct RedisCommands {
    pub(super) connection: MultiplexedConnection,
    pub(super) shared: Arc<Shared>,
}

/// Parts of a connection that its operations share.
pub(super) struct Shared {
    pub(super) keys: Keys,
    pub(super) signer: Arc<Signer>,
    pub(super) timing: Timing,
    pub(super) scripts: Scripts,
    pub(super) explainer: Explainer,
    pub(super) pushes: Arc<Pushes>,
    /// Bytes since the last whole value of the engine.
    pub(super) unread: Arc<AtomicUsize>,
    /// Looks whether the server is still the master, where Sentinels name it.
    pub(super) watch: Option<Arc<Watch>>,
    /// The task that reads and writes. It ends with the last user of the connection.
    pub(super) _task: AbortOnDropHandle<()>,
}

type Sent = Pin<Box<dyn Future<Output = RedisResult<Value>> + Send>>;

impl Commands for RedisCommands {
    fn execute(&self, operation: Operation) -> EngineFuture<Answer> {
        // A renewal comes once a second.
        if let (Operation::Renew(_), Some(watch)) = (&operation, &self.shared.watch)
            && let Err(demoted) = watch.look()
        {
            return Box::pin(std::future::ready(Err(demoted)));
        }
        let commands = self.clone();
        let answer = begin(commands.send(&operation));
        // Nearly all operations end with this answer. The other steps have futures of their own, so that this one is small.
        Box::pin(async move {
            let answer = answer.await;
            if operation == Operation::SealIce {
                return Box::pin(commands.seal_again(answer)).await;
            }
            let read = commands.read(&operation, answer)?;
            if read.is_final() { Ok(read.answer) } else { Box::pin(commands.repeat(operation, read)).await }
        })
    }
}

/// Puts a command into the queue of the connection, and returns its answer.
///
/// A future does nothing before it is polled, and commands go out in the order of the calls. The queue admits those that
/// wait for a place in the order of their first polls.
fn begin(mut answer: Sent) -> Sent {
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Box::pin(std::future::ready(done)),
        Poll::Pending => answer,
    }
}

impl RedisCommands {
    fn send(&self, operation: &Operation) -> Sent {
        let Shared { keys, scripts, signer, timing, .. } = &*self.shared;
        let request = Requests { keys, scripts, signer, timing }.request(operation);
        let mut connection = self.connection.clone();
        let answer = async move {
            match request {
                Request::Command(command) => connection.send_packed_command(&command).await?.extract_error(),
                Request::Transaction(commands) => {
                    let answers = connection.send_packed_commands(&commands, 0, commands.len()).await?;
                    let answers = answers.into_iter().map(Value::extract_error).collect::<RedisResult<Vec<_>>>()?;
                    Ok(answers.into_iter().next_back().unwrap_or(Value::Nil))
                }
            }
        };
        // Outside of the budget of the calling task, or the first poll could be put off.
        Box::pin(tokio::task::unconstrained(answer))
    }

    /// Repeats what a record without a signature stands against.
    async fn repeat(self, mut operation: Operation, mut read: Read) -> Result<Answer, EngineError> {
        for _ in 1..TRIES {
            let Read { answer: Answer { reply, named }, against, name, announced_by, .. } = read;
            match (&mut operation, reply) {
                (Operation::Join { replaces, .. }, Reply::NameHeld { .. }) if name.is_some() => *replaces = name,
                (Operation::Claim { expected, .. }, _) if !against.is_empty() => {
                    *expected = against.into_iter().next().map(|(_, holder)| holder);
                }
                (Operation::Claim { wanted, .. }, _) if announced_by.is_some() => {
                    self.take_back(&announced_by.unwrap_or_default(), &wanted.id).await?;
                }
                (Operation::Reclaim { wanted, .. }, Reply::Reclaimed(mut claimed)) if !against.is_empty() => {
                    let later = self.claim_again(wanted, against, &mut claimed).await?;
                    return Ok(Answer { reply: Reply::Reclaimed(claimed), named: later.or(named) });
                }
                (_, reply) => return Ok(Answer { reply, named }),
            }
            read = self.read(&operation, self.send(&operation).await)?;
        }
        if read.is_final() {
            return Ok(read.answer);
        }
        let what = "another program writes records without the secret of the cluster";
        Err(self.shared.explainer.error("foreign_data", what))
    }

    /// Removes an announcement without a signature.
    async fn take_back(&self, by: &str, id: &DeviceId) -> Result<(), EngineError> {
        let Shared { keys, scripts, signer, timing, .. } = &*self.shared;
        self.run(Requests { keys, scripts, signer, timing }.cancel(by, std::slice::from_ref(id))).await.map(drop)
    }

    /// Encrypts the shared ICE servers again. `known` is the answer with those that are there.
    async fn seal_again(&self, known: RedisResult<Value>) -> Result<Answer, EngineError> {
        let Shared { keys, scripts, signer, timing, explainer, .. } = &*self.shared;
        if let Value::BulkString(sealed) = known.map_err(|error| explainer.explain(&error))?
            && let Ok(sealed) = std::str::from_utf8(&sealed)
            && let Some(servers) = signer.open("ice", sealed)
        {
            let again = Requests { keys, scripts, signer, timing }.seal_again(sealed, &servers);
            return Ok(Answer { reply: Reply::Done, named: self.run(again).await? });
        }
        Ok(Reply::Done.into())
    }

    /// Executes a command whose answer says nothing but the version of the registry.
    async fn run(&self, command: Cmd) -> Result<Option<Version>, EngineError> {
        let mut connection = self.connection.clone();
        let done = connection.send_packed_command(&command).await.and_then(Value::extract_error);
        let done = done.map_err(|error| self.shared.explainer.explain(&error))?;
        reply::read_named(&done).map_err(|unreadable| self.shared.explainer.unreadable(&unreadable))
    }

    /// Claims ids that records without a signature hold. Returns the last version that the answers name.
    async fn claim_again(
        &self,
        wanted: &[Wanted],
        against: Vec<(usize, Registration)>,
        claimed: &mut [Claimed],
    ) -> Result<Option<Version>, EngineError> {
        let mut named = None;
        for (place, holder) in against {
            let Some((wanted, outcome)) = wanted.get(place).zip(claimed.get_mut(place)) else { continue };
            let claim = Operation::Claim { wanted: wanted.clone(), expected: Some(holder), place: None };
            let answer = self.send(&claim).await;
            let answer = self.read_only(&claim, answer)?.answer;
            if let Reply::Claimed(claim) = answer.reply {
                (*outcome, named) = (claim, answer.named.or(named));
            }
        }
        Ok(named)
    }

    /// Reads an answer, and reports records without a signature.
    fn read(&self, operation: &Operation, answer: RedisResult<Value>) -> Result<Read, EngineError> {
        let read = self.read_only(operation, answer)?;
        self.report(&read.unsigned);
        Ok(read)
    }

    fn read_only(&self, operation: &Operation, answer: RedisResult<Value>) -> Result<Read, EngineError> {
        let Shared { signer, explainer, unread, .. } = &*self.shared;
        unread.store(0, Relaxed);
        let value = answer.map_err(|error| explainer.explain(&error))?;
        reply::read(signer, operation, &value).map_err(|unreadable| explainer.unreadable(&unreadable))
    }

    fn report(&self, unsigned: &[String]) {
        if let Some(first) = unsigned.first() {
            let rest = if unsigned.len() == 1 { String::new() } else { format!(" and {} others", unsigned.len() - 1) };
            self.shared.pushes.push(Feed::Unsigned(format!("the record of {first}{rest}")));
        }
    }
}
