//! `_native.Jwt`: tokens that others issue. The Python class `Jwt` wraps it.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;

use super::error::{config_error, detached};
use crate::config::error::ConfigError;
use crate::config::jwt::{self, JwtSettings, Right};
use crate::protocol::Role;

/// The checked settings of tokens, with the keys of their files. Python has checked the types.
#[pyclass(frozen, eq, name = "Jwt", module = "cuttlefish_signaling")]
#[derive(PartialEq)]
pub(super) struct Jwt(pub(super) jwt::Jwt);

#[pymethods]
impl Jwt {
    #[new]
    #[pyo3(signature = (keys, *, issuer, audience, leeway, identity, devices, rights, values, needed_for, allow_no_exp,
        max_token, max_keys, check_interval))]
    #[allow(clippy::too_many_arguments, reason = "Python passes each by its name")]
    fn new(
        py: Python<'_>,
        keys: Vec<PathBuf>,
        issuer: Vec<String>,
        audience: Vec<String>,
        leeway: f64,
        identity: String,
        devices: Option<String>,
        rights: Option<String>,
        values: Vec<String>,
        needed_for: Vec<String>,
        allow_no_exp: bool,
        max_token: usize,
        max_keys: usize,
        check_interval: Option<f64>,
    ) -> PyResult<Self> {
        let made = || {
            let defaults = JwtSettings::default();
            let given: Result<Vec<_>, _> = values.iter().map(|text| value_of(text)).collect();
            let settings = JwtSettings {
                files: keys,
                issuers: issuer,
                audiences: audience,
                leeway: seconds("Jwt.leeway", leeway)?,
                identity,
                devices,
                rights,
                values: if values.is_empty() { defaults.values } else { given? },
                needed_for: needed_for.iter().map(|name| role_of(name)).collect::<Result<_, _>>()?,
                allow_no_exp,
                max_token,
                max_keys,
                check_interval: check_interval.map(|time| seconds("Jwt.check_interval", time)).transpose()?,
            };
            jwt::Jwt::read(settings)
        };
        detached(py, made)?.map(Self).map_err(|error| config_error(py, &error))
    }
}

fn seconds(name: &str, seconds: f64) -> Result<Duration, ConfigError> {
    let wrong = |_| ConfigError::new(name, format!("must be a number of seconds, got {seconds}"));
    Duration::try_from_secs_f64(seconds).map_err(wrong)
}

fn role_of(name: &str) -> Result<Role, ConfigError> {
    match Right::of(name) {
        Some(Right::Role(role)) => Ok(role),
        _ => Err(ConfigError::new("Jwt.needed_for", format!("{name:?} is not one of device, client, http"))),
    }
}

/// Reads `VALUE=RIGHT`.
fn value_of(text: &str) -> Result<(String, Right), ConfigError> {
    let found = text.rsplit_once('=').and_then(|(value, right)| Some((value.to_owned(), Right::of(right)?)));
    found.filter(|(value, _)| !value.is_empty()).ok_or_else(|| {
        let what =
            format!("{text:?} is not VALUE=RIGHT, with one of the rights device, client, http, manage, exclusive");
        ConfigError::new("Jwt.values", what)
    })
}
