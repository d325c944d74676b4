//! Several listeners of one server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cuttlefish_signaling::listen::Listen;
use cuttlefish_signaling::{Config, Error, NoHooks, Server};
use futures_util::{SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;

use crate::dial::{Dialed, block_on, serve, with_timeout};

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
