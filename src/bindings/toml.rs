//! Parses TOML for the command line's `--config`. Python 3.10 has no `tomllib`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Converts a TOML document to JSON text. Raises `ValueError`, with line and column.
#[pyfunction]
pub(super) fn toml_to_json(text: &str) -> PyResult<String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| PyValueError::new_err(error.to_string()))?;
    serde_json::to_string(&table).map_err(|error| PyValueError::new_err(error.to_string()))
}
