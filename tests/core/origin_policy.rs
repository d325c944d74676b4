//! The origin policy: `Host`, `Origin` and the facts of a browser, and the allowances of the settings.

use cuttlefish_signaling::Config;
use cuttlefish_signaling::access::origin_policy::{Facts, Foreign, Policy, Scheme};

/// The facts of a request without headers.
const BARE: Facts<'static> = Facts {
    path: "/connect_client",
    scheme: Scheme::Http,
    host: None,
    origins: &[],
    is_cross_site: false,
    is_navigation: false,
};

fn check(policy: &Policy, path: &str, host: Option<&str>, origin: Option<&str>) -> Result<(), Foreign> {
    policy.check(&Facts { path, host, origins: origin.as_slice(), ..BARE })
}

/// The policy of a server with these settings.
fn policy(hosts: &[&str], origins: &[&str]) -> Policy {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let config = Config { allowed_hosts: owned(hosts), allowed_origins: owned(origins), ..Config::default() };
    config.validate().unwrap();
    Policy::new(&config).unwrap()
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
    (Some("127.0.0.1:8080"), Some("https://panel.lab:443"), true),
    (Some("localhost:"), Some("http://localhost"), true),
    (Some("lab.:8080"), Some("http://lab:8080"), true),
    (Some("[0:0::1]:8080"), Some("http://[::1]:8080"), true),
    // TLS ends at a proxy, which passes `Host` on.
    (Some("lab"), Some("https://lab"), true),
    (Some("lab:2443"), Some("https://lab:2443"), true),
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
    (Some("127.0.0.1:8080"), Some("https://panel.lab:8443"), false),
    (Some("127.0.0.1:8080"), Some("https://panel.lab/"), false),
    (Some("127.0.0.1:8080"), Some("http://[::1"), false),
    (Some("127.0.0.1:8080"), Some("http://127.0.0.1:8080@evil.example"), false),
    (Some("127.0.0.1:8080"), Some("http://127.0.0.1:99999"), false),
    (Some("lab:80"), Some("https://lab"), false),
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
    (Some("."), None, false),
    (Some("lab:8080:80"), None, false),
    (Some("lab:http"), None, false),
    (Some("lab:65536"), None, false),
    (Some("[lab]"), None, false),
    (Some("lab lab"), None, false),
];

/// Host and origin that are allowed for a device only: the same host, with another scheme or port.
const DEVICE_ORIGINS: &[(&str, &str)] = &[
    ("127.0.0.1:8080", "http://127.0.0.1:8081"),
    ("127.0.0.1:8080", "chrome-extension://127.0.0.1:8080"),
    ("127.0.0.1:8443", "http://127.0.0.1"),
    ("[::1]:8443", "https://[::1]:1"),
    ("lab:8443", "wss://LAB"),
    ("lab:8443", "lab"),
    ("lab:80", "https://lab"),
];

#[test]
fn origin_and_host_decide_whether_a_page_is_allowed() {
    let strict = policy(&["Lab"], &["https://panel.lab/"]);
    assert!(PAIRS.len() >= 40);
    for (host, origin, allowed) in PAIRS {
        assert_eq!(check(&strict, "/connect_client", *host, *origin).is_ok(), *allowed, "{host:?} {origin:?}");
        // A device's origin may have another scheme or port.
        let allowed = *allowed || DEVICE_ORIGINS.contains(&(host.unwrap_or_default(), origin.unwrap_or_default()));
        assert_eq!(check(&strict, "/register_device", *host, *origin).is_ok(), allowed, "devices: {host:?} {origin:?}");
    }
    for (host, origin) in DEVICE_ORIGINS {
        assert_eq!(check(&strict, "/register_device", Some(host), Some(origin)), Ok(()), "devices: {host} {origin}");
        assert!(check(&strict, "/connect_client", Some(host), Some(origin)).is_err(), "clients: {host} {origin}");
    }
    let any = policy(&["*"], &["*"]);
    assert!(PAIRS.iter().all(|(host, origin, _)| check(&any, "/devices", *host, *origin).is_ok()));
}

#[test]
fn each_origin_has_to_be_allowed() {
    let refused =
        policy(&[], &[]).check(&Facts { host: Some("localhost"), origins: &["http://localhost", "http://x"], ..BARE });
    assert_eq!(refused, Err(Foreign::Origin("http://x".into())));
}

/// A page that came without TLS could have been changed on the way.
#[test]
fn http_page_is_not_the_own_page_of_a_tls_listener() {
    let policy = policy(&["lab"], &[]);
    for (scheme, origin, allowed) in [
        (Scheme::Http, "http://lab:8443", true),
        (Scheme::Http, "https://lab:8443", true),
        (Scheme::Https, "https://lab:8443", true),
        (Scheme::Https, "http://lab:8443", false),
    ] {
        let request = Facts { scheme, host: Some("lab:8443"), origins: &[origin], ..BARE };
        assert_eq!(policy.check(&request).is_ok(), allowed, "{scheme:?} {origin}");
        // A device does not know its scheme (docs/protocol.md 3.9).
        assert_eq!(policy.check(&Facts { path: "/register_device", ..request }), Ok(()));
    }
}

/// Images, scripts, frames and links have no `Origin`.
#[test]
fn cross_site_request_without_origin_has_to_be_a_navigation() {
    let policy = policy(&[], &["https://panel.lab"]);
    for (path, is_navigation, origin, allowed) in [
        ("/devices", false, None, false),
        ("/dashboard/events", false, None, false),
        ("/", true, None, true),
        ("/devices", true, None, true),
        // A frame of another site would hold a slot of a viewer.
        ("/dashboard/events", true, None, false),
        // A link of another site would save a file on the viewer's machine.
        ("/dashboard/cassette", true, None, false),
        // With an origin, that decides alone.
        ("/devices", false, Some("https://panel.lab"), true),
        ("/devices", true, Some("https://evil.example"), false),
        // Devices are no browsers.
        ("/register_device", false, None, true),
    ] {
        let origins = origin.as_slice();
        let request = Facts { path, host: Some("127.0.0.1"), origins, is_cross_site: true, is_navigation, ..BARE };
        assert_eq!(policy.check(&request).is_ok(), allowed, "{path} {is_navigation} {origin:?}");
        let refusal = policy.check(&Facts { is_cross_site: false, ..request });
        assert_eq!(refusal.is_ok(), origin != Some("https://evil.example"), "{path} {origin:?}");
    }
}

/// A value of the setting, a header that it allows, and one that it does not.
const HOSTS: &[(&str, &str, &str)] = &[
    ("lab.example", "LAB.example:8443", "a.lab.example"),
    ("lab.example.", "lab.example", "lab.example.evil"),
    ("*.lab.example", "a.b.lab.example", "lab.example"),
    ("*.lab.example", "a.lab.example.:80", "alab.example"),
    ("my_host", "my_host", "my-host"),
    ("*", "anything", ""),
];
const ORIGINS: &[(&str, &str, &str)] = &[
    ("https://lab.example:443", "https://lab.example", "http://lab.example"),
    ("http://lab.example:80/", "http://lab.example", "http://lab.example:443"),
    ("HTTPS://Lab.Example", "https://lab.example", "https://lab.example:8443"),
    ("https://*.lab.example", "https://a.lab.example", "https://lab.example"),
    ("https://*.lab.example:8443", "https://a.b.lab.example:8443", "https://a.lab.example"),
    ("https://[0:0::1]:8443", "https://[::1]:8443", "https://[::2]:8443"),
    ("chrome-extension://abc", "chrome-extension://ABC", "chrome-extension://abcd"),
    ("null", "null", "file://"),
    ("file://", "file://", "null"),
    ("*", "https://anything", ""),
];

#[test]
fn allowances_match_as_they_are_meant() {
    for (value, allowed, refused) in HOSTS {
        let policy = policy(&[value], &[]);
        assert_eq!(check(&policy, "/", Some(allowed), None), Ok(()), "{value} {allowed}");
        assert_eq!(check(&policy, "/", Some(refused), None).is_ok(), *value == "*", "{value} {refused}");
    }
    for (value, allowed, refused) in ORIGINS {
        let policy = policy(&[], &[value]);
        assert_eq!(check(&policy, "/", Some("localhost"), Some(allowed)), Ok(()), "{value} {allowed}");
        assert_eq!(check(&policy, "/", Some("localhost"), Some(refused)).is_ok(), *value == "*", "{value} {refused}");
    }
}

#[test]
fn allowances_that_can_never_match_are_errors() {
    for (value, why) in [
        ("http://lab", "without scheme and port"),
        ("lab:80", "without scheme and port: lab"),
        ("[::1]:80", "without scheme and port: [::1]"),
        (".lab.example", "write *.lab.example for the names below lab.example"),
        ("lab.*", "* stands alone or for the first labels"),
        ("*lab", "* stands alone or for the first labels"),
        ("*.*.lab", "* stands alone or for the first labels"),
        ("münchen.lab", "with xn--"),
        ("a b", "is not a host name"),
        ("a..b", "is not a host name"),
        ("", "is not a host name"),
    ] {
        let config = Config { allowed_hosts: vec![value.into()], ..Config::default() };
        let refused = config.validate().unwrap_err().to_string();
        assert!(refused.starts_with(&format!("allowed_hosts: {value:?} ")) && refused.contains(why), "{refused}");
    }
    for (value, why) in [
        ("panel.lab", "write it with its scheme"),
        ("https://", "is not a host name"),
        ("https://lab/path", r#"write it without "/path""#),
        ("https://lab?x", r#"write it without "?x""#),
        ("https://user@lab", r#"write it without "@lab""#),
        ("https://lab:99999", r#""99999" is no port"#),
        ("https://lab:*", r#""*" is no port"#),
        ("https://lab:", r#""" is no port"#),
        ("https://*", "* stands alone"),
        ("https://lab.*", "* stands alone"),
        ("https://.lab", "write *.lab"),
        ("https://münchen.lab", "with xn--"),
        ("https://[::1", "is not a host name"),
        ("wss://lab", "write https://lab"),
        ("ws://lab:8080", "write http://lab:8080"),
        ("app://", "it has no host"),
    ] {
        let config = Config { allowed_origins: vec![value.into()], ..Config::default() };
        let refused = config.validate().unwrap_err().to_string();
        assert!(refused.starts_with(&format!("allowed_origins: {value:?} ")) && refused.contains(why), "{refused}");
    }
}
