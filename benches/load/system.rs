//! Reads the CPU time and memory of a process from `/proc`.

use std::fs;
use std::time::Duration;

use crate::options::Options;

/// The CPU time of the server so far, with that of its other node.
pub fn server_time(options: &Options) -> Duration {
    cpu_time(options.pid) + options.other_pid.map_or(Duration::ZERO, cpu_time)
}

/// The CPU time of all threads of a process so far.
fn cpu_time(pid: u32) -> Duration {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let stat = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        nanoseconds += stat.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(nanoseconds)
}

/// The resident memory of a process, in KiB.
pub fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
