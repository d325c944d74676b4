//! Devices that dial at once over TLS, as they do when their server has started again.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::options::Options;
use crate::peer::Peer;
use crate::scenarios::Figures;
use crate::system::server_time;

/// Lets `idle` devices dial at once. The figures end when the last one is registered.
pub async fn storm(options: &Options) -> Figures {
    let connector = TlsConnector::from(Arc::new(trusting(&fs::read(&options.ca).unwrap())));
    let port = options.port;
    let (began, cpu, mut dialing) = (Instant::now(), server_time(options), JoinSet::new());
    for number in 0..options.idle {
        let connector = connector.clone();
        dialing.spawn(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
            Peer::upgrade(stream, port, "/register_device").await.register(&format!("device-{number}")).await
        });
    }
    let held = dialing.join_all().await;
    let (took, cpu) = (began.elapsed().as_secs_f64(), server_time(options).saturating_sub(cpu).as_secs_f64());
    let devices = held.len() as f64;
    vec![("devices_per_second", devices / took), ("cpu_us_per_device", cpu * 1e6 / devices), ("seconds", took)]
}

/// The settings of a client that trusts this certificate. Nothing is resumed: a server that has started again knows no
/// earlier session.
fn trusting(ca: &[u8]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config
}
