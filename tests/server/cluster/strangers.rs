//! Requests to the listener for nodes that are not those of a living node, or not for this one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::certificates::fingerprint;
use cuttlefish_signaling::core::cluster::Incarnation;
use cuttlefish_signaling::core::cluster::registry::{NodeRecord, Timing};
use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::protocol::DeviceId;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::memory::Memory;
use super::pairs::metric;
use super::{Nodes, settings, start, timing, until};
use crate::dial::{Dialed, Received, block_on, with_timeout};

/// Takes any certificate.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        panic!("nodes speak TLS 1.3 alone")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &ring::default_provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A program with a certificate.
pub struct Program {
    tls: TlsConnector,
    fingerprint: String,
}

impl Program {
    pub fn new(shows_certificate: bool) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["stranger".into()]).unwrap().self_signed(&key).unwrap().der().clone();
        let fingerprint = fingerprint(&certificate);
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone));
        let config = if shows_certificate {
            builder
                .with_client_auth_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        Self { tls: TlsConnector::from(Arc::new(config)), fingerprint }
    }

    /// Makes the program a node of the cluster.
    pub fn joins(&self, engine: &Memory) {
        let details = format!(r#"{{"address":"127.0.0.1:1","fingerprint":"{}","protocol":1}}"#, self.fingerprint);
        engine.joins(NodeRecord { incarnation: Incarnation::new("z", 1).unwrap(), details: details.into() });
    }

    /// Connects to a node.
    pub async fn connects(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        self.tls.connect(ServerName::try_from("node").unwrap(), stream).await.unwrap()
    }

    /// The answer to a request; empty if there is none.
    async fn asks(&self, address: SocketAddr, request: &str, headers: &str) -> String {
        let ask = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let mut stream = self.tls.connect(ServerName::try_from("node").unwrap(), stream).await.ok()?;
            let text = format!("{request} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n{headers}\r\n");
            stream.write_all(text.as_bytes()).await.ok()?;
            let mut answer = Vec::new();
            // A server that refuses the certificate resets the connection.
            let _ended = stream.read_to_end(&mut answer).await;
            Some(String::from_utf8_lossy(&answer).into_owned())
        };
        with_timeout("the answer", ask).await.unwrap_or_default()
    }
}

pub const VERSION: &str = "x-cuttlefish-cluster: 1\r\n";
pub const UPGRADE: &str = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn only_a_certificate_of_a_living_node_is_answered() {
    block_on(async {
        let nodes = Nodes::start(1, Config::default()).await;
        let address = nodes.nodes[0].node_address().unwrap();
        let device = Dialed::device(nodes.address(0), "cvd-1").await;
        let stranger = Program::new(true);
        for request in [
            "GET /cluster/hello",
            "GET /cluster/clients",
            "GET /cluster/devices/cvd-1",
            "DELETE /cluster/devices/cvd-1",
            "GET /devices",
        ] {
            let answer = stranger.asks(address, request, VERSION).await;
            assert_eq!(status(&answer), "403", "{request}: {answer}");
        }
        assert_eq!(Program::new(false).asks(address, "GET /cluster/hello", VERSION).await, "", "without a certificate");
        stranger.joins(&nodes.engine);
        let answer = stranger.asks(address, "GET /cluster/hello", VERSION).await;
        assert_eq!(status(&answer), "200", "{answer}");
        assert!(answer.contains(r#""node":"a""#) && answer.contains(r#""engine":true"#), "{answer}");
        assert_eq!(status(&stranger.asks(address, "GET /devices", VERSION).await), "404", "the routes of peers");
        drop(device);
    });
}

#[test]
fn stranger_costs_the_engine_few_reads() {
    block_on(async {
        let nodes = Nodes::start(1, Config::default()).await;
        let (address, stranger) = (nodes.nodes[0].node_address().unwrap(), Program::new(true));
        let before = nodes.engine.node_reads();
        let asks = (0..40).map(|_| stranger.asks(address, "GET /cluster/hello", VERSION));
        let answers = futures_util::future::join_all(asks).await;
        assert!(answers.iter().all(|answer| status(answer) == "403"));
        let reads = nodes.engine.node_reads() - before;
        assert!(reads < 20, "{reads} reads for 40 requests");
    });
}

#[test]
fn request_for_another_start_or_version_is_refused_and_names_both() {
    block_on(async {
        let nodes = Nodes::start(1, Config::default()).await;
        let address = nodes.nodes[0].node_address().unwrap();
        let node = Program::new(true);
        node.joins(&nodes.engine);
        let other = "x-cuttlefish-cluster: 1\r\nx-cuttlefish-incarnation: a.0000000000000001\r\n";
        let answer = node.asks(address, "GET /cluster/hello", other).await;
        assert!(status(&answer) == "409" && answer.contains("This node is a."), "{answer}");
        for version in ["x-cuttlefish-cluster: 2\r\n", ""] {
            let answer = node.asks(address, "GET /cluster/hello", version).await;
            assert!(status(&answer) == "400" && answer.contains("version 1"), "{answer}");
            assert!(answer.contains(if version.is_empty() { "none" } else { "2" }), "{answer}");
        }
    });
}

#[test]
fn client_of_a_node_needs_a_control_connection_and_valid_facts() {
    block_on(async {
        let nodes = Nodes::start(1, Config::default()).await;
        let address = nodes.nodes[0].node_address().unwrap();
        let _device = Dialed::device(nodes.address(0), "cvd-1").await;
        let node = Program::new(true);
        node.joins(&nodes.engine);
        let headers = format!("{VERSION}{UPGRADE}x-cuttlefish-client: {{}}\r\n");
        let path = "GET /cluster/devices/cvd-1/connect";
        assert_eq!(status(&node.asks(address, path, &headers).await), "428");
        for probe in ["", "?registration=a", "?registration=a.0000000000000001/1"] {
            let answer = node.asks(address, &format!("POST /cluster/devices/cvd-1/probe{probe}"), VERSION).await;
            let expected = if probe.len() > 20 { ("200", "gone") } else { ("400", "registration") };
            assert!(status(&answer) == expected.0 && answer.contains(expected.1), "{answer}");
        }
        assert_eq!(nodes.nodes[0].hub().client_count(), 0);
    });
}

#[test]
fn node_whose_name_a_living_node_has_stays_out_and_harms_nobody() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let device = Dialed::device(nodes.address(0), "cvd-1").await;
        let second = start(&nodes.engine, settings("a", Config::default()));
        let joins = nodes.engine.joins_of("a");
        until(|| nodes.engine.joins_of("a") >= joins + 3).await;
        assert!(!second.is_member());
        assert_eq!(nodes.engine.node_names(), ["a", "b"]);
        assert_eq!(nodes.engine.holder("cvd-1").as_deref(), Some("a"));
        drop(Dialed::client(nodes.address(1), "cvd-1").await);
        // Its name is free once the first one has left.
        drop(device);
        nodes.nodes[0].stop(Duration::from_secs(2)).await;
        until(|| second.is_member()).await;
    });
}

#[test]
fn node_that_starts_again_at_its_address_takes_its_name_at_once() {
    block_on(async {
        // The test fails long before this lease ends.
        let timing = Timing { lease: Duration::from_secs(3600), ..timing() };
        let engine = Memory::new(timing.clone());
        let mut config = settings("a", Config::default());
        config.cluster.as_mut().unwrap().timing = timing;
        let first = super::Killable::start_with(&engine, config.clone());
        until(|| engine.node_names() == ["a"]).await;
        let listen = first.node_address;
        first.kill_and_wait();
        config.cluster.as_mut().unwrap().listen = listen;
        let again = start(&engine, config);
        until(|| again.is_member()).await;
    });
}

/// Opens a WebSocket to a node, as a node does.
async fn upgraded(node: &Program, address: SocketAddr, path: &str, headers: &str) -> TlsStream<TcpStream> {
    let mut stream = node.connects(address).await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\n{VERSION}{UPGRADE}{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    with_timeout("the upgrade", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

#[test]
fn node_that_sends_garbage_is_cut_and_counted_and_pairs_of_others_go_on() {
    block_on(async {
        let nodes = Nodes::start(2, Config::default()).await;
        let address = nodes.nodes[0].node_address().unwrap();
        let mut device = Dialed::device(nodes.address(0), "cvd-1").await;
        until(|| nodes.nodes[1].node_of(&DeviceId::new("cvd-1")).is_some()).await;
        let mut client = Dialed::client(nodes.address(1), "cvd-1").await;
        let hostile = Program::new(true);
        hostile.joins(&nodes.engine);
        let facts = format!("x-cuttlefish-client: {}\r\n", "{}");
        let garbage: [&[u8]; 3] = [&[0xff; 64], &[0x81, 0x05, b'h', b'e', b'l', b'l', b'o'], &[0x00; 4096]];
        let misbehaved = || nodes.nodes[0].incidents().of(Incident::Misbehaved);
        let before = misbehaved();
        for (count, bytes) in (1..).zip(garbage) {
            let _control = upgraded(&hostile, address, "/cluster/control", "").await;
            let mut stream = upgraded(&hostile, address, "/cluster/devices/cvd-1/connect", &facts).await;
            stream.write_all(bytes).await.unwrap();
            // It is cut, whatever it was told before.
            let _cut = with_timeout("the end", stream.read_to_end(&mut Vec::new())).await;
            until(|| misbehaved() == before + count).await;
        }
        until(|| nodes.nodes[0].hub().client_count() == 1).await;
        client.says(r#"{"message_type":"forward","payload":1}"#).await;
        loop {
            // It may have seen the clients of the other node come and go.
            let Received::Text(text) = device.next().await else { panic!("the device is gone") };
            if text == r#"{"message_type":"client_msg","client_id":1,"payload":1}"# {
                break;
            }
            assert!(text.starts_with(r#"{"message_type":"client_disconnected","client_id":"#), "{text}");
        }
    });
}

#[test]
fn refused_requests_are_counted_by_status() {
    block_on(async {
        let nodes = Nodes::start(1, Config::default()).await;
        let address = nodes.nodes[0].node_address().unwrap();
        let (stranger, node) = (Program::new(true), Program::new(true));
        node.joins(&nodes.engine);
        let another = format!("{VERSION}x-cuttlefish-incarnation: a.0000000000000001\r\n");
        let connect = "GET /cluster/devices/cvd-1/connect";
        for (program, request, headers, expected) in [
            (&stranger, "GET /cluster/hello", VERSION, "403"),
            (&stranger, "GET /cluster/hello", "", "400"),
            (&node, "GET /cluster/hello", &*another, "409"),
            (&node, connect, VERSION, "428"),
        ] {
            let counted = format!("requests_refused_total{{status=\"{expected}\"}}");
            let before = metric(nodes.address(0), &counted).await;
            let answer = program.asks(address, request, headers).await;
            assert_eq!(status(&answer), expected, "{answer}");
            let counts = metric(nodes.address(0), &counted).await - before;
            assert!((counts - 1.0).abs() < f64::EPSILON, "{counts} of {expected}");
        }
        // An answer that refuses nothing counts nowhere.
        node.asks(address, "GET /cluster/devices/none", VERSION).await;
        let mut sum = 0.0;
        for status in ["400", "403", "409", "428", "503"] {
            sum += metric(nodes.address(0), &format!("requests_refused_total{{status=\"{status}\"}}")).await;
        }
        assert!((sum - 4.0).abs() < f64::EPSILON, "{sum}");
    });
}
