//! Lists of devices and dashboards: rendered once for each change, shared, and written in pieces.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use cuttlefish_signaling::config::HttpLimits;
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::outbox::{Budget, Outbox};
use cuttlefish_signaling::peer::{Peer, Role};
use cuttlefish_signaling::protocol::{DeviceId, outbound};
use cuttlefish_signaling::rate::Rate;
use cuttlefish_signaling::{Config, Limits, Running};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::dial::{block_on, serve, with_timeout};

/// The devices of a chunk of the list, at most (`src/core/device_list.rs`).
const CHUNK: u64 = 64;
/// The size of a piece (`src/server/http/pieces.rs`).
const PIECE: usize = 16 * 1024;
/// Room for a whole list, so that only the server decides how much it writes at once.
const WIDE: usize = 64 * 1024 * 1024;

/// Registers a device without a connection.
pub(crate) fn register(server: &Running, id: &str) -> Arc<Device> {
    let peer = Arc::new(Peer::anonymous(Role::Device));
    let outbox = Arc::new(Outbox::new(&Budget::new(
        cuttlefish_signaling::Config::default().limits.backpressure.outbox_bounds(),
    )));
    let device = Arc::new(Device::new(DeviceId::new(id), outbound::device_info("null"), peer, outbox));
    server.hub().register(&device, &outbound::config("[]"), None).unwrap();
    device
}

/// A connection in memory, from an address.
pub(crate) struct Http(DuplexStream);

/// A response: status, head and body.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Http {
    pub(crate) fn new(server: &Running) -> Self {
        Self::from(server, ([127, 0, 0, 1], 0).into(), WIDE)
    }

    pub(crate) fn from(server: &Running, address: SocketAddr, width: usize) -> Self {
        let (ours, theirs) = tokio::io::duplex(width);
        drop(server.serve_in_memory_from(theirs, address));
        Self(ours)
    }

    pub(crate) async fn send(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    pub(crate) async fn head(&mut self) -> (u16, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(with_timeout("a response", self.0.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Response {
        self.send(path).await;
        let (status, head) = self.head().await;
        let body = self.body(&head).await;
        Response { status, head, body }
    }

    pub(crate) async fn body(&mut self, head: &str) -> String {
        let length = head.split("content-length: ").nth(1).expect("the length is told").lines().next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        with_timeout("a body", self.0.read_exact(&mut body)).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    pub(crate) async fn json(&mut self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.body).unwrap()
    }

    /// The next server-sent event of this name.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        loop {
            // hyper writes chunks: their sizes are lines of their own.
            let line = self.line().await;
            if line == format!("event: {name}") {
                return self.data().await;
            }
        }
    }

    /// The data of an event, which may be several chunks.
    pub(crate) async fn data(&mut self) -> Value {
        let mut data = self.line().await;
        loop {
            if let Ok(value) = serde_json::from_str(data.strip_prefix("data: ").unwrap()) {
                return value;
            }
            // The end of a chunk, and the size of the next one.
            let _size = self.line().await;
            data.push_str(&self.line().await);
        }
    }

    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.push(with_timeout("a line", self.0.read_u8()).await.unwrap());
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }
}

/// A counter of `GET /metrics`.
pub(crate) async fn rendered(server: &Running, of: &str) -> u64 {
    let metrics = Http::new(server).get("/metrics").await.body;
    let name = format!(r#"cuttlefish_signaling_renderings_total{{of="{of}"}} "#);
    metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[test]
fn entry_of_a_device_is_rendered_once_for_all_requests() {
    block_on(async {
        let server = serve(Config::default());
        let devices: Vec<_> = (0..500).map(|number| register(&server, &format!("cvd-{number:03}"))).collect();
        // Requests that come at once wait for the same rendering.
        let mut readers: Vec<_> = (0..8).map(|_| Http::new(&server)).collect();
        for reader in &mut readers {
            reader.send("/devices").await;
        }
        for _ in 0..5 {
            for (path, format) in [("/devices", "full"), ("/devices?format=ids", "ids"), ("/devices?owner=x", "none")] {
                let listed = Http::new(&server).json(path).await;
                assert_eq!(listed.as_array().unwrap().len(), if format == "none" { 0 } else { 500 });
            }
        }
        assert_eq!(rendered(&server, "device_entry").await, 500);
        // A change costs the chunk that it is in.
        server.hub().unregister(&devices[250]);
        register(&server, "cvd-250a");
        for _ in 0..5 {
            assert_eq!(Http::new(&server).json("/devices").await.as_array().unwrap().len(), 500);
        }
        let again = rendered(&server, "device_entry").await - 500;
        assert!((1..=2 * CHUNK).contains(&again), "{again} entries were rendered again");
    });
}

#[test]
fn list_has_each_change_made_before_the_request() {
    block_on(async {
        let server = serve(Config::default());
        let (mut present, mut random) = (BTreeMap::new(), fastrand::Rng::with_seed(7));
        let mut reader = Http::new(&server);
        for _ in 0..300 {
            for _ in 0..random.usize(..20) {
                let id = format!("cvd-{}", random.u8(..));
                match present.remove(&id) {
                    Some(device) => server.hub().unregister(&device),
                    None => drop(present.insert(id.clone(), register(&server, &id))),
                }
            }
            let ids: Vec<_> = present.keys().cloned().collect();
            assert_eq!(reader.json("/devices?format=ids").await, json!(ids));
            let full: Vec<_> = ids.iter().map(|id| json!({"device_id": id, "group_name": "", "adb_port": 0})).collect();
            assert_eq!(reader.json("/devices").await, json!(full));
        }
    });
}

#[test]
fn other_tasks_run_between_the_pieces_of_a_list() {
    block_on(async {
        let server = serve(Config::default());
        for number in 0..3000 {
            register(&server, &format!("cvd-{number}{}", "x".repeat(200)));
        }
        for path in ["/devices", "/devices?format=ids"] {
            let mut reader = Http::new(&server);
            let length = reader.get(path).await.body.len();
            assert!(length > 30 * PIECE);
            reader.send(path).await;
            let (mut read, mut most, mut buffer) = (0, 0, vec![0; WIDE]);
            while read < length {
                // One turn of this task for each turn of the task that writes.
                let came = with_timeout("a piece", reader.0.read(&mut buffer)).await.unwrap();
                most = most.max(came);
                read += came;
                tokio::task::yield_now().await;
            }
            assert!(most <= 3 * PIECE, "{path}: {most} of {length} bytes at once");
        }
    });
}

#[test]
fn pages_share_one_overview() {
    block_on(async {
        let server = serve(Config { dashboard: true, ..Config::default() });
        let mut pages: Vec<_> = (0..8).map(|_| Http::new(&server)).collect();
        for page in &mut pages {
            page.send("/dashboard/events").await;
            assert_eq!(page.event("overview").await["matching"], 0);
        }
        let before = rendered(&server, "overview").await;
        for number in 1..=5 {
            register(&server, &format!("cvd-{number}"));
            for page in &mut pages {
                while page.event("overview").await["matching"] != number {}
            }
        }
        let made = rendered(&server, "overview").await - before;
        assert!((5..=10).contains(&made), "{made} overviews for 5 changes and 8 pages");
    });
}

#[test]
fn first_overview_of_a_page_is_up_to_date() {
    block_on(async {
        let server = serve(Config { dashboard: true, ..Config::default() });
        for number in 1..=20 {
            register(&server, &format!("cvd-{number}"));
            let mut page = Http::new(&server);
            page.send("/dashboard/events").await;
            assert_eq!(page.event("overview").await["matching"], number);
        }
    });
}

/// The page has a search, so that its overviews are its own, and a pipe that holds less than one of them.
#[test]
fn page_that_does_not_read_is_sent_no_more_than_two_updates() {
    block_on(async {
        let server = serve(Config { dashboard: true, ..Config::default() });
        for number in 0..200 {
            register(&server, &format!("cvd-{number}{}", "x".repeat(200)));
        }
        let mut stuck = Http::from(&server, ([127, 0, 0, 1], 0).into(), 1024);
        stuck.send("/dashboard/events?search=cvd").await;
        let mut page = Http::new(&server);
        page.send("/dashboard/events").await;
        page.event("overview").await;
        let before = rendered(&server, "overview").await;
        let changes = 8;
        for number in 0..changes {
            let device = register(&server, &format!("more-{number}"));
            // Each overview of the page that reads is a tick of the other one too.
            page.event("overview").await;
            server.hub().unregister(&device);
            page.event("overview").await;
        }
        let made = rendered(&server, "overview").await - before;
        // Each change may be seen half, and then once more. A page that was sent all of them would double the number.
        assert!(made <= 2 * changes + 4, "{made} overviews for {} changes", 2 * changes);
    });
}

#[test]
fn overview_has_at_most_viewer_bytes() {
    block_on(async {
        let server = limited(HttpLimits { viewer_bytes: 64 * 1024, ..HttpLimits::default() });
        for number in 0..150 {
            register(&server, &format!("cvd-{number}{}", "x".repeat(1000)));
        }
        for path in ["/dashboard/events", "/dashboard/events?search=CVD"] {
            let mut page = Http::new(&server);
            page.send(path).await;
            let overview = page.event("overview").await;
            assert_eq!(overview["matching"], 150);
            let rows = overview["devices"].as_array().unwrap().len();
            assert!((30..64).contains(&rows), "{path}: {rows} rows");
            assert!(overview.to_string().len() <= 64 * 1024);
        }
    });
}

pub(crate) fn limited(http: HttpLimits) -> Arc<Running> {
    let limits = Limits { http, ..Limits::default() };
    serve(Config { dashboard: true, limits, ..Config::default() })
}

#[test]
fn viewers_of_one_address_are_limited_except_loopback() {
    block_on(async {
        let server = limited(HttpLimits { max_viewers_per_address: 2, max_viewers: 6, ..HttpLimits::default() });
        let mut open = Vec::new();
        for (address, status) in [
            ("192.0.2.1:1", 200),
            ("192.0.2.1:2", 200),
            ("192.0.2.1:3", 503),
            ("192.0.2.2:1", 200),
            ("[::ffff:192.0.2.1]:1", 503),
            ("[2001:db8::1]:1", 200),
            ("[2001:db8::2]:1", 200),
            ("[2001:db8::3]:1", 503),
            ("127.0.0.1:1", 200),
            ("127.0.0.1:2", 503),
        ] {
            let mut page = Http::from(&server, address.parse().unwrap(), WIDE);
            page.send("/dashboard/events").await;
            assert_eq!(page.head().await.0, status, "{address}");
            open.push(page);
        }
        drop(open.remove(0));
        let mut page = Http::from(&server, "192.0.2.1:4".parse().unwrap(), WIDE);
        loop {
            // The place is free when the server has noticed.
            page.send("/dashboard/events").await;
            let (status, head) = page.head().await;
            if status == 200 {
                break;
            }
            assert!(page.body(&head).await.contains("Too many viewers"));
        }
    });
}

#[test]
fn requests_of_one_connection_above_its_rate_are_429() {
    block_on(async {
        let requests = Rate { per_second: 1, burst: 3 };
        let server = limited(HttpLimits { requests, ..HttpLimits::default() });
        let (mut fast, mut other) = (Http::new(&server), Http::new(&server));
        for _ in 0..3 {
            assert_eq!(fast.get("/healthz").await.status, 200);
        }
        let refused = fast.get("/connect").await;
        assert_eq!(refused.status, 429);
        assert!(refused.head.contains("\r\nretry-after: 1\r\n"), "{}", refused.head);
        assert_eq!(refused.body, r#"{"error":"Too many requests: at most 1 per second","type":"error"}"#);
        assert_eq!(other.get("/healthz").await.status, 200);
        assert!(other.get("/metrics").await.body.contains(r#"incidents_total{kind="too_fast"} 1"#));
    });
}

#[test]
fn requests_of_one_address_above_its_rate_are_429_except_loopback() {
    block_on(async {
        let address_requests = Rate { per_second: 1, burst: 3 };
        let server = limited(HttpLimits { address_requests, ..HttpLimits::default() });
        let from = |address: &str| Http::from(&server, address.parse().unwrap(), WIDE);
        for _ in 0..3 {
            assert_eq!(from("192.0.2.1:1").get("/devices").await.status, 200);
        }
        assert_eq!(from("192.0.2.1:1").get("/devices").await.status, 429);
        // These do not count: the health of the server is not that of its neighbours.
        for path in ["/healthz", "/readyz"] {
            assert_eq!(from("192.0.2.1:1").get(path).await.status, 200);
        }
        assert_eq!(from("192.0.2.1:1").get("/register_device").await.status, 426);
        assert_eq!(from("192.0.2.2:1").get("/devices").await.status, 200);
        for _ in 0..10 {
            assert_eq!(from("127.0.0.1:1").get("/devices").await.status, 200);
        }
    });
}

#[test]
fn connections_of_a_trusted_proxy_are_exempt_from_the_limit_per_address() {
    block_on(async {
        let limits = Limits { max_connections_per_address: 1, ..Limits::default() };
        let server = serve(Config { trusted_proxies: vec!["192.0.2.0/25".into()], limits, ..Config::default() });
        let mut open = Vec::new();
        for (address, status) in
            [("192.0.2.1:1", 200), ("[::ffff:192.0.2.1]:2", 200), ("192.0.2.200:1", 200), ("192.0.2.200:2", 503)]
        {
            let mut connection = Http::from(&server, address.parse().unwrap(), WIDE);
            connection.send("/devices").await;
            assert_eq!(connection.head().await.0, status, "{address}");
            open.push(connection);
        }
    });
}
