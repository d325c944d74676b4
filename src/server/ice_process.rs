//! Runs a command once, on an OS thread of its own: output is bounded, and a run that takes too long is killed.
//!
//! A thread and not tokio's processes: those need a handler for SIGCHLD in the process, which belongs to Python.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::oneshot;

use crate::protocol::MAX_DEVICE_MESSAGE;

/// The most bytes of standard output: a longer `config` would not fit one message to a device (docs/protocol.md 2.8).
const MAX_OUTPUT: usize = MAX_DEVICE_MESSAGE;

/// Bytes of standard error that an error repeats.
const MAX_STDERR: usize = 300;

/// A run of a command.
pub(super) struct Run {
    /// The process group of the run; 0 before it has started and after it has ended.
    group: Arc<AtomicI32>,
    /// The outcome: standard output, or the reason of the failure.
    pub(super) outcome: oneshot::Receiver<Result<String, String>>,
}

impl Run {
    /// Starts the command. It has no standard input, and a process group of its own.
    pub(super) fn start(argv: Vec<String>) -> io::Result<Self> {
        let (group, (done, outcome)) = (Arc::new(AtomicI32::new(0)), oneshot::channel());
        let of_thread = Arc::clone(&group);
        let work = move || {
            let outcome = execute(&argv, &of_thread);
            of_thread.store(0, Ordering::Release);
            let _nobody_waits = done.send(outcome);
        };
        thread::Builder::new().name("cuttlefish-ice".into()).spawn(work)?;
        Ok(Self { group, outcome })
    }

    /// Kills the command and the processes that it has started. The thread then ends soon.
    pub(super) fn kill(&self) {
        kill(self.group.load(Ordering::Acquire));
    }
}

fn kill(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // It may have ended meanwhile.
        let _ended = kill_process_group(group, Signal::KILL);
    }
}

/// Runs the command to its end, and reaps it.
fn execute(argv: &[String], group: &AtomicI32) -> Result<String, String> {
    let (program, arguments) = argv.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let id = i32::try_from(child.id()).unwrap_or_default();
    group.store(id, Ordering::Release);
    let errors = child.stderr.take().map(|stderr| thread::spawn(move || first_bytes(stderr)));
    let output = read_output(&mut child, id);
    let status = child.wait().map_err(|error| format!("cannot be waited for: {error}"))?;
    let errors = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let said = if errors.is_empty() { String::new() } else { format!("; stderr: {errors:?}") };
    let output = output.map_err(|why| format!("{why}{said}"))?;
    if !status.success() {
        return Err(format!("{}{said}", ended(status)));
    }
    Ok(output)
}

/// Reads standard output. A command that prints too much is killed.
fn read_output(child: &mut Child, group: i32) -> Result<String, String> {
    let mut output = Vec::new();
    let stdout = child.stdout.take().ok_or("has no standard output")?;
    let read = stdout.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut output);
    if let Err(error) = read {
        kill(group);
        return Err(format!("cannot be read from: {error}"));
    }
    if output.len() > MAX_OUTPUT {
        kill(group);
        return Err(format!("printed more than {MAX_OUTPUT} bytes, and was killed"));
    }
    String::from_utf8(output).map_err(|_| "printed bytes that are not UTF-8".into())
}

/// Reads a stream to its end, so that its writer does not block. Returns its first bytes.
fn first_bytes(mut stream: impl Read) -> String {
    let mut first = Vec::new();
    let _failed = stream.by_ref().take(MAX_STDERR as u64).read_to_end(&mut first);
    let _failed = io::copy(&mut stream, &mut io::sink());
    String::from_utf8_lossy(&first).trim().to_owned()
}

/// How a process has ended, for people.
fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}
