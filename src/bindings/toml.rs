//! Parses TOML for the command line's `--config`. Python 3.10 has no `tomllib`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Converts a TOML document to JSON text. Raises `ValueError`, with line and column.
///
/// The error does not quote the document: the line may have a secret.
#[pyfunction]
pub(super) fn toml_to_json(text: &str) -> PyResult<String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        PyValueError::new_err(format!("line {line}, column {column}: {}", error.message()))
    })?;
    serde_json::to_string(&table).map_err(|error| PyValueError::new_err(error.to_string()))
}
