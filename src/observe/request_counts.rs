//! Counters of HTTP requests, by endpoint and class of status.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Endpoints, in the order of their counters. `other` stands for every path that is not listed.
const ENDPOINTS: [&str; 20] = [
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
    "other",
];

/// Classes of status codes: 1xx to 5xx.
const CLASSES: usize = 5;

/// Counters of HTTP requests, by endpoint and class of status.
#[derive(Default)]
pub struct RequestCounts([[AtomicU64; CLASSES]; ENDPOINTS.len()]);

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
}
