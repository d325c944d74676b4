//! A batch of log records for Python. All records share one text and one list of fields.
//!
//! To allocate each record, and to free it on another thread, costs more than to write it.

use std::fmt::{self, Write as _};
use std::ops::Range;

// The level numbers of Python's `logging`.
pub(super) const DEBUG: u8 = 10;
pub(super) const INFO: u8 = 20;
pub(super) const WARNING: u8 = 30;
pub(super) const ERROR: u8 = 40;

/// The bytes of a text in a field of a record. Longer texts are cut.
///
/// No setting: it holds a record readable, as the bound of texts in messages does.
const MAX_FIELD: usize = 1024;

/// Log records in the order in which they were written.
#[derive(Default)]
pub(super) struct Records {
    text: String,
    fields: Vec<(&'static str, Stored)>,
    all: Vec<Record>,
}

/// A record: its level, its message and its fields.
struct Record {
    level: u8,
    message: Range<usize>,
    fields: Range<usize>,
}

/// The value of a field.
enum Stored {
    Text(Range<usize>),
    Integer(i64),
    Number(f64),
}

/// The value of a field, for Python.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Number(f64),
}

/// Writes one record.
pub(super) struct Writer<'a> {
    records: &'a mut Records,
    message: Range<usize>,
}

impl Records {
    /// Adds a record. `write` writes its message and its fields.
    pub(super) fn push(&mut self, level: u8, write: impl FnOnce(&mut Writer<'_>)) {
        let first = self.fields.len();
        let mut writer = Writer { records: self, message: 0..0 };
        write(&mut writer);
        let message = writer.message;
        self.all.push(Record { level, message, fields: first..self.fields.len() });
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns the records of this level or a more severe one: level, message and fields.
    pub(super) fn at_least(
        &self,
        least: u8,
    ) -> impl Iterator<Item = (u8, &str, impl Iterator<Item = (&'static str, Value<'_>)>)> {
        let text = |range: &Range<usize>| self.text.get(range.clone()).unwrap_or_default();
        let value = move |stored: &Stored| match stored {
            Stored::Text(range) => Value::Text(text(range)),
            Stored::Integer(number) => Value::Integer(*number),
            Stored::Number(number) => Value::Number(*number),
        };
        self.all.iter().filter(move |record| record.level >= least).map(move |record| {
            let fields = self.fields.get(record.fields.clone()).unwrap_or_default();
            let fields = fields.iter().map(move |(name, stored)| (*name, value(stored)));
            (record.level, text(&record.message), fields)
        })
    }
}

impl Writer<'_> {
    /// Writes the message.
    pub(super) fn message(&mut self, message: fmt::Arguments<'_>) {
        self.message = self.write(message);
    }

    /// Writes a field that has a text.
    pub(super) fn text(&mut self, name: &'static str, value: fmt::Arguments<'_>) {
        let range = self.write(value);
        self.add(name, range);
    }

    /// The same for a text that need not be formatted.
    pub(super) fn str(&mut self, name: &'static str, value: &str) {
        let begin = self.records.text.len();
        self.records.text.push_str(value);
        self.add(name, begin..self.records.text.len());
    }

    fn add(&mut self, name: &'static str, range: Range<usize>) {
        if range.len() > MAX_FIELD {
            let end = (0..=range.start + MAX_FIELD).rev().find(|&end| self.records.text.is_char_boundary(end));
            self.records.text.truncate(end.unwrap_or(range.start));
            self.records.text.push_str("...");
        }
        self.records.fields.push((name, Stored::Text(range.start..self.records.text.len())));
    }

    /// Writes a field that has a whole number.
    pub(super) fn integer(&mut self, name: &'static str, value: i64) {
        self.records.fields.push((name, Stored::Integer(value)));
    }

    /// Writes a field that has another number.
    pub(super) fn number(&mut self, name: &'static str, value: f64) {
        self.records.fields.push((name, Stored::Number(value)));
    }

    fn write(&mut self, value: fmt::Arguments<'_>) -> Range<usize> {
        let begin = self.records.text.len();
        // Writing to a string cannot fail.
        let _infallible = self.records.text.write_fmt(value);
        begin..self.records.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{INFO, Records, Value, WARNING};

    #[test]
    fn records_keep_their_fields_apart() {
        let mut records = Records::default();
        records.push(INFO, |record| {
            record.text("event", format_args!("a"));
            record.message(format_args!("first"));
            record.integer("code", 1008);
        });
        records.push(WARNING, |record| record.message(format_args!("second")));
        records.push(INFO, |record| record.number("duration", 0.5));
        let read = |least| {
            records.at_least(least).map(|(level, message, fields)| (level, message, fields.collect::<Vec<_>>()))
        };
        let all: Vec<_> = read(0).collect();
        let first = vec![("event", Value::Text("a")), ("code", Value::Integer(1008))];
        let third = vec![("duration", Value::Number(0.5))];
        assert_eq!(all, [(INFO, "first", first), (WARNING, "second", vec![]), (INFO, "", third)]);
        assert_eq!(read(WARNING).map(|(_, message, _)| message).collect::<Vec<_>>(), ["second"]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut records = Records::default();
        records.push(INFO, |record| {
            record.message(format_args!("m"));
            record.text("reason", format_args!("{}", "é".repeat(5000)));
            record.text("peer", format_args!("p"));
        });
        let (_, message, fields) = records.at_least(0).next().unwrap_or_else(|| unreachable!());
        let fields: Vec<_> = fields.collect();
        assert_eq!((message, fields.len()), ("m", 2));
        assert_eq!(fields[0].1, Value::Text(&format!("{}...", "é".repeat(512))));
        assert_eq!(fields[1], ("peer", Value::Text("p")));
    }
}
