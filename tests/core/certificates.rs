//! The contents of certificates that are made here, and what a verifier says of them.

use std::sync::Arc;

use cuttlefish_signaling::certificates::{self, Authority, Names, is_name};
use cuttlefish_signaling::{Error, Tls};
use rcgen::{KeyPair, PublicKeyData};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

const USUAL: [&str; 4] = ["localhost", "127.0.0.1", "::1", "lab-7"];

fn names(texts: &[&str]) -> Names {
    Names::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    x509_parser::parse_x509_certificate(certificate).unwrap().1
}

/// The verdict of webpki on a certificate, for a client that trusts the authority.
fn verify(authority: &Authority, certificate: &CertificateDer<'_>, name: &str) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
    verifier.verify_server_cert(certificate, &[], &name, &[], now).map(drop)
}

#[test]
fn an_authority_may_sign_for_its_names_and_for_no_other_authority() {
    let authority = Authority::generate(&names(&USUAL), now()).unwrap();
    let certificate = parsed(authority.certificate());
    let basic = certificate.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca);
    assert_eq!(basic.value.path_len_constraint, Some(0));
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
    let constraints = certificate.name_constraints().unwrap().unwrap();
    assert!(constraints.critical);
    let permitted = constraints.value.permitted_subtrees.as_ref().unwrap();
    let permitted: Vec<_> = permitted.iter().map(|subtree| &subtree.base).collect();
    assert_eq!(permitted, [&GeneralName::DNSName("localhost"), &GeneralName::DNSName("lab-7")]);
    assert_eq!(constraints.value.excluded_subtrees, None, "BoringSSL refuses addresses beside addresses");
    assert_eq!(certificate.validity().not_before.to_datetime(), now() - Duration::days(1));
    assert_eq!(certificate.validity().not_after.to_datetime(), now() + Duration::days(3649));
}

#[test]
fn a_type_of_name_that_a_server_does_not_have_is_excluded() {
    let excluded = |texts: &[&str]| {
        let authority = Authority::generate(&names(texts), now()).unwrap();
        let certificate = parsed(authority.certificate());
        let constraints = certificate.name_constraints().unwrap().unwrap().value;
        let excluded = constraints.excluded_subtrees.as_ref().unwrap();
        excluded.iter().map(|subtree| format!("{:?}", subtree.base)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(excluded(&["127.0.0.1"]), r#"DNSName("")"#);
    assert_eq!(excluded(&["farm.lab"]), format!("IPAddress({:?}) IPAddress({:?})", [0; 8], [0; 32]));
}

#[test]
fn a_certificate_is_for_a_server_with_these_names() {
    let authority = Authority::generate(&names(&USUAL), now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = authority.issue(&names(&USUAL), &key, now()).unwrap();
    assert!(authority.has_signed(&certificate));
    let certificate = parsed(&certificate);
    assert_eq!(certificate.issuer(), parsed(authority.certificate()).subject());
    assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
    assert_eq!(
        certificate.subject().to_string(),
        "O=cuttlefish-signaling",
        "GnuTLS takes a common name for a DNS name"
    );
    let alternatives = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    let addresses: [&[u8]; 2] = [&[127, 0, 0, 1], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]];
    let expected = [
        GeneralName::DNSName("localhost"),
        GeneralName::DNSName("lab-7"),
        GeneralName::IPAddress(addresses[0]),
        GeneralName::IPAddress(addresses[1]),
    ];
    assert_eq!(alternatives[..], expected);
    let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.client_auth && !purposes.any);
    assert!(!certificate.is_ca());
    let identifies_its_authority = |extension: &ParsedExtension<'_>| matches!(extension, ParsedExtension::AuthorityKeyIdentifier(id) if id.key_identifier.is_some());
    assert!(certificate.extensions().iter().any(|extension| identifies_its_authority(extension.parsed_extension())));
    let validity = certificate.validity();
    assert_eq!(validity.not_before.to_datetime(), now() - Duration::days(1));
    assert_eq!(validity.not_after.to_datetime(), now() + Duration::days(824));
}

#[test]
fn a_certificate_expires_no_later_than_its_authority() {
    let authority = Authority::generate(&names(&USUAL), now()).unwrap();
    let later = now() + Duration::days(3600);
    let certificate = authority.issue(&names(&USUAL), &KeyPair::generate().unwrap(), later).unwrap();
    assert_eq!(parsed(&certificate).validity().not_after.to_datetime(), authority.not_after());
}

#[test]
fn two_certificates_of_one_key_have_two_serial_numbers() {
    let authority = Authority::generate(&names(&USUAL), now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let [one, other] = [(); 2].map(|()| authority.issue(&names(&USUAL), &key, now()).unwrap());
    assert_ne!(parsed(&one).raw_serial(), parsed(&other).raw_serial());
}

#[test]
fn two_authorities_have_two_names() {
    let [one, other] = [(); 2].map(|()| Authority::generate(&names(&USUAL), now()).unwrap());
    assert_ne!(parsed(one.certificate()).subject().to_string(), parsed(other.certificate()).subject().to_string());
}

#[test]
fn a_verifier_accepts_every_name_of_a_server() {
    for texts in [&USUAL[..], &["127.0.0.1", "::1"], &["farm.lab"], &["*.farm.lab", "10.0.0.7"]] {
        let authority = Authority::generate(&names(texts), now()).unwrap();
        let certificate = authority.issue(&names(texts), &KeyPair::generate().unwrap(), now()).unwrap();
        for text in texts {
            assert_eq!(verify(&authority, &certificate, &text.replace('*', "a")), Ok(()), "{text}");
        }
    }
}

/// Names of an authority, names of a server, and whether the first may sign for the second.
const COVERED: [(&[&str], &[&str], bool); 13] = [
    (&["localhost", "127.0.0.1"], &["localhost", "127.0.0.1"], true),
    (&["localhost", "127.0.0.1"], &["127.0.0.1"], true),
    (&["localhost", "127.0.0.1"], &["localhost", "10.0.0.7", "::1"], true),
    (&["farm.lab", "127.0.0.1"], &["a.farm.lab", "*.farm.lab"], true),
    (&["farm.lab", "127.0.0.1"], &["afarm.lab"], false),
    (&["farm.lab", "127.0.0.1"], &["lab"], false),
    (&["farm.lab", "127.0.0.1"], &["farm.lab", "other.lab"], false),
    (&["*.farm.lab", "127.0.0.1"], &["farm.lab"], true),
    (&["farm.lab"], &["farm.lab"], true),
    (&["farm.lab"], &["farm.lab", "127.0.0.1"], false),
    (&["farm.lab"], &["::1"], false),
    (&["127.0.0.1"], &["::1"], true),
    (&["127.0.0.1"], &["127.0.0.1", "localhost"], false),
];

#[test]
fn a_verifier_agrees_on_the_names_an_authority_may_sign_for() {
    for (authority_names, server_names, expected) in COVERED {
        let authority = Authority::generate(&names(authority_names), now()).unwrap();
        assert_eq!(authority.covers(&names(server_names)), expected, "{authority_names:?} {server_names:?}");
        let certificate = authority.issue(&names(server_names), &KeyPair::generate().unwrap(), now()).unwrap();
        let verdict = verify(&authority, &certificate, &server_names[0].replace('*', "a"));
        if expected {
            assert_eq!(verdict, Ok(()), "{authority_names:?} {server_names:?}");
        } else {
            let error = format!("{:?}", verdict.unwrap_err());
            assert!(error.contains("NameConstraintViolation"), "{authority_names:?} {server_names:?}: {error}");
        }
    }
}

#[test]
fn another_authority_has_not_signed_a_certificate() {
    let [authority, other] = [(); 2].map(|()| Authority::generate(&names(&USUAL), now()).unwrap());
    let certificate = authority.issue(&names(&USUAL), &KeyPair::generate().unwrap(), now()).unwrap();
    assert!(!other.has_signed(&certificate));
    let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_eq!(verify(&other, &certificate, "localhost"), Err(unknown));
}

#[test]
fn names_are_read_once_and_in_lower_case() {
    let found = names(&["Farm.Lab.", "farm.lab", "[::1]", "::1", "0:0:0:0:0:0:0:1", "10.0.0.7"]);
    assert_eq!(found.to_texts(), ["farm.lab", "::1", "10.0.0.7"]);
    assert_eq!(found.to_string(), "farm.lab, ::1, 10.0.0.7");
    assert!(found.equals(&names(&["10.0.0.7", "::1", "farm.lab"])));
    assert!(!found.equals(&names(&["10.0.0.7", "::1"])));
}

#[test]
fn a_text_that_is_no_name_is_refused() {
    let long = format!("{}.lab", "a".repeat(64));
    for text in
        ["", ".", "a..b", "a b", "a/b", "a:80", "ex\u{e4}mple", "*", "a.*.lab", "1.2.3.4.5", "fe80::1%lo", &long]
    {
        assert!(!is_name(text), "{text:?}");
        let error = Names::parse(&[text.to_owned()]).unwrap_err();
        assert!(matches!(&error, Error::Tls(what) if what.contains(&format!("{text:?}"))), "{error}");
    }
    for text in ["localhost", "a_b", "A-1.lab", "*.lab", "lab.", "::1", "[::1]", "127.0.0.1"] {
        assert!(is_name(text), "{text:?}");
    }
    assert!(matches!(Names::parse(&[]), Err(Error::Tls(_))));
}

#[test]
fn an_authority_needs_its_own_key_and_the_right_to_sign() {
    let authority = Authority::generate(&names(&USUAL), now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = authority.issue(&names(&USUAL), &key, now()).unwrap();
    let error = Authority::new(authority.certificate().clone(), KeyPair::generate().unwrap()).unwrap_err();
    assert_eq!(error, "does not belong to the private key");
    assert_eq!(Authority::new(certificate, key).unwrap_err(), "is not the certificate of an authority (CA:TRUE)");
}

#[test]
fn pem_comes_back_as_it_went() {
    let authority = Authority::generate(&names(&USUAL), now()).unwrap();
    let pem = certificates::to_pem(authority.certificate());
    assert_eq!(&certificates::from_pem(&pem).unwrap(), authority.certificate());
    assert!(pem.lines().all(|line| line.len() <= 64));
    assert!(certificates::from_pem(&format!("{pem}{pem}")).unwrap_err().contains("has 2 certificates"));
    assert!(certificates::from_pem("nothing").unwrap_err().contains("has 0 certificates"));
}

#[test]
fn a_key_is_in_no_debug_output() {
    let authority = Authority::generate(&names(&USUAL), now()).unwrap();
    let text = format!("{authority:?} {:?}", Tls::self_signed(&["localhost".into()], None).unwrap());
    let key = authority.key_pem();
    assert!(key.contains("PRIVATE KEY"));
    assert!(!text.contains("BEGIN") && !key.lines().skip(1).any(|line| text.contains(line)), "{text}");
}
