//! Takes a renewed certificate from its files while the server runs (`tls_check_interval`).

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::shared::Shared;
use crate::config::error::Error;
use crate::config::renewal::Renewed;
use crate::config::tls::Tls;

/// Checks the certificate after each interval, until the server stops.
///
/// A failure is logged once, and the next check tries again.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut last_failure = None;
    loop {
        let reloaded = shared.reloaded.notified();
        let settings = shared.settings();
        let watched = settings.tls.clone().filter(Tls::is_renewable);
        let interval = settings.tls_check_interval.filter(|_| watched.is_some());
        drop(settings);
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            () = reloaded => continue,
            () = pause(&shared, interval) => {}
        }
        let Some(tls) = watched else { continue };
        // Reading files blocks, on a network file system also for long.
        let renewal = tokio::task::spawn_blocking(move || tls.renew(OffsetDateTime::now_utc()));
        let outcome = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            outcome = renewal => outcome,
        };
        match outcome {
            Ok(outcome) => report(outcome, &mut last_failure),
            Err(error) => {
                let what = "the check of the certificate failed";
                tracing::error!(event = "certificate_check_failed", reason = %error, "{what}: {error}");
            }
        }
    }
}

/// Waits for an interval; forever without one.
async fn pause(shared: &Shared, interval: Option<Duration>) {
    match interval {
        Some(interval) => shared.timers.sleep(interval).await,
        None => std::future::pending().await,
    }
}

/// Logs a renewal. Logs a failure unless it is the last one again.
fn report(outcome: Result<Option<Renewed>, Error>, last_failure: &mut Option<String>) {
    match outcome {
        Ok(None) => *last_failure = None,
        Ok(Some(renewed)) => {
            *last_failure = None;
            for notice in &renewed.notices {
                let text = &*notice.text;
                if notice.is_warning {
                    tracing::warn!(event = "certificate_replaced", reason = text, "{text}");
                } else {
                    tracing::info!(event = "certificate_created", reason = text, "{text}");
                }
            }
            let until = renewed.not_after.map_or_else(String::new, |end| format!(", valid until {}", end.date()));
            let fingerprint = &renewed.fingerprint;
            tracing::info!(event = "certificate_taken", "certificate: took the new one{until}: SHA-256 {fingerprint}");
        }
        Err(error) => {
            let text = error.to_string();
            if last_failure.as_ref() != Some(&text) {
                let what = "the old one stays, and the new one is tried again";
                tracing::warn!(event = "certificate_refused", reason = text, "certificate: {what}: {text}");
                *last_failure = Some(text);
            }
        }
    }
}
