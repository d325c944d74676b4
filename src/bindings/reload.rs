//! `_native.Reload`: settings of a running server that were checked, and that wait to be put into effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::config::ice_source;
use super::error::detached;
use super::hooks::{Hooked, PyHooks};
use crate::server;

/// Checked settings. `apply` puts them into effect.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Reload {
    pub(super) checked: Mutex<Option<server::Reload>>,
    /// The hooks of the server.
    pub(super) hooks: Arc<PyHooks>,
    /// The hooks that there are from now on.
    pub(super) hooked: Hooked,
    pub(super) running: server::Running,
}

#[pymethods]
impl Reload {
    /// Puts the settings into effect. Python has set the hooks before. A second call does nothing.
    fn apply(&self, py: Python<'_>) -> PyResult<()> {
        let Some(reload) = self.checked.lock().take() else { return Ok(()) };
        let (old, new) = (&self.hooks.hooked, &self.hooked);
        old.authorize.store(new.authorize.load(Ordering::Acquire), Ordering::Release);
        old.filter_device_info.store(new.filter_device_info.load(Ordering::Acquire), Ordering::Release);
        old.ice_servers.store(new.ice_servers.load(Ordering::Acquire), Ordering::Release);
        detached(py, || {
            reload.apply();
            // Pages may show groups that come from device info.
            self.running.changes().mark();
        })
    }
}

/// Whether two sources of ICE servers, as `Server` takes them, give the same servers. A hook equals a hook.
#[pyfunction]
pub(super) fn same_ice_servers(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(ice_source(one)?.is_same(&ice_source(other)?))
}
