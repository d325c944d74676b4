//! Which listeners a server may have.

use std::path::PathBuf;

use cuttlefish_signaling::listen::Listen;
use cuttlefish_signaling::{Config, Tls};

fn http(address: &str) -> Listen {
    Listen::Http(address.parse().unwrap())
}

fn https(address: &str) -> Listen {
    Listen::Https(address.parse().unwrap())
}

fn unix(path: &str) -> Listen {
    Listen::Unix { path: path.into(), mode: 0o660 }
}

/// The error for these listeners; empty if they are valid.
fn error(config: Config) -> String {
    config.validate().err().map(|error| error.to_string()).unwrap_or_default()
}

fn error_of(listen: &[Listen]) -> String {
    let tls = listen.iter().any(Listen::is_tls).then(|| Tls::self_signed(&["localhost".into()], None).unwrap());
    error(Config { listen: listen.to_vec(), tls, ..Config::default() })
}

#[test]
fn host_port_and_tls_are_one_listener() {
    let config = Config { port: 7, ..Config::default() };
    assert_eq!(config.listeners(), [http("127.0.0.1:7")]);
    let tls = Some(Tls::self_signed(&["localhost".into()], None).unwrap());
    assert_eq!(Config { tls, ..config }.listeners(), [https("127.0.0.1:7")]);
}

#[test]
fn listeners_replace_host_and_port() {
    let listen = vec![http("127.0.0.1:1080"), unix("/run/x")];
    assert_eq!(Config { listen: listen.clone(), port: 7, ..Config::default() }.listeners(), listen);
}

#[test]
fn listeners_of_one_address_are_refused() {
    for (one, two) in [
        ("127.0.0.1:1080", "127.0.0.1:1080"),
        ("127.0.0.1:1080", "0.0.0.0:1080"),
        ("0.0.0.0:1080", "127.0.0.1:1080"),
        ("[::]:1080", "127.0.0.1:1080"),
        ("[::1]:1080", "[::]:1080"),
        ("[::]:1080", "0.0.0.0:1080"),
    ] {
        let expected = format!("listen: http://{one} and https://{two} are one address");
        assert_eq!(error_of(&[http(one), https(two)]), expected);
    }
    assert_eq!(error_of(&[unix("/run/x"), unix("/run/x")]), "listen: unix:/run/x and unix:/run/x are one address");
}

#[test]
fn listeners_of_different_addresses_are_accepted() {
    for (one, two) in [
        ("127.0.0.1:1080", "127.0.0.1:1081"),
        ("127.0.0.1:1080", "127.0.0.2:1080"),
        ("0.0.0.0:1080", "[::1]:1080"),
        ("127.0.0.1:0", "127.0.0.1:0"),
    ] {
        assert_eq!(error_of(&[http(one), https(two), unix("/run/x")]), "");
    }
}

#[test]
fn listener_for_tls_needs_a_certificate_and_a_certificate_needs_a_listener() {
    let listen = vec![http("127.0.0.1:1080"), https("127.0.0.1:1443")];
    let without = error(Config { listen: listen.clone(), ..Config::default() });
    assert_eq!(without, "listen: https://127.0.0.1:1443 needs a certificate: set `tls`");
    let tls = Some(Tls::self_signed(&["localhost".into()], None).unwrap());
    let unused = error(Config { listen: listen[..1].to_vec(), tls, ..Config::default() });
    assert_eq!(unused, "tls: no listener is https, so the certificate has no use");
}

#[test]
fn local_sockets_of_one_path_are_refused() {
    let path = Some(PathBuf::from("/run/x"));
    let both = Config { device_socket: path.clone(), control_socket: path.clone(), ..Config::default() };
    assert_eq!(error(both), "control_socket: /run/x is the path of device_socket too");
    let one = Config { control_socket: path, listen: vec![unix("/run/x")], ..Config::default() };
    assert_eq!(error(one), "listen: /run/x is the path of control_socket too");
}

#[test]
fn only_loopback_and_unix_sockets_are_local() {
    for local in [http("127.0.0.1:1"), https("[::1]:1"), unix("/run/x")] {
        assert!(local.is_local(), "{local}");
    }
    for exposed in [http("0.0.0.0:1"), https("[::]:1"), http("192.0.2.1:1")] {
        assert!(!exposed.is_local(), "{exposed}");
    }
}
