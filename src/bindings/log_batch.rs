//! A batch of log records for Python. All records share one text.
//!
//! To allocate each record, and to free it on another thread, costs more than to write it.

// The level numbers of Python's `logging`.
pub(super) const DEBUG: u8 = 10;
pub(super) const INFO: u8 = 20;
pub(super) const WARNING: u8 = 30;
pub(super) const ERROR: u8 = 40;

/// Log records in the order in which they were written.
#[derive(Default)]
pub(super) struct Records {
    text: String,
    /// The level of each record, and the end of its text.
    ends: Vec<(u8, usize)>,
}

impl Records {
    /// Adds a record. `write` appends its text.
    pub(super) fn push(&mut self, level: u8, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.ends.push((level, self.text.len()));
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the records with their levels.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, &str)> {
        let mut begin = 0;
        self.ends.iter().map(move |&(level, end)| {
            let text = self.text.get(begin..end).unwrap_or_default();
            begin = end;
            (level, text)
        })
    }
}
