//! The audit log: a bounded queue of records, and the one thread that appends them to a file.
//!
//! Adding a record never waits. A record that finds the queue full is dropped, counted and told.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use crate::config::Config;
use crate::config::error::ConfigError;
use crate::core::peer::Peer;
use crate::observe::audit::{AuditGrant, AuditRecord, MAX_PATTERNS, Outcome};

/// How long a server that stops waits for the last records. A disk that hangs must not hold up the stop.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// The audit log of one server.
pub(super) struct AuditLog {
    /// The name of this node of a cluster.
    node: Option<String>,
    state: Mutex<State>,
    /// Notified when there is work for the thread, and when it has ended.
    changed: Condvar,
    /// Records that were not written.
    dropped: AtomicU64,
    /// The thread, once it has started.
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct State {
    /// Lines that wait.
    lines: VecDeque<String>,
    /// Lines that the thread has taken.
    writing: usize,
    /// Lines that may wait, those that the thread has taken included.
    most: usize,
    /// A file that replaces the one before.
    file: Option<File>,
    /// Whether a record was dropped since the queue was last empty.
    is_full: bool,
    /// Whether no record is added any more.
    is_closed: bool,
    /// Whether the thread has written all.
    has_ended: bool,
}

impl AuditLog {
    /// Opens the log of a server, if the settings ask for one.
    pub(super) fn of(config: &Config) -> Result<Option<Arc<Self>>, ConfigError> {
        let Some(file) = open(config)? else { return Ok(None) };
        let node = config.cluster.as_ref().map(|cluster| cluster.node.clone());
        Ok(Some(Arc::new(Self::new(file, config.limits.audit_queue, node))))
    }

    fn new(file: File, most: usize, node: Option<String>) -> Self {
        let state = State {
            lines: VecDeque::new(),
            writing: 0,
            most,
            file: Some(file),
            is_full: false,
            is_closed: false,
            has_ended: false,
        };
        Self {
            node,
            state: Mutex::new(state),
            changed: Condvar::new(),
            dropped: AtomicU64::new(0),
            thread: Mutex::default(),
        }
    }

    /// Starts the thread, which logs as the caller does.
    pub(super) fn start(self: &Arc<Self>) {
        let log = tracing::dispatcher::get_default(Clone::clone);
        let audit = Arc::clone(self);
        let run = move || tracing::dispatcher::with_default(&log, || audit.run());
        match Builder::new().name("cuttlefish-signaling-audit".into()).spawn(run) {
            Ok(thread) => *self.thread.lock() = Some(thread),
            Err(error) => {
                let what = "cannot start the thread of the audit log";
                tracing::error!(event = "audit_failed", reason = %error, "{what}, which has no record: {error}");
                self.state.lock().is_closed = true;
                self.state.lock().has_ended = true;
            }
        }
    }

    /// Adds a record.
    pub(super) fn add(&self, record: &AuditRecord<'_>) {
        let line = record.line(SystemTime::now(), self.node.as_deref());
        let mut state = self.state.lock();
        if !state.is_closed && state.lines.len() + state.writing < state.most {
            state.lines.push_back(line);
            drop(state);
            self.changed.notify_one();
            return;
        }
        let (is_first, most) = (!std::mem::replace(&mut state.is_full, true), state.most);
        drop(state);
        self.count_dropped(1);
        if is_first {
            let reason = format!("{most} records wait (limits.audit_queue)");
            tracing::warn!(event = "audit_dropped", reason, "a record of the audit log was dropped: {reason}");
        }
    }

    /// The records that were not written.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn count_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets the bound of the queue, and the file that gets the records from now on.
    pub(super) fn replace(&self, most: usize, file: Option<File>) {
        let mut state = self.state.lock();
        (state.most, state.file) = (most, file.or_else(|| state.file.take()));
        self.changed.notify_all();
    }

    /// Writes the records that wait, and ends the thread. Records that are not written in time are dropped.
    pub(super) fn finish(&self) {
        let until = Instant::now() + LAST_WRITES;
        let mut state = self.state.lock();
        state.is_closed = true;
        self.changed.notify_all();
        while !state.has_ended {
            if self.changed.wait_until(&mut state, until).timed_out() && !state.has_ended {
                let left = state.lines.len() + state.writing;
                state.lines.clear();
                drop(state);
                self.count_dropped(left as u64);
                let reason = format!("the file did not take the last {left} records in time");
                return tracing::warn!(event = "audit_dropped", reason, "the audit log is not complete: {reason}");
            }
        }
        drop(state);
        if let Some(thread) = self.thread.lock().take() {
            let _panicked = thread.join();
        }
    }

    /// Writes records until the log is closed.
    fn run(&self) {
        let mut output = Output { file: None, is_torn: false, failure: None, failed: 0 };
        loop {
            let mut state = self.state.lock();
            state.writing = 0;
            state.is_full &= !state.lines.is_empty();
            while state.lines.is_empty() && state.file.is_none() && !state.is_closed {
                self.changed.wait(&mut state);
            }
            if let Some(file) = state.file.take() {
                (output.file, output.is_torn) = (Some(file), false);
            }
            let lines = std::mem::take(&mut state.lines);
            if lines.is_empty() && state.is_closed {
                state.has_ended = true;
                drop(state);
                self.changed.notify_all();
                return;
            }
            state.writing = lines.len();
            drop(state);
            let failed = lines.iter().filter(|line| !output.write(line)).count();
            self.count_dropped(failed as u64);
        }
    }
}

/// The file, and its last failure.
struct Output {
    file: Option<File>,
    /// Whether the file ends within a line.
    is_torn: bool,
    /// The last failure, if the last record was not written.
    failure: Option<String>,
    /// Records that were not written since the first failure.
    failed: u64,
}

impl Output {
    /// Writes a line. Logs a failure unless it is the last one again, and the end of failures.
    fn write(&mut self, line: &str) -> bool {
        match self.try_write(line) {
            Ok(()) => {
                if self.failure.take().is_some() {
                    let left_out = std::mem::take(&mut self.failed);
                    tracing::info!(
                        event = "audit_resumed",
                        left_out,
                        "the audit log is written again; {left_out} records are missing"
                    );
                }
                true
            }
            Err(error) => {
                let reason = error.to_string();
                self.failed += 1;
                if self.failure.as_ref() != Some(&reason) {
                    tracing::error!(event = "audit_failed", reason, "cannot write the audit log: {reason}");
                    self.failure = Some(reason);
                }
                false
            }
        }
    }

    fn try_write(&mut self, line: &str) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if self.is_torn {
            file.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens the file of the settings, to append to it.
pub(super) fn open(config: &Config) -> Result<Option<File>, ConfigError> {
    let Some(path) = &config.audit_log else { return Ok(None) };
    refuse_special(path)?;
    // Identities and addresses are for the owner, and for the group that collects logs.
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    opened.map(Some).map_err(|error| fault(path, &error.to_string()))
}

/// Checks the file of the settings as far as that changes nothing.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let Some(path) = &config.audit_log else { return Ok(()) };
    refuse_special(path)?;
    let opened = OpenOptions::new().append(true).open(path);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_dir() => Ok(()),
        Err(error) => Err(fault(path, &error.to_string())),
        Ok(_) => Ok(()),
    }
}

fn refuse_special(path: &Path) -> Result<(), ConfigError> {
    if path.as_os_str() == "-" {
        return Err(fault(path, "it has to be a file; /dev/stdout and /dev/stderr are files"));
    }
    if path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Err(fault(path, "it is a FIFO, which may have no reader; name a file"));
    }
    Ok(())
}

fn fault(path: &Path, what: &str) -> ConfigError {
    ConfigError::new("audit_log", format!("cannot write {}: {what}", path.display()))
}

/// A record about a peer.
pub(super) fn of_peer(outcome: Outcome, peer: &Peer) -> AuditRecord<'_> {
    let patterns = peer.grant.devices.as_deref();
    let grant = AuditGrant {
        identity: peer.grant.identity.as_deref(),
        devices: patterns.map(|patterns| patterns.iter().take(MAX_PATTERNS).map(ToString::to_string).collect()),
        devices_left_out: patterns.map_or(0, |patterns| patterns.len().saturating_sub(MAX_PATTERNS)),
        manage: peer.grant.manage,
        exclusive: peer.grant.exclusive,
        valid_for: peer.grant.valid_for.map(|time| time.as_secs_f64()),
    };
    AuditRecord {
        role: Some(peer.role.as_str()),
        address: peer.address,
        certificate: peer.certificate.as_deref(),
        grant,
        ..AuditRecord::new(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::Arc;

    use crate::observe::audit::{AuditRecord, Outcome};
    use crate::server::audit_log::{AuditLog, Output};

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("audit-{name}-{}-{:x}", std::process::id(), fastrand::u64(..)))
    }

    fn log(path: &PathBuf, most: usize) -> Arc<AuditLog> {
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        Arc::new(AuditLog::new(file, most, None))
    }

    fn add(log: &AuditLog, status: u16) {
        log.add(&AuditRecord { status: Some(status), ..AuditRecord::new(Outcome::Refused) });
    }

    fn statuses(path: &PathBuf) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        let status = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["status"].as_u64().unwrap();
        text.lines().map(status).collect()
    }

    #[test]
    fn full_queue_drops_and_counts_and_all_that_waits_is_written_at_the_end() {
        let path = scratch("full");
        let log = log(&path, 2);
        for status in 1..=5 {
            add(&log, status);
        }
        assert_eq!(log.dropped(), 3);
        log.replace(3, None);
        add(&log, 6);
        log.start();
        log.finish();
        assert_eq!((statuses(&path), log.dropped()), (vec![1, 2, 6], 3));
        add(&log, 7);
        assert_eq!((statuses(&path), log.dropped()), (vec![1, 2, 6], 4), "nothing is lost in silence");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn replaced_file_gets_the_records_that_follow() {
        let (old, new) = (scratch("old"), scratch("new"));
        let log = log(&old, 10);
        log.replace(10, Some(OpenOptions::new().append(true).create(true).open(&new).unwrap()));
        add(&log, 1);
        log.start();
        log.finish();
        assert_eq!((statuses(&old), statuses(&new)), (vec![], vec![1]));
        std::fs::remove_file(old).unwrap();
        std::fs::remove_file(new).unwrap();
    }

    #[test]
    fn disk_that_is_full_drops_and_counts() {
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let log = Arc::new(AuditLog::new(file, 10, None));
        add(&log, 1);
        add(&log, 2);
        log.start();
        log.finish();
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn record_after_half_a_line_begins_a_line() {
        let path = scratch("torn");
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(b"{\"half").unwrap();
        let mut output = Output { file: Some(file), is_torn: true, failure: Some("disk full".into()), failed: 1 };
        assert!(output.write("{}\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"half\n{}\n");
        assert_eq!((output.failure, output.failed), (None, 0));
        std::fs::remove_file(path).unwrap();
    }
}
