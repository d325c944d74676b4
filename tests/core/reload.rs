//! The parts of a reload without sockets: which settings stay, and bounds that change while they are used.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuttlefish_signaling::access::connection_limits::{ConnectionLimiter, Local};
use cuttlefish_signaling::config::cluster::Cluster;
use cuttlefish_signaling::config::control::Control;
use cuttlefish_signaling::core::client_ids::LastIds;
use cuttlefish_signaling::core::cluster::registry::Timing;
use cuttlefish_signaling::core::outbox::{Budget, Outbox, Passage};
use cuttlefish_signaling::incidents::Incidents;
use cuttlefish_signaling::listen::Listen;
use cuttlefish_signaling::protocol::{DeviceId, outbound};
use cuttlefish_signaling::{Config, Limits, Tls};

fn cluster() -> Cluster {
    Cluster {
        engine: "redis://localhost".into(),
        name: "lab".into(),
        node: "a".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        address: None,
        secrets: Vec::new(),
        ca: None,
        hold_on_outage: false,
        device_id_template: None,
        timing: Timing::default(),
    }
}

#[test]
fn settings_that_need_a_restart_are_all_named() {
    let old = Config::default();
    assert!(old.fixed_changes(&Config { hook_timeout: Duration::from_secs(1), ..Config::default() }).is_empty());
    let new = Config {
        host: "::1".parse().unwrap(),
        port: 1,
        listen: vec![Listen::Http("127.0.0.1:1".parse().unwrap())],
        metrics: vec![Listen::Http("127.0.0.1:2".parse().unwrap())],
        control: Control { listen: vec![Listen::Http("127.0.0.1:3".parse().unwrap())], ..Control::default() },
        tls: Some(Tls::self_signed(&["localhost".into()], None).unwrap()),
        device_socket: Some("/a".into()),
        control_socket: Some("/b".into()),
        echo: true,
        dashboard: true,
        journal: true,
        workers: 2,
        cluster: Some(cluster()),
        ..Config::default()
    };
    let named = [
        "host",
        "port",
        "listen",
        "metrics",
        "control_api",
        "tls",
        "device_socket",
        "control_socket",
        "echo",
        "dashboard",
        "journal",
        "cluster",
        "workers",
    ];
    assert_eq!(old.fixed_changes(&new), named);
    assert_eq!(new.fixed_changes(&old), named);
    let other = Config { tls: Some(Tls::self_signed(&["localhost".into()], None).unwrap()), ..new.clone() };
    assert!(new.fixed_changes(&other).is_empty(), "another certificate needs no restart");
    let other = Config { cluster: Some(Cluster { secrets: vec!["x".repeat(32)], ..cluster() }), ..new.clone() };
    assert_eq!(new.fixed_changes(&other), ["cluster"]);
}

#[test]
fn new_limits_hold_for_the_next_connection_and_end_none() {
    let now = Instant::now();
    let limiter = ConnectionLimiter::new(Limits::default(), Arc::new(Incidents::default()), now);
    let address = "10.0.0.1".parse().unwrap();
    let there: Vec<_> = (0..3).map(|_| limiter.acquire(address, now)).collect();
    let local = limiter.acquire_local(Local::Devices).unwrap();
    limiter.set_limits(Limits {
        max_connections: 3,
        max_device_socket_connections: 1,
        max_opening: 3,
        ..Limits::default()
    });
    assert!(there.iter().all(|permit| permit.turned_away.is_none()));
    assert_eq!(limiter.acquire(address, now).turned_away, Some("Too many connections"));
    assert!(limiter.acquire_local(Local::Devices).is_none());
    assert!(limiter.make_room(now).is_some(), "as many as may be opening");
    limiter.set_limits(Limits { max_connections_per_address: 3, ..Limits::default() });
    assert_eq!(limiter.acquire(address, now).turned_away, Some("Too many connections from this address"));
    assert!(limiter.make_room(now).is_none());
    drop((there, local));
    assert_eq!(limiter.acquire(address, now).turned_away, None);
}

#[test]
fn outboxes_with_old_and_new_bounds_share_one_budget() {
    let bounds = |bytes, budget| {
        let mut backpressure = Config::default().limits.backpressure;
        (backpressure.outbox_bytes, backpressure.outbox_budget) = (bytes, budget);
        backpressure.outbox_bounds()
    };
    let text = outbound::device_info(&format!("\"{}\"", "x".repeat(1000)));
    let old = Budget::new(bounds(500, 10_000));
    let first = Arc::new(Outbox::new(&old));
    first.push_forward(text.clone(), Passage::Direct, Instant::now()).unwrap();
    let borrowed = old.borrowed();
    assert!(borrowed > 500);
    let new = old.with_bounds(bounds(5_000, 200));
    assert_eq!(new.borrowed(), borrowed);
    let second = Arc::new(Outbox::new(&new));
    second.push_forward(text, Passage::Direct, Instant::now()).unwrap();
    assert_eq!(new.borrowed(), borrowed, "within its own bytes");
    assert!(!first.is_closed(), "not in effect yet");
    new.take_effect();
    assert!(first.is_closed(), "it borrows more than all outboxes may");
    assert_eq!((second.is_closed(), new.borrowed()), (false, 0));
}

#[test]
fn last_client_ids_of_fewer_devices_are_kept() {
    let mut ids = LastIds::new(3);
    for (number, id) in ["a", "b", "c"].into_iter().zip(1..) {
        ids.remember(&DeviceId::new(number), id);
    }
    ids.set_max_devices(1);
    assert_eq!((ids.len(), ids.of(&DeviceId::new("a")), ids.of(&DeviceId::new("c"))), (1, 0, 3));
    ids.set_max_devices(2);
    ids.remember(&DeviceId::new("d"), 4);
    assert_eq!(ids.len(), 2);
}
