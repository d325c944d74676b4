//! Tells the crate which compiler builds it, for `GET /metrics`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=RUSTC");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=CUTTLEFISH_SIGNALING_RUSTC={}", compiler().unwrap_or_else(|| "unknown".into()));
}

/// The version of the compiler, for example `1.95.0`.
fn compiler() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?).arg("--version").output().ok()?;
    String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1).map(str::to_owned)
}
