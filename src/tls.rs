//! Certificates and keys, ready for rustls (ring). Makes them, or reads them; does no handshake.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::error::Error;

/// A server's certificate and key. Cheap to clone; the key is never printed.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    authority: Option<Arc<str>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("self_signed", &self.authority.is_some()).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads a certificate chain (leaf first) and its private key (PKCS#8, PKCS#1 or SEC1), all PEM.
    ///
    /// # Errors
    /// [`Error::Tls`] where either can not be read, or the two do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Tls(format!("the certificate is no valid PEM: {error}")))?;
        if chain.is_empty() {
            return Err(Error::Tls("there is no certificate (-----BEGIN CERTIFICATE-----) in the PEM".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| Error::Tls(format!("the private key is no valid PEM: {error}")))?;
        Ok(Self { config: server_config(chain, key)?, authority: None })
    }

    /// Makes a certificate for these DNS names and IP addresses, signed by an authority of its own, of which only the
    /// certificate is kept: [`Tls::authority_pem`].
    ///
    /// # Errors
    /// [`Error::Tls`] where a name is neither a DNS name nor an address.
    pub fn self_signed(names: &[String]) -> Result<Self, Error> {
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
        Ok(Self { config: server_config(vec![leaf.der().clone()], key)?, authority: Some(authority_pem.into()) })
    }

    /// The certificate a client has to trust, as PEM; `None` where certificate and key came from outside.
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority.as_deref()
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

fn server_config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ServerConfig>, Error> {
    // The provider is named, not installed: the process belongs to somebody else.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
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
