//! Targets with whole connections, in memory: bytes as HTTP requests, and bytes after a WebSocket upgrade.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::incidents::Incident;
use cuttlefish_signaling::{Config, Limits, NoHooks, Running, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

/// One server for all inputs of a thread, so that a later input meets the state that an earlier one left.
struct Bench {
    runtime: Runtime,
    server: Running,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

impl Bench {
    fn new() -> Self {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { panic!("no runtime") };
        // Short deadlines end connections that an input left open.
        let soon = Duration::from_millis(20);
        let limits =
            Limits { request_head_timeout: soon, close_timeout: soon, new_per_second: u32::MAX, ..Limits::default() };
        let inside = runtime.enter();
        let files = Some(env!("CARGO_MANIFEST_DIR").into());
        let config = Config { limits, assets_dir: files, proxy_device_files: true, ..Config::default() };
        let bound = Server::bind(config, Arc::new(NoHooks), Arc::new(()));
        let Ok(bound) = bound else { panic!("no socket") };
        let server = bound.serve();
        drop(inside);
        Self { runtime, server }
    }

    /// Sends the bytes, closes the sending half, and returns the whole answer.
    fn converse(&self, said: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (mut ours, theirs) = tokio::io::duplex(1 << 20);
            let served = self.server.serve_in_memory(theirs);
            let mut answer = Vec::new();
            drop(ours.write_all(said).await);
            drop(ours.shutdown().await);
            drop(ours.read_to_end(&mut answer).await);
            drop(ours);
            assert!(served.await.is_ok());
            answer
        })
    }

    fn assert_healthy(&self) {
        assert_eq!(self.server.incidents().of(Incident::Panic), 0);
        assert_eq!(self.server.hub().connections(), 0);
        assert!(self.server.hub().devices().is_empty());
        let ledger = self.server.ledger();
        assert!(ledger.balances(), "{ledger:?}");
    }
}

fn with_bench(test: impl FnOnce(&Bench)) {
    BENCH.with_borrow_mut(|bench| test(bench.get_or_insert_with(Bench::new)));
}

/// Sends bytes after an upgrade, as frames or invalid data. The first byte chooses the endpoint.
pub fn connection(data: &[u8]) {
    let Some((first, frames)) = data.split_first() else { return };
    let path = if first & 1 == 0 { "register_device" } else { "connect_client" };
    let mut said = format!(
        "GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    said.extend_from_slice(frames);
    with_bench(|bench| {
        let answer = bench.converse(&said);
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        bench.assert_healthy();
    });
}

/// Sends bytes as HTTP requests. The answer is HTTP, or empty.
pub fn http(data: &[u8]) {
    with_bench(|bench| {
        let answer = bench.converse(data);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
        bench.assert_healthy();
    });
}
