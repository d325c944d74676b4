//! The session driver: input of a peer while a hook is pending.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cuttlefish_signaling::config::Backpressure;
use cuttlefish_signaling::hooks::{AuthorizeRequest, HookFuture, Hooks, IceQuestion};
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::peer::{Grant, Peer, Role};
use cuttlefish_signaling::protocol::IceServers;
use cuttlefish_signaling::rate::Rate;
use cuttlefish_signaling::{Config, IceSource, Limits, Running};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::dial::{Dialed, block_on, serve_with, with_timeout};
use crate::hostile::answer;
use crate::raw_peer::{CLOSE, FINAL, RawPeer, frame, text};

const CONNECT: &str = r#"{"message_type":"connect","device_id":"x"}"#;

/// Filters device info, and never decides.
struct NeverDecides;

impl Hooks for NeverDecides {
    fn filter_device_info(&self, _: &Arc<Device>, _: &Arc<Peer>) -> Option<HookFuture<String>> {
        Some(HookFuture::new(std::future::pending()))
    }
}

#[test]
fn pending_hook_bounds_the_input_read_from_its_peer() {
    block_on(async {
        let rate = Rate { per_second: u32::MAX, burst: u32::MAX };
        // The input that is discarded after the close is not meant here.
        let close_timeout = Duration::from_millis(10);
        let limits = Limits { bytes: rate, messages: rate, close_timeout, ..Limits::default() };
        let config = Config { limits, hook_timeout: Duration::from_secs(2), ..Config::default() };
        let server = serve_with(config, Arc::new(NeverDecides));
        let _device = Dialed::device(server.local_addr(), "x").await;
        let mut client = RawPeer::connect(server.local_addr(), "/connect_client").await;
        client.send(&text(CONNECT)).await;
        let forward = text(&format!(r#"{{"message_type":"forward","payload":"{}"}}"#, "x".repeat(60_000)));
        let mut taken = 0_usize;
        let flood = async {
            while client.0.write_all(&forward).await.is_ok() {
                taken += forward.len();
            }
        };
        with_timeout("the end of the hook's time", flood).await;
        // A MiB is held back; the system's buffers take the rest.
        assert!(taken < 16 * 1024 * 1024, "{taken} bytes were taken");
    });
}

/// Filters device info once it is notified.
struct DecidesWhenNotified(Arc<Notify>);

impl Hooks for DecidesWhenNotified {
    fn filter_device_info(&self, _: &Arc<Device>, _: &Arc<Peer>) -> Option<HookFuture<String>> {
        let decide = Arc::clone(&self.0);
        Some(HookFuture::new(async move {
            decide.notified().await;
            Ok("{}".into())
        }))
    }
}

/// Input that waits for the hook is kept apart from the buffer that all connections share.
#[test]
fn input_read_during_a_pending_hook_is_kept_intact() {
    block_on(async {
        let decide = Arc::new(Notify::new());
        // Half of the texts are held back. The others stay in the buffer that they were read into.
        let backpressure = Backpressure { held_bytes: 65_536, ..Backpressure::default() };
        let limits = Limits { backpressure, ..Limits::default() };
        let hooks = Arc::new(DecidesWhenNotified(Arc::clone(&decide)));
        let server = serve_with(Config { limits, ..Config::default() }, hooks);
        let mut device = Dialed::device(server.local_addr(), "x").await;
        let mut client = RawPeer::connect(server.local_addr(), "/connect_client").await;
        let mut texts = text(CONNECT);
        for payload in 1..=40 {
            let space = " ".repeat(3450);
            texts.extend(text(&format!(r#"{{"message_type":"forward",{space}"payload":{payload}}}"#)));
        }
        client.send(&texts).await;
        // The server has read the texts before it reads this, for another connection.
        device.round_trip().await;
        device.says(&format!(r#"{{"message_type":"?","more":"{}"}}"#, "#".repeat(12_000))).await;
        device.hears(r#"{"error":"Unknown message type: ?"}"#).await;
        decide.notify_one();
        for payload in 1..=40 {
            device.hears(&format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{payload}}}"#)).await;
        }
    });
}

/// The forwards were sent before the close frame or the FIN, and nothing refuses them.
#[test]
fn forwards_that_wait_for_a_hook_outlive_the_end_of_their_sender() {
    block_on(async {
        for with_frame in [true, false] {
            let decide = Arc::new(Notify::new());
            let server = serve_with(Config::default(), Arc::new(DecidesWhenNotified(Arc::clone(&decide))));
            let mut device = Dialed::device(server.local_addr(), "x").await;
            let mut client = RawPeer::connect(server.local_addr(), "/connect_client").await;
            let forwards = (1..=2).map(|n| text(&format!(r#"{{"message_type":"forward","payload":{n}}}"#)));
            client.send(&[text(CONNECT)].into_iter().chain(forwards).collect::<Vec<_>>().concat()).await;
            if with_frame {
                client.send(&frame(FINAL | CLOSE, &1000_u16.to_be_bytes(), [0; 4])).await;
                // The answer to a close frame does not wait.
                while client.next().await.0 != CLOSE {}
            } else {
                client.0.shutdown().await.unwrap();
            }
            device.round_trip().await;
            decide.notify_one();
            for n in 1..=2 {
                device.hears(&format!(r#"{{"message_type":"client_msg","client_id":1,"payload":{n}}}"#)).await;
            }
            device.hears(r#"{"message_type":"client_disconnected","client_id":1}"#).await;
            client.read_to_end().await;
        }
    });
}

/// Each hook moves the clock past its own deadline when it is called for the path or the device that it is meant for,
/// and never decides.
#[derive(Default)]
struct MovesClock(OnceLock<Arc<Running>>);

impl MovesClock {
    fn hang<T: Send + 'static>(&self) -> HookFuture<T> {
        self.0.get().unwrap().clock().advance(Config::default().hook_timeout);
        HookFuture::new(std::future::pending())
    }
}

impl Hooks for MovesClock {
    fn wants_requests(&self) -> bool {
        true
    }

    fn authorize(&self, request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        (request.role == Role::Http).then(|| self.hang())
    }

    fn ice_servers(&self, question: &IceQuestion) -> Option<HookFuture<IceServers>> {
        if question.role == Role::Device && question.device_id.as_ref().unwrap().as_str() == "ice" {
            return Some(self.hang());
        }
        None
    }

    fn filter_device_info(&self, _: &Arc<Device>, _: &Arc<Peer>) -> Option<HookFuture<String>> {
        Some(self.hang())
    }
}

/// The clock moves between the call of the hook and the first poll of its future: on another thread this is a race.
#[test]
fn time_of_a_hook_begins_before_it_is_called() {
    block_on(async {
        let hooks = Arc::new(MovesClock::default());
        let server = serve_with(Config { ice: IceSource::Hook, ..Config::default() }, Arc::clone(&hooks) as _);
        hooks.0.set(Arc::clone(&server)).ok().unwrap();
        server.clock().freeze();
        let address = server.local_addr();
        let mut device = Dialed::open(address, "/register_device").await;
        device.says(r#"{"message_type":"register","device_id":"ice"}"#).await;
        device.hears(r#"{"error":"Internal error"}"#).await;
        let _device = Dialed::device(address, "x").await;
        let mut client = Dialed::open(address, "/connect_client").await;
        client.says(CONNECT).await;
        client.hears(r#"{"message_type":"config","ice_servers":[]}"#).await;
        client.hears(r#"{"error":"Internal error"}"#).await;
        let response = answer(address, "GET /devices HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
    });
}
