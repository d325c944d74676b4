//! Reads the keys of token issuers again while the server runs (`Jwt.check_interval`).

use std::sync::Arc;

use super::shared::Shared;
use crate::config::error::ConfigError;

/// Reads the keys after each interval, until the server stops.
///
/// A failure is logged once, and the next check tries again.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut last_failure = None;
    loop {
        let reloaded = shared.reloaded.notified();
        let watched = shared.settings().jwt.clone();
        let interval = watched.as_ref().and_then(|jwt| jwt.settings.check_interval);
        let pause = async {
            match interval {
                Some(interval) => shared.timers.sleep(interval).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            () = reloaded => continue,
            () = pause => {}
        }
        let Some(jwt) = watched else { continue };
        // Reading files blocks, on a network file system also for long.
        let renewal = tokio::task::spawn_blocking(move || jwt.renew());
        let outcome = tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return,
            outcome = renewal => outcome,
        };
        let failed = |error| ConfigError::new("Jwt.keys", format!("{error}"));
        report(outcome.map_err(failed).flatten(), &mut last_failure);
    }
}

/// Logs new keys. Logs a failure unless it is the last one again.
fn report(outcome: Result<Option<usize>, ConfigError>, last_failure: &mut Option<String>) {
    match outcome {
        Ok(None) => *last_failure = None,
        Ok(Some(count)) => {
            *last_failure = None;
            tracing::info!(event = "token_keys_taken", "keys of tokens: took {count} new ones");
        }
        Err(error) => {
            let text = error.what;
            if last_failure.as_ref() != Some(&text) {
                let what = "the old ones stay, and the new ones are tried again";
                tracing::warn!(event = "token_keys_refused", reason = text, "keys of tokens: {what}: {text}");
                *last_failure = Some(text);
            }
        }
    }
}
