//! `_native.Events`: the event queue of one server, on the side of Python.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::error::detached;
use super::event_queue::EventQueue;
use super::hook_calls::Bounds;
use super::job::{Job, Unanswered};
use super::log_batch::{Records, Value};

/// The event queue of one server. It is made before the server, so that its thread starts while the server binds.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Events(pub(super) Arc<EventQueue>);

/// hook, device id, peer, deadline in seconds, number of the call, why it was not called.
type UnansweredTuple = (&'static str, Option<String>, String, Option<f64>, u64, Option<String>);

#[pymethods]
impl Events {
    /// Creates a queue for this many waiting hook calls, whose server has this many hook threads.
    #[new]
    fn new(hook_queue: usize, hook_threads: usize) -> Self {
        Self(Arc::new(EventQueue::new(Bounds { waiting: hook_queue, threads: hook_threads })))
    }

    /// Blocks until there is an event. Returns false if the server stops before one has to be delivered. Called by the
    /// first thread.
    fn wait_first(&self, py: Python<'_>, lowest_level: u8) -> PyResult<bool> {
        detached(py, || self.0.wait_first(lowest_level))
    }

    /// Blocks until there are events. Returns `None` when the server has stopped. Called by the event thread only.
    ///
    /// `lowest_level` is the lowest level that the logger is enabled for: other records alone are gathered for longer.
    /// The tuple contains the log records, the number of dropped records, changed, unanswered hook calls, the number of
    /// further ones, numbers of abandoned calls, whether the runtime has made progress (see `Server.beat_every`), and
    /// requests of the control API.
    fn next<'py>(&self, py: Python<'py>, lowest_level: u8) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(batch) = detached(py, || self.0.collect(lowest_level))? else { return Ok(None) };
        let records = LogRecords(batch.records);
        let unanswered: Vec<_> = batch.unanswered.into_iter().map(unanswered_tuple).collect();
        let (dropped, more, abandoned) = (batch.dropped, batch.unanswered_dropped, batch.abandoned);
        let requests = batch.requests;
        (records, dropped, batch.changed, unanswered, more, abandoned, batch.beat, requests).into_pyobject(py).map(Some)
    }

    /// Blocks until there is a hook call. Returns `None` when the server has stopped. Called by hook threads.
    ///
    /// `finished` is the number of the call that the thread has taken before. The second value says whether no other
    /// thread is left for the next call. A call that waits already is taken without giving the interpreter's lock away:
    /// each change of threads costs as much as a short hook.
    #[pyo3(signature = (finished=None))]
    fn next_job(&self, py: Python<'_>, finished: Option<u64>) -> PyResult<Option<(Job, bool)>> {
        let mut taken = self.0.take_call(finished, false);
        while let Ok(None) = taken {
            detached(py, || self.0.wait_call())?;
            taken = self.0.take_call(None, true);
        }
        Ok(taken.ok().flatten())
    }

    /// Counts one more coroutine that waits for changes, or one less.
    fn watch(&self, more: bool) {
        self.0.watch(more);
    }

    /// Replaces the bounds of hook calls that wait, and the number of hook threads that there may be.
    fn set_bounds(&self, hook_queue: usize, hook_threads: usize) {
        self.0.set_bounds(Bounds { waiting: hook_queue, threads: hook_threads });
    }

    /// Ends the threads. The event thread takes the last events before.
    fn close(&self) {
        self.0.close();
    }
}

/// Log records, which become objects of Python only if the logger wants them.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct LogRecords(Records);

#[pymethods]
impl LogRecords {
    /// The records of this level or a more severe one: level, message, and fields by name.
    fn at_least<'py>(&self, py: Python<'py>, level: u8) -> PyResult<Vec<(u8, &str, Bound<'py, PyDict>)>> {
        let records = self.0.at_least(level).map(|(level, message, fields)| {
            let record = PyDict::new(py);
            for (name, value) in fields {
                match value {
                    Value::Text(text) => record.set_item(name, text)?,
                    Value::Integer(number) => record.set_item(name, number)?,
                    Value::Number(number) => record.set_item(name, number)?,
                }
            }
            Ok((level, message, record))
        });
        records.collect()
    }
}

fn unanswered_tuple(call: Unanswered) -> UnansweredTuple {
    let Unanswered { hook, device_id, peer, deadline, key, not_called } = call;
    (hook, device_id, peer, deadline, key, not_called)
}
