//! Connections to a server: TCP or TLS, with a limit on a value that does not end.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::url::Host;

/// Most bytes without a whole value: an answer or a push that is longer ends the connection.
const MAX_VALUE: usize = 16 * 1024 * 1024;

/// The reason why a connection could not be made.
#[derive(Debug)]
pub(super) enum DialError {
    /// The name has no address.
    Name(io::Error),
    /// The server cannot be reached.
    Tcp(io::Error),
    /// The TLS handshake has failed.
    Tls(io::Error),
}

/// A byte stream in both directions.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Connects to a server, by TLS if there is a configuration for it.
pub(super) async fn dial(host: &Host, tls: Option<&Arc<ClientConfig>>) -> Result<Box<dyn ByteStream>, DialError> {
    let mut addresses = tokio::net::lookup_host((host.name.as_str(), host.port)).await.map_err(DialError::Name)?;
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut last = Err(DialError::Name(none()));
    let stream = loop {
        let Some(address) = addresses.next() else { break last? };
        match TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(error) => last = Err(DialError::Tcp(error)),
        }
    };
    stream.set_nodelay(true).map_err(DialError::Tcp)?;
    let Some(config) = tls else { return Ok(Box::new(stream)) };
    let invalid = |error| DialError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error));
    let name = ServerName::try_from(host.name.clone()).map_err(invalid)?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(DialError::Tls)?;
    Ok(Box::new(stream))
}

/// Creates the configuration of TLS to the engine, which is checked against `ca`, or else the authorities of the system.
pub(super) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let shown = path.display();
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| format!("{shown}: {error}"))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| format!("{shown}: {error}"))?;
            roots.add(certificate).map_err(|error| format!("{shown}: {error}"))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        let place = ca.map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
        return Err(format!(
            "{place} has no certificate authority in PEM: install ca-certificates, or name another file"
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// A stream that ends with an error at a value that is too long. Its reader sets `unread` to 0 at each whole value.
pub(super) struct Limited {
    inner: Box<dyn ByteStream>,
    unread: Arc<AtomicUsize>,
}

impl Limited {
    pub(super) fn new(inner: Box<dyn ByteStream>, unread: Arc<AtomicUsize>) -> Self {
        Self { inner, unread }
    }
}

impl AsyncRead for Limited {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if self.unread.fetch_add(read, Relaxed) + read > MAX_VALUE {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "an answer does not end")));
        }
        polled
    }
}

impl AsyncWrite for Limited {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
