//! Converts errors of the crate to the exceptions of `cuttlefish_signaling.errors`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use pyo3::prelude::*;

use crate::config::error::{ConfigError, Error};
use crate::server::NodeUnreachable;

/// Creates an exception of `cuttlefish_signaling.errors` by its name.
fn exception<'py>(py: Python<'py>, name: &str, args: impl pyo3::call::PyCallArgs<'py>) -> PyErr {
    let made = py.import("cuttlefish_signaling.errors").and_then(|errors| errors.getattr(name)?.call1(args));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Creates `ConfigError(setting, what)`.
pub(super) fn config_error(py: Python<'_>, error: &ConfigError) -> PyErr {
    exception(py, "ConfigError", (&error.setting, &error.what))
}

/// Reads a number of seconds.
pub(super) fn seconds(py: Python<'_>, name: &str, value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| config_error(py, &ConfigError::new(name, format!("must be a number of seconds, got {value}"))))
}

/// Converts the error of a server that did not start.
pub(super) fn start_error(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Config(error) => config_error(py, error),
        Error::Tls(what) => exception(py, "TlsError", ("tls", what)),
        Error::StateDir { path, what } => exception(py, "StateDirError", (path.display().to_string(), what)),
        Error::Bind { setting, address, source } => {
            bind_error(py, &format!("{setting}: cannot listen on {address}"), source)
        }
        Error::Runtime(_) => exception(py, "InternalError", (error.to_string(),)),
    }
}

fn bind_error(py: Python<'_>, what: &str, source: &std::io::Error) -> PyErr {
    let reason = source.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default();
    let taken = source.kind() == std::io::ErrorKind::AddrInUse;
    let reason = if taken { "Address already in use" } else { reason };
    exception(py, "BindError", (source.raw_os_error(), format!("{what}: {reason}")))
}

/// Creates the `NotRunningError`.
pub(super) fn not_running(py: Python<'_>) -> PyErr {
    exception(py, "NotRunningError", ("the server is not running: start() it, or use it in a with statement",))
}

/// Creates `NodeUnreachableError(node, what)`.
pub(super) fn node_unreachable(py: Python<'_>, error: &NodeUnreachable) -> PyErr {
    exception(py, "NodeUnreachableError", (&error.node, &error.what))
}

/// Creates the `ForkedError`: this process is a fork of the one that started the server.
pub(super) fn forked(py: Python<'_>, started_in: u32) -> PyErr {
    let what = format!(
        "the server was started by process {started_in}, of which this one is a fork; its threads stayed there. \
         Start a server of its own in the child, or use multiprocessing's \"spawn\""
    );
    exception(py, "ForkedError", (what,))
}

/// Runs `work` detached from the interpreter. A panic is a bug of this crate, and becomes `InternalError`.
pub(super) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work))).map_err(|panic| {
        let words = panic.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        exception(py, "InternalError", (format!("a bug in cuttlefish-signaling: {words}"),))
    })
}
