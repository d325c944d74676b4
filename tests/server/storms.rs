//! Storms: many honest devices dial at once, and slow peers beside honest ones. The tests count, and measure no time.

use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::config::listen::Listen;
use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::{Config, Limits, Running, Tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::dial::{block_on, serve, with_timeout};
use crate::raw_peer::{RawPeer, TEXT, text};

/// Longer than any test: a timeout that must not be the reason of an outcome.
const LONG: Duration = Duration::from_secs(3600);

/// Limits with few opening connections, of which none is ever silent.
fn few_opening(max_opening: usize) -> Limits {
    Limits {
        max_opening,
        opening_silence: LONG,
        tls_handshake_timeout: LONG,
        request_head_timeout: LONG,
        first_message_timeout: Some(LONG),
        ..Limits::default()
    }
}

/// Allows this process as many descriptors as the system permits.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// The settings of clients that trust the server's certificate.
fn trusting(tls: &Tls) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(tls.authority_pem().unwrap().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// The first flight of a TLS handshake.
fn client_hello(trust: &Arc<ClientConfig>) -> Vec<u8> {
    let (mut hello, mut client) = (Vec::new(), ClientConnection::new(Arc::clone(trust), localhost()).unwrap());
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Registers a device on a stream, and waits for its `config`.
async fn register<S: AsyncRead + AsyncWrite + Unpin>(stream: S, id: usize) -> RawPeer<S> {
    let mut device = RawPeer::open(stream, "/register_device").await;
    device.send(&text(&format!(r#"{{"message_type":"register","device_id":"{id}"}}"#))).await;
    assert_eq!(device.next().await, (TEXT, br#"{"message_type":"config","ice_servers":[]}"#.to_vec()));
    device
}

async fn dial_tls(server: &Running, trust: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(server.local_addr()).await.unwrap();
    with_timeout("a handshake", TlsConnector::from(Arc::clone(trust)).connect(localhost(), stream)).await.unwrap()
}

/// Lets this many devices register at once, and checks that none was cut off.
async fn all_register(server: &Arc<Running>, trust: Option<&Arc<ClientConfig>>, devices: usize) {
    let mut dialing = JoinSet::new();
    for id in 0..devices {
        let (server, trust) = (Arc::clone(server), trust.cloned());
        dialing.spawn(async move {
            if let Some(trust) = trust {
                let stream = TcpStream::connect(server.local_addr()).await.unwrap();
                let stream = TlsConnector::from(trust).connect(localhost(), stream).await.unwrap();
                Box::new(register(stream, id).await) as Box<dyn std::any::Any + Send>
            } else {
                Box::new(register(TcpStream::connect(server.local_addr()).await.unwrap(), id).await)
            }
        });
    }
    let held = dialing.join_all().await;
    assert_eq!((held.len(), server.hub().device_count()), (devices, devices));
    assert_eq!(server.incidents().of(Incident::OpeningCut), 0);
    assert_eq!(server.incidents().of(Incident::TurnedAway), 0);
}

#[test]
fn storm_of_1500_honest_devices_loses_none() {
    raise_descriptor_limit();
    block_on(async {
        let server = serve(Config { limits: few_opening(50), ..Config::default() });
        all_register(&server, None, 1500).await;
    });
}

#[test]
fn storm_of_honest_devices_over_tls_loses_none() {
    raise_descriptor_limit();
    block_on(async {
        let tls = Tls::self_signed(&["localhost".into()], None).unwrap();
        let (trust, limits) = (trusting(&tls), Limits { max_handshakes: 4, ..few_opening(50) });
        let server = serve(Config { limits, tls: Some(tls), ..Config::default() });
        all_register(&server, Some(&trust), 300).await;
    });
}

#[test]
fn honest_devices_get_in_beside_slow_handshakes() {
    raise_descriptor_limit();
    block_on(async {
        let tls = Tls::self_signed(&["localhost".into()], None).unwrap();
        let trust = trusting(&tls);
        let limits = Limits {
            opening_silence: Duration::from_millis(50),
            max_handshakes: 2,
            handshake_turn: Duration::from_millis(5),
            ..few_opening(50)
        };
        let server = serve(Config { limits, tls: Some(tls), ..Config::default() });
        let (hello, mut slow) = (client_hello(&trust), Vec::new());
        // Nothing, half of the first flight, or all of it.
        for number in 0..400 {
            let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
            stream.write_all(&hello[..hello.len() * (number % 3) / 2]).await.unwrap();
            slow.push(stream);
        }
        let honest = register(dial_tls(&server, &trust).await, 1).await;
        assert_eq!(server.hub().device_count(), 1);
        // All but those that still have a place were cut off, and the honest one was not.
        assert!((350..=400).contains(&server.incidents().of(Incident::OpeningCut)));
        drop((honest, slow));
    });
}

#[test]
fn storm_over_tcp_takes_no_place_from_unix_sockets() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("http");
        let listen =
            vec![Listen::Http("127.0.0.1:0".parse().unwrap()), Listen::Unix { path: path.clone(), mode: 0o700 }];
        let limits = Limits { max_connections: 2, new_per_second: 1, ..few_opening(1) };
        let server = serve(Config { limits, listen, ..Config::default() });
        let _opening = TcpStream::connect(server.local_addr()).await.unwrap();
        let _waiting = TcpStream::connect(server.local_addr()).await.unwrap();
        let _device = register(UnixStream::connect(path).await.unwrap(), 1).await;
        assert_eq!(server.incidents().of(Incident::TurnedAway), 0);
    });
}

#[test]
fn handshakes_have_their_turn_in_the_order_of_arrival() {
    block_on(async {
        let tls = Tls::self_signed(&["localhost".into()], None).unwrap();
        let trust = trusting(&tls);
        let limits = Limits { max_handshakes: 1, handshake_turn: LONG, ..few_opening(50) };
        let server = serve(Config { limits, tls: Some(tls), ..Config::default() });
        let hello = client_hello(&trust);
        let mut first = TcpStream::connect(server.local_addr()).await.unwrap();
        first.write_all(&hello[..hello.len() / 2]).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
            stream.write_all(&hello).await.unwrap();
            waiting.push(stream);
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(first);
        // Each one sends no more than its first flight, so it keeps its turn until it is gone.
        while !waiting.is_empty() {
            with_timeout("a turn", waiting[0].readable()).await.unwrap();
            let answered: Vec<_> = waiting.iter().map(|stream| stream.try_read(&mut [0]).is_ok()).collect();
            assert_eq!(answered.iter().filter(|&&answered| answered).count(), 1, "one at a time, the oldest first");
            drop(waiting.remove(0));
        }
    });
}
