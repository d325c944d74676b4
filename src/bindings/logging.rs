//! Writes `tracing` events to the event queue, for Python's `logging`. Nothing here calls Python.

use std::fmt;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::event_queue::EventQueue;
use super::log_batch::{DEBUG, ERROR, INFO, WARNING, Writer};

/// Records the events of this crate for one server. It ignores events of libraries.
pub(super) struct QueueSubscriber(pub(super) Arc<EventQueue>);

impl Subscriber for QueueSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("cuttlefish_signaling")
    }

    fn event(&self, event: &Event<'_>) {
        self.0.record(level_number(*event.metadata().level()), |record| event.record(&mut Fields(record)));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn level_number(level: Level) -> u8 {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => WARNING,
        Level::INFO => INFO,
        Level::DEBUG | Level::TRACE => DEBUG,
    }
}

/// Writes the fields of an event to a record.
struct Fields<'a, 'b>(&'a mut Writer<'b>);

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.0.message(format_args!("{value:?}")),
            name => self.0.text(name, format_args!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.str(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.integer(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.integer(field.name(), i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.number(field.name(), value);
    }
}
