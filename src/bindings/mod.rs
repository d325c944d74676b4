//! The Python bindings, and the only folder that names pyo3. They extract, detach, call and convert; they decide nothing.
//!
//! Rust never calls into Python. Threads that Python started take hook jobs ([`job`]), log records and other events from
//! one queue ([`event_queue`]). So no runtime thread attaches to the interpreter or drops a Python object, which could hang
//! or crash at interpreter exit (see ARCHITECTURE.md).

#![allow(clippy::needless_pass_by_value, reason = "pyo3 extracts arguments by value")]

mod cluster;
mod config;
mod convert;
mod default_settings;
mod disconnection;
mod error;
mod event_queue;
mod events;
mod faults;
mod hook_calls;
mod hooks;
mod ice_command;
mod job;
mod journal;
mod jwt;
mod listen;
mod log_batch;
mod logging;
mod memory;
mod observer;
mod program;
mod reload;
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
    use super::cluster::Cluster;
    #[pymodule_export]
    use super::config::{address_rules_fault, allowance_fault};
    #[pymodule_export]
    use super::default_settings::default_settings;
    #[pymodule_export]
    use super::disconnection::{Disconnection, Inquiry};
    #[pymodule_export]
    use super::events::{Events, LogRecords};
    #[pymodule_export]
    use super::faults::{Clock, Faults};
    #[pymodule_export]
    use super::ice_command::IceCommand;
    #[pymodule_export]
    use super::job::Job;
    #[pymodule_export]
    use super::journal::Journal;
    #[pymodule_export]
    use super::jwt::Jwt;
    #[pymodule_export]
    use super::listen::machine_addresses;
    #[pymodule_export]
    use super::program::ProgramRequest;
    #[pymodule_export]
    use super::reload::{Reload, same_ice_servers};
    #[pymodule_export]
    use super::server::{Server, check_settings};
    #[pymodule_export]
    use super::tls::{Tls, Unsaved};
    #[pymodule_export]
    use super::toml::toml_to_json;
    #[pymodule_export]
    use super::turn::{TurnRest, checked_ice_servers};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name of the attribute")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
