//! The scenarios of the load, and their figures.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::options::Options;
use crate::pages;
use crate::peer::{Peer, dial};
use crate::system::{resident, server_time};

pub type Figures = Vec<(&'static str, f64)>;

const CANDIDATES: usize = 16;
const WARM_UP: Duration = Duration::from_millis(500);

/// Counts completed round trips after the warm-up, and their times.
#[derive(Default)]
pub struct Counter {
    counting: Cell<bool>,
    pub over: Cell<bool>,
    count: Cell<u64>,
    took: RefCell<Vec<Duration>>,
}

impl Counter {
    pub fn done(&self, began: Instant) {
        if self.counting.get() {
            self.count.set(self.count.get() + 1);
            self.took.borrow_mut().push(began.elapsed());
        }
    }

    /// Counts for `options.seconds` while the load runs. Returns the count, the time and the server's CPU time.
    pub async fn measure(&self, options: &Options) -> (f64, Duration, Duration) {
        sleep(WARM_UP.min(options.seconds)).await;
        let (began, cpu) = (Instant::now(), server_time(options));
        self.counting.set(true);
        sleep(options.seconds).await;
        self.counting.set(false);
        self.over.set(true);
        (self.count.get() as f64, began.elapsed(), server_time(options).saturating_sub(cpu))
    }

    /// Returns a percentile of the times, in microseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut took = self.took.borrow_mut();
        took.sort_unstable();
        let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    }
}

pub async fn relay(options: &Options) -> Figures {
    let counter = Rc::new(Counter::default());
    let idle = devices(options, "idle", options.idle).await;
    LocalSet::new()
        .run_until(async {
            for pair in 0..options.pairs {
                let id = format!("device-{}", pair / options.per_device);
                if pair % options.per_device == 0 {
                    tokio::task::spawn_local(echo(Peer::device(options, &id).await, options.payload));
                }
                let client = Peer::client(options, &id).await;
                tokio::task::spawn_local(ask(client, Rc::clone(&counter), options.clone()));
            }
            for _ in 0..options.pages {
                tokio::task::spawn_local(pages::read(dial(options, options.port).await));
            }
            let (round_trips, time, cpu) = counter.measure(options).await;
            drop(idle);
            vec![
                ("round_trips_per_second", round_trips / time.as_secs_f64()),
                ("cpu_us_per_message", cpu.as_secs_f64() * 1e6 / (2.0 * round_trips)),
                ("p50_us", counter.percentile(50)),
                ("p99_us", counter.percentile(99)),
            ]
        })
        .await
}

/// A device that answers every message. It writes once for all messages that have arrived.
pub async fn echo(mut device: Peer, payload: usize) {
    let payload = json(payload);
    loop {
        let client = client_of(device.hears().await);
        device.queue(&format!(r#"{{"message_type":"forward","client_id":{client},"payload":{payload}}}"#));
        if !device.has_more() {
            device.flush().await;
        }
    }
}

/// A client that keeps `window` round trips in flight until the end of the run, or begins as many at once.
async fn ask(mut client: Peer, counter: Rc<Counter>, options: Options) {
    let question = format!(r#"{{"message_type":"forward","payload":{}}}"#, json(options.payload));
    let mut under_way = VecDeque::new();
    for _ in 0..options.window {
        client.queue(&question);
        under_way.push_back(Instant::now());
    }
    client.flush().await;
    while !counter.over.get() {
        client.hears().await;
        counter.done(under_way.pop_front().unwrap());
        if options.bursts && !under_way.is_empty() {
            continue;
        }
        while under_way.len() < options.window {
            client.queue(&question);
            under_way.push_back(Instant::now());
        }
        if !client.has_more() {
            client.flush().await;
        }
    }
}

pub async fn sessions(options: &Options) -> Figures {
    let counter = Rc::new(Counter::default());
    LocalSet::new()
        .run_until(async {
            for pair in 0..options.pairs {
                let id = format!("device-{pair}");
                let device = Peer::device(options, &id).await;
                tokio::task::spawn_local(answer_sessions(device));
                tokio::task::spawn_local(hold_sessions(options.clone(), id, Rc::clone(&counter)));
            }
            let (sessions, time, cpu) = counter.measure(options).await;
            vec![
                ("sessions_per_second", sessions / time.as_secs_f64()),
                ("cpu_us_per_session", cpu.as_secs_f64() * 1e6 / sessions),
            ]
        })
        .await
}

/// The client that a message to a device is about.
fn client_of(heard: &[u8]) -> u64 {
    const KEY: &[u8] = br#""client_id":"#;
    let at = heard.windows(KEY.len()).position(|part| part == KEY).unwrap() + KEY.len();
    let digits = heard[at..].trim_ascii_start().iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// A device that answers each request for an offer, and each last candidate.
async fn answer_sessions(mut device: Peer) {
    loop {
        let heard = String::from_utf8(device.hears().await.to_vec()).unwrap();
        let client = client_of(heard.as_bytes());
        let says = |payload: &str| format!(r#"{{"message_type":"forward","client_id":{client},"payload":{payload}}}"#);
        if heard.contains("request-offer") {
            device.says(&says(&json(2000))).await;
        } else if heard.contains("last-candidate") {
            device.says(&says(&json(150))).await;
        }
    }
}

async fn hold_sessions(options: Options, id: String, counter: Rc<Counter>) {
    let says = |payload: &str| format!(r#"{{"message_type":"forward","payload":{payload}}}"#);
    while !counter.over.get() {
        let began = Instant::now();
        let mut client = Peer::client(&options, &id).await;
        client.says(&says(r#"{"type":"request-offer"}"#)).await;
        client.hears().await;
        client.says(&says(&json(1500))).await;
        for _ in 1..CANDIDATES {
            client.says(&says(&json(150))).await;
        }
        client.says(&says(r#"{"type":"last-candidate"}"#)).await;
        client.hears().await;
        client.closes().await;
        counter.done(began);
    }
}

pub async fn registrations(options: &Options) -> Figures {
    let counter = Rc::new(Counter::default());
    LocalSet::new()
        .run_until(async {
            for worker in 0..options.pairs {
                let (options, counter) = (options.clone(), Rc::clone(&counter));
                tokio::task::spawn_local(async move {
                    while !counter.over.get() {
                        let began = Instant::now();
                        Peer::device(&options, &format!("device-{worker}")).await.closes().await;
                        counter.done(began);
                    }
                });
            }
            let (registrations, time, cpu) = counter.measure(options).await;
            vec![
                ("registrations_per_second", registrations / time.as_secs_f64()),
                ("cpu_us_per_registration", cpu.as_secs_f64() * 1e6 / registrations),
            ]
        })
        .await
}

/// Clients connect, ask their device for an offer and leave, `clients` in all.
///
/// The figures compare the first tenth with the last: the CPU time of a client, and the memory of the server.
pub async fn churn(options: &Options) -> Figures {
    let (come, gone) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    LocalSet::new()
        .run_until(async {
            for pair in 0..options.pairs {
                let id = format!("device-{pair}");
                let device = Peer::device(options, &id).await;
                tokio::task::spawn_local(answer_sessions(device));
                tokio::task::spawn_local(come_and_go(options.clone(), id, Rc::clone(&come), Rc::clone(&gone)));
            }
            let mut tenths = Vec::new();
            for tenth in 1..=10 {
                let cpu = server_time(options);
                while gone.get() < options.clients * tenth / 10 {
                    sleep(Duration::from_millis(1)).await;
                }
                let took = server_time(options).saturating_sub(cpu).as_secs_f64() * 1e6;
                tenths.push((took / (options.clients as f64 / 10.0), resident(options.pid)));
            }
            vec![
                ("cpu_us_per_client_first_tenth", tenths[0].0),
                ("cpu_us_per_client_last_tenth", tenths[9].0),
                ("kib_after_a_tenth", tenths[0].1),
                ("kib_after_all", tenths[9].1),
            ]
        })
        .await
}

async fn come_and_go(options: Options, id: String, come: Rc<Cell<usize>>, gone: Rc<Cell<usize>>) {
    while come.get() < options.clients {
        come.set(come.get() + 1);
        let mut client = Peer::client(&options, &id).await;
        client.says(r#"{"message_type":"forward","payload":{"type":"request-offer"}}"#).await;
        client.hears().await;
        client.closes().await;
        gone.set(gone.get() + 1);
    }
}

pub async fn idle(options: &Options) -> Figures {
    // The server returns memory to the system within seconds.
    let settle = options.seconds;
    let before = resident(options.pid);
    let held = devices(options, "idle", options.idle).await;
    sleep(settle).await;
    let during = resident(options.pid);
    drop(held);
    sleep(settle).await;
    let after = resident(options.pid);
    vec![("kib_per_idle_device", (during - before) / options.idle as f64), ("kib_before", before), ("kib_after", after)]
}

async fn devices(options: &Options, name: &str, count: usize) -> Vec<Peer> {
    let mut devices = Vec::with_capacity(count);
    for number in 0..count {
        devices.push(Peer::device(options, &format!("{name}-{number}")).await);
    }
    devices
}

/// Creates a payload of this size.
pub fn json(bytes: usize) -> String {
    const AROUND: usize = r#"{"type":"ice-candidate","sdp":""}"#.len();
    format!(r#"{{"type":"ice-candidate","sdp":"{}"}}"#, "x".repeat(bytes.saturating_sub(AROUND)))
}
