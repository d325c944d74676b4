//! A `redis-server` of the test's own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use cuttlefish_signaling::config::cluster::Cluster;
use cuttlefish_signaling::core::cluster::registry::Timing;
use redis::{Connection, FromRedisValue};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Secret of the clusters of the tests.
pub(crate) const SECRET: &str = "a secret of thirty-two bytes, or more";

/// A server that ends with this value. Its data are in memory only.
pub(crate) struct Server {
    pub(crate) port: u16,
    program: &'static str,
    options: Vec<String>,
    child: Child,
    dir: TempDir,
}

impl Server {
    /// Starts a server on a free port of loopback, with these options more.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_on(free_port(), options)
    }

    pub(crate) fn start_on(port: u16, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        let child = spawn("redis-server", dir.path(), port, &options);
        Self { port, program: "redis-server", options, child, dir }
    }

    /// Ends the server at once, and starts it again on the same port, without data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.program, self.dir.path(), self.port, &self.options);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Returns the id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connects for commands of the test.
    pub(crate) fn admin(&self) -> Connection {
        redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap().get_connection().unwrap()
    }

    /// Executes a command, whose words have no spaces.
    pub(crate) fn run<T: FromRedisValue>(&self, words: &str) -> T {
        command(words).query(&mut self.admin()).unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Repeats a command until its answer contains a text.
    pub(crate) fn until(&self, words: &str, text: &str) {
        until(&mut self.admin(), words, text);
    }
}

/// A Sentinel that watches a master as `lab`.
pub(crate) struct Sentinel {
    pub(crate) port: u16,
    child: Child,
    _dir: TempDir,
}

impl Sentinel {
    pub(crate) fn start(master: u16) -> Self {
        Self::start_with(master, "")
    }

    /// Starts a Sentinel with these lines more in its configuration. They may change its port and its users, which
    /// [`Sentinel::until`] does not know.
    pub(crate) fn start_with(master: u16, lines: &str) -> Self {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        // A Sentinel writes into its configuration.
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor lab 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds lab 500\nsentinel failover-timeout lab 2000\n{lines}\n",
            dir.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-sentinel");
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = run(&mut command, "redis-sentinel", "Sentinel ID is");
        Self { port, child, _dir: dir }
    }

    /// Repeats a command until its answer contains a text.
    pub(crate) fn until(&self, words: &str, text: &str) {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        until(&mut client.get_connection().unwrap(), words, text);
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn until(connection: &mut Connection, words: &str, text: &str) {
    loop {
        let answer: redis::Value = command(words).query(connection).unwrap();
        let words: Vec<String> = redis::from_redis_value(answer.clone()).unwrap_or_default();
        let line = String::from_redis_value(answer).unwrap_or_default();
        if words.join(" ").contains(text) || line.contains(text) {
            return;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Splits words into a command.
pub(crate) fn command(words: &str) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in words.split(' ') {
        command.arg(word);
    }
    command
}

/// Returns the settings of a node of a cluster at this URL.
pub(crate) fn settings(url: &str, timing: Timing) -> Cluster {
    Cluster {
        engine: url.to_owned(),
        name: "lab".into(),
        node: "a".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        address: None,
        secrets: vec![SECRET.into()],
        ca: None,
        hold_on_outage: false,
        device_id_template: None,
        timing,
    }
}

/// Returns a runtime without timers, as that of the Python package is.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_io().build().unwrap()
}

/// Returns a free port, which no other test of this process is given.
///
/// It is below the ports that the kernel gives to outgoing connections and to listeners with port 0: a test beside this
/// one cannot take it by chance.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let next = || std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
    let ports = std::iter::repeat_with(|| 10_000 + u16::try_from(next() % 22_000).unwrap());
    ports.take(1000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("no free port below 32,000")
}

/// Returns the version of `redis-server`: the major and the minor number. One of Valkey is 7.2 or later.
pub(crate) fn version() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let said = Command::new("redis-server").arg("--version").output().unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        let mut numbers = said.split_once("v=").unwrap().1.split('.').map_while(|number| number.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    })
}

fn spawn(program: &str, dir: &Path, port: u16, options: &[String]) -> Child {
    let port = port.to_string();
    let mut command = Command::new(program);
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    if version() >= (7, 0) {
        command.args(["--enable-debug-command", "local"]);
    }
    command.arg("--dir").arg(dir).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    run(&mut command, program, "eady to accept connections")
}

/// Starts a program, and waits until its log has a text.
fn run(command: &mut Command, program: &str, ready: &str) -> Child {
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}: apt-get install {program}"));
    wait_for(child.stdout.take().unwrap(), ready);
    child
}

/// Reads the log until it has a text, then in the background until it ends.
fn wait_for(log: ChildStdout, text: &str) {
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    let mut seen = Vec::new();
    let ready = lines.by_ref().any(|line| {
        seen.push(line);
        seen.last().is_some_and(|line| line.contains(text))
    });
    assert!(ready, "the server ended: {}", seen.join("\n"));
    std::thread::spawn(move || lines.for_each(drop));
}
