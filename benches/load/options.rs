//! The command line.

use std::time::Duration;

#[derive(Clone)]
pub struct Options {
    pub scenario: String,
    pub port: u16,
    /// The server, whose CPU time and memory are told.
    pub pid: u32,
    pub pairs: usize,
    /// Bytes of JSON in each payload.
    pub payload: usize,
    /// Round trips that one pair has under way.
    pub window: usize,
    /// Devices that are registered and say nothing.
    pub idle: usize,
    /// Clients that come and go.
    pub clients: usize,
    pub seconds: Duration,
}

impl Options {
    /// `None` where there is no scenario.
    pub fn of(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        let scenario = arguments.next()?;
        let mut options = Self {
            scenario,
            port: 0,
            pid: 0,
            pairs: 50,
            payload: 250,
            window: 1,
            idle: 0,
            clients: 100_000,
            seconds: Duration::from_secs(3),
        };
        while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
            let number = || value.parse::<usize>().unwrap_or_else(|_| panic!("{name} needs a number, not {value}"));
            match name.as_str() {
                "--port" => options.port = u16::try_from(number()).unwrap(),
                "--pid" => options.pid = u32::try_from(number()).unwrap(),
                "--pairs" => options.pairs = number(),
                "--payload" => options.payload = number(),
                "--window" => options.window = number(),
                "--clients" => options.clients = number(),
                "--idle" => options.idle = number(),
                "--seconds" => options.seconds = Duration::from_secs_f64(value.parse().unwrap()),
                _ => panic!("there is no option {name}"),
            }
        }
        Some(options)
    }
}
