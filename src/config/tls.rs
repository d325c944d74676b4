//! The TLS settings of a server for rustls (ring): a certificate that was read, or one that was made here. No handshake.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use time::OffsetDateTime;

use crate::config::certificates::{self, Authority, Names};
use crate::config::error::Error;

/// A server's certificate and key. Cheap to clone; the key is never printed.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    fingerprint: Arc<str>,
    authority: Option<IssuedBy>,
    /// What it was made for, where it was made here.
    names: Arc<[String]>,
    asks_clients: bool,
}

/// The authority of a certificate that was made here, without its key.
#[derive(Clone)]
struct IssuedBy {
    pem: Arc<str>,
    fingerprint: Arc<str>,
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
        let chain = read_chain(certificate, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| Error::Tls(format!("the private key is no valid PEM: {error}")))?;
        let fingerprint = certificates::fingerprint(&chain[0]).into();
        let config = server_config(chain, key, client_ca)?;
        Ok(Self { config, authority: None, fingerprint, names: Arc::default(), asks_clients: client_ca.is_some() })
    }

    /// Makes a certificate for these DNS names and IP addresses, and an authority that signs it. The authority's key is
    /// dropped at once; its certificate is sent with that of the server: [`Tls::authority_pem`].
    ///
    /// # Errors
    /// [`Error::Tls`] where a name is neither a DNS name nor an address.
    pub fn self_signed(names: &[String], client_ca: Option<&[u8]>) -> Result<Self, Error> {
        let names = Names::parse(names)?;
        let now = OffsetDateTime::now_utc();
        let authority = Authority::generate(&names, now)?;
        let key = KeyPair::generate().map_err(|error| Error::Tls(format!("cannot make a private key: {error}")))?;
        let certificate = authority.issue(&names, &key, now)?;
        Self::issued(certificate, authority.certificate().clone(), &key, &names, client_ca)
    }

    /// A certificate that was made here, with the authority that signed it.
    ///
    /// Both are sent. A device with libwebsockets' "allow self-signed" accepts a self-signed certificate that is in the
    /// chain (OpenSSL's error 19), not one that is missing (20).
    pub(crate) fn issued(
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key: &KeyPair,
        names: &Names,
        client_ca: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| Error::Tls(error.into()))?;
        Ok(Self {
            fingerprint: certificates::fingerprint(&certificate).into(),
            authority: Some(IssuedBy {
                pem: certificates::to_pem(&authority).into(),
                fingerprint: certificates::fingerprint(&authority).into(),
            }),
            config: server_config(vec![certificate, authority], key, client_ca)?,
            names: names.to_texts().into(),
            asks_clients: client_ca.is_some(),
        })
    }

    /// The certificate a client has to trust, as PEM; `None` where certificate and key came from outside.
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| &*authority.pem)
    }

    /// The SHA-256 fingerprint of the certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The fingerprint of the authority, where certificate and authority were made here.
    pub fn authority_fingerprint(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| &*authority.fingerprint)
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

/// Whom a certificate is for, as text: `CN=alice, O=lab`. `None` if it can not be read.
pub fn subject_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.subject().to_string())
}

fn read_chain(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
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
    for certificate in read_chain(pem, "the authority of clients")? {
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
