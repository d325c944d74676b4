//! Pages of the dashboard: the bytes that each is sent, and what its events say of waiting clients and of hooks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cuttlefish_signaling::config::HttpLimits;
use cuttlefish_signaling::hooks::{AuthorizeRequest, HookError, HookFuture, Hooks};
use cuttlefish_signaling::hub::Waiter;
use cuttlefish_signaling::outbox::{Budget, Outbox};
use cuttlefish_signaling::peer::{Grant, Peer, Role};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::{Config, Running};
use serde_json::{Value, json};

use crate::dial::{block_on, serve, serve_with};
use crate::lists::{Http, limited, register, rendered};

/// Opens a page, and returns it with its first overview.
async fn page(server: &Running) -> (Http, Value) {
    let mut page = Http::new(server);
    page.send("/dashboard/events").await;
    let overview = page.event("overview").await;
    (page, overview)
}

/// A long update makes the next one come later. A machine that is busy makes it come later still.
#[test]
fn page_is_sent_its_bytes_per_second() {
    block_on(async {
        let server = limited(HttpLimits { viewer_bytes_per_second: 64 * 1024, ..HttpLimits::default() });
        for number in 0..300 {
            register(&server, &format!("cvd-{number}{}", "x".repeat(200)));
        }
        let begin = Instant::now();
        let (mut page, first) = page(&server).await;
        let before = rendered(&server, "overview").await;
        // Each change would be an update of its own, four times a second.
        let mut more = 0;
        while begin.elapsed() < Duration::from_secs(1) {
            register(&server, &format!("more-{more}"));
            more += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        page.event("overview").await;
        let length = first.to_string().len();
        let least = Duration::from_millis(u64::try_from(length * 1000 / 65_536).unwrap());
        assert!(least > Duration::from_secs(1), "the update has only {length} bytes");
        assert!(begin.elapsed() >= least.mul_f64(0.9), "{:?} for {length} bytes", begin.elapsed());
        assert_eq!(rendered(&server, "overview").await - before, 1);
    });
}

#[test]
fn list_of_1000_devices_is_sent_whole() {
    block_on(async {
        let server = serve(Config { dashboard: true, ..Config::default() });
        for number in 0..1001 {
            register(&server, &format!("cvd-{number}"));
        }
        let (_page, overview) = page(&server).await;
        assert_eq!(overview["matching"], 1001);
        assert_eq!(overview["devices"].as_array().unwrap().len(), 1000);
    });
}

#[test]
fn waiting_clients_are_told_with_device_and_address() {
    block_on(async {
        let server = serve(Config { dashboard: true, ..Config::default() });
        let id = DeviceId::new("cvd-1");
        for port in 1..=10 {
            let peer = Peer { address: Some(([192, 0, 2, 1], port).into()), ..Peer::anonymous(Role::Client) };
            let bounds = Config::default().limits.backpressure.outbox_bounds();
            let waiter = Waiter { peer: Arc::new(peer), outbox: Arc::new(Outbox::new(&Budget::new(bounds))) };
            assert!(server.hub().device_or_wait(&id, &waiter, false).is_none());
        }
        let (_page, overview) = page(&server).await;
        assert_eq!(overview["server"]["waiting"], 10);
        let waiting = &overview["waiting"][0];
        assert_eq!((&waiting["device_id"], &waiting["clients"]), (&json!("cvd-1"), &json!(10)));
        // A few of them are named, those that began to wait first.
        let named: Vec<_> = waiting["first"].as_array().unwrap().iter().map(|client| &client["address"]).collect();
        let expected: Vec<_> = (1..=8).map(|port| json!(format!("192.0.2.1:{port}"))).collect();
        assert_eq!(named, expected.iter().collect::<Vec<_>>());
    });
}

/// Refuses each page but one whose query says otherwise.
struct FailsOnBroken;

impl Hooks for FailsOnBroken {
    fn wants_requests(&self) -> bool {
        true
    }

    fn authenticates(&self) -> bool {
        true
    }

    fn authorize(&self, request: &AuthorizeRequest) -> Option<HookFuture<Grant>> {
        let query = request.request.unpack().query;
        Some(HookFuture::new(async move {
            match &*query {
                "broken" => Err(HookError::Failed),
                "not-called" => Err(HookError::NotCalled),
                "refused" => Err(HookError::Refused { reason: None, status: 403 }),
                _ => Ok(Grant::default()),
            }
        }))
    }
}

#[test]
fn failed_calls_of_hooks_are_told_and_the_last_are_kept() {
    block_on(async {
        let server = serve_with(Config { dashboard: true, ..Config::default() }, Arc::new(FailsOnBroken));
        let from = |port: u16| Http::from(&server, ([192, 0, 2, 1], port).into(), 1 << 20);
        for port in 1..=25 {
            assert_eq!(from(port).get("/devices?broken").await.status, 500);
        }
        assert_eq!(from(26).get("/devices?not-called").await.status, 500);
        assert_eq!(from(27).get("/devices?refused").await.status, 403);
        let (_page, overview) = page(&server).await;
        assert_eq!(overview["server"]["hook_failures"], 26);
        let errors = overview["server"]["hook_errors"].as_array().unwrap();
        assert_eq!(errors.len(), 20);
        let told = |at: usize| (errors[at]["hook"].clone(), errors[at]["peer"].clone(), errors[at]["how"].clone());
        assert_eq!(told(0), (json!("authorize"), json!("192.0.2.1:26"), json!("not_called")));
        assert_eq!(told(1), (json!("authorize"), json!("192.0.2.1:25"), json!("raised")));
    });
}
