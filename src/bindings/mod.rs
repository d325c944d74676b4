//! Python: the only folder that names pyo3. Extract, detach, call, convert; nothing is decided here.
//!
//! Rust never calls into Python. Threads that belong to Python come and fetch what Rust has for it (hook jobs from
//! [`hooks`], log records and news from [`event_queue`]); so no runtime thread ever attaches to the interpreter, or
//! drops an object of its. What that spares us at interpreter exit is told in ARCHITECTURE.md.

#![allow(clippy::needless_pass_by_value, reason = "pyo3 extracts arguments by value")]

mod config;
mod convert;
mod error;
mod event_queue;
mod faults;
mod hooks;
mod journal;
mod log_batch;
mod logging;
mod memory;
mod observer;
mod runtime;
mod server;
mod tls;
mod toml;
mod turn;

use pyo3::prelude::*;

/// The extension module `cuttlefish_signaling._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::faults::{Clock, Faults};
    #[pymodule_export]
    use super::hooks::Job;
    #[pymodule_export]
    use super::journal::Journal;
    #[pymodule_export]
    use super::server::Server;
    #[pymodule_export]
    use super::tls::{Tls, Unsaved};
    #[pymodule_export]
    use super::toml::toml_to_json;
    #[pymodule_export]
    use super::turn::{TurnRest, check_ice_servers};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "that is Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
