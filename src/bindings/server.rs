//! `_native.Server`: one running server on a runtime and a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tracing::Dispatch;

use super::config::{config, ice_source};
use super::error::{config_error, detached, forked, not_running, start_error};
use super::faults::{Clock, Faults};
use super::hooks::{Hooked, Job, PyHooks, unix};
use super::journal::Journal;
use super::logging::{DEBUG, INFO, Scribe, WARNING};
use super::mailroom::{Mailroom, Queue, SLACK};
use super::memory::Tide;
use crate::config::IceSource;
use crate::error::{ConfigError, Error};
use crate::hub::{Client, Device, Observer};
use crate::incidents::Incident;
use crate::ledger::LedgerReading;
use crate::peer::Peer;
use crate::protocol::{ClientId, DeviceId, outbound};
use crate::refusal::Refusal;
use crate::server;

/// A server that listens and answers from its making until `stop`.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Server {
    running: server::Running,
    hooks: Arc<PyHooks>,
    jobs: Arc<Queue<Job>>,
    mailroom: Arc<Mailroom>,
    /// Calls whoever is to collect the letters.
    caller: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
    /// The way to the server's thread; taken by whoever stops it.
    thread: Mutex<Option<Thread>>,
    /// The process that has the threads.
    process: u32,
}

struct Thread {
    stop: oneshot::Sender<Duration>,
    done: mpsc::Receiver<bool>,
    handle: thread::JoinHandle<()>,
}

/// News for waiting coroutines, and for who gives memory back.
struct Doorbell {
    mailroom: Arc<Mailroom>,
    tide: Tide,
}

impl Doorbell {
    fn somebody_came(&self) {
        self.tide.rise();
        self.mailroom.ring();
    }

    fn somebody_left(&self) {
        if self.tide.fall() {
            self.mailroom.many_left();
        }
        self.mailroom.ring();
    }
}

impl Observer for Doorbell {
    fn device_registered(&self, _: &Device) {
        self.somebody_came();
    }
    fn device_left(&self, _: &Device) {
        self.somebody_left();
    }
    fn client_connected(&self, _: &Device, _: &Client) {
        self.somebody_came();
    }
    fn client_left(&self, _: &Device, _: &Client) {
        self.somebody_left();
    }
    fn recorded(&self) {
        self.mailroom.ring();
    }
}

/// Group, owner, name, adb port.
pub(super) type PlaceTuple = (String, String, String, u16);
/// id, address, port, since, identity as JSON, clients, device info as JSON, place, port of its web server.
type DeviceTuple = (String, Option<String>, Option<u16>, f64, Option<String>, usize, String, PlaceTuple, Option<u16>);
/// device id, client id, address, port, since, identity as JSON.
type ClientTuple = (String, u32, Option<String>, Option<u16>, f64, Option<String>);

#[pymethods]
impl Server {
    /// Binds and serves. `hooks` names those there are.
    #[new]
    fn start(py: Python<'_>, settings: &Bound<'_, PyDict>, hooks: Vec<String>) -> PyResult<Self> {
        let config = config(settings)?;
        let (jobs, mailroom) = (Arc::new(Queue::new()), Arc::new(Mailroom::new()));
        let has = |name: &str| hooks.iter().any(|hook| hook == name);
        let hooked = Hooked {
            authorize: has("authorize"),
            filter_device_info: has("filter_device_info"),
            ice_servers: AtomicBool::new(has("ice_servers")),
        };
        let hooks = Arc::new(PyHooks {
            hooked,
            jobs: Arc::clone(&jobs),
            mailroom: Arc::clone(&mailroom),
            last_key: AtomicU64::new(0),
        });
        let asked = Arc::clone(&hooks);
        let started = detached(py, || {
            let workers = config.workers;
            let doorbell = Doorbell { mailroom: Arc::clone(&mailroom), tide: Tide::default() };
            let bound = server::Server::bind(config, hooks, Arc::new(doorbell))?;
            spawn(bound, workers, Dispatch::new(Scribe(Arc::clone(&mailroom))))
        })?;
        let (running, thread) = started.map_err(|error| start_error(py, &error))?;
        Ok(Self {
            running,
            hooks: asked,
            jobs,
            mailroom,
            caller: Arc::default(),
            thread: Mutex::new(Some(thread)),
            process: std::process::id(),
        })
    }

    /// The address and port it listens on.
    #[getter]
    fn address(&self) -> (String, u16) {
        let address: SocketAddr = self.running.local_addr();
        (address.ip().to_string(), address.port())
    }

    /// The process that started it.
    #[getter]
    fn process(&self) -> u32 {
        self.process
    }

    /// Stops it within `deadline` seconds; true if everybody said goodbye in time. Does nothing the second time.
    fn stop(&self, py: Python<'_>, deadline: f64) -> PyResult<bool> {
        self.check_process(py)?;
        let deadline = Duration::try_from_secs_f64(deadline).map_err(|_| {
            config_error(py, &ConfigError::new("timeout", format!("{deadline} is no number of seconds")))
        })?;
        let Some(thread) = self.thread.lock().take() else { return Ok(true) };
        detached(py, || {
            let in_time = thread.stop(deadline);
            self.jobs.close();
            // Wakes those who wait for somebody: nobody comes any more.
            self.running.changes().mark();
            self.mailroom.close();
            if let Some(caller) = self.caller.lock().take() {
                let _panicked = caller.join();
            }
            in_time
        })
    }

    /// Whether it has not been stopped.
    #[getter]
    fn is_running(&self) -> bool {
        self.process == std::process::id() && self.thread.lock().is_some()
    }

    fn devices(&self, py: Python<'_>) -> PyResult<Vec<DeviceTuple>> {
        self.check(py)?;
        detached(py, || self.running.hub().devices().iter().map(|device| device_tuple(device)).collect())
    }

    fn device(&self, py: Python<'_>, device_id: &str) -> PyResult<Option<DeviceTuple>> {
        self.check(py)?;
        Ok(self.running.hub().device(&DeviceId::new(device_id)).map(|device| device_tuple(&device)))
    }

    /// The clients of a device, or of all.
    fn clients(&self, py: Python<'_>, device_id: Option<String>) -> PyResult<Vec<ClientTuple>> {
        self.check(py)?;
        detached(py, || {
            let hub = self.running.hub();
            let devices = match device_id {
                Some(id) => hub.device(&DeviceId::new(&id)).into_iter().collect(),
                None => hub.devices(),
            };
            let clients = |device: &Arc<Device>| {
                device.clients().into_iter().map(|client| client_tuple(device, &client)).collect::<Vec<_>>()
            };
            devices.iter().flat_map(clients).collect()
        })
    }

    /// Ends a device's connection; false if there is no such device.
    fn disconnect_device(&self, py: Python<'_>, device_id: &str) -> PyResult<bool> {
        self.check(py)?;
        let device = self.running.hub().device(&DeviceId::new(device_id));
        Ok(device.map(|device| device.outbox.refuse(&Refusal::EndedByOperator)).is_some())
    }

    /// Ends a client's connection; false if there is no such client.
    fn disconnect_client(&self, py: Python<'_>, device_id: &str, client_id: u32) -> PyResult<bool> {
        self.check(py)?;
        let device = self.running.hub().device(&DeviceId::new(device_id));
        let wanted = ClientId::new(client_id);
        let client = device.and_then(|device| device.clients().into_iter().find(|client| Some(client.id) == wanted));
        Ok(client.map(|client| client.outbox.refuse(&Refusal::EndedByOperator)).is_some())
    }

    /// Tells other ICE servers from now on: JSON text, a `TurnRest`, or `None` for the hook.
    fn set_ice_servers(&self, py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(py)?;
        let source = ice_source(source)?;
        self.hooks.hooked.ice_servers.store(matches!(source, IceSource::Hook), Ordering::Relaxed);
        self.running.set_ice_servers(source);
        Ok(())
    }

    /// connections, accepted, delivered, refused, gone, dropped.
    fn stats(&self) -> (usize, u64, u64, u64, u64, u64) {
        let (LedgerReading { accepted, delivered, refused, gone, dropped }, hub) =
            (self.running.ledger(), self.running.hub());
        (hub.connections(), accepted, delivered, refused, gone, dropped)
    }

    /// How often what should not happen did: names and counts.
    fn incidents(&self) -> Vec<(&'static str, u64)> {
        let incidents = self.running.incidents();
        Incident::ALL.into_iter().map(|incident| (incident.as_str(), incidents.of(incident))).collect()
    }

    /// What was said.
    #[getter]
    fn journal(&self) -> Journal {
        Journal(self.running.clone())
    }

    /// What is to go wrong.
    #[getter]
    fn faults(&self) -> Faults {
        Faults(self.running.clone())
    }

    /// The time it goes by.
    #[getter]
    fn clock(&self) -> Clock {
        Clock(self.running.clone())
    }

    /// Counts up whenever somebody comes or goes.
    fn changes(&self, py: Python<'_>) -> PyResult<u64> {
        self.check(py)?;
        Ok(self.running.changes().count())
    }

    /// Waits until `changes()` is no longer `seen`, at most `timeout` seconds.
    fn wait_change(&self, py: Python<'_>, seen: u64, timeout: f64) -> PyResult<u64> {
        self.check(py)?;
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
        detached(py, || self.running.changes().wait(seen, timeout))
    }

    /// One coroutine more wants to know of changes, or one less.
    fn watch(&self, more: bool) {
        self.mailroom.watch(more);
    }

    /// Waits for a hook's job; `None` when the server has stopped. For threads of Python's.
    fn next_job(&self, py: Python<'_>) -> PyResult<Option<Job>> {
        detached(py, || self.jobs.take())
    }

    /// Threads that wait for a job and have none.
    #[getter]
    fn spare_hook_threads(&self) -> usize {
        self.jobs.spare()
    }

    /// Has `collector` called, from a thread of its own, when there are letters for the first time.
    fn on_first_letter(&self, collector: Py<PyAny>) {
        let (caller, collector) = (Arc::clone(&self.caller), Arc::new(collector));
        self.mailroom.on_first(Box::new(move || {
            let collector = Arc::clone(&collector);
            let call = move || {
                Python::try_attach(|py| collector.call0(py).map_err(|error| error.write_unraisable(py, None)));
            };
            let spawned = thread::Builder::new().name("cuttlefish-caller".into()).spawn(call);
            let has_spawned = spawned.is_ok();
            *caller.lock() = spawned.ok();
            has_spawned
        }));
    }

    /// Waits for news; `None` when the server has stopped. For one thread of Python's. Log records of a level that
    /// nobody wants are left out, but for errors: `is_wanted` says, of a level. The news: log records, records dropped,
    /// changed, hook timeouts, jobs abandoned.
    fn next_letters<'py>(
        &self,
        py: Python<'py>,
        is_wanted: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(letters) = detached(py, || self.mailroom.collect())? else { return Ok(None) };
        let mut unwanted = Vec::new();
        for level in [DEBUG, INFO, WARNING] {
            if !is_wanted.call1((level,))?.is_truthy()? {
                unwanted.push(level);
            }
        }
        let records = letters.records.of_levels(|level| !unwanted.contains(&level));
        self.mailroom.unwanted(records.is_empty());
        let told = (records, letters.dropped, letters.changed, letters.timeouts, letters.abandoned);
        told.into_pyobject(py).map(Some)
    }
}

impl Server {
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process(py)?;
        if self.thread.lock().is_none() {
            return Err(not_running(py));
        }
        Ok(())
    }

    fn check_process(&self, py: Python<'_>) -> PyResult<()> {
        if self.process == std::process::id() { Ok(()) } else { Err(forked(py, self.process)) }
    }
}

impl Drop for Server {
    /// The last resort, should Python have dropped it unstopped: the thread is told, and not waited for.
    fn drop(&mut self) {
        let Some(thread) = self.thread.lock().take() else { return };
        if self.process == std::process::id() {
            let _gone = thread.stop.send(Duration::ZERO);
            self.jobs.close();
            self.mailroom.close();
        } else {
            // The thread is the parent's.
            std::mem::forget(thread);
        }
    }
}

impl Thread {
    fn stop(self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline + SLACK;
        if self.stop.send(deadline).is_err() {
            return false;
        }
        let in_time = self.done.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or(false);
        while !self.handle.is_finished() && Instant::now() < until {
            thread::yield_now();
        }
        if self.handle.is_finished() {
            let _panicked = self.handle.join();
        }
        in_time
    }
}

/// Serves on a thread of its own, until told to stop.
fn spawn(bound: server::Server, workers: usize, log: Dispatch) -> Result<(server::Running, Thread), Error> {
    let runtime = runtime(workers, &log).map_err(Error::Runtime)?;
    let (stop, stopped) = oneshot::channel();
    let (done, wait_done) = mpsc::channel();
    let running = {
        let _inside = runtime.enter();
        bound.serve()
    };
    let serving = running.clone();
    let serve = move || {
        let _logging = tracing::dispatcher::set_default(&log);
        let in_time = runtime.block_on(async move {
            // Without a word from its owner: the owner is gone.
            let deadline = stopped.await.unwrap_or(Duration::ZERO);
            serving.stop(deadline).await
        });
        // Tasks are gone; what is left are idle threads.
        runtime.shutdown_timeout(Duration::from_secs(1));
        let _nobody_waits = done.send(in_time);
    };
    let handle = thread::Builder::new().name("cuttlefish-signaling".into()).spawn(serve).map_err(Error::Runtime)?;
    Ok((running, Thread { stop, done: wait_done, handle }))
}

fn runtime(workers: usize, log: &Dispatch) -> std::io::Result<Runtime> {
    let mut builder = if workers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 1 {
        let log = log.clone();
        builder
            .worker_threads(workers)
            .thread_name("cuttlefish-signaling-worker")
            // For the life of the thread.
            .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&log)));
    }
    // The server has an alarm of its own: a runtime that has timers looks at the time whenever it waits.
    if cfg!(not(target_os = "linux")) {
        builder.enable_time();
    }
    builder.enable_io().build()
}

fn place(peer: &Peer) -> (Option<String>, Option<u16>, f64, Option<String>) {
    (
        peer.address.map(|address| address.ip().to_string()),
        peer.address.map(|address| address.port()),
        unix(peer.since),
        peer.grant.identity.as_deref().map(str::to_owned),
    )
}

fn device_tuple(device: &Device) -> DeviceTuple {
    let (address, port, since, identity) = place(&device.peer);
    let info = outbound::info_of(&device.info).to_owned();
    (device.id.to_string(), address, port, since, identity, device.client_count(), info, placed(device), device.port)
}

/// What Python is told of a device beside its info: group, owner, name, adb port.
pub(super) fn placed(device: &Device) -> PlaceTuple {
    let place = device.place();
    let group = place.group_of(outbound::info_of(&device.info)).into_owned();
    (group, place.owner.clone(), place.name.clone(), place.adb_port)
}

fn client_tuple(device: &Device, client: &Client) -> ClientTuple {
    let (address, port, since, identity) = place(&client.peer);
    (device.id.to_string(), client.id.get(), address, port, since, identity)
}
