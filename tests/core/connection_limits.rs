//! Connection limits: in total, per address, per second, while opening, and of local sockets.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use cuttlefish_signaling::Limits;
use cuttlefish_signaling::access::connection_limits::{ConnectionLimiter, Local, Permit};
use cuttlefish_signaling::core::address::counted;
use cuttlefish_signaling::incidents::{Incident, Incidents};
use proptest::prelude::*;

fn limiter(limits: Limits) -> (Arc<ConnectionLimiter>, Arc<Incidents>, Instant) {
    let (incidents, now) = (Arc::new(Incidents::default()), Instant::now());
    (ConnectionLimiter::new(limits, Arc::clone(&incidents), now), incidents, now)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn is_ready(future: impl Future<Output = ()>) -> bool {
    std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn is_cut(permit: &Permit) -> bool {
    is_ready(permit.evicted())
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn total_connections_are_limited_and_released_permits_are_reused() {
    let (limiter, incidents, now) = limiter(Limits { max_connections: 2, ..Limits::default() });
    let first = limiter.acquire(address("127.0.0.1"), now);
    let second = limiter.acquire(address("10.0.0.1"), now);
    let third = limiter.acquire(address("10.0.0.2"), now);
    assert_eq!([first.turned_away, second.turned_away, third.turned_away], [None, None, Some("Too many connections")]);
    drop(third);
    assert!(limiter.acquire(address("10.0.0.2"), now).turned_away.is_some(), "a refused connection takes no permit");
    drop(first);
    assert_eq!(limiter.acquire(address("10.0.0.2"), now).turned_away, None);
    assert_eq!(incidents.of(Incident::TurnedAway), 2);
}

#[test]
fn connections_through_a_proxy_are_counted_for_the_sender_until_they_end() {
    let (limiter, incidents, now) = limiter(Limits { max_connections_per_address: 2, ..Limits::default() });
    let through_proxy = |sender: &str| {
        let permit = limiter.acquire(address("127.0.0.1"), now);
        limiter.acquire_sender(address(sender)).map(|sender| {
            permit.keep_sender(sender);
            permit
        })
    };
    let (first, second) = (through_proxy("10.0.0.1").unwrap(), through_proxy("::ffff:10.0.0.1").unwrap());
    assert_eq!(through_proxy("10.0.0.1").err(), Some("Too many connections from this address"));
    assert_eq!(limiter.acquire(address("10.0.0.1"), now).turned_away, Some("Too many connections from this address"));
    assert_eq!(incidents.of(Incident::TurnedAway), 2);
    assert!(through_proxy("10.0.0.2").is_ok(), "others are not disturbed");
    let local: Vec<_> = (0..5).map(|_| through_proxy("::1").unwrap()).collect();
    drop((first, local));
    let third = through_proxy("10.0.0.1").unwrap();
    assert!(through_proxy("10.0.0.1").is_err());
    drop((second, third));
    assert_eq!(limiter.acquire(address("10.0.0.1"), now).turned_away, None);
}

#[test]
fn connections_of_one_address_are_limited_except_loopback() {
    let (limiter, _, now) = limiter(Limits { max_connections_per_address: 2, ..Limits::default() });
    let of_one: Vec<_> = (0..3).map(|_| limiter.acquire(address("10.0.0.1"), now)).collect();
    assert_eq!(of_one[2].turned_away, Some("Too many connections from this address"));
    assert_eq!(limiter.acquire(address("10.0.0.2"), now).turned_away, None, "others are not disturbed");
    for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        let many: Vec<_> = (0..5).map(|_| limiter.acquire(address(loopback), now)).collect();
        assert!(many.iter().all(|permit| permit.turned_away.is_none()));
    }
    drop(of_one);
    assert_eq!(limiter.acquire(address("10.0.0.1"), now).turned_away, None);
}

#[test]
fn ipv6_connections_of_one_network_are_limited_together() {
    let (limiter, _, now) = limiter(Limits { max_connections_per_address: 2, ..Limits::default() });
    let enter = |text| limiter.acquire(address(text), now);
    let of_one = ["2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:0:1::"].map(enter);
    let turned_away: Vec<_> = of_one.iter().map(|permit| permit.turned_away).collect();
    assert_eq!(turned_away, [None, None, Some("Too many connections from this address")]);
    assert_eq!(enter("2001:db8:0:1::1").turned_away, None, "another network");
    // Mapped addresses count as the IPv4 addresses that they are.
    let mapped = ["::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.2"].map(enter);
    assert!(mapped.iter().all(|permit| permit.turned_away.is_none()));
    drop(of_one);
    assert_eq!(enter("2001:db8::3").turned_away, None);
}

proptest! {
    #[test]
    fn ipv6_addresses_count_by_their_first_64_bits(network in any::<u64>(), hosts in any::<[u64; 2]>()) {
        let [one, other] = hosts.map(|host| {
            let bits = (u128::from(network) << 64) | u128::from(host);
            (IpAddr::from(bits.to_be_bytes()), counted(IpAddr::from(bits.to_be_bytes())))
        });
        // Loopback and mapped addresses have no network; the hosts of a link share one.
        let is_by_network = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        prop_assume!(is_by_network(one.0) && is_by_network(other.0));
        prop_assert_eq!(one.1, other.1);
        prop_assert_ne!(one.1, counted(IpAddr::from((u128::from(network ^ 1) << 64).to_be_bytes())));
    }
}

#[test]
fn link_local_addresses_count_by_themselves() {
    for text in ["fe80::1", "fe80::2", "::1", "10.0.0.1"] {
        assert_eq!(counted(address(text)), address(text));
    }
}

#[test]
fn connections_per_second_are_limited() {
    let (limiter, _, now) = limiter(Limits { new_per_second: 3, ..Limits::default() });
    let enter = |at| limiter.acquire(address("127.0.0.1"), at).turned_away;
    assert_eq!([enter(now), enter(now), enter(now)], [None; 3]);
    assert_eq!(enter(now), Some("Too many new connections"));
    let later = now + Duration::from_millis(400);
    assert_eq!([enter(later), enter(later)], [None, Some("Too many new connections")]);
}

#[test]
fn at_max_opening_new_connections_wait_and_none_is_cut() {
    let (limiter, incidents, now) = limiter(Limits { max_opening: 2, ..Limits::default() });
    let enter = || limiter.acquire(address("127.0.0.1"), now);
    let (first, second) = (enter(), enter());
    assert_eq!(limiter.make_room(now + seconds(2.9)), Some(now + seconds(3.0)), "none has been silent for 3 s");
    assert!(!is_ready(limiter.freed()));
    first.opened();
    assert!(is_ready(limiter.freed()));
    assert_eq!(limiter.make_room(now), None, "one is open: one is opening");
    let third = enter();
    drop(second);
    assert!(is_ready(limiter.freed()));
    assert_eq!(limiter.make_room(now), None);
    assert!(![&first, &third].into_iter().any(is_cut));
    assert_eq!(incidents.of(Incident::OpeningCut), 0);
}

#[test]
fn oldest_silent_connection_of_the_busiest_address_is_cut() {
    let (limiter, incidents, now) = limiter(Limits { max_opening: 4, ..Limits::default() });
    let enter = |text| limiter.acquire(address(text), now);
    let alone = enter("10.0.0.1");
    let of_one = ["10.0.0.2", "10.0.0.2", "10.0.0.2"].map(enter);
    of_one[0].heard(now + seconds(1.0));
    let later = now + seconds(3.0);
    assert_eq!(limiter.make_room(later), None);
    let cut: Vec<_> = of_one.iter().chain([&alone]).map(is_cut).collect();
    assert_eq!(cut, [false, true, false, false], "the oldest of those that have been silent for 3 s");
    let _next = enter("10.0.0.3");
    assert_eq!(limiter.make_room(later), None);
    assert!(is_cut(&alone), "one of each address is silent, and this one is older");
    assert_eq!(incidents.of(Incident::OpeningCut), 2);
}

#[test]
fn peer_that_waits_for_the_server_is_not_silent() {
    let (limiter, _, now) = limiter(Limits { max_opening: 1, ..Limits::default() });
    let permit = limiter.acquire(address("127.0.0.1"), now);
    permit.busy();
    permit.heard(now);
    let (minute, hour) = (now + seconds(60.0), now + seconds(3600.0));
    assert_eq!(limiter.make_room(minute), Some(minute + seconds(3.0)));
    permit.waits(hour);
    assert_eq!(limiter.make_room(hour), Some(hour + seconds(3.0)));
    assert!(!is_cut(&permit));
    assert_eq!(limiter.make_room(hour + seconds(3.0)), None);
    assert!(is_cut(&permit));
}

#[test]
fn local_sockets_count_apart() {
    let limits = Limits {
        max_connections: 1,
        new_per_second: 1,
        max_device_socket_connections: 2,
        max_control_connections: 1,
        ..Limits::default()
    };
    let (limiter, incidents, now) = limiter(limits);
    let _network = limiter.acquire(address("127.0.0.1"), now);
    let devices: Vec<_> = (0..3).filter_map(|_| limiter.acquire_local(Local::Devices)).collect();
    let control: Vec<_> = (0..3).filter_map(|_| limiter.acquire_local(Local::Control)).collect();
    assert_eq!((devices.len(), control.len()), (2, 1));
    assert_eq!(incidents.of(Incident::TurnedAway), 3);
    drop(control);
    assert!(limiter.acquire_local(Local::Control).is_some());
    assert!(limiter.acquire_local(Local::Devices).is_none());
}
