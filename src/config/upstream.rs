//! The server behind a proxy: its URL, and the TLS that is spoken to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::allowances::Authority;
use crate::config::error::ConfigError;

/// The schemes of URLs: whether they mean TLS, and their default ports.
const SCHEMES: [(&str, bool, u16); 4] =
    [("ws", false, 80), ("http", false, 80), ("wss", true, 443), ("https", true, 443)];

/// The forms of URLs, for errors.
const FORMS: &str =
    "write ws://HOST:PORT or wss://HOST:PORT, with a path where the server has one in front of its endpoints";

/// The server behind a proxy.
#[derive(Clone)]
pub struct Upstream {
    /// The host name or address. An IPv6 address has no brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path in front of all endpoints, without a slash at its end; mostly empty.
    pub path: String,
    /// The value of `Host`: without a default port.
    pub authority: String,
    /// TLS; `None` for plain text.
    pub tls: Option<UpstreamTls>,
    /// The time for a connection to it, and for its answer to an upgrade. 10 s: a real device hangs up then.
    pub timeout: Duration,
}

/// The TLS that is spoken to the server.
#[derive(Clone)]
pub struct UpstreamTls {
    /// The name that the certificate has to have.
    pub name: ServerName<'static>,
    /// The configuration for rustls.
    pub config: Arc<ClientConfig>,
    /// The authorities, PEM; `None` for those of the system.
    ca: Option<Vec<u8>>,
    /// Whether any certificate will do.
    is_insecure: bool,
}

impl Upstream {
    /// Reads the settings. `ca` is PEM; without it, the authorities of the system count.
    ///
    /// # Errors
    /// [`ConfigError`], which names the setting.
    pub fn new(url: &str, ca: Option<Vec<u8>>, is_insecure: bool) -> Result<Self, ConfigError> {
        let (is_tls, authority, path) = parse(url).map_err(|why| ConfigError::new("upstream", why))?;
        if !is_tls && (ca.is_some() || is_insecure) {
            let setting = if is_insecure { "Upstream.insecure" } else { "Upstream.ca" };
            return Err(ConfigError::new(setting, "needs an upstream with TLS: wss://HOST:PORT"));
        }
        let default = default_port(is_tls);
        let port = authority.port.unwrap_or(default);
        let shown = if port == default { authority.host.clone() } else { format!("{}:{port}", authority.host) };
        let host = authority.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = is_tls.then(|| UpstreamTls::new(&host, ca, is_insecure)).transpose()?;
        Ok(Self { host, port, path: path.to_owned(), authority: shown, tls, timeout: Duration::from_secs(10) })
    }

    /// The origin of the server's own pages.
    pub fn origin(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }
}

/// Splits a URL into TLS or not, authority and path.
fn parse(url: &str) -> Result<(bool, Authority, &str), String> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url:?} has no scheme: {FORMS}"))?;
    let known = SCHEMES.iter().find(|(known, ..)| scheme.eq_ignore_ascii_case(known));
    let (_, is_tls, _) = known.ok_or_else(|| format!("{url:?} has an unknown scheme: {FORMS}"))?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err("has a user or a password, which is not sent: a peer sends its own Authorization".into());
    }
    if rest.contains(['?', '#']) {
        return Err(format!("{url:?} has a query, which belongs to each request: {FORMS}"));
    }
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&c);
    let authority = Authority::parse(authority).filter(|authority| authority.port != Some(0));
    match authority {
        Some(authority) if path.bytes().all(plain) => Ok((*is_tls, authority, path.trim_end_matches('/'))),
        _ => Err(format!("{url:?} is no URL: {FORMS}")),
    }
}

fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

impl UpstreamTls {
    fn new(host: &str, ca: Option<Vec<u8>>, is_insecure: bool) -> Result<Self, ConfigError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ConfigError::new("upstream", format!("{host:?} is no name that a certificate can have")))?;
        // The provider is passed, not installed for the process: other users of rustls in it may want another one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::new("upstream", error.to_string()))?;
        let builder = if is_insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(roots(ca.as_deref())?)
        };
        let mut config = builder.with_no_client_auth();
        // WebSocket upgrades need HTTP/1.1. A server that speaks HTTP/2 only says so in the handshake.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { name, config: Arc::new(config), ca, is_insecure })
    }
}

/// The authorities that are trusted.
fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = ca else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
            let what = format!("the system has no certificate authorities; set Upstream.ca {why}");
            return Err(ConfigError::new("upstream", what.trim_end()));
        }
        return Ok(roots);
    };
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| ConfigError::new("Upstream.ca", format!("is no PEM: {error}")))?;
        roots.add(certificate).map_err(|error| ConfigError::new("Upstream.ca", error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(ConfigError::new("Upstream.ca", "has no certificate in PEM"));
    }
    Ok(roots)
}

/// Accepts every certificate of a server. The signatures of the handshake are checked.
#[derive(Debug)]
pub(crate) struct AnyCertificate(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl PartialEq for Upstream {
    fn eq(&self, other: &Self) -> bool {
        let tls = |it: &Self| it.tls.as_ref().map(|tls| (tls.ca.clone(), tls.is_insecure));
        self.to_string() == other.to_string() && self.timeout == other.timeout && tls(self) == tls(other)
    }
}

/// Formats it as a URL, for people.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({self})")
    }
}
