//! The rates of HTTP requests, by connection and by address.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use cuttlefish_signaling::access::request_rates::{ConnectionRequests, RequestRates};
use cuttlefish_signaling::config::HttpLimits;
use cuttlefish_signaling::rate::Rate;

fn limits() -> HttpLimits {
    let rate = Rate { per_second: 2, burst: 3 };
    HttpLimits { requests: rate, address_requests: rate, ..HttpLimits::default() }
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

#[test]
fn connection_has_a_burst_and_a_rate() {
    let (limits, now) = (limits(), Instant::now());
    let requests = ConnectionRequests::new(&limits, now);
    let taken = |at: Instant| (0..10).filter(|_| requests.take(&limits, at).is_none()).count();
    assert_eq!(taken(now), 3);
    assert_eq!(taken(now + Duration::from_secs(1)), 2);
    assert_eq!(taken(now + Duration::from_secs(60)), 3);
    assert_eq!(requests.take(&limits, now), Some(limits.requests));
}

#[test]
fn addresses_have_their_own_rates_and_loopback_none() {
    let (limits, now, rates) = (limits(), Instant::now(), RequestRates::default());
    let taken = |address: &str| (0..10).filter(|_| rates.take(ip(address), &limits, now).is_none()).count();
    assert_eq!(taken("192.0.2.1"), 3);
    assert_eq!(taken("192.0.2.2"), 3);
    assert_eq!(taken("::ffff:192.0.2.1"), 0, "the same address");
    assert_eq!(taken("2001:db8::1"), 3);
    assert_eq!(taken("2001:db8::ffff:1"), 0, "the same subnet");
    assert_eq!(taken("2001:db8:0:1::1"), 3, "another subnet");
    for loopback in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(taken(loopback), 10, "{loopback}");
    }
}

#[test]
fn addresses_without_recent_requests_are_forgotten() {
    let (limits, mut now, rates) = (limits(), Instant::now(), RequestRates::default());
    let mut most = 0;
    for number in 0..100_000_u32 {
        // A thousand addresses a second, each of which is full again after half a second.
        now += Duration::from_millis(1);
        assert_eq!(rates.take(IpAddr::from(number.to_be_bytes()), &limits, now), None);
        most = most.max(rates.addresses());
    }
    assert!(most <= 2048, "{most} addresses");
}
