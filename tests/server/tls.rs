//! Certificates, from Rust. Python and browser tests cover conversations over TLS.

use cuttlefish_signaling::{Error, Tls};

#[test]
fn self_signed_certificate_exposes_its_authority_but_no_key() {
    let tls = Tls::self_signed(&["localhost".into(), "127.0.0.1".into()], None).unwrap();
    let pem = tls.authority_pem().unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!pem.contains("KEY"));
    assert_eq!(tls.server_config().alpn_protocols, [b"http/1.1"]);
    assert!(!format!("{tls:?}").contains("BEGIN"));
}

#[test]
fn invalid_certificate_is_an_error() {
    assert!(matches!(Tls::from_pem(b"", b"", None), Err(Error::Tls(_))));
    assert!(matches!(Tls::self_signed(&[], None), Err(Error::Tls(_))));
}
