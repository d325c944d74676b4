//! The certificate of this node, and the TLS of connections between nodes.
//!
//! Each start makes a certificate. Its fingerprint stands in the record of the node, and no other authority counts. A
//! handshake takes any certificate whose holder has its key, since rustls verifies without waiting: [`super::routes`] and
//! [`super::client`] compare the fingerprint before the first request.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{Resumption, TicketRequest};
use rustls::crypto::ring::Ticketer;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, ServerConfig, SignatureScheme,
};

use super::tickets::Tickets;
use crate::config::certificates::fingerprint;
use crate::config::error::Error;
use crate::config::upstream::AnyCertificate;

/// The name in the certificates of nodes. Their fingerprints tell them apart.
const NAME: &str = "node.cuttlefish-signaling.invalid";

/// The most tickets that one handshake gives to the node that asks for them (RFC 9149).
const MAX_TICKETS: u8 = 64;

/// The certificate and the key of this node.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    /// Makes a certificate.
    ///
    /// # Errors
    /// [`Error::Tls`] if the system provides no random numbers.
    pub(super) fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let params = CertificateParams::new([NAME.to_owned()]).map_err(|error| failed(&error))?;
        let certificate = params.self_signed(&key).map_err(|error| failed(&error))?.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| Error::Tls(error.into()))?;
        Ok(Self { certificate, key, provider: Arc::new(ring::default_provider()) })
    }

    /// The fingerprint of the certificate.
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// TLS of the listener. Tickets hold the certificate of the caller, and need no memory here.
    ///
    /// # Errors
    /// [`Error::Tls`] if the system provides no random numbers.
    pub(super) fn server(&self) -> Result<Arc<ServerConfig>, Error> {
        let verifier = Arc::new(AnyHolder(Arc::clone(&self.provider)));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map(|builder| builder.with_client_cert_verifier(verifier))
            .and_then(|builder| builder.with_single_cert(vec![self.certificate.clone()], self.key.clone_key()))
            .map_err(|error| failed(&error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = Ticketer::new().map_err(|error| failed(&error))?;
        config.max_tls13_tickets = usize::from(MAX_TICKETS);
        Ok(Arc::new(config))
    }

    /// TLS of connections to one other node. Each node has its own, so that its tickets go to no other.
    ///
    /// A ticket is for one connection. The first handshake asks for as many as connections are made at a time, and each
    /// further one for another in the place of its own.
    ///
    /// # Errors
    /// [`Error::Tls`] if the certificate cannot be used.
    pub(super) fn client(&self, max_dials: usize) -> Result<Arc<ClientConfig>, Error> {
        let verifier = Arc::new(AnyCertificate(Arc::clone(&self.provider)));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])
            .map(|builder| builder.dangerous().with_custom_certificate_verifier(verifier))
            .and_then(|builder| builder.with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key()))
            .map_err(|error| failed(&error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::store(Arc::new(Tickets::new(max_dials)));
        let new_session_count = u8::try_from(max_dials).unwrap_or(u8::MAX).min(MAX_TICKETS);
        config.send_ticket_request = Some(TicketRequest { new_session_count, resumption_count: 1 });
        Ok(Arc::new(config))
    }
}

/// The name that tickets of a node are kept under.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()))
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::Tls(format!("cannot make the certificate of this node: {error}"))
}

/// Accepts every certificate of a node that calls. The signatures of the handshake are checked.
#[derive(Debug)]
struct AnyHolder(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyHolder {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
