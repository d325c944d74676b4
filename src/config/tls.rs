//! The TLS configuration of a server, for rustls with ring. The certificate is read from PEM or created here.
//!
//! No I/O and no handshake.

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

/// The certificate and key of a server. Cheap to clone; `Debug` omits the key.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    fingerprint: Arc<str>,
    authority: Option<IssuedBy>,
    /// The names of a certificate that was created here; otherwise empty.
    names: Arc<[String]>,
    asks_clients: bool,
}

/// The authority of a certificate that was created here, without its key.
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
    /// Reads a certificate chain (leaf first) and its private key (PKCS#8, PKCS#1 or SEC1), all PEM.
    ///
    /// With `client_ca`, a peer needs a certificate of one of these authorities.
    ///
    /// # Errors
    /// [`Error::Tls`] if one of them cannot be read, or if certificate and key do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<Self, Error> {
        let chain = read_chain(certificate, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| Error::Tls(format!("the private key is not valid PEM: {error}")))?;
        let fingerprint = certificates::fingerprint(&chain[0]).into();
        let config = server_config(chain, key, client_ca)?;
        Ok(Self { config, authority: None, fingerprint, names: Arc::default(), asks_clients: client_ca.is_some() })
    }

    /// Creates a certificate for these DNS names and IP addresses, and an authority that signs it.
    ///
    /// The authority's key is dropped at once. Its certificate ([`Tls::authority_pem`]) is sent with that of the server.
    ///
    /// # Errors
    /// [`Error::Tls`] if a name is neither a DNS name nor an IP address.
    pub fn self_signed(names: &[String], client_ca: Option<&[u8]>) -> Result<Self, Error> {
        let names = Names::parse(names)?;
        let now = OffsetDateTime::now_utc();
        let authority = Authority::generate(&names, now)?;
        let key = KeyPair::generate().map_err(|error| Error::Tls(format!("cannot create a private key: {error}")))?;
        let certificate = authority.issue(&names, &key, now)?;
        Self::issued(certificate, authority.certificate().clone(), &key, &names, client_ca)
    }

    /// Combines a certificate that was created here with the authority that signed it. The server sends both.
    ///
    /// A legacy device that allows self-signed certificates accepts a chain that contains its self-signed authority
    /// (OpenSSL's error 19). It refuses a chain without it (20): docs/protocol.md 3.11.
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

    /// The certificate that a client has to trust, as PEM; `None` if the certificate was not created here.
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| &*authority.pem)
    }

    /// The SHA-256 fingerprint of the certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The SHA-256 fingerprint of the authority; `None` if the certificate was not created here.
    pub fn authority_fingerprint(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| &*authority.fingerprint)
    }

    /// The names of a certificate that was created here; otherwise empty.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether peers need a client certificate.
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// The configuration for rustls.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// The subject of a certificate as text, for example `CN=alice, O=lab`. `None` if the certificate cannot be parsed.
pub fn subject_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.subject().to_string())
}

fn read_chain(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Tls(format!("{what} is not valid PEM: {error}")))?;
    if chain.is_empty() {
        return Err(Error::Tls(format!("there is no certificate (-----BEGIN CERTIFICATE-----) in the PEM of {what}")));
    }
    Ok(chain)
}

/// Creates the verifier of client certificates. Without `client_ca` it requests none.
fn verifier(client_ca: Option<&[u8]>, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let Some(pem) = client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(pem, "the authority of clients")? {
        let fail = |error| Error::Tls(format!("the authority of clients cannot be used: {error}"));
        roots.add(certificate).map_err(fail)?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    built.map_err(|error| Error::Tls(format!("the authority of clients cannot be used: {error}")))
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, Error> {
    // The provider is passed, not installed for the process: other users of rustls in it may want another one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(client_ca, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                Error::Tls("the certificate and the private key do not belong together".into())
            }
            error => Error::Tls(format!("the certificate or the private key cannot be used: {error}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // No session tickets. Connections are long, so resumption saves little. The server would send tickets right after
    // the handshake, while a client writes its request. CPython before 3.13 lets two threads read and write one TLS
    // connection without a lock, so a `websockets.sync` client would sometimes hang.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
