//! Devices that dial at once, as they do when their server has started again.

use std::time::Instant;

use tokio::task::JoinSet;

use crate::options::Options;
use crate::peer::Peer;
use crate::scenarios::Figures;
use crate::system::server_time;

/// Lets `idle` devices dial at once. The figures end when the last one is registered.
pub async fn storm(options: &Options) -> Figures {
    let (began, cpu, mut dialing) = (Instant::now(), server_time(options), JoinSet::new());
    for number in 0..options.idle {
        let options = options.clone();
        dialing.spawn(async move { Peer::device(&options, &format!("device-{number}")).await });
    }
    let held = dialing.join_all().await;
    let (took, cpu) = (began.elapsed().as_secs_f64(), server_time(options).saturating_sub(cpu).as_secs_f64());
    let devices = held.len() as f64;
    vec![("devices_per_second", devices / took), ("cpu_us_per_device", cpu * 1e6 / devices), ("seconds", took)]
}
