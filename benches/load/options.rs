//! The command line.

use std::path::PathBuf;
use std::time::Duration;

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
    /// The size of each payload, in bytes of JSON.
    pub payload: usize,
    /// Round trips that one pair has in flight.
    pub window: usize,
    /// Registered devices that send nothing.
    pub idle: usize,
    /// The certificate that the devices of a storm trust, PEM.
    pub ca: PathBuf,
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
            payload: 250,
            window: 1,
            idle: 0,
            ca: PathBuf::new(),
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
                "--clients" => options.clients = number(),
                "--ca" => options.ca = value.into(),
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
