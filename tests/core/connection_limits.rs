//! Connection limits: in total, per address, per second, and while opening.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use cuttlefish_signaling::Limits;
use cuttlefish_signaling::access::connection_limits::{ConnectionLimiter, Permit};
use cuttlefish_signaling::incidents::{Incident, Incidents};

fn limiter(limits: Limits) -> (Arc<ConnectionLimiter>, Arc<Incidents>, Instant) {
    let (incidents, now) = (Arc::new(Incidents::default()), Instant::now());
    (ConnectionLimiter::new(limits, Arc::clone(&incidents), now), incidents, now)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn is_cut(permit: &Permit) -> bool {
    let evicted = std::pin::pin!(permit.evicted());
    evicted.poll(&mut Context::from_waker(Waker::noop())).is_ready()
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
fn connections_of_one_address_are_limited_except_loopback() {
    let (limiter, _, now) = limiter(Limits { max_connections_per_address: 2, ..Limits::default() });
    let of_one: Vec<_> = (0..3).map(|_| limiter.acquire(address("10.0.0.1"), now)).collect();
    assert_eq!(of_one[2].turned_away, Some("Too many connections from this address"));
    assert_eq!(limiter.acquire(address("10.0.0.2"), now).turned_away, None, "others are not disturbed");
    for loopback in ["127.0.0.1", "127.9.9.9", "::1"] {
        let many: Vec<_> = (0..5).map(|_| limiter.acquire(address(loopback), now)).collect();
        assert!(many.iter().all(|permit| permit.turned_away.is_none()));
    }
    drop(of_one);
    assert_eq!(limiter.acquire(address("10.0.0.1"), now).turned_away, None);
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
fn oldest_opening_connection_is_evicted_for_the_newest() {
    let (limiter, incidents, now) = limiter(Limits { max_opening: 2, ..Limits::default() });
    let enter = || limiter.acquire(address("127.0.0.1"), now);
    let (first, second) = (enter(), enter());
    first.opened();
    let third = enter();
    assert!(![&first, &second, &third].into_iter().any(is_cut), "one is open: two are opening");
    let fourth = enter();
    assert!(is_cut(&second));
    assert!(![&first, &third, &fourth].into_iter().any(is_cut));
    drop(third);
    let _fifth = enter();
    assert!(!is_cut(&fourth));
    assert_eq!(incidents.of(Incident::OpeningCut), 1);
}
