//! The tokio runtime of one server, and the OS thread that drives it.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::Dispatch;

use super::event_queue::{EventQueue, SLACK};
use crate::config::error::Error;
use crate::server::{self, Drain};

/// An order to the thread of a server.
enum Order {
    /// Drain, and drop the sender at the end. An order to stop ends it at once.
    Drain(Drain, mpsc::Sender<()>),
    /// Add an event to the queue at this interval, until the server has stopped.
    Beat(Duration, Arc<EventQueue>),
    /// Stop within this time.
    Stop(Duration),
}

/// The thread of a server, and the channel of its orders.
pub(super) struct Thread {
    orders: UnboundedSender<Order>,
    done: mpsc::Receiver<bool>,
    handle: thread::JoinHandle<()>,
    runtime: tokio::runtime::Handle,
}

impl Thread {
    /// Runs a future on the runtime. The receiver gets its result, and is disconnected if the server stops before.
    pub(super) fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> mpsc::Receiver<T> {
        let (done, wait_done) = mpsc::channel();
        self.runtime.spawn(async move {
            // The caller may not wait any more.
            let _left = done.send(work.await);
        });
        wait_done
    }

    /// Begins to drain the server. The receiver is disconnected at the end.
    pub(super) fn drain(&self, drain: Drain) -> mpsc::Receiver<()> {
        let (drained, wait_drained) = mpsc::channel();
        // A thread that is gone has dropped the sender.
        let _gone = self.orders.send(Order::Drain(drain, drained));
        wait_drained
    }

    /// Adds an event to the queue at this interval, from the runtime.
    pub(super) fn beat(&self, interval: Duration, events: &Arc<EventQueue>) {
        let _gone = self.orders.send(Order::Beat(interval, Arc::clone(events)));
    }

    /// Stops the server within `deadline`, then waits for the thread up to [`SLACK`] longer.
    ///
    /// Returns true if all peers completed the closing handshake in time.
    pub(super) fn stop(self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline + SLACK;
        if self.orders.send(Order::Stop(deadline)).is_err() {
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
        let _gone = self.orders.send(Order::Stop(Duration::ZERO));
    }
}

/// Serves on a new thread until [`Thread::stop`].
pub(super) fn spawn(bound: server::Server, workers: usize, log: Dispatch) -> Result<(server::Running, Thread), Error> {
    let runtime = runtime(workers, &log).map_err(Error::Runtime)?;
    let (orders, mut ordered) = unbounded_channel();
    let (done, wait_done) = mpsc::channel();
    let running = {
        let _inside = runtime.enter();
        bound.serve()
    };
    let (serving, of_runtime) = (running.clone(), runtime.handle().clone());
    let serve = move || {
        let _logging = tracing::dispatcher::set_default(&log);
        let in_time = runtime.block_on(async move {
            let deadline = obey(&serving, &mut ordered).await;
            serving.stop(deadline).await
        });
        // All tasks have ended; this ends the idle threads.
        runtime.shutdown_timeout(Duration::from_secs(1));
        let _not_awaited = done.send(in_time);
    };
    let handle = thread::Builder::new().name("cuttlefish-signaling".into()).spawn(serve).map_err(Error::Runtime)?;
    Ok((running, Thread { orders, done: wait_done, handle, runtime: of_runtime }))
}

/// Takes orders until the one to stop. Returns its deadline.
async fn obey(serving: &server::Running, orders: &mut UnboundedReceiver<Order>) -> Duration {
    loop {
        match orders.recv().await {
            Some(Order::Drain(drain, drained)) => {
                let next = tokio::select! {
                    next = orders.recv() => Some(next),
                    () = serving.drain(drain) => None,
                };
                drop(drained);
                if let Some(Some(Order::Stop(deadline))) = next {
                    return deadline;
                }
            }
            Some(Order::Beat(interval, events)) => serving.repeat(interval, move || events.beat()),
            Some(Order::Stop(deadline)) => return deadline,
            // The `Thread` was dropped: stop at once.
            None => return Duration::ZERO,
        }
    }
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
