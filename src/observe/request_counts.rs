//! Counters of HTTP requests, by endpoint and class of status.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Endpoints, in the order of their counters. `other` stands for every path that is not listed.
const ENDPOINTS: [&str; 47] = [
    "/",
    "/register_device",
    "/connect_client",
    "/devices",
    "/devices/{id}",
    "/devices/{id}/connect",
    "/devices/{id}/files/{path}",
    "/devices/{id}/adb",
    "/js/server_connector.js",
    "/dashboard/{file}",
    "/polled_connections",
    "/polled_connections/{id}/:forward",
    "/polled_connections/{id}/messages",
    "/connect",
    "/forward",
    "/poll_messages",
    "/infra_config",
    "/nodes",
    "/metrics",
    "/control/v1",
    "/control/v1/openapi.json",
    "/control/v1/devices",
    "/control/v1/devices/{id}",
    "/control/v1/devices/{id}/clients",
    "/control/v1/devices/{id}/clients/{client}",
    "/control/v1/clients",
    "/control/v1/waiting",
    "/control/v1/nodes",
    "/control/v1/stats",
    "/control/v1/errors",
    "/control/v1/reload",
    "/control/v1/watch",
    "/control/v1/changes",
    "/control/v1/journal",
    "/control/v1/journal/export",
    "/control/v1/journal/transcript",
    "/control/v1/journal/expect",
    "/control/v1/faults",
    "/control/v1/faults/seed",
    "/control/v1/faults/{id}",
    "/control/v1/clock",
    "/control/v1/clock/freeze",
    "/control/v1/clock/resume",
    "/control/v1/clock/advance",
    "/control/v1/reset",
    "/control/v1/ice_servers",
    "other",
];

/// Classes of status codes: 1xx to 5xx.
const CLASSES: usize = 5;

/// Counters of HTTP requests, by endpoint and class of status.
pub struct RequestCounts([[AtomicU64; CLASSES]; ENDPOINTS.len()]);

impl Default for RequestCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl RequestCounts {
    /// Counts a request. `endpoint` is the number from [`RequestCounts::endpoint_of`], `status` the status code of the
    /// answer.
    pub fn count(&self, endpoint: usize, status: u16) {
        let class = usize::from(status / 100).saturating_sub(1);
        if let Some(counter) = self.0.get(endpoint).and_then(|classes| classes.get(class)) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Returns endpoint, class of status (2 for 2xx) and count, for each count above 0.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, usize, u64)> {
        let counts = ENDPOINTS.iter().zip(&self.0);
        let counts = counts.flat_map(|(endpoint, classes)| {
            (1..).zip(classes).map(|(class, count)| (*endpoint, class, count.load(Relaxed)))
        });
        counts.filter(|(_, _, count)| *count > 0)
    }

    /// Returns the number of the endpoint of a path.
    pub fn endpoint_of(path: &str) -> usize {
        let pattern = Self::pattern_of(path);
        ENDPOINTS.iter().position(|endpoint| *endpoint == pattern).unwrap_or(ENDPOINTS.len() - 1)
    }

    /// Returns the path with `{id}` and the like in the place of its parameters; any other path as it is.
    pub fn pattern_of(path: &str) -> &str {
        if let Some(rest) = path.strip_prefix("/control/v1/") {
            return Self::control_pattern_of(path, rest);
        }
        let mut parts = path.split('/').skip(1);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("devices"), Some(_), None, None) => "/devices/{id}",
            (Some("devices"), Some(_), Some("connect"), None) => "/devices/{id}/connect",
            (Some("devices"), Some(_), Some("files"), Some(_)) => "/devices/{id}/files/{path}",
            (Some("devices"), Some(_), Some("adb"), None) => "/devices/{id}/adb",
            (Some("dashboard"), Some(_), None, None) => "/dashboard/{file}",
            (Some("polled_connections"), Some(_), Some(":forward"), None) => "/polled_connections/{id}/:forward",
            (Some("polled_connections"), Some(_), Some("messages"), None) => "/polled_connections/{id}/messages",
            _ => path,
        }
    }

    /// The same for a path of the control API. `rest` is the part of the path behind the version.
    fn control_pattern_of<'a>(path: &'a str, rest: &str) -> &'a str {
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("devices"), Some(_), None, ..) => "/control/v1/devices/{id}",
            (Some("devices"), Some(_), Some("clients"), None, _) => "/control/v1/devices/{id}/clients",
            (Some("devices"), Some(_), Some("clients"), Some(_), None) => "/control/v1/devices/{id}/clients/{client}",
            (Some("faults"), Some(id), None, ..) if id != "seed" => "/control/v1/faults/{id}",
            _ => path,
        }
    }
}
