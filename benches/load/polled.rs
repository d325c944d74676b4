//! Clients that poll over HTTP: `POST` for a message to the device, and a `GET` that is held until there is an answer.

use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use crate::options::Options;
use crate::peer::{Peer, Stream, dial};
use crate::scenarios::{Counter, Figures, echo, json};

/// Round trips client, device, client, one at a time for each client.
pub async fn polled(options: &Options) -> Figures {
    let counter = Rc::new(Counter::default());
    LocalSet::new()
        .run_until(async {
            for pair in 0..options.pairs {
                let id = format!("device-{pair}");
                tokio::task::spawn_local(echo(Peer::device(options, &id).await, options.payload));
                let client = Client::open(options, &id).await;
                tokio::task::spawn_local(client.ask(Rc::clone(&counter), options.payload));
            }
            let (round_trips, time, cpu) = counter.measure(options).await;
            vec![
                ("round_trips_per_second", round_trips / time.as_secs_f64()),
                ("cpu_us_per_message", cpu.as_secs_f64() * 1e6 / (2.0 * round_trips)),
                ("p50_us", counter.percentile(50)),
                ("p99_us", counter.percentile(99)),
            ]
        })
        .await
}

/// A polled client, and its one connection.
struct Client {
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    id: String,
}

impl Client {
    async fn open(options: &Options, device: &str) -> Self {
        let stream = dial(options, options.client_port).await;
        let mut client = Self { stream, input: Vec::new(), id: String::new() };
        let body = client.request("POST", "/polled_connections", &format!(r#"{{"device_id":"{device}"}}"#)).await;
        let (_, rest) = body.split_once(r#""connection_id":""#).unwrap();
        let id = rest.split('"').next().unwrap().to_owned();
        Self { id, ..client }
    }

    async fn ask(mut self, counter: Rc<Counter>, payload: usize) {
        let question = format!(r#"{{"payload":{}}}"#, json(payload));
        let forward = format!("/polled_connections/{}/:forward", self.id);
        let mut start = 0;
        while !counter.over.get() {
            let began = Instant::now();
            assert_eq!(self.request("POST", &forward, &question).await, r#""ok""#);
            let messages = format!("/polled_connections/{}/messages?start={start}&wait=10", self.id);
            assert!(self.request("GET", &messages, "").await.contains("device_msg"), "no message within the wait");
            start += 1;
            counter.done(began);
        }
    }

    /// Sends a request, and returns the body of its answer.
    async fn request(&mut self, method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(head.as_bytes()).await.unwrap();
        loop {
            if let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.input[..end]).to_ascii_lowercase();
                assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
                let (_, rest) = head.split_once("content-length: ").unwrap();
                let whole = end + 4 + rest.lines().next().unwrap().parse::<usize>().unwrap();
                if self.input.len() >= whole {
                    let body = String::from_utf8_lossy(&self.input[end + 4..whole]).into_owned();
                    self.input.drain(..whole);
                    return body;
                }
            }
            assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0, "the server has ended the connection");
        }
    }
}
