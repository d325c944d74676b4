//! `_native.Server`: one running server, with its own runtime and thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tracing::Dispatch;

use super::config::{config, ice_source};
use super::convert::{
    ClientTuple, DeviceTuple, NodeTuple, WaitingTuple, client_tuple, device_tuple, node_tuple, remote_tuple,
    waiting_tuple,
};
use super::disconnection::{Disconnection, Inquiry};
use super::error::{config_error, detached, forked, not_running, seconds, start_error};
use super::event_queue::EventQueue;
use super::events::Events;
use super::faults::{Clock, Faults};
use super::hooks::{Hooked, PyHooks};
use super::journal::Journal;
use super::listen::{ListenTuple, listener_tuple};
use super::logging::QueueSubscriber;
use super::memory::PeakCounter;
use super::observer::HubObserver;
use super::reload::Reload;
use super::runtime::{Thread, spawn};
use crate::config::IceSource;
use crate::config::error::ConfigError;
use crate::core::hub::Device;
use crate::observe::incidents::Incident;
use crate::observe::ledger::LedgerReading;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, DeviceId};
use crate::server;

/// Checks settings without a server. `authenticates`: whether there is an `authorize` hook.
#[pyfunction]
pub(super) fn check_settings(py: Python<'_>, settings: &Bound<'_, PyDict>, authenticates: bool) -> PyResult<()> {
    server::Server::check(config(settings)?, authenticates).map_err(|error| start_error(py, &error))
}

/// A server that serves from its construction until `stop`.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Server {
    running: server::Running,
    hooks: Arc<PyHooks>,
    events: Arc<EventQueue>,
    /// The server's thread; `stop` takes it.
    thread: Mutex<Option<Thread>>,
    /// Disconnected at the end of a drain.
    draining: Mutex<Option<mpsc::Receiver<()>>>,
    /// The id of the process that started the server, and has its threads.
    process: u32,
}

#[pymethods]
impl Server {
    /// Binds and serves. `hooks` contains the names of the hooks that the user has given.
    #[new]
    fn start(
        py: Python<'_>,
        settings: &Bound<'_, PyDict>,
        hooks: Vec<String>,
        events: &Bound<'_, Events>,
    ) -> PyResult<Self> {
        let config = config(settings)?;
        let events = Arc::clone(&events.get().0);
        let hooked = Hooked::new(&hooks);
        let hooks = Arc::new(PyHooks { hooked, events: Arc::clone(&events), last_key: AtomicU64::new(1) });
        let asked = Arc::clone(&hooks);
        let python = py.version_info();
        let python = format!("{}.{}.{}", python.major, python.minor, python.patch);
        let started = detached(py, || {
            let workers = config.workers;
            let observer = HubObserver { events: Arc::clone(&events), peak: PeakCounter::default() };
            let bound = server::Server::bind(config, hooks, Arc::new(observer))?;
            bound.runs_in_python(&python);
            spawn(bound, workers, Dispatch::new(QueueSubscriber(Arc::clone(&events))))
        })?;
        let (running, thread) = started.map_err(|error| start_error(py, &error))?;
        let (thread, draining, process) = (Mutex::new(Some(thread)), Mutex::default(), std::process::id());
        Ok(Self { running, hooks: asked, events, thread, draining, process })
    }

    /// The listeners: scheme, IP address and port; or `unix`, path and mode.
    #[getter]
    fn listeners(&self) -> Vec<ListenTuple> {
        self.running.addresses().iter().map(listener_tuple).collect()
    }

    /// The listeners for metrics, in the same form.
    #[getter]
    fn metrics_listeners(&self) -> Vec<ListenTuple> {
        self.running.metrics_addresses().iter().map(listener_tuple).collect()
    }

    /// The listeners of the control API, in the same form.
    #[getter]
    fn control_listeners(&self) -> Vec<ListenTuple> {
        self.running.control_addresses().iter().map(listener_tuple).collect()
    }

    /// The id of the process that started the server.
    #[getter]
    fn process(&self) -> u32 {
        self.process
    }

    /// Has the runtime add an event to the queue each `interval` seconds, until the server has stopped.
    fn beat_every(&self, py: Python<'_>, interval: f64) -> PyResult<()> {
        self.check(py)?;
        let interval = seconds(py, "interval", interval)?;
        if let Some(thread) = &*self.thread.lock() {
            thread.beat(interval, &self.events);
        }
        Ok(())
    }

    /// Begins to drain the server: waits, then closes the connections over the time of `spread`, both in seconds.
    fn begin_drain(&self, py: Python<'_>, wait: f64, spread: f64) -> PyResult<()> {
        self.check_process(py)?;
        let drain = server::Drain { wait: seconds(py, "drain", wait)?, spread: seconds(py, "drain_spread", spread)? };
        if let Some(thread) = &*self.thread.lock() {
            *self.draining.lock() = Some(thread.drain(drain));
        }
        Ok(())
    }

    /// Blocks until the drain has ended, at most `timeout` seconds. Returns whether it has ended.
    fn wait_drained(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        self.check_process(py)?;
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
        detached(py, || {
            let draining = self.draining.lock();
            let waited = draining.as_ref().map(|drained| drained.recv_timeout(timeout));
            waited != Some(Err(mpsc::RecvTimeoutError::Timeout))
        })
    }

    /// Stops the server within `deadline` seconds. A second call does nothing.
    ///
    /// Returns true if all peers completed the closing handshake in time.
    fn stop(&self, py: Python<'_>, deadline: f64) -> PyResult<bool> {
        self.check_process(py)?;
        let deadline = seconds(py, "timeout", deadline)?;
        let Some(thread) = self.thread.lock().take() else { return Ok(true) };
        detached(py, || {
            // The thread that waits for the first event ends meanwhile.
            self.events.end_parking();
            let in_time = thread.stop(deadline);
            // Wakes callers that wait for a peer: no peer connects any more.
            self.running.changes().mark();
            self.events.close();
            in_time
        })
    }

    /// Whether the server runs in this process and has not been stopped.
    #[getter]
    fn is_running(&self) -> bool {
        self.process == std::process::id() && self.thread.lock().is_some()
    }

    /// The devices of all nodes, sorted by id. One that is here is not told again by the registry.
    fn devices(&self, py: Python<'_>) -> PyResult<Vec<DeviceTuple>> {
        self.check(py)?;
        detached(py, || {
            let (hub, node) = (self.running.hub(), self.running.node_name());
            let mut devices: Vec<_> = hub.devices().iter().map(|device| device_tuple(device, node)).collect();
            let remote = self.running.remote_devices();
            if !remote.is_empty() {
                devices.extend(remote.into_iter().filter(|one| hub.device(&one.id).is_none()).map(remote_tuple));
                devices.sort_by(|one, other| one.0.cmp(&other.0));
            }
            devices
        })
    }

    fn device(&self, py: Python<'_>, device_id: &str) -> PyResult<Option<DeviceTuple>> {
        self.check(py)?;
        let id = DeviceId::new(device_id);
        let here = self.running.hub().find(&id).map(|device| device_tuple(&device, self.running.node_name()));
        Ok(here.or_else(|| self.running.remote_device(&id).map(remote_tuple)))
    }

    /// The nodes of the cluster: name, incarnation, address, state, build, devices.
    fn nodes(&self, py: Python<'_>) -> PyResult<Vec<NodeTuple>> {
        self.check(py)?;
        detached(py, || self.running.nodes().into_iter().map(node_tuple).collect())
    }

    /// Why the node has not joined its cluster: a short name, and the reason with the fix.
    fn engine_failure(&self, py: Python<'_>) -> PyResult<Option<(&'static str, String)>> {
        self.check(py)?;
        Ok(self.running.engine_failure().map(|error| (error.kind, error.what)))
    }

    /// The address for other nodes; None without a cluster.
    #[getter]
    fn node_address(&self) -> Option<String> {
        self.running.node_address().map(|address| address.to_string())
    }

    /// Returns the clients of a device, or of all devices.
    fn clients(&self, py: Python<'_>, device_id: Option<String>) -> PyResult<Vec<ClientTuple>> {
        self.check(py)?;
        detached(py, || {
            let hub = self.running.hub();
            let devices = match device_id {
                Some(id) => hub.find(&DeviceId::new(&id)).into_iter().collect(),
                None => hub.devices(),
            };
            let clients = |device: &Arc<Device>| {
                device.clients().into_iter().map(|client| client_tuple(device, &client)).collect::<Vec<_>>()
            };
            devices.iter().flat_map(clients).collect()
        })
    }

    /// Returns the clients that wait for a device to register.
    fn waiting(&self, py: Python<'_>) -> PyResult<Vec<WaitingTuple>> {
        self.check(py)?;
        detached(py, || {
            let waiting = self.running.hub().waiting();
            waiting.iter().map(|(id, client)| waiting_tuple(id, &client.peer)).collect()
        })
    }

    /// Disconnects a device of this server. Returns false if it is not registered here.
    fn disconnect_device(&self, py: Python<'_>, device_id: &str) -> PyResult<bool> {
        self.check(py)?;
        let device = self.running.hub().find(&DeviceId::new(device_id));
        Ok(device.map(|device| device.outbox.refuse(&Refusal::EndedByOperator)).is_some())
    }

    /// Disconnects a client of a device of this server. Returns false if it is not connected here.
    fn disconnect_client(&self, py: Python<'_>, device_id: &str, client_id: u32) -> PyResult<bool> {
        self.check(py)?;
        let device = self.running.hub().find(&DeviceId::new(device_id));
        let wanted = ClientId::new(client_id);
        let client = device.and_then(|device| device.clients().into_iter().find(|client| Some(client.id) == wanted));
        Ok(client.map(|client| client.outbox.refuse(&Refusal::EndedByOperator)).is_some())
    }

    /// Begins to disconnect a device of another node, or one of its clients. None without a cluster.
    fn begin_disconnect(
        &self,
        py: Python<'_>,
        device_id: &str,
        client_id: Option<u32>,
    ) -> PyResult<Option<Disconnection>> {
        self.check(py)?;
        let thread = self.thread.lock();
        let (Some(thread), Some(_)) = (&*thread, self.running.node_name()) else { return Ok(None) };
        let asked = self.running.disconnect_on_other_node(DeviceId::new(device_id), client_id);
        Ok(Some(Disconnection(Mutex::new(thread.run(asked)))))
    }

    /// Begins to ask the node of a device for it, or for its clients. None for a device that is here, and without a cluster.
    fn begin_ask(&self, py: Python<'_>, device_id: &str, clients: bool, delay: f64) -> PyResult<Option<Inquiry>> {
        self.check(py)?;
        let (thread, id, delay) = (self.thread.lock(), DeviceId::new(device_id), seconds(py, "delay", delay)?);
        let is_elsewhere = self.running.node_name().is_some() && self.running.hub().find(&id).is_none();
        let thread = thread.as_ref().filter(|_| is_elsewhere);
        Ok(thread.map(|thread| Inquiry::begin(thread, &self.running, id, clients, delay)))
    }

    /// Replaces the source of ICE servers: JSON text, a `TurnRest`, or `None` for the hook.
    fn set_ice_servers(&self, py: Python<'_>, source: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check(py)?;
        let source = ice_source(source)?;
        self.hooks.hooked.ice_servers.store(matches!(source, IceSource::Hook), Ordering::Relaxed);
        self.running.set_ice_servers(source);
        Ok(())
    }

    /// Checks settings that replace those in effect, with these hooks. `renews_ice`: the ICE servers are replaced too.
    ///
    /// Raises `ConfigError` for an invalid setting, and for one that needs a restart.
    fn prepare_reload(
        &self,
        py: Python<'_>,
        settings: &Bound<'_, PyDict>,
        hooks: Vec<String>,
        renews_ice: bool,
    ) -> PyResult<Reload> {
        self.check(py)?;
        let (config, hooked) = (config(settings)?, Hooked::new(&hooks));
        let ice = renews_ice.then(|| config.ice.clone());
        let authenticates = hooked.authorize.load(Ordering::Acquire);
        let prepared = detached(py, || self.running.prepare_reload(config, authenticates, ice))?;
        let checked = Mutex::new(Some(prepared.map_err(|error| config_error(py, &error))?));
        Ok(Reload { checked, hooks: Arc::clone(&self.hooks), hooked, running: self.running.clone() })
    }

    /// Tells whether there is a hook `authorize` from now on. Python has set the hook before.
    ///
    /// Raises `ConfigError` for a server that needs one.
    fn set_authorize(&self, py: Python<'_>, is_set: bool) -> PyResult<()> {
        self.check(py)?;
        if !is_set {
            self.running.check_exposed_without_authorize().map_err(|error| {
                config_error(py, &ConfigError::new("authorize", format!("cannot be None: {error}")))
            })?;
        }
        self.hooks.hooked.authorize.store(is_set, Ordering::Release);
        Ok(())
    }

    /// Tells whether there is a hook `filter_device_info` from now on. Python has set the hook before.
    fn set_filter_device_info(&self, py: Python<'_>, is_set: bool) -> PyResult<()> {
        self.check(py)?;
        self.hooks.hooked.filter_device_info.store(is_set, Ordering::Release);
        // Pages may show groups that come from device info.
        self.running.changes().mark();
        Ok(())
    }

    /// Returns connections, devices, clients, waiting clients.
    fn peers(&self) -> (usize, usize, usize, usize) {
        let hub = self.running.hub();
        (hub.connections(), hub.device_count(), hub.client_count(), hub.waiting_count())
    }

    /// Returns accepted, delivered, refused, gone, dropped.
    fn stats(&self) -> (u64, u64, u64, u64, u64) {
        let LedgerReading { accepted, delivered, refused, gone, dropped } = self.running.ledger();
        (accepted, delivered, refused, gone, dropped)
    }

    /// Returns the name and count of each kind of incident.
    fn incidents(&self) -> Vec<(&'static str, u64)> {
        let incidents = self.running.incidents();
        Incident::ALL.into_iter().map(|incident| (incident.as_str(), incidents.of(incident))).collect()
    }

    /// The journal.
    #[getter]
    fn journal(&self) -> Journal {
        Journal(self.running.clone())
    }

    /// The fault rules.
    #[getter]
    fn faults(&self) -> Faults {
        Faults(self.running.clone())
    }

    /// The clock.
    #[getter]
    fn clock(&self) -> Clock {
        Clock(self.running.clone())
    }

    /// Returns a counter that increases when a peer connects or leaves.
    fn changes(&self, py: Python<'_>) -> PyResult<u64> {
        self.check(py)?;
        Ok(self.running.changes().count())
    }

    /// Blocks until `changes()` differs from `seen`, at most `timeout` seconds.
    fn wait_change(&self, py: Python<'_>, seen: u64, timeout: f64) -> PyResult<u64> {
        self.check(py)?;
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
        detached(py, || self.running.changes().wait(seen, timeout))
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
    /// Tells the thread to stop, without waiting for it. The last resort if Python drops a server that was not stopped.
    fn drop(&mut self) {
        let Some(thread) = self.thread.lock().take() else { return };
        if self.process == std::process::id() {
            thread.stop_without_waiting();
            self.events.close();
        } else {
            // After a fork: the thread belongs to the parent process.
            std::mem::forget(thread);
        }
    }
}
