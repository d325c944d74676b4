//! The outbox: order, bounds, ends and wakers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use cuttlefish_signaling::Config;
use cuttlefish_signaling::outbox::{Budget, Closed, End, Outbox, Outgoing, Passage, Share};
use cuttlefish_signaling::protocol::Text;
use cuttlefish_signaling::refusal::Refusal;
use tokio::sync::oneshot::error::TryRecvError;

fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(&Budget::new(Config::default().limits.backpressure.outbox_bounds())))
}

/// Queues a device's forward.
fn push(outbox: &Arc<Outbox>, said: &str) -> Result<usize, Closed> {
    outbox.push_forward(text(said), Passage::Direct, Instant::now())
}

fn text(text: &str) -> Text {
    Text::from(text.to_owned())
}

fn next(outbox: &Outbox) -> Poll<Outgoing> {
    outbox.poll_next(&Context::from_waker(Waker::noop()), true)
}

fn message(said: &str, forward: bool) -> Poll<Outgoing> {
    Poll::Ready(Outgoing::Message { text: text(said), forward })
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn messages_come_in_order_then_the_error_then_the_end() {
    let outbox = outbox();
    push(&outbox, "1").unwrap();
    outbox.push(text("2"));
    outbox.refuse(&Refusal::Binary);
    assert_eq!(push(&outbox, "3"), Err(Closed));
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::Closing), "the end is reported at once");
    assert_eq!(next(&outbox), message("1", true));
    assert_eq!(next(&outbox), message("2", false));
    assert_eq!(next(&outbox), message(r#"{"error":"Received a binary message"}"#, false));
    let end = End::close(1003, "Received a binary message");
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::End(end.clone())));
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::End(end)), "an end stays an end");
}

#[test]
fn the_first_end_wins() {
    let outbox = outbox();
    outbox.close(None, End::close(1001, "first"));
    outbox.refuse(&Refusal::HookFailed);
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::Closing));
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::End(End::close(1001, "first"))));
}

#[test]
fn no_forward_of_a_sender_follows_its_client_disconnected() {
    let (outbox, here, share) = (outbox(), AtomicBool::new(true), Arc::<Share>::default());
    let push = |said| outbox.push_forward_while(text(said), Passage::Direct, Instant::now(), &here, &share);
    push("1").unwrap();
    here.store(false, Ordering::Release);
    outbox.push(text("gone"));
    assert_eq!(push("2"), Err(Closed));
    assert_eq!(next(&outbox), message("1", true));
    assert_eq!(next(&outbox), message("gone", false));
    assert_eq!(next(&outbox), Poll::Pending);
    assert!(!outbox.is_closed());
}

#[test]
fn every_push_and_signal_wakes_the_draining_task() {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    let outbox = outbox();
    let probe = std::cell::RefCell::new(None);
    let events: [&dyn Fn(); 7] = [
        &|| outbox.push(text("1")),
        &|| assert!(push(&outbox, "2").is_ok()),
        &|| outbox.wake_session(),
        &|| outbox.wake_session_and_notify(mpsc::channel().0),
        &|| outbox.ping(),
        &|| drop(probe.replace(Some(outbox.probe()))),
        &|| outbox.close(None, End::Drop),
    ];
    for (count, event) in events.iter().enumerate() {
        assert_eq!(outbox.poll_next(&cx, true), Poll::Pending);
        assert!(outbox.is_idle());
        event();
        assert_eq!((woken.0.load(Ordering::Relaxed), outbox.is_idle()), (count + 1, false));
        assert!(outbox.poll_next(&cx, true).is_ready());
    }
}

#[test]
fn only_signals_pass_while_the_transport_has_no_room() {
    let outbox = outbox();
    let cx = Context::from_waker(Waker::noop());
    outbox.push(text("1"));
    outbox.ping();
    assert_eq!(outbox.poll_next(&cx, false), Poll::Pending);
    outbox.close(None, End::Drop);
    assert_eq!(outbox.poll_next(&cx, false), Poll::Ready(Outgoing::Closing));
    assert_eq!(outbox.poll_next(&cx, false), Poll::Pending);
    outbox.wake_session();
    assert_eq!(outbox.poll_next(&cx, false), Poll::Ready(Outgoing::Recheck));
    assert_eq!(outbox.poll_next(&cx, true), Poll::Ready(Outgoing::Ping));
    assert_eq!(outbox.poll_next(&cx, true), message("1", false));
}

#[test]
fn last_message_stores_the_waker() {
    let (outbox, woken) = (outbox(), Arc::new(Woken::default()));
    let waker = Waker::from(Arc::clone(&woken));
    let next = |room| (outbox.poll_next(&Context::from_waker(&waker), room), outbox.is_idle());
    outbox.push(text("1"));
    outbox.push(text("2"));
    assert_eq!(next(false), (Poll::Pending, false), "there is more to do as soon as there is room");
    assert_eq!(next(true), (message("1", false), false));
    outbox.push(text("3"));
    assert_eq!(next(true), (message("2", false), false));
    assert_eq!(woken.0.load(Ordering::Relaxed), 1, "more is queued, so the task polls again by itself");
    assert_eq!(next(true), (message("3", false), true));
    outbox.push(text("4"));
    assert_eq!((woken.0.load(Ordering::Relaxed), outbox.is_idle()), (2, false));
    assert_eq!(next(true), (message("4", false), true));
    outbox.close(None, End::Drop);
    assert!(!outbox.is_idle());
}

#[test]
fn probe_resolves_on_a_pong_and_fails_on_close() {
    let outbox = outbox();
    let mut first = outbox.probe();
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::Ping));
    assert_eq!(first.try_recv(), Err(TryRecvError::Empty));
    outbox.alive();
    assert_eq!(first.try_recv(), Ok(()));
    let mut second = outbox.probe();
    outbox.close(None, End::Drop);
    assert_eq!(second.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(outbox.probe().try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn drain_counts_unwritten_forwards() {
    let outbox = outbox();
    outbox.push(text("own"));
    push(&outbox, "1").unwrap();
    push(&outbox, "2").unwrap();
    assert_eq!(outbox.drain(), 2);
    assert_eq!(outbox.drain(), 0);
    assert_eq!(push(&outbox, "3"), Err(Closed));
}

#[test]
fn waiter_is_kept_until_the_task_has_rechecked() {
    let outbox = outbox();
    let (waiter, done) = mpsc::channel();
    outbox.wake_session_and_notify(waiter);
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::Recheck));
    assert_eq!(next(&outbox), Poll::Pending);
    assert_eq!(done.try_recv(), Err(mpsc::TryRecvError::Empty));
    outbox.drain();
    assert_eq!(done.try_recv(), Err(mpsc::TryRecvError::Empty), "the drained forwards are not counted yet");
    outbox.rechecked();
    assert_eq!(done.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn waiter_of_a_drained_outbox_is_dropped_at_once() {
    let outbox = outbox();
    outbox.drain();
    let (waiter, done) = mpsc::channel();
    outbox.wake_session_and_notify(waiter);
    assert_eq!(done.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn drain_closes_the_outbox_and_fails_its_probes() {
    let outbox = outbox();
    let mut probe = outbox.probe();
    outbox.drain();
    assert!(outbox.is_closed());
    assert_eq!(probe.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn overflow_fails_probes_and_wakes_the_draining_task() {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    let outbox = outbox();
    let mut probe = outbox.probe();
    assert_eq!(outbox.poll_next(&cx, true), Poll::Ready(Outgoing::Ping));
    assert_eq!(outbox.poll_next(&cx, true), Poll::Pending);
    outbox.close_slow();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert!(outbox.has_overflowed());
    assert_eq!(probe.try_recv(), Err(TryRecvError::Closed));
}

#[test]
fn close_slow_does_not_change_an_earlier_end() {
    let outbox = outbox();
    push(&outbox, "1").unwrap();
    outbox.close(None, End::close(1001, "first"));
    outbox.close_slow();
    assert!(!outbox.has_overflowed());
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::Closing));
    assert_eq!(next(&outbox), message("1", true));
    assert_eq!(next(&outbox), Poll::Ready(Outgoing::End(End::close(1001, "first"))));
}

#[test]
fn last_waker_replaces_the_one_before() {
    let wakers = [Arc::new(Woken::default()), Arc::new(Woken::default())];
    let outbox = outbox();
    for woken in &wakers {
        let waker = Waker::from(Arc::clone(woken));
        assert_eq!(outbox.poll_next(&Context::from_waker(&waker), true), Poll::Pending);
    }
    outbox.push(text("1"));
    assert_eq!(wakers.map(|woken| woken.0.load(Ordering::Relaxed)), [0, 1]);
}

#[test]
fn first_refusal_is_kept() {
    let outbox = outbox();
    outbox.refuse(&Refusal::Binary);
    outbox.refuse(&Refusal::HookFailed);
    assert_eq!(outbox.refusal(), Some(Refusal::Binary));
}

#[test]
fn drain_drops_the_waker() {
    let woken = Arc::new(Woken::default());
    let outbox = outbox();
    let waker = Waker::from(Arc::clone(&woken));
    assert_eq!(outbox.poll_next(&Context::from_waker(&waker), true), Poll::Pending);
    drop(waker);
    outbox.drain();
    assert_eq!(Arc::strong_count(&woken), 1, "a waker keeps the runtime's descriptors open");
}
