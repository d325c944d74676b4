//! Histograms: which forwards are timed, and which times the driver and the session of a client record.

use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::peer::Role;
use cuttlefish_signaling::timings::{FORWARDS_PER_SAMPLE, HOOKS, HookOutcome, Timings, is_sampled};
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::harness::Harness;

/// The number and the sum of the times in a histogram.
fn observed(histogram: &Histogram) -> (u64, f64) {
    let (mut registry, mut page) = (Registry::default(), String::new());
    registry.register("h", "Times", histogram.clone());
    prometheus_text::encode(&mut page, &registry).unwrap();
    let value = |name: &str| page.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    (value("h_count").parse().unwrap(), value("h_sum").parse().unwrap())
}

#[test]
fn one_of_many_forwards_is_timed_however_they_are_flushed() {
    for batch in [1, 2, 7, FORWARDS_PER_SAMPLE - 1, FORWARDS_PER_SAMPLE] {
        let (mut delivered, mut timed) = (0, 0);
        while delivered < 100 * FORWARDS_PER_SAMPLE {
            timed += u64::from(is_sampled(delivered, batch));
            delivered += batch;
        }
        assert_eq!(timed, delivered.div_ceil(FORWARDS_PER_SAMPLE), "batches of {batch}");
    }
}

#[test]
fn time_of_a_forward_ends_when_its_receiver_takes_it() {
    let mut harness = Harness::new(Config::default());
    harness.opens("device", Role::Device);
    harness.says("device", r#"{"message_type":"register","device_id":"cvd-1","device_info":{}}"#);
    harness.opens("client", Role::Client);
    harness.says("client", r#"{"message_type":"connect","device_id":"cvd-1"}"#);
    harness.freezes("device");
    harness.says("client", r#"{"message_type":"forward","payload":1}"#);
    harness.after(Duration::from_secs(2));
    assert_eq!(observed(harness.timings.queues()).0, 0);
    harness.thaws("device");
    assert_eq!(observed(harness.timings.queues()), (1, 2.0));
    for _ in 0..FORWARDS_PER_SAMPLE {
        harness.says("client", r#"{"message_type":"forward","payload":1}"#);
    }
    assert_eq!(observed(harness.timings.queues()), (2, 2.0));
}

#[test]
fn wait_for_a_device_is_recorded_once_the_client_has_its_info() {
    let wait = Some(Duration::from_secs(100));
    let mut harness = Harness::new(Config { device_wait_timeout: wait, ..Config::default() });
    for name in ["patient", "other", "impatient"] {
        harness.opens(name, Role::Client);
        let id = if name == "other" { "cvd-2" } else { "cvd-1" };
        harness.says(name, &format!(r#"{{"message_type":"connect","device_id":"{id}"}}"#));
    }
    harness.after(Duration::from_secs(30));
    harness.leaves("impatient");
    harness.after(Duration::from_secs(10));
    assert_eq!(observed(harness.timings.device_waits()).0, 0);
    harness.opens("device", Role::Device);
    harness.says("device", r#"{"message_type":"register","device_id":"cvd-1","device_info":{}}"#);
    assert_eq!(observed(harness.timings.device_waits()), (1, 40.0));
    // A client that need not wait is not recorded.
    harness.opens("late", Role::Client);
    harness.says("late", r#"{"message_type":"connect","device_id":"cvd-1"}"#);
    assert_eq!(harness.peer("late").heard.len(), 2);
    assert_eq!(observed(harness.timings.device_waits()), (1, 40.0));
}

#[test]
fn calls_of_hooks_are_counted_by_outcome_and_timed_if_they_began() {
    let timings = Timings::default();
    for (hook, outcome) in HOOKS.into_iter().zip([HookOutcome::Answered, HookOutcome::Refused, HookOutcome::Failed]) {
        timings.observe_hook(hook, outcome, Duration::from_millis(500));
    }
    timings.observe_hook("authorize", HookOutcome::NotCalled, Duration::from_secs(5));
    timings.observe_hook("unknown", HookOutcome::Answered, Duration::from_secs(5));
    let counted: Vec<_> = timings.hook_calls().filter(|(_, _, count)| *count > 0).collect();
    let (one, two, three) = (HOOKS[0], HOOKS[1], HOOKS[2]);
    let expected = [(one, "answered", 1), (one, "not_called", 1), (two, "refused", 1), (three, "failed", 1)];
    assert_eq!(counted, expected);
    assert!(timings.hooks().all(|(_, histogram)| observed(histogram) == (1, 0.5)));
}
