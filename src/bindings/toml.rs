//! Parses TOML for the command line's `--config`. Python 3.10 has no `tomllib`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Converts a TOML document to JSON text, with the line of each key, also of those in tables (`limits.max_devices`)
/// and in arrays of tables (`faults.0.device`; `faults.0` has the line of the table). Raises `ValueError`, with line and
/// column.
///
/// The error does not quote the document: the line may have a secret.
#[pyfunction]
pub(super) fn toml_to_json(text: &str) -> PyResult<(String, Vec<(String, usize)>)> {
    let failed = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or(text);
        let line = line_of(text, at);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        PyValueError::new_err(format!("line {line}, column {column}: {}", error.message()))
    };
    let table: toml::Table = text.parse().map_err(failed)?;
    let mut lines = Vec::new();
    collect_lines(text, "", DeTable::parse(text).map_err(failed)?.get_ref(), &mut lines);
    let json = serde_json::to_string(&table).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((json, lines))
}

fn collect_lines(text: &str, table: &str, keys: &DeTable<'_>, lines: &mut Vec<(String, usize)>) {
    for (key, value) in keys {
        let place = format!("{table}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => collect_lines(text, &format!("{place}."), inner, lines),
            DeValue::Array(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    if let DeValue::Table(inner) = entry.get_ref() {
                        let place = format!("{place}.{index}");
                        collect_lines(text, &format!("{place}."), inner, lines);
                        lines.push((place, line_of(text, entry.span().start)));
                    }
                }
            }
            _ => {}
        }
        lines.push((place, line_of(text, Spanned::span(key).start)));
    }
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}
