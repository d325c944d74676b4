//! The origin policy: pairs of `Host` and `Origin` headers.

use cuttlefish_signaling::Config;
use cuttlefish_signaling::access::origin_policy::{Foreign, Policy};

fn check(policy: &Policy, path: &str, host: Option<&str>, origin: Option<&str>) -> Result<(), Foreign> {
    policy.check(path, host.as_slice(), origin.as_slice())
}

/// Host, origin, and whether a client is allowed. The server allows the host `lab` and the origin `https://panel.lab`.
const PAIRS: &[(Option<&str>, Option<&str>, bool)] = &[
    // Programs, and pages of the server itself.
    (None, None, true),
    (Some("127.0.0.1"), None, true),
    (Some("127.0.0.1:8080"), None, true),
    (Some("[::1]:8080"), None, true),
    (Some("[::1]"), None, true),
    (Some("::1"), None, true),
    (Some("10.0.0.7:8080"), None, true),
    (Some("localhost"), None, true),
    (Some("LocalHost:8080"), None, true),
    (Some("localhost.:8080"), None, true),
    (Some("app.localhost:8080"), None, true),
    (Some("lab"), None, true),
    (Some("LAB:443"), None, true),
    (Some("127.0.0.1:8080"), Some("http://127.0.0.1:8080"), true),
    (Some("127.0.0.1:8443"), Some("https://127.0.0.1:8443"), true),
    (Some("localhost"), Some("http://localhost"), true),
    (Some("localhost:80"), Some("http://localhost"), true),
    (Some("localhost"), Some("https://localhost:443"), true),
    (Some("[::1]:8080"), Some("http://[::1]:8080"), true),
    (Some("lab:8080"), Some("http://LAB:8080"), true),
    (Some("127.0.0.1:8080"), Some("https://panel.lab"), true),
    (Some("127.0.0.1:8080"), Some("https://PANEL.lab"), true),
    // Foreign pages.
    (Some("127.0.0.1:8080"), Some("http://127.0.0.1:8081"), false),
    (Some("127.0.0.1:8080"), Some("http://localhost:8080"), false),
    (Some("127.0.0.1:8080"), Some("https://evil.example"), false),
    (Some("127.0.0.1:8080"), Some("http://127.0.0.1:8080.evil.example"), false),
    (Some("127.0.0.1:8080"), Some("http://evil.example/127.0.0.1:8080"), false),
    (Some("127.0.0.1:8080"), Some("null"), false),
    (Some("127.0.0.1:8080"), Some(""), false),
    (Some("127.0.0.1:8080"), Some("file://"), false),
    (Some("127.0.0.1:8080"), Some("chrome-extension://127.0.0.1:8080"), false),
    (Some("127.0.0.1:8080"), Some("https://panel.lab.evil.example"), false),
    (Some("127.0.0.1:8080"), Some("http://panel.lab"), false),
    (None, Some("http://127.0.0.1"), false),
    // DNS rebinding: foreign names that resolve to this server.
    (Some("evil.example"), None, false),
    (Some("evil.example:8080"), Some("http://evil.example:8080"), false),
    (Some("127.0.0.1.evil.example:8080"), None, false),
    (Some("localhost.evil.example"), None, false),
    (Some("notlocalhost"), None, false),
    (Some("lab.evil.example"), None, false),
    (Some("127.0.0.1:8080@evil.example"), None, false),
    (Some(""), None, false),
];

/// Host and origin that are allowed for a device only: the same host, with another scheme or port.
const DEVICE_ORIGINS: &[(&str, &str)] = &[
    ("127.0.0.1:8080", "http://127.0.0.1:8081"),
    ("127.0.0.1:8080", "chrome-extension://127.0.0.1:8080"),
    ("127.0.0.1:8443", "http://127.0.0.1"),
    ("[::1]:8443", "https://[::1]:1"),
    ("lab:8443", "wss://LAB"),
];

#[test]
fn origin_and_host_decide_whether_a_page_is_allowed() {
    let policy = Policy::new(&Config {
        allowed_hosts: vec!["Lab".into()],
        allowed_origins: vec!["https://panel.lab/".into()],
        ..Config::default()
    });
    assert!(PAIRS.len() >= 40);
    for (host, origin, allowed) in PAIRS {
        assert_eq!(check(&policy, "/connect_client", *host, *origin).is_ok(), *allowed, "{host:?} {origin:?}");
        // A device's origin may have another scheme or port.
        let allowed = *allowed || DEVICE_ORIGINS.contains(&(host.unwrap_or_default(), origin.unwrap_or_default()));
        assert_eq!(check(&policy, "/register_device", *host, *origin).is_ok(), allowed, "devices: {host:?} {origin:?}");
    }
    for (host, origin) in DEVICE_ORIGINS {
        assert_eq!(check(&policy, "/register_device", Some(host), Some(origin)), Ok(()), "devices: {host} {origin}");
        assert!(check(&policy, "/connect_client", Some(host), Some(origin)).is_err(), "clients: {host} {origin}");
    }
    let any = Policy::new(&Config {
        allowed_hosts: vec!["*".into()],
        allowed_origins: vec!["*".into()],
        ..Config::default()
    });
    assert!(PAIRS.iter().all(|(host, origin, _)| check(&any, "/devices", *host, *origin).is_ok()));
}

#[test]
fn second_host_header_is_refused() {
    let policy = Policy::new(&Config::default());
    assert_eq!(policy.check("/", &["localhost", "localhost"], &[]), Err(Foreign::Ambiguous));
    assert_eq!(
        policy.check("/", &["localhost"], &["http://localhost", "http://x"]),
        Err(Foreign::Origin("http://x".into()))
    );
}
