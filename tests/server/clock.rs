//! `clock_turned` reports its end only once every connection has done what is due.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};

use cuttlefish_signaling::hub::{Client, Device, Observer};
use cuttlefish_signaling::{Config, Limits, NoHooks, Running};

use crate::dial::{Dialed, block_on, roomy, serve_observed, until_done, until_paused};
use crate::packets::Packets;

/// Checks whether `clock_turned` still waits while a peer leaves.
#[derive(Default)]
struct Leaving {
    due: Mutex<Option<Receiver<()>>>,
    left: AtomicBool,
}

impl Leaving {
    fn check(&self) {
        if let Some(due) = &*self.due.lock().unwrap() {
            assert_eq!(due.try_recv(), Err(TryRecvError::Empty), "all was reported to be done before it was");
            self.left.store(true, Ordering::Relaxed);
        }
    }

    /// Moves the clock past the write timeout. The peer that does not read has left once all that was due is done.
    async fn passes_write_timeout(&self, server: &Running) {
        server.clock().advance(Limits::default().write_timeout);
        *self.due.lock().unwrap() = Some(server.clock_turned());
        while !self.left.load(Ordering::Relaxed) {
            // The connection's task runs, and the observer checks there.
            tokio::task::yield_now().await;
            if self.due.lock().unwrap().as_ref().unwrap().try_recv() == Err(TryRecvError::Disconnected) {
                break;
            }
        }
        assert!(self.left.load(Ordering::Relaxed), "all was reported to be done before it was");
        let due = self.due.lock().unwrap().take().unwrap();
        until_done(&due).await;
    }
}

impl Observer for Leaving {
    fn device_left(&self, _: &Device) {
        self.check();
    }

    fn client_left(&self, _: &Device, _: &Client) {
        self.check();
    }
}

#[test]
fn advance_ends_after_a_websocket_peer_has_passed_its_write_timeout() {
    block_on(async {
        let leaving = Arc::new(Leaving::default());
        let server = serve_observed(roomy(), Arc::new(NoHooks), Arc::clone(&leaving) as _);
        let mut device = Dialed::device(server.local_addr(), "cvd-1").await;
        let stuck = Dialed::client(server.local_addr(), "cvd-1").await;
        stuck.freeze();
        server.clock().freeze();
        let payload = "x".repeat(60_000);
        for _ in 0..300 {
            device.says(&format!(r#"{{"message_type":"forward","client_id":1,"payload":"{payload}"}}"#)).await;
        }
        device.round_trip().await;
        leaving.passes_write_timeout(&server).await;
    });
}

#[test]
fn advance_ends_after_a_packet_peer_has_passed_its_write_timeout() {
    block_on(async {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("devices");
        let leaving = Arc::new(Leaving::default());
        let config = Config { device_socket: Some(path.clone()), ..roomy() };
        let server = serve_observed(config, Arc::new(NoHooks), Arc::clone(&leaving) as _);
        let _stuck = Packets::device(&path, "cvd-1").await;
        let mut client = Dialed::client(server.local_addr(), "cvd-1").await;
        server.clock().freeze();
        let payload = "x".repeat(60_000);
        for _ in 0..10 {
            client.says(&format!(r#"{{"message_type":"forward","payload":"{payload}"}}"#)).await;
        }
        until_paused(&server, "cvd-1", 1).await;
        leaving.passes_write_timeout(&server).await;
    });
}
