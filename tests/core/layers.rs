//! The crate keeps its layers and has no circles (ARCHITECTURE.md, "Layers").

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::imports::{Crate, Module};

/// Folders and files of `src` by layer, lowest first. A module may name its own layer and those below it. Deeper paths
/// go before the folders that hold them.
const LAYERS: &[&[&str]] = &[
    &["sync"],
    &["protocol"],
    &["observe"],
    &["core"],
    &["config"],
    &["access"],
    &["server::time"],
    &[
        "server::audit_log",
        "server::feed",
        "server::ice_cache",
        "server::peer_rows",
        "server::ice_process",
        "server::events",
        "server::catch_panic",
        "server::inherited",
        "server::socket_file",
        "server::throttle",
        "server::refusal_log",
        "server::settings",
        "server::cluster",
    ],
    &[
        "server::shared",
        "server::certificate_watch",
        "server::key_watch",
        "server::fault_timer",
        "server::ice_command",
        "server::resolver",
    ],
    &["server::session_driver", "server::peer_stream", "server::tls_stream"],
    &["server::ws", "server::message_pump"],
    &["server::connect_info"],
    &["server::http", "server::seqpacket"],
    &["server::connection"],
    &["server::control", "server::nodes"],
    &["server::listener"],
    &["server"],
    &["bindings"],
];

/// Words that lower layers may not use, the I/O crates first: the lowest layer that may, and the words.
const ABOVE: &[(&str, &[&str])] = &[
    ("bindings", &["pyo3"]),
    ("server::time", &["tokio::net", "tokio::spawn", "hyper", "axum", "tokio_tungstenite", "tokio_rustls"]),
    ("config", &["rustls", "async fn", ".await", "Instant::now", "SystemTime::now()", "std::thread", "tracing"]),
    ("observe", &["tokio", "parking_lot", "prometheus_client"]),
];

/// Where a word is allowed below its layer: `sync` and `outbox` hold locks and a channel; `Peer::anonymous`, for tests,
/// tells when it was made.
const EXCEPTIONS: &[(&str, &str)] = &[("core::peer", "SystemTime::now()"), ("sync", "parking_lot")];

/// A task that waits for a time waits for the server's timers (ARCHITECTURE.md, "Why timers of our own"): the runtime
/// of the Python package has none. Elsewhere than on Linux, those timers use the runtime's.
const RUNTIME_TIMERS: [&str; 2] = ["tokio::time", "TokioTimer"];

fn layer_of(path: &str) -> usize {
    let within = |name: &str| path == name || path.starts_with(&format!("{name}::"));
    let found = LAYERS.iter().enumerate().filter(|(_, names)| names.iter().any(|name| within(name)));
    // The deepest name decides, and `server` itself is the top of its folder.
    let longest = |names: &[&str]| names.iter().filter(|name| within(name)).map(|name| name.len()).max();
    let (layer, _) = found
        .max_by_key(|(_, names)| longest(names))
        .unwrap_or_else(|| panic!("{path} is in no layer: give it one in tests/core/layers.rs"));
    layer
}

#[test]
fn only_the_timers_use_the_timers_of_the_runtime() {
    let named: Vec<_> = Crate::read()
        .modules()
        .filter(|module| RUNTIME_TIMERS.iter().any(|timer| module.code.contains(timer)))
        .map(|module| module.path.clone())
        .collect();
    assert_eq!(named, ["server::time::timerfd"]);
}

#[test]
fn only_one_folder_names_redis() {
    let code = Crate::read();
    let named: Vec<_> = code.modules().filter(|module| module.code.contains("use redis::")).collect();
    assert!(named.len() > 2, "the crate is named in {} modules", named.len());
    let elsewhere: Vec<_> =
        named.iter().map(|module| &module.path).filter(|path| !path.starts_with("server::cluster::redis")).collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
}

#[test]
fn modules_import_only_their_own_layer_and_lower_ones() {
    let code = Crate::read();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for module in code.modules().filter(|module| !module.path.is_empty()) {
        for named in code.imports_of(module) {
            checked += 1;
            if layer_of(&named) > layer_of(&module.path) {
                wrong.push(format!("{} names {named}, which is above it", module.file.display()));
            }
        }
        wrong.extend(words_above(module));
    }
    assert!(checked > 200, "only {checked} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn words_above(module: &Module) -> Vec<String> {
    let below = |lowest: &str| layer_of(&module.path) < layer_of(lowest);
    let words = ABOVE.iter().filter(|(lowest, _)| below(lowest)).flat_map(|(_, words)| *words);
    let found =
        words.filter(|word| module.code.contains(**word) && !EXCEPTIONS.contains(&(module.path.as_str(), word)));
    found.map(|word| format!("{} names {word}, which is for layers above it", module.file.display())).collect()
}

#[test]
fn files_have_no_import_cycle() {
    let code = Crate::read();
    let graph: BTreeMap<_, _> = code.modules().map(|module| (module.path.clone(), code.imports_of(module))).collect();
    assert_eq!(circles(&graph), Vec::<Vec<String>>::new());
}

#[test]
fn folders_have_no_import_cycle() {
    let code = Crate::read();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for module in code.modules() {
        for named in code.imports_of(module) {
            let (from, to) = apart(&module.path, &named);
            if from != to {
                graph.entry(from).or_default().insert(to);
            }
        }
    }
    assert_eq!(circles(&graph), Vec::<Vec<String>>::new());
}

/// Two paths up to where they differ: the folders or files that face each other.
fn apart(a: &str, b: &str) -> (String, String) {
    let (a, b): (Vec<_>, Vec<_>) = (a.split("::").collect(), b.split("::").collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let upto = |parts: &[&str]| parts[..parts.len().min(same + 1)].join("::");
    (upto(&a), upto(&b))
}

/// Groups of nodes that reach each other, each sorted.
fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(node) = open.pop() {
            for next in graph.get(&node).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<_, _> = graph.keys().map(|node| (node, reached(node))).collect();
    let mut found = BTreeSet::new();
    for (node, seen) in &reach {
        if seen.contains(*node) {
            let group = seen.iter().filter(|other| reach.get(other).is_some_and(|back| back.contains(*node)));
            found.insert(group.cloned().collect::<Vec<_>>());
        }
    }
    found.into_iter().collect()
}

#[test]
fn import_cycle_is_detected() {
    let arrow = |from: &str, to: &[&str]| (from.to_owned(), to.iter().map(|&to| to.to_owned()).collect());
    let graph = BTreeMap::from([arrow("a", &["b"]), arrow("b", &["c"]), arrow("c", &["b", "d"]), arrow("d", &[])]);
    assert_eq!(circles(&graph), [["b", "c"]]);
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs").exists());
}
