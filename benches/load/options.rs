//! The command line.

use std::time::Duration;

use tokio_rustls::TlsConnector;

use crate::tls;

#[derive(Clone)]
pub struct Options {
    pub scenario: String,
    /// The port of devices, and of clients unless `client_port` is another one.
    pub port: u16,
    /// The port of clients: that of another node, if the server has several.
    pub client_port: u16,
    /// The process of the server, whose CPU time and memory are measured.
    pub pid: u32,
    /// The process of another node, whose CPU time is added.
    pub other_pid: Option<u32>,
    pub pairs: usize,
    /// Clients that share a device.
    pub per_device: usize,
    /// The size of each payload, in bytes of JSON.
    pub payload: usize,
    /// Round trips that one pair has in flight.
    pub window: usize,
    /// Whether a pair sends its `window` at once, and again when all have returned: a message has the same number of reads
    /// and writes on each server, however busy it is.
    pub bursts: bool,
    /// Registered devices that send nothing.
    pub idle: usize,
    /// Connects over TLS, if there is a certificate to trust.
    pub tls: Option<TlsConnector>,
    /// Pages of the dashboard that are open beside.
    pub pages: usize,
    /// Clients that connect and leave.
    pub clients: usize,
    pub seconds: Duration,
}

impl Options {
    /// Parses the arguments. Returns `None` without a scenario.
    pub fn of(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        let scenario = arguments.next()?;
        let mut options = Self {
            scenario,
            port: 0,
            client_port: 0,
            pid: 0,
            other_pid: None,
            pairs: 50,
            per_device: 1,
            payload: 250,
            window: 1,
            bursts: false,
            idle: 0,
            tls: None,
            pages: 0,
            clients: 100_000,
            seconds: Duration::from_secs(3),
        };
        while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
            let number = || value.parse::<usize>().unwrap_or_else(|_| panic!("{name} needs a number, not {value}"));
            match name.as_str() {
                "--port" => options.port = u16::try_from(number()).unwrap(),
                "--client-port" => options.client_port = u16::try_from(number()).unwrap(),
                "--pid" => options.pid = u32::try_from(number()).unwrap(),
                "--other-pid" => options.other_pid = Some(u32::try_from(number()).unwrap()),
                "--pairs" => options.pairs = number(),
                "--payload" => options.payload = number(),
                "--window" => options.window = number(),
                "--bursts" => options.bursts = number() > 0,
                "--clients" => options.clients = number(),
                "--per-device" => options.per_device = number().max(1),
                "--pages" => options.pages = number(),
                "--ca" => options.tls = Some(tls::trusting(&std::fs::read(&value).unwrap())),
                "--idle" => options.idle = number(),
                "--seconds" => options.seconds = Duration::from_secs_f64(value.parse().unwrap()),
                _ => panic!("there is no option {name}"),
            }
        }
        if options.client_port == 0 {
            options.client_port = options.port;
        }
        Some(options)
    }
}
