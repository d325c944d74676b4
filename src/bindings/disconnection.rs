//! `_native.Disconnection`: the disconnection of a peer on another node, which takes the time of a request.

use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::error::{detached, node_unreachable, not_running};
use crate::server::NodeUnreachable;

/// The outcome of a disconnection, once it is there.
pub(super) type Outcome = mpsc::Receiver<Result<bool, NodeUnreachable>>;

/// A disconnection that is under way.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Disconnection(pub(super) Mutex<Outcome>);

#[pymethods]
impl Disconnection {
    /// Waits at most `timeout` seconds. Returns whether the peer was there; None if the outcome is not known yet.
    ///
    /// Raises `NodeUnreachableError` if its node does not answer.
    fn wait(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<bool>> {
        let timeout = Duration::try_from_secs_f64(timeout).unwrap_or_default();
        match detached(py, || self.0.lock().recv_timeout(timeout))? {
            Ok(outcome) => outcome.map(Some).map_err(|error| node_unreachable(py, &error)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            // The server has stopped meanwhile.
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(not_running(py)),
        }
    }
}
