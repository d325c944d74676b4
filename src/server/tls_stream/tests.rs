//! The stream beside the client of tokio-rustls, over a pipe in memory.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::*;
use crate::config::tls::Tls;

type Pair<S = DuplexStream> = (ClientStream<DuplexStream>, TlsStream<S>);

/// A pipe that reads and writes one byte at a time.
struct ByteByByte(DuplexStream);

impl AsyncRead for ByteByByte {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut one = [0];
        let mut room = ReadBuf::new(&mut one);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut room))?;
        buffer.put_slice(room.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteByByte {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..1])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn connector(tls: &Tls, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(tls.authority_pem().unwrap().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A connection over a pipe that holds this many bytes.
async fn pair(version: &'static SupportedProtocolVersion, pipe: usize) -> Pair {
    pair_over(version, pipe, |far| far).await
}

async fn pair_over<S: AsyncRead + AsyncWrite + Unpin>(
    version: &'static SupportedProtocolVersion,
    pipe: usize,
    over: impl FnOnce(DuplexStream) -> S,
) -> Pair<S> {
    let tls = Tls::self_signed(&["localhost".into()], None).unwrap();
    let (near, far) = duplex(pipe);
    let connector = connector(&tls, version);
    let dialed = connector.connect(ServerName::try_from("localhost").unwrap(), near);
    let (client, server) = tokio::join!(dialed, TlsStream::accept(tls.server_config(), over(far)));
    (client.unwrap(), server.unwrap())
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Sends bytes both ways at once, and reads the server's in pieces of `piece`.
async fn exchange<S>((client, server): Pair<S>, count: usize, piece: usize) -> Pair<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sent, (mut from_server, mut to_server)) = (bytes(count), split(client));
    let (mut from_client, mut to_client) = split(server);
    let written = async {
        let both = tokio::join!(to_server.write_all(&sent), to_client.write_all(&sent));
        both.0.unwrap();
        both.1.unwrap();
        let flushed = tokio::join!(to_server.flush(), to_client.flush());
        flushed.0.unwrap();
        flushed.1.unwrap();
    };
    let read = async {
        let (mut at_client, mut at_server) = (vec![0; count], Vec::new());
        let server_reads = async {
            let mut room = vec![0; piece];
            while at_server.len() < count {
                let read = from_client.read(&mut room).await.unwrap();
                assert!(read > 0, "the input has ended after {} bytes", at_server.len());
                at_server.extend_from_slice(&room[..read]);
            }
        };
        tokio::join!(server_reads, async { from_server.read_exact(&mut at_client).await.unwrap() });
        assert!(at_client == sent && at_server == sent, "other bytes came than were sent");
    };
    tokio::join!(written, read);
    (from_server.unsplit(to_server), from_client.unsplit(to_client))
}

#[test]
fn bytes_come_through_in_any_pieces() {
    block_on(async {
        for version in [&TLS12, &TLS13] {
            for (pipe, count, piece) in [(4096, 70_000, 1), (4096, 5_000, 100), (1 << 20, 300_000, 1 << 17)] {
                exchange(pair(version, pipe).await, count, piece).await;
            }
        }
    });
}

#[test]
fn bytes_come_through_one_by_one() {
    block_on(async {
        for version in [&TLS12, &TLS13] {
            exchange(pair_over(version, 4096, ByteByByte).await, 3_000, 50).await;
        }
    });
}

#[test]
fn connection_at_rest_keeps_no_buffer() {
    block_on(async {
        for version in [&TLS12, &TLS13] {
            // Records come in parts, the reader has no room for a whole one, and neither has the pipe.
            let (_client, server) = exchange(pair(version, 4096).await, 40_000, 100).await;
            let kept =
                server.incoming.capacity() + server.plaintext.bytes.capacity() + server.outgoing.bytes.capacity();
            assert_eq!(kept, 0, "{version:?}");
        }
    });
}

#[test]
fn key_updates_are_answered() {
    block_on(async {
        let mut both = pair(&TLS13, 1 << 16).await;
        for _ in 0..3 {
            both.0.get_mut().1.refresh_traffic_keys().unwrap();
            both = exchange(both, 1_000, 64).await;
        }
    });
}

#[test]
fn end_without_close_notify_is_an_error() {
    block_on(async {
        let (mut client, mut server) = pair(&TLS13, 1 << 16).await;
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        let (client, mut server) = pair(&TLS13, 1 << 16).await;
        drop(client);
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn shutdown_sends_close_notify_behind_all_else() {
    block_on(async {
        let (mut client, mut server) = pair(&TLS13, 64).await;
        let sent = bytes(10_000);
        let mut got = Vec::new();
        let closes = async {
            server.write_all(&sent).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(closes, client.read_to_end(&mut got));
        assert_eq!(read.unwrap(), sent.len());
    });
}

#[test]
fn input_that_is_not_tls_is_answered_with_an_alert() {
    block_on(async {
        let tls = Tls::self_signed(&["localhost".into()], None).unwrap();
        let (mut near, far) = duplex(1 << 16);
        near.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let Err(error) = TlsStream::accept(tls.server_config(), far).await else { panic!("a handshake") };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.first(), Some(&0x15), "{answer:x?}");
    });
}

#[test]
fn record_that_was_changed_on_the_way_ends_the_connection() {
    block_on(async {
        let (mut client, mut server) = pair(&TLS13, 1 << 16).await;
        // A record of application data that no key has made.
        let (pipe, _) = client.get_mut();
        pipe.write_all(&[&[0x17, 3, 3, 0, 40][..], &[7; 40]].concat()).await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(client.read(&mut [0; 8]).await.unwrap_err().to_string().contains("BadRecordMac"));
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(server.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        server.shutdown().await.unwrap();
    });
}

#[test]
fn handshake_that_breaks_off_is_an_error() {
    block_on(async {
        let tls = Tls::self_signed(&["localhost".into()], None).unwrap();
        let (mut near, far) = duplex(1 << 16);
        near.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
        drop(near);
        let Err(error) = TlsStream::accept(tls.server_config(), far).await else { panic!("a handshake") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}
