//! Several listeners of one server.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cuttlefish_signaling::listen::Listen;
use cuttlefish_signaling::{Config, Error, NoHooks, Server};
use futures_util::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;

use crate::dial::{Dialed, Received, block_on, serve, with_timeout};
use crate::packets::Packets;

fn unix(path: &Path) -> Listen {
    Listen::Unix { path: path.to_owned(), mode: 0o600 }
}

fn loopback() -> Listen {
    Listen::Http("127.0.0.1:0".parse().unwrap())
}

/// The error of a server that does not start.
fn error_of(listen: Vec<Listen>) -> Error {
    let config = Config { listen, ..Config::default() };
    Server::bind(config, Arc::new(NoHooks), Arc::new(())).err().expect("it started")
}

#[test]
fn listeners_share_the_registry() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("http.sock");
        let server = serve(Config { listen: vec![loopback(), unix(&path), loopback()], ..Config::default() });
        let (first, last) = (server.addresses()[0].tcp().unwrap(), server.addresses()[2].tcp().unwrap());
        assert_ne!(first.port(), last.port());
        assert_eq!(server.local_addr(), first);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let mut device = Dialed::device(last, "cvd-1").await;
        let mut client = Dialed::client(first, "cvd-1").await;
        client.says(r#"{"message_type":"forward","payload":1}"#).await;
        device.hears(r#"{"message_type":"client_msg","client_id":1,"payload":1}"#).await;

        let stream = UnixStream::connect(&path).await.unwrap();
        let (mut local, _) =
            tokio_tungstenite::client_async("ws://localhost/devices/cvd-1/connect", stream).await.unwrap();
        let answer = with_timeout("the device info", local.next()).await.unwrap().unwrap();
        assert!(answer.into_text().unwrap().contains("device_info"));
        assert_eq!(server.hub().devices()[0].clients()[1].peer.address, None);
        local.send(Message::text("2")).await.unwrap();
        device.hears(r#"{"message_type":"client_msg","client_id":2,"payload":2}"#).await;
    });
}

#[test]
fn unix_socket_is_removed_when_the_server_stops() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("http.sock");
    block_on(async {
        serve(Config { listen: vec![unix(&path)], ..Config::default() });
        assert!(path.exists());
    });
    assert!(!path.exists());
}

#[test]
fn failed_listener_is_named_and_the_others_are_closed() {
    let place = tempfile::tempdir().unwrap();
    let (path, file) = (place.path().join("http.sock"), place.path().join("file"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = Listen::Http(taken.local_addr().unwrap());
    let error = error_of(vec![unix(&path), busy.clone()]);
    assert!(matches!(error, Error::Bind { setting: "listen", .. }), "{error:?}");
    assert!(error.to_string().starts_with(&format!("listen: cannot listen on {busy}: ")), "{error}");
    assert!(!path.exists());

    std::fs::write(&file, "kept").unwrap();
    let error = error_of(vec![unix(&file)]).to_string();
    assert_eq!(error, format!("listen: cannot listen on unix:{}: there is a file that is no socket", file.display()));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn each_listener_is_checked_for_exposure() {
    let error = error_of(vec![loopback(), Listen::Http("0.0.0.0:0".parse().unwrap())]);
    assert!(error.to_string().starts_with("listen: http://0.0.0.0:0 can be reached from other machines"), "{error}");
}

fn sockets(found: impl IntoIterator<Item = OwnedFd>) -> Vec<Arc<OwnedFd>> {
    found.into_iter().map(Arc::new).collect()
}

fn refused(config: Config) -> String {
    Server::bind(config, Arc::new(NoHooks), Arc::new(())).err().expect("it started").to_string()
}

#[test]
fn inherited_sockets_take_the_place_of_listeners_and_stay_open() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let (http, devices) = (place.path().join("http.sock"), place.path().join("devices"));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::os::unix::net::UnixListener::bind(&http).unwrap();
        let seqpacket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        seqpacket.bind(&socket2::SockAddr::unix(&devices).unwrap()).unwrap();
        seqpacket.listen(8).unwrap();
        let config = Config {
            listen: vec![Listen::Http(tcp.local_addr().unwrap()), unix(&http)],
            device_socket: Some(devices.clone()),
            sockets: sockets([tcp.try_clone().unwrap().into(), stream.into(), seqpacket.into()]),
            ..Config::default()
        };
        for _ in 0..2 {
            let server = serve(config.clone());
            let local = Packets::device(&devices, "cvd-1").await;
            let mut device = Dialed::device(tcp.local_addr().unwrap(), "cvd-2").await;
            drop(with_timeout("a connection", UnixStream::connect(&http)).await.unwrap());
            assert!(with_timeout("the stop", server.stop(std::time::Duration::from_secs(5))).await);
            assert_eq!(device.next().await, Received::Closed(1001));
            assert_eq!(local.next().await, Received::Lost);
            assert!(http.exists() && devices.exists(), "the files belong to the program that made them");
        }
    });
}

#[test]
fn inherited_sockets_of_no_listener_are_refused() {
    let tcp = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, other) = (tcp(), tcp());
    let listen = vec![Listen::Http(one.local_addr().unwrap())];
    let with = |found: Vec<OwnedFd>| Config { listen: listen.clone(), sockets: sockets(found), ..Config::default() };
    let clone = || OwnedFd::from(one.try_clone().unwrap());
    let error = refused(with(vec![clone(), other.into()]));
    assert!(error.starts_with("sockets[1]: listens on 127.0.0.1:"), "{error}");
    assert!(error.contains(&listen[0].to_string()["http://".len()..]), "{error}");
    let error = refused(with(vec![clone(), clone()]));
    assert!(error.starts_with("sockets[1]: ") && error.ends_with("as another socket does"), "{error}");
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(refused(with(vec![file.into()])).starts_with("sockets[0]: is no socket"));
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(refused(with(vec![udp.into()])).contains("has another type"));
    let (connected, _end) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(refused(with(vec![connected.into()])).contains("does not listen"));
}
