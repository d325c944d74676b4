//! Creates X.509 certificates: an authority for the names of one server, and the server certificate that it signs.
//!
//! No I/O. [`super::state_dir`] reads and writes the files.

mod names;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use crate::config::error::Error;

pub use names::{Names, is_name};

/// Lifetime of an authority.
const AUTHORITY_LIFETIME: Duration = Duration::days(3650);
/// Lifetime of a server certificate: browsers accept at most 825 days.
const CERTIFICATE_LIFETIME: Duration = Duration::days(825);
/// A certificate is valid from one day before its creation, for clients whose clock is behind.
const BACKDATED: Duration = Duration::days(1);

/// A certificate authority and its private key. `Debug` omits the key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: OffsetDateTime,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// Creates an authority with a new key. It can sign for these names only, and cannot sign another authority.
    ///
    /// # Errors
    /// [`Error::Tls`] if the system provides no random numbers.
    pub fn generate(names: &Names, now: OffsetDateTime) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATED;
        params.not_after = params.not_before + AUTHORITY_LIFETIME;
        // Each authority has its own name, so that a client that trusts several finds the right one.
        let id = sha256(&key.subject_public_key_info())[..4].iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("cuttlefish-signaling authority {id:08x}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(names.constraints());
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        Self::new(certificate, key).map_err(Error::Tls)
    }

    /// Combines the certificate of an authority with its private key.
    ///
    /// # Errors
    /// The reason, as a text: the certificate is not that of an authority, or the key does not match.
    pub fn new(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, String> {
        let facts = Facts::of(&certificate)?;
        if !facts.is_authority {
            return Err("is not the certificate of an authority (CA:TRUE)".into());
        }
        if !belongs(&certificate, &key) {
            return Err("does not belong to the private key".into());
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| format!("cannot sign: {error}"))?;
        Ok(Self { certificate, issuer, not_after: facts.not_after })
    }

    /// Signs a server certificate. It expires no later than the authority.
    ///
    /// # Errors
    /// [`Error::Tls`] if the system provides no random numbers.
    pub fn issue(&self, names: &Names, key: &KeyPair, now: OffsetDateTime) -> Result<CertificateDer<'static>, Error> {
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATED;
        params.not_after = self.not_after.min(params.not_before + CERTIFICATE_LIFETIME);
        params.serial_number = Some(serial_number()?);
        params.subject_alt_names = names.alternative_names().map_err(failed)?;
        // No common name: GnuTLS treats it as a DNS name, which the name constraints may exclude.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "cuttlefish-signaling");
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params.signed_by(key, &self.issuer).map_err(failed)?.der().clone())
    }

    /// Whether the name constraints of this authority permit all of these names.
    pub fn covers(&self, names: &Names) -> bool {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&self.certificate) else { return false };
        let Ok(constraints) = certificate.name_constraints() else { return false };
        constraints.is_none_or(|extension| names.are_admitted(extension.value))
    }

    /// Whether this authority signed the certificate.
    pub fn has_signed(&self, certificate: &CertificateDer<'_>) -> bool {
        let own = x509_parser::parse_x509_certificate(&self.certificate);
        let other = x509_parser::parse_x509_certificate(certificate);
        match (own, other) {
            (Ok((_, own)), Ok((_, other))) => {
                other.issuer() == own.subject() && other.verify_signature(Some(own.public_key())).is_ok()
            }
            _ => false,
        }
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The time at which the authority expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The private key as PEM (PKCS#8).
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// The fields of a certificate that decide whether it can still be used.
pub struct Facts {
    /// DNS names and IP addresses of the certificate.
    pub names: Names,
    /// The time at which the certificate expires.
    pub not_after: OffsetDateTime,
    /// Whether the certificate may sign others.
    pub is_authority: bool,
}

impl Facts {
    /// Parses a certificate (DER).
    ///
    /// # Errors
    /// The reason, as a text, if it is not a valid X.509 certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| format!("is not an X.509 certificate: {error}"))?;
        Ok(Self {
            names: Names::of(&parsed),
            not_after: parsed.validity().not_after.to_datetime(),
            is_authority: parsed.is_ca(),
        })
    }
}

/// Whether a certificate has the public key of this private key.
pub fn belongs(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}

/// Reads a PEM text that contains exactly one certificate.
///
/// # Errors
/// The reason, as a text: invalid PEM, or the number of certificates.
pub fn from_pem(pem: &str) -> Result<CertificateDer<'static>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| format!("is not valid PEM: {error}"))?;
    match <[_; 1]>::try_from(all) {
        Ok([certificate]) => Ok(certificate),
        Err(all) => Err(format!("has {} certificates (-----BEGIN CERTIFICATE-----), not one", all.len())),
    }
}

/// Encodes a certificate as PEM.
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for start in (0..text.len()).step_by(64) {
        pem.push_str(&text[start..text.len().min(start + 64)]);
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// The SHA-256 fingerprint of a certificate, as `openssl x509 -fingerprint -sha256` prints it: `AB:CD:…`.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let bytes: Vec<_> = sha256(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

/// The text of a system error, without its number.
pub(super) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

/// Draws a random serial number.
///
/// By default rcgen derives the number from the key, and a renewed certificate keeps its key. NSS refuses two
/// certificates of one authority with the same serial number.
fn serial_number() -> Result<SerialNumber, Error> {
    let random: ring::rand::Random<[u8; 16]> = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| Error::Tls("cannot draw a serial number: the system provides no random numbers".into()))?;
    let mut bytes = random.expose();
    // DER integers: positive, without a leading zero byte.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[allow(clippy::needless_pass_by_value, reason = "`map_err` passes the error by value")]
fn failed(error: rcgen::Error) -> Error {
    Error::Tls(format!("cannot create a certificate: {error}"))
}
