//! Certificates and keys, ready for rustls (ring). Makes them, or reads them; does no handshake.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use time::{Duration, OffsetDateTime};

use crate::error::Error;

/// A server's certificate and key. Cheap to clone; the key is never printed.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    authority: Option<Arc<str>>,
    /// What it was made for, where it was made here.
    names: Arc<[String]>,
    asks_clients: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("self_signed", &self.authority.is_some()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads a certificate chain (leaf first) and its private key (PKCS#8, PKCS#1 or SEC1), all PEM. With `client_ca`,
    /// only peers with a certificate of one of these authorities are let in.
    ///
    /// # Errors
    /// [`Error::Tls`] where any can not be read, or the two do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<Self, Error> {
        let chain = certificates(certificate, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| Error::Tls(format!("the private key is no valid PEM: {error}")))?;
        let config = server_config(chain, key, client_ca)?;
        Ok(Self { config, authority: None, names: Arc::default(), asks_clients: client_ca.is_some() })
    }

    /// Makes a certificate for these DNS names and IP addresses, signed by an authority of its own, of which only the
    /// certificate is kept: [`Tls::authority_pem`].
    ///
    /// # Errors
    /// [`Error::Tls`] where a name is neither a DNS name nor an address.
    pub fn self_signed(names: &[String], client_ca: Option<&[u8]>) -> Result<Self, Error> {
        let fail = |error: rcgen::Error| Error::Tls(format!("can not make a certificate for {names:?}: {error}"));
        if names.is_empty() {
            return Err(Error::Tls("a self-signed certificate needs at least one name".into()));
        }
        let authority_key = KeyPair::generate().map_err(fail)?;
        let mut authority = CertificateParams::new(Vec::new()).map_err(fail)?;
        set_validity(&mut authority, "cuttlefish-signaling test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_pem = authority.self_signed(&authority_key).map_err(fail)?.pem();

        let key = KeyPair::generate().map_err(fail)?;
        let mut leaf = CertificateParams::new(names.to_vec()).map_err(fail)?;
        set_validity(&mut leaf, "cuttlefish-signaling");
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = leaf.signed_by(&key, &Issuer::new(authority, authority_key)).map_err(fail)?;

        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| Error::Tls(error.into()))?;
        let config = server_config(vec![leaf.der().clone()], key, client_ca)?;
        let authority = Some(authority_pem.into());
        Ok(Self { config, authority, names: names.into(), asks_clients: client_ca.is_some() })
    }

    /// The certificate a client has to trust, as PEM; `None` where certificate and key came from outside.
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The names a self-signed certificate was made for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether peers have to bring a certificate.
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// The settings for rustls.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

fn set_validity(params: &mut CertificateParams, name: &str) {
    let now = OffsetDateTime::now_utc();
    params.distinguished_name.push(DnType::CommonName, name);
    // A day of slack for clocks that are behind; 825 days are the most that browsers take from a server.
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(824);
}

/// Whom a certificate is for, as text: `CN=alice, O=lab`. `None` if it can not be read.
pub fn subject_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.subject().to_string())
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Tls(format!("{what} is no valid PEM: {error}")))?;
    if chain.is_empty() {
        return Err(Error::Tls(format!("there is no certificate (-----BEGIN CERTIFICATE-----) in the PEM of {what}")));
    }
    Ok(chain)
}

/// Who checks the certificates of peers.
fn verifier(client_ca: Option<&[u8]>, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let Some(pem) = client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "the authority of clients")? {
        let fail = |error| Error::Tls(format!("the authority of clients can not be used: {error}"));
        roots.add(certificate).map_err(fail)?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    built.map_err(|error| Error::Tls(format!("the authority of clients can not be used: {error}")))
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, Error> {
    // The provider is named, not installed: the process belongs to somebody else.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(client_ca, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                Error::Tls("the certificate and the private key do not belong together".into())
            }
            error => Error::Tls(format!("the certificate or the private key can not be used: {error}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Connections here are long and few: resuming them saves nothing. And tickets come unasked, right behind the
    // handshake, while a client writes its request: CPython before 3.13 reads and writes one TLS connection from two
    // threads unguarded, and a `websockets.sync` client then hangs now and again.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
