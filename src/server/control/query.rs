//! The query of a request: each parameter at most once, and none that is unknown.

use std::time::Duration;

use axum::extract::Request;
use hyper::Method;
use hyper::body::Body as _;
use serde_json::Number;

use super::body::Whole;
use super::problem::Problem;
use crate::config::bounds::MAX_TIME;

/// The parameters that were not read yet.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a request without a body.
    pub(super) fn of(request: &Request) -> Result<Self, Problem> {
        if request.body().size_hint().lower() > 0
            || (request.method() != Method::GET && !request.body().is_end_stream())
        {
            return Err(Problem::bad_request("$", "This request has no body"));
        }
        Self::parse(request.uri().query().unwrap_or_default())
    }

    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(Problem::bad_request(&format!("?{key}"), "The query has this parameter twice"));
            }
            pairs.push((key.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes a value that `read` understands. `wanted` names such values.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match read(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(Problem::bad_request(&format!("?{name}"), format!("must be {wanted}"))),
        }
    }

    /// Takes a whole number.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        self.read(name, "a whole number in the range of the documentation", whole)
    }

    /// Takes `true` or `false`.
    pub(super) fn switch(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        self.read(name, "true or false", |text| text.parse().ok())
    }

    /// Takes a wait in seconds, which `most` bounds. The default is none.
    pub(super) fn wait(&mut self, most: Duration) -> Result<Duration, Problem> {
        let wait = self.read("wait", "a number of seconds, 0 or more", |text| seconds(&text.parse().ok()?))?;
        Ok(wait.unwrap_or_default().min(most))
    }

    /// Refuses parameters that nothing has read.
    pub(super) fn done(self) -> Result<(), Problem> {
        match self.0.first() {
            Some((name, _)) => Err(Problem::bad_request(&format!("?{name}"), "There is no such parameter")),
            None => Ok(()),
        }
    }
}

/// Reads a whole number.
pub(super) fn whole<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let text = Some(text).filter(|text| !text.contains(char::is_whitespace))?;
    let Whole(number) = serde_json::from_str(text).ok()?;
    number.try_into().ok()
}

/// Converts a number of seconds, which may exceed what a clock can add.
pub(super) fn seconds(number: &Number) -> Option<Duration> {
    let seconds = number.as_f64().filter(|seconds| *seconds >= 0.0)?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// The same, but only a time that the server can add to its clock.
pub(super) fn time(number: &Number) -> Option<Duration> {
    seconds(number).filter(|time| *time <= MAX_TIME)
}
