//! The refusal of requests above the rate of their connection or of their address.

use std::time::{Duration, Instant};

use axum::response::Response;

use super::respond;
use crate::config::rate::Rate;
use crate::observe::incidents::Incident;
use crate::server::connect_info::ConnectInfo;
use crate::server::shared::Shared;

/// The longest pause before a request above the rates is refused.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The refusal of a request above this rate: 429 with `Retry-After`.
///
/// It comes after the time in which the bucket gets its next token. Without that pause, a client that ignores the answer
/// would cost as much as before.
pub(in crate::server) async fn refusal(shared: &Shared, rate: Rate) -> Response {
    shared.incidents.count(Incident::TooFast);
    let pause = Duration::from_secs(1) / rate.per_second.max(1);
    tokio::select! {
        () = shared.stopping.cancelled() => {}
        () = shared.timers.sleep(pause.min(LONGEST_PAUSE)) => {}
    }
    respond::too_fast(&format!("Too many requests: at most {} per second", rate.per_second))
}

/// The rate that a request exceeds.
///
/// The limits on connections count upgrades, and a health check must not fail because of its neighbours. A Unix socket
/// has no addresses.
pub(in crate::server) fn exceeded(shared: &Shared, connect_info: &ConnectInfo, path: &str) -> Option<Rate> {
    let (settings, now) = (shared.settings(), Instant::now());
    let limits = &settings.limits.http;
    if let Some(rate) = connect_info.requests.take(limits, now) {
        return Some(rate);
    }
    let is_exempt = matches!(path, "/register_device" | "/connect_client" | "/healthz" | "/readyz")
        || (path.starts_with("/devices/") && path.ends_with("/connect"));
    let address = connect_info.address.filter(|_| !is_exempt)?;
    shared.request_rates.take(address.ip(), limits, now)
}
