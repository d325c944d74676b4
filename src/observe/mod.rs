//! Observers: counters, the journal, and faults. None of them changes a payload unless a fault is armed.

pub mod faults;
pub mod incidents;
pub mod journal;
pub mod ledger;
pub mod request_counts;
