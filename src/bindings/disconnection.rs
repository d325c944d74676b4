//! `_native.Disconnection` and `_native.Inquiry`: requests to other nodes, which take their time.

use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::error::{detached, node_unreachable, not_running};
use super::runtime::Thread;
use crate::protocol::DeviceId;
use crate::server::{NodeUnreachable, Running};

/// The outcome of a request, once it is there.
pub(super) type Outcome<T> = mpsc::Receiver<Result<T, NodeUnreachable>>;

/// A disconnection that is under way.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Disconnection(pub(super) Mutex<Outcome<bool>>);

#[pymethods]
impl Disconnection {
    /// Waits at most `timeout` seconds. Returns whether the peer was there; None if the outcome is not known yet.
    ///
    /// Raises `NodeUnreachableError` if its node does not answer.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<bool>> {
        wait(py, &self.0, timeout)
    }
}

/// A question to the node that has a device, which is under way.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Inquiry(pub(super) Mutex<Outcome<Option<String>>>);

impl Inquiry {
    /// Asks for a device, or for its clients, after a delay. The answer counts as a change, so that waits look for it.
    pub(super) fn begin(thread: &Thread, running: &Running, id: DeviceId, clients: bool, delay: Duration) -> Self {
        let (done, outcome) = mpsc::channel();
        let (asked, running) = (running.ask_other_node(id, clients, delay), running.clone());
        drop(thread.run(async move {
            // The caller may not wait any more.
            let _left = done.send(asked.await);
            running.mark_cluster();
        }));
        Self(Mutex::new(outcome))
    }
}

#[pymethods]
impl Inquiry {
    /// Waits at most `timeout` seconds. Returns the answer as JSON in a tuple, with None if no node has the device; None
    /// if there is no answer yet.
    ///
    /// Raises `NodeUnreachableError` if its node does not answer.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<(Option<String>,)>> {
        Ok(wait(py, &self.0, timeout)?.map(|answer| (answer,)))
    }
}

fn wait<T: Send>(py: Python<'_>, outcome: &Mutex<Outcome<T>>, timeout: f64) -> PyResult<Option<T>> {
    let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
    match detached(py, || outcome.lock().recv_timeout(timeout))? {
        Ok(outcome) => outcome.map(Some).map_err(|error| node_unreachable(py, &error)),
        Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
        // The server has stopped meanwhile.
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(not_running(py)),
    }
}
