//! The stop: every peer gets 1001, the stop takes bounded time, the port is free again.

use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::{Config, Error, Limits, NoHooks, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dial::{Dialed, Received, block_on, serve, with_timeout};

#[test]
fn stop_closes_peers_with_1001_and_frees_the_port() {
    block_on(async {
        let server = serve(Config::default());
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let idle = TcpStream::connect(address).await.unwrap();
        assert!(with_timeout("the stop", server.stop(Duration::from_secs(5))).await);
        assert_eq!(device.next().await, Received::Closed(1001));
        assert!(TcpStream::connect(address).await.is_err());
        drop(idle);
        let again = Server::bind(Config { port: address.port(), ..Config::default() }, Arc::new(NoHooks), Arc::new(()));
        assert_eq!(again.unwrap().local_addr(), address);
    });
}

#[test]
fn stop_does_not_wait_for_a_peer_without_close_frame() {
    block_on(async {
        let limits = Limits { close_timeout: Duration::from_secs(60), ..Limits::default() };
        let server = serve(Config { limits, ..Config::default() });
        let device = Dialed::device(server.local_addr(), "cvd-1").await;
        device.freeze();
        // `goodbye_timeout` ends the wait, not `close_timeout` or the deadline.
        assert!(with_timeout("the stop", server.stop(Duration::from_secs(15))).await);
        assert_eq!(server.hub().connections(), 0);
    });
}

#[test]
fn request_of_a_connection_accepted_before_the_stop_is_answered() {
    block_on(async {
        // The wait for the request ends with the request, not with `goodbye_timeout`.
        let limits = Limits { goodbye_timeout: Duration::from_secs(60), ..Limits::default() };
        let server = serve(Config { limits, ..Config::default() });
        let mut late = TcpStream::connect(server.local_addr()).await.unwrap();
        // Connections are accepted in their order.
        let _accepted = Dialed::device(server.local_addr(), "cvd-1").await;
        let stopping = Arc::clone(&server);
        let stopped = tokio::spawn(async move { stopping.stop(Duration::from_secs(15)).await });
        while TcpStream::connect(server.local_addr()).await.is_ok() {}
        late.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        with_timeout("the answer", late.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
        with_timeout("the stop", stopped).await.unwrap();
    });
}

#[test]
fn stop_drops_connections_left_at_the_deadline() {
    block_on(async {
        let minute = Duration::from_secs(60);
        let limits = Limits { close_timeout: minute, goodbye_timeout: minute, ..Limits::default() };
        let server = serve(Config { limits, ..Config::default() });
        let device = Dialed::device(server.local_addr(), "cvd-1").await;
        device.freeze();
        assert!(!with_timeout("the stop", server.stop(Duration::from_millis(100))).await, "a connection was left");
        assert_eq!(server.hub().connections(), 0);
    });
}

#[test]
fn forwards_accepted_before_stop_are_delivered() {
    block_on(async {
        let server = serve(Config::default());
        let address = server.local_addr();
        let mut device = Dialed::device(address, "cvd-1").await;
        let mut client = Dialed::client(address, "cvd-1").await;
        for _ in 0..100 {
            client.says(r#"{"message_type":"forward","payload":1}"#).await;
        }
        client.round_trip().await;
        server.stop(Duration::from_secs(5)).await;
        for _ in 0..100 {
            device.hears(r#"{"message_type":"client_msg","client_id":1,"payload":1}"#).await;
        }
        assert!(server.ledger().balances(), "{:?}", server.ledger());
        assert_eq!(server.ledger().delivered, 100);
    });
}

#[test]
fn bind_error_names_the_port_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let Err(error) = Server::bind(Config { port, ..Config::default() }, Arc::new(NoHooks), Arc::new(())) else {
        panic!("bound a port that is taken")
    };
    assert!(matches!(error, Error::Bind { .. }));
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}
