//! The tokio runtime of one server, and the OS thread that drives it.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tracing::Dispatch;

use super::event_queue::SLACK;
use crate::config::error::Error;
use crate::server;

/// The thread of a server, and the channel that stops it.
pub(super) struct Thread {
    stop: oneshot::Sender<Duration>,
    done: mpsc::Receiver<bool>,
    handle: thread::JoinHandle<()>,
}

impl Thread {
    /// Stops the server within `deadline`, then waits for the thread up to [`SLACK`] longer.
    ///
    /// Returns true if all peers completed the closing handshake in time.
    pub(super) fn stop(self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline + SLACK;
        if self.stop.send(deadline).is_err() {
            return false;
        }
        let in_time = self.done.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap_or(false);
        while !self.handle.is_finished() && Instant::now() < until {
            thread::yield_now();
        }
        if self.handle.is_finished() {
            let _panicked = self.handle.join();
        }
        in_time
    }

    /// Tells the thread to stop at once, and returns.
    pub(super) fn stop_without_waiting(self) {
        let _gone = self.stop.send(Duration::ZERO);
    }
}

/// Serves on a new thread until [`Thread::stop`].
pub(super) fn spawn(bound: server::Server, workers: usize, log: Dispatch) -> Result<(server::Running, Thread), Error> {
    let runtime = runtime(workers, &log).map_err(Error::Runtime)?;
    let (stop, stopped) = oneshot::channel();
    let (done, wait_done) = mpsc::channel();
    let running = {
        let _inside = runtime.enter();
        bound.serve()
    };
    let serving = running.clone();
    let serve = move || {
        let _logging = tracing::dispatcher::set_default(&log);
        let in_time = runtime.block_on(async move {
            // A closed channel means that the `Thread` was dropped: stop at once.
            let deadline = stopped.await.unwrap_or(Duration::ZERO);
            serving.stop(deadline).await
        });
        // All tasks have ended; this ends the idle threads.
        runtime.shutdown_timeout(Duration::from_secs(1));
        let _not_awaited = done.send(in_time);
    };
    let handle = thread::Builder::new().name("cuttlefish-signaling".into()).spawn(serve).map_err(Error::Runtime)?;
    Ok((running, Thread { stop, done: wait_done, handle }))
}

fn runtime(workers: usize, log: &Dispatch) -> std::io::Result<Runtime> {
    let mut builder = if workers == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if workers > 1 {
        let log = log.clone();
        builder
            .worker_threads(workers)
            .thread_name("cuttlefish-signaling-worker")
            // Leaks the guard: the subscriber stays the default until the thread ends.
            .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&log)));
    }
    // On Linux the server has its own timers (`server::time`): a runtime with timers reads the clock at each wait.
    if cfg!(not(target_os = "linux")) {
        builder.enable_time();
    }
    builder.enable_io().build()
}
