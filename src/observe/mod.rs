//! Observers of the server: counters, the journal, and fault injection.
//!
//! No observer changes a payload, unless a fault is armed.

pub mod adb;
pub mod audit;
pub mod cluster;
pub mod faults;
pub mod hook_errors;
pub mod incidents;
pub mod journal;
pub mod ledger;
pub mod quoted;
pub mod request_counts;
pub mod timings;
