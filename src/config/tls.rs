//! The TLS configuration of a server, for rustls with ring. The certificate is read from PEM or created here.
//!
//! No I/O and no handshake. [`super::renewal`] reads files again.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use time::OffsetDateTime;

use crate::config::certificates::{self, Authority, Facts, Names};
use crate::config::error::Error;

/// Names of certificate, key and authorities of clients in errors.
const IN_MEMORY: [&str; 3] = ["the certificate", "the private key", "the authority of clients"];

/// The certificate and key of a server. Clones share them, and a renewal replaces them in all clones. `Debug` omits the
/// key.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    source: Source,
    /// The names of a certificate that was created here; otherwise empty.
    names: Vec<String>,
    /// The authorities of clients, PEM, if peers need a certificate.
    client_ca: Option<Vec<u8>>,
    loaded: RwLock<Arc<Loaded>>,
}

/// Where a renewed certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Nowhere: the certificate stays.
    Memory,
    /// PEM files.
    Files(TlsFiles),
    /// The state directory.
    Directory {
        /// Its path.
        path: PathBuf,
        /// The names that the certificate is for.
        names: Vec<String>,
        /// The authorities of clients, PEM.
        client_ca: Option<Vec<u8>>,
    },
}

/// The files of a certificate, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients, if peers need a certificate and a file has them.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// The names of certificate, key and authorities of clients in errors.
    pub(super) fn labels(&self) -> [String; 3] {
        let ca = self.client_ca.as_ref().map_or_else(String::new, |path| format!(" {}", path.display()));
        [
            format!("the certificate {}", self.certificate.display()),
            format!("the private key {}", self.key.display()),
            format!("the authority of clients{ca}"),
        ]
    }
}

/// The certificate that new handshakes use.
pub(super) struct Loaded {
    config: Arc<ServerConfig>,
    pub(super) fingerprint: String,
    /// The certificate that a client has to trust, PEM.
    trusted: String,
    /// The fingerprint of the authority of a certificate that was created here.
    pub(super) authority: Option<String>,
    /// The time at which the certificate expires.
    pub(super) not_after: Option<OffsetDateTime>,
    /// Identifies the certificate, its key and the authorities of clients.
    pub(super) digest: Digest,
}

/// Identifies a certificate with its key.
pub(super) type Digest = [u8; 32];

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("self_signed", &self.loaded().authority.is_some()).finish_non_exhaustive()
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
        let labels = IN_MEMORY.map(str::to_owned);
        let loaded = Loaded::from_pem(certificate, key, client_ca, &labels)?;
        Ok(Self::new(Source::Memory, Vec::new(), client_ca, loaded))
    }

    /// As [`Tls::from_pem`], for PEM that was read from these files. [`Tls::renew`] reads them again.
    ///
    /// # Errors
    /// [`Error::Tls`] as [`Tls::from_pem`].
    pub fn from_pem_of(
        files: TlsFiles,
        certificate: &[u8],
        key: &[u8],
        client_ca: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let loaded = Loaded::from_pem(certificate, key, client_ca, &files.labels())?;
        Ok(Self::new(Source::Files(files), Vec::new(), client_ca, loaded))
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
        let loaded = Loaded::issued(certificate, authority.certificate().clone(), &key, client_ca)?;
        Ok(Self::new(Source::Memory, names.to_texts(), client_ca, loaded))
    }

    pub(super) fn new(source: Source, names: Vec<String>, client_ca: Option<&[u8]>, loaded: Loaded) -> Self {
        let (client_ca, loaded) = (client_ca.map(<[u8]>::to_vec), RwLock::new(Arc::new(loaded)));
        Self(Arc::new(Inner { source, names, client_ca, loaded }))
    }

    /// The certificate that a client has to trust, as PEM: the authority of a certificate that was created here, else
    /// the chain.
    pub fn trusted_pem(&self) -> String {
        self.loaded().trusted.clone()
    }

    /// The authority of a certificate that was created here, as PEM; `None` for another one.
    pub fn authority_pem(&self) -> Option<String> {
        let loaded = self.loaded();
        loaded.authority.is_some().then(|| loaded.trusted.clone())
    }

    /// The SHA-256 fingerprint of the certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint(&self) -> String {
        self.loaded().fingerprint.clone()
    }

    /// The SHA-256 fingerprint of the authority; `None` if the certificate was not created here.
    pub fn authority_fingerprint(&self) -> Option<String> {
        self.loaded().authority.clone()
    }

    /// The time at which the current certificate ceases to be valid, in seconds since 1970. `None` if it cannot be parsed.
    pub fn expires_at(&self) -> Option<i64> {
        self.loaded().not_after.map(OffsetDateTime::unix_timestamp)
    }

    /// The names of a certificate that was created here; otherwise empty.
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    /// Whether peers need a client certificate.
    pub fn asks_clients(&self) -> bool {
        self.0.client_ca.is_some()
    }

    /// The authorities of clients as they were given, PEM.
    pub(super) fn client_ca(&self) -> Option<&[u8]> {
        self.0.client_ca.as_deref()
    }

    /// The configuration for rustls, for one handshake: a renewal replaces it.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded().config)
    }

    /// Whether it has the same certificate, key and authorities of clients, and the same source.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.source == other.0.source
            && self.0.names == other.0.names
            && self.loaded().digest == other.loaded().digest
    }

    pub(super) fn source(&self) -> &Source {
        &self.0.source
    }

    pub(super) fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.0.loaded.read())
    }

    pub(super) fn replace(&self, loaded: Loaded) {
        *self.0.loaded.write() = Arc::new(loaded);
    }
}

impl Loaded {
    /// Reads PEM. `labels` name certificate, key and the authorities of clients in errors.
    pub(super) fn from_pem(
        certificate: &[u8],
        key: &[u8],
        client_ca: Option<&[u8]>,
        labels: &[String; 3],
    ) -> Result<Self, Error> {
        let digest = digest([Some(certificate), Some(key), client_ca]);
        let chain = read_chain(certificate, &labels[0])?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| Error::Tls(format!("{} is not valid PEM: {error}", labels[1])))?;
        Ok(Self {
            fingerprint: certificates::fingerprint(&chain[0]),
            not_after: Facts::of(&chain[0]).ok().map(|facts| facts.not_after),
            trusted: chain.iter().map(certificates::to_pem).collect(),
            config: server_config(chain, key, client_ca, labels)?,
            authority: None,
            digest,
        })
    }

    /// Combines a certificate that was created here with the authority that signed it. The server sends both.
    ///
    /// A legacy device that allows self-signed certificates accepts a chain that contains its self-signed authority
    /// (OpenSSL's error 19). It refuses a chain without it (20): docs/protocol.md 3.11.
    pub(super) fn issued(
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
        key: &KeyPair,
        client_ca: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| Error::Tls(error.into()))?;
        let labels = IN_MEMORY.map(str::to_owned);
        Ok(Self {
            fingerprint: certificates::fingerprint(&certificate),
            trusted: certificates::to_pem(&authority),
            authority: Some(certificates::fingerprint(&authority)),
            not_after: Facts::of(&certificate).ok().map(|facts| facts.not_after),
            digest: digest([Some(&*certificate), Some(&*authority), Some(key.secret_der()), client_ca]),
            config: server_config(vec![certificate, authority], key, client_ca, &labels)?,
        })
    }
}

/// A digest of these parts, which tells a missing one from an empty one.
pub(super) fn digest<const N: usize>(parts: [Option<&[u8]>; N]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        context.update(&length.to_be_bytes());
        context.update(part.unwrap_or_default());
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
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
fn verifier(
    client_ca: Option<&[u8]>,
    provider: &Arc<CryptoProvider>,
    what: &str,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let Some(pem) = client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(pem, what)? {
        let fail = |error| Error::Tls(format!("{what} cannot be used: {error}"));
        roots.add(certificate).map_err(fail)?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    built.map_err(|error| Error::Tls(format!("{what} cannot be used: {error}")))
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_ca: Option<&[u8]>,
    labels: &[String; 3],
) -> Result<Arc<ServerConfig>, Error> {
    let [certificate, private, authorities] = labels;
    // The provider is passed, not installed for the process: other users of rustls in it may want another one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(client_ca, &provider, authorities)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                Error::Tls(format!("{certificate} and {private} do not belong together"))
            }
            error => Error::Tls(format!("{certificate} or {private} cannot be used: {error}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // No session tickets. Connections are long, so resumption saves little. The server would send tickets right after
    // the handshake, while a client writes its request. CPython before 3.13 lets two threads read and write one TLS
    // connection without a lock, so a `websockets.sync` client would sometimes hang.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
