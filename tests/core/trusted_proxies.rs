//! The sender of a request behind trusted proxies, and forged headers.

use std::net::SocketAddr;

use cuttlefish_signaling::access::origin_policy::Scheme;
use cuttlefish_signaling::access::trusted_proxies::{Ambiguous, ProxyHeaders, Sender, TrustedProxies};

fn trusting(entries: &[&str]) -> TrustedProxies {
    TrustedProxies::parse(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn at(address: &str) -> Option<SocketAddr> {
    Some(address).map(|address| address.parse().unwrap())
}

/// The address that `X-Forwarded-For` tells.
fn by_x_for(proxies: &TrustedProxies, lines: &[&str]) -> Option<SocketAddr> {
    proxies.sender(&ProxyHeaders { x_for: lines, ..ProxyHeaders::default() }).unwrap().address
}

/// The sender that `Forwarded` tells.
fn by_forwarded(proxies: &TrustedProxies, lines: &[&str]) -> Sender {
    proxies.sender(&ProxyHeaders { forwarded: lines, ..ProxyHeaders::default() }).unwrap()
}

#[test]
fn last_address_that_is_no_proxy_is_the_sender() {
    let proxies = trusting(&["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"]);
    for (lines, sender) in [
        (&["192.0.2.1"][..], at("192.0.2.1:0")),
        (&["192.0.2.1:4711"], at("192.0.2.1:4711")),
        (&["  192.0.2.1 , 10.1.2.3,10.0.0.1"], at("192.0.2.1:0")),
        (&["192.0.2.1", "10.1.2.3"], at("192.0.2.1:0")),
        (&["192.0.2.1, 2001:db8::7"], at("192.0.2.1:0")),
        (&["[2001:db9::1]:80"], at("[2001:db9::1]:80")),
        (&["2001:db9::1"], at("[2001:db9::1]:0")),
        // All of them are proxies: the first one asked for itself.
        (&["10.9.9.9, 10.1.2.3"], at("10.9.9.9:0")),
        (&[], None),
    ] {
        assert_eq!(by_x_for(&proxies, lines), sender, "{lines:?}");
    }
}

#[test]
fn forged_entries_before_the_proxys_own_do_not_count() {
    let proxies = trusting(&["127.0.0.1", "10.0.0.0/8"]);
    for (lines, sender) in [
        (&["127.0.0.1, 192.0.2.66"][..], at("192.0.2.66:0")),
        (&["10.0.0.1", "127.0.0.1", "192.0.2.66"], at("192.0.2.66:0")),
        (&["203.0.113.9, 192.0.2.66, 10.0.0.1"], at("192.0.2.66:0")),
        // An entry that is no address ends the search: the proxy that passed it on is the last that is known.
        (&["127.0.0.1, unknown, 10.0.0.1"], at("10.0.0.1:0")),
        (&["203.0.113.9, , 10.0.0.1"], at("10.0.0.1:0")),
        (&["garbage"], None),
        (&["999.1.1.1"], None),
    ] {
        assert_eq!(by_x_for(&proxies, lines), sender, "{lines:?}");
    }
}

#[test]
fn forwarded_tells_address_scheme_and_host_of_the_same_hop() {
    let proxies = trusting(&["10.0.0.0/8"]);
    let sender =
        by_forwarded(&proxies, &[r#"for=203.0.113.9;host=evil, For="192.0.2.1:80";Proto=HTTPS;Host="panel.lab:8443""#]);
    let wanted =
        Sender { address: at("192.0.2.1:80"), scheme: Some(Scheme::Https), host: Some("panel.lab:8443".into()) };
    assert_eq!(sender, wanted);
    let sender = by_forwarded(&proxies, &[r#"for="[2001:db8::17]:4711";proto=http"#, "for=10.0.0.1;proto=https"]);
    assert_eq!(sender, Sender { address: at("[2001:db8::17]:4711"), scheme: Some(Scheme::Http), host: None });
    assert_eq!(by_forwarded(&proxies, &["for=_hidden, for=unknown"]), Sender::default());
    // A separator in quotes separates nothing.
    assert_eq!(by_forwarded(&proxies, &[r#"host="a,b";for=192.0.2.1"#]).address, at("192.0.2.1:0"));
}

#[test]
fn both_kinds_of_headers_in_one_request_are_ambiguous() {
    let proxies = trusting(&["10.0.0.0/8"]);
    let forwarded = &["for=127.0.0.1"][..];
    let one = &["192.0.2.1"][..];
    for headers in [
        ProxyHeaders { forwarded, x_for: one, ..ProxyHeaders::default() },
        ProxyHeaders { forwarded, x_proto: one, ..ProxyHeaders::default() },
        ProxyHeaders { forwarded, x_host: one, ..ProxyHeaders::default() },
    ] {
        assert_eq!(proxies.sender(&headers), Err(Ambiguous));
    }
}

#[test]
fn the_proxys_own_scheme_and_host_are_the_last_of_a_list() {
    let proxies = trusting(&["10.0.0.0/8"]);
    let headers =
        ProxyHeaders { x_proto: &["http, https"], x_host: &["evil.lab", "panel.lab:2443"], ..ProxyHeaders::default() };
    let wanted = Sender { address: None, scheme: Some(Scheme::Https), host: Some("panel.lab:2443".into()) };
    assert_eq!(proxies.sender(&headers), Ok(wanted));
    let headers = ProxyHeaders { x_proto: &["gopher"], x_host: &[""], ..ProxyHeaders::default() };
    assert_eq!(proxies.sender(&headers), Ok(Sender::default()));
}

#[test]
fn networks_hold_their_addresses_only() {
    let ip = |text: &str| Some(text.parse().unwrap());
    let proxies = trusting(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]);
    for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8:ffff::1", "::1", "::ffff:10.1.1.1"] {
        assert!(proxies.trusts(ip(inside)), "{inside}");
    }
    for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.8", "2001:db9::1", "::2", "127.0.0.1"] {
        assert!(!proxies.trusts(ip(outside)), "{outside}");
    }
    assert!(!proxies.trusts(None) && trusting(&["unix"]).trusts(None) && !trusting(&["unix"]).trusts(ip("127.0.0.1")));
    let any = trusting(&["0.0.0.0/0"]);
    assert!(any.trusts(ip("203.0.113.1")) && !any.trusts(ip("2001:db8::1")));
    assert!(!trusting(&[]).trusts(ip("127.0.0.1")));
}

#[test]
fn invalid_entries_are_named() {
    for (entry, fault) in [
        ("proxy.lab", "is no address"),
        ("10.0.0.0/33", "is no address"),
        ("10.0.0.0/", "is no address"),
        ("::/129", "is no address"),
        ("*", "is no address"),
        ("10.0.0.1/8", "has bits behind its prefix: 10.0.0.0/8"),
    ] {
        let error = TrustedProxies::parse(&[entry.to_owned()]).unwrap_err();
        assert_eq!(error.setting, "trusted_proxies");
        assert!(error.to_string().contains(fault), "{error}");
    }
}
