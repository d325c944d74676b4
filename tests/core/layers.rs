//! The house keeps its layers: each file names only what lies below it (ARCHITECTURE.md, "Layers").

use std::path::{Path, PathBuf};

/// Top-level modules by layer, lowest first.
const LAYERS: [&[&str]; 6] = [
    &["protocol", "refusal"],
    &["faults", "incidents", "journal", "ledger", "outbox", "peer", "rate", "sync"],
    &["client_ids", "hub", "relay", "roster", "session"],
    &["certificates", "config", "error", "gate", "hooks", "policy", "state_dir", "tls", "turn"],
    &["server"],
    &["bindings"],
];

/// Crates a layer may not name, and every layer below it neither.
const ABOVE: [(usize, &[&str]); 4] = [
    (4, &["pyo3"]),
    (3, &["tokio::net", "tokio::spawn", "hyper", "axum", "tokio_tungstenite", "tokio_rustls"]),
    (
        2,
        &[
            "rustls",
            "rcgen",
            "std::fs",
            "async fn",
            ".await",
            "Instant::now",
            "SystemTime::now()",
            "std::thread",
            "tracing",
        ],
    ),
    (0, &["tokio", "parking_lot"]),
];

/// Where a rule has an exception, with its reason: `Peer::anonymous`, for tests, tells when it was made.
const EXCEPTIONS: [(&str, &str); 1] = [("peer.rs", "SystemTime::now()")];

/// Whoever waits for a time waits for the server's alarm (ARCHITECTURE.md, "Why an alarm"): the runtime of the Python
/// package has no timers. Elsewhere than on Linux, the alarm has.
const TIMERS: [&str; 2] = ["tokio::time", "TokioTimer"];

#[test]
fn nobody_but_the_alarm_uses_the_timers_of_the_runtime() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut named = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        if TIMERS.iter().any(|timer| text.contains(timer)) {
            named.push(file.strip_prefix(&root).unwrap().to_owned());
        }
    }
    assert_eq!(named, [Path::new("server/alarm/timer.rs")]);
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_names_only_what_lies_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut checked = 0;
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if module == "lib" {
            continue;
        }
        let layer = layer_of(&module).unwrap_or_else(|| panic!("{module} is in no layer: give it one"));
        let text = std::fs::read_to_string(&file).unwrap();
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        for part in code.split("crate::").skip(1) {
            let named: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            checked += 1;
            if layer_of(&named).is_some_and(|other| other > layer) {
                wrong.push(format!("{} names {named}, which is above it", relative.display()));
            }
        }
        for (highest, words) in ABOVE.iter().filter(|(highest, _)| layer <= *highest) {
            for word in words.iter().filter(|word| code.contains(**word)) {
                let exempt = EXCEPTIONS.contains(&(relative.to_str().unwrap(), word));
                // The outbox hands out a channel's receiver; that is all of tokio it knows.
                let outbox = relative == Path::new("outbox.rs") && *word == "tokio";
                if !exempt && !outbox {
                    wrong.push(format!("{} names {word}, which layers above {highest} may", relative.display()));
                }
            }
        }
    }
    assert!(checked > 50, "only {checked} imports were looked at");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
