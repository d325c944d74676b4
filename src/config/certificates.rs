//! Makes certificates: an authority for the names of one server, and the server's certificate, which it signs. No I/O.

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
/// Lifetime of a server's certificate: browsers accept at most 825 days.
const CERTIFICATE_LIFETIME: Duration = Duration::days(825);
/// A certificate is valid from a day before it is made, for clients whose clock is behind.
const BACKDATED: Duration = Duration::days(1);

/// An authority and its key. The key is never printed.
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
    /// Makes an authority with a new key. It can sign for these names only, and for no other authority.
    ///
    /// # Errors
    /// [`Error::Tls`] where the system gives no random numbers.
    pub fn generate(names: &Names, now: OffsetDateTime) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATED;
        params.not_after = params.not_before + AUTHORITY_LIFETIME;
        // Each authority has a name of its own: a client that trusts several finds the right one by it.
        let id = sha256(&key.subject_public_key_info())[..4].iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("cuttlefish-signaling authority {id:08x}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(names.constraints());
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        Self::new(certificate, key).map_err(Error::Tls)
    }

    /// The authority of a certificate and its key.
    ///
    /// # Errors
    /// A text that says why the two are no authority.
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

    /// Makes the certificate of a server, valid no longer than the authority.
    ///
    /// # Errors
    /// [`Error::Tls`] where the system gives no random numbers.
    pub fn issue(&self, names: &Names, key: &KeyPair, now: OffsetDateTime) -> Result<CertificateDer<'static>, Error> {
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATED;
        params.not_after = self.not_after.min(params.not_before + CERTIFICATE_LIFETIME);
        params.serial_number = Some(serial_number()?);
        params.subject_alt_names = names.alternative_names().map_err(failed)?;
        // Without a common name: GnuTLS takes one for a DNS name, which the constraints may exclude.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "cuttlefish-signaling");
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params.signed_by(key, &self.issuer).map_err(failed)?.der().clone())
    }

    /// Whether the name constraints admit all of these names.
    pub fn covers(&self, names: &Names) -> bool {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&self.certificate) else { return false };
        let Ok(constraints) = certificate.name_constraints() else { return false };
        constraints.is_none_or(|extension| names.are_admitted(extension.value))
    }

    /// Whether this authority has signed a certificate.
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

    /// When it expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The private key as PEM (PKCS#8).
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// The parts of a certificate that decide whether it is still good.
pub struct Facts {
    /// Its DNS names and IP addresses.
    pub names: Names,
    /// When it expires.
    pub not_after: OffsetDateTime,
    /// Whether it may sign other certificates.
    pub is_authority: bool,
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// A text that says why it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
            .map_err(|error| format!("is no X.509 certificate: {error}"))?;
        Ok(Self {
            names: Names::of(&parsed),
            not_after: parsed.validity().not_after.to_datetime(),
            is_authority: parsed.is_ca(),
        })
    }
}

/// Whether the public key of a certificate is that of this private key.
pub fn belongs(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}

/// Reads the one certificate of a PEM text.
///
/// # Errors
/// A text that says why there is none.
pub fn from_pem(pem: &str) -> Result<CertificateDer<'static>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| format!("is no valid PEM: {error}"))?;
    match <[_; 1]>::try_from(all) {
        Ok([certificate]) => Ok(certificate),
        Err(all) => Err(format!("has {} certificates (-----BEGIN CERTIFICATE-----), not one", all.len())),
    }
}

/// A certificate as PEM.
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

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

/// A random number: two certificates of one authority with the same serial number are refused by NSS, and a renewed
/// certificate keeps its key, which rcgen would derive the number from.
fn serial_number() -> Result<SerialNumber, Error> {
    let random: ring::rand::Random<[u8; 16]> = ring::rand::generate(&ring::rand::SystemRandom::new())
        .map_err(|_| Error::Tls("the system gives no random numbers".into()))?;
    let mut bytes = random.expose();
    // Positive, and without a leading zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` has it")]
fn failed(error: rcgen::Error) -> Error {
    Error::Tls(format!("cannot make a certificate: {error}"))
}
