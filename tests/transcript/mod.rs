//! Reads `python/cuttlefish_signaling/conformance/transcripts/*.jsonl` for the runners.

#![allow(dead_code, reason = "each runner uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::config::{Config, IceSource};
use cuttlefish_signaling::protocol::IceServers;
use cuttlefish_signaling::session::OnDuplicate;
use serde_json::Value;

#[derive(Clone)]
pub struct Case {
    pub title: String,
    pub config: Config,
    /// Whether its WebSocket peers offer the sub-protocol of Cuttlefish's own devices.
    pub cuttlefish: bool,
    pub lines: Vec<Line>,
}

#[derive(Debug, Clone)]
pub struct Line {
    /// `file:number`, for the report.
    pub place: String,
    pub act: Act,
    /// Its column, unless it belongs to both: `Some(true)` for Cuttlefish's own devices.
    only: Option<bool>,
}

#[derive(Debug, Clone)]
pub enum Act {
    /// Peer, role, and the device that its request names.
    Opens(String, String, Option<String>),
    /// Peer and role, on a local socket.
    OpensPackets(String, String),
    Says(String, String),
    SaysBinary(String, String),
    Hears(String, Value),
    HearsText(String, String),
    /// Peer, code, and the whole reason, where the transcript names it: a close frame has its first 123 bytes.
    Closes(String, u16, Option<String>),
    /// The end of a connection that has no codes.
    Ends(String),
    Leaves(String),
    Drops(String),
    Freezes(String),
    After(Duration),
}

pub fn load() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/cuttlefish_signaling/conformance/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    assert!(files.len() >= 8, "transcripts are missing: {files:?}");
    files.iter().flat_map(|file| load_file(file)).flat_map(|case| [case.column(true), case.column(false)]).collect()
}

impl Case {
    /// The conversation with Cuttlefish's own devices, or with those of others.
    fn column(&self, cuttlefish: bool) -> Self {
        let mut case = self.clone();
        case.cuttlefish = cuttlefish;
        case.title.push_str(if cuttlefish { " (Cuttlefish's own devices)" } else { "" });
        case.lines.retain(|line| line.only.is_none_or(|only| only == cuttlefish));
        case
    }
}

fn load_file(file: &Path) -> Vec<Case> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let mut cases: Vec<Case> = Vec::new();
    for (index, text) in std::fs::read_to_string(file).unwrap().lines().enumerate() {
        let place = format!("{name}:{}", index + 1);
        let line: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}"));
        if let Some(title) = line.get("case") {
            let config = config(&line["settings"], &place);
            cases.push(Case {
                title: format!("{name}: {}", title.as_str().unwrap()),
                config,
                cuttlefish: false,
                lines: Vec::new(),
            });
        } else {
            let only = line["only"].as_str().map(|column| match column {
                "cuttlefish" => true,
                "others" => false,
                _ => panic!("{place}: no such column: {column}"),
            });
            let act = act(&line).unwrap_or_else(|| panic!("{place}: not understood: {text}"));
            cases.last_mut().expect("a case comes first").lines.push(Line { place, act, only });
        }
    }
    cases
}

fn act(line: &Value) -> Option<Act> {
    if let Some(seconds) = line.get("after") {
        return Some(Act::After(Duration::from_secs_f64(seconds.as_f64()?)));
    }
    let peer = line["peer"].as_str()?.to_owned();
    let text = |key: &str| Some(expand(line.get(key)?.as_str()?, line));
    let (verb, value) = line
        .as_object()?
        .iter()
        .find(|(key, _)| !matches!(key.as_str(), "peer" | "of" | "over" | "pad" | "nest" | "only" | "reason"))?;
    Some(match verb.as_str() {
        "opens" if line["over"] == "packets" => Act::OpensPackets(peer, value.as_str()?.to_owned()),
        "opens" => Act::Opens(peer, value.as_str()?.to_owned(), line["of"].as_str().map(str::to_owned)),
        "says" => Act::Says(peer, value.to_string()),
        "says_text" => Act::Says(peer, text("says_text")?),
        "says_binary" => Act::SaysBinary(peer, text("says_binary")?),
        "hears" => Act::Hears(peer, value.clone()),
        "hears_text" => Act::HearsText(peer, text("hears_text")?),
        "closes" => Act::Closes(peer, u16::try_from(value.as_u64()?).ok()?, line["reason"].as_str().map(str::to_owned)),
        "ends" => Act::Ends(peer),
        "leaves" if value == "close" => Act::Leaves(peer),
        "leaves" if value == "drop" => Act::Drops(peer),
        "freezes" => Act::Freezes(peer),
        _ => return None,
    })
}

fn expand(text: &str, line: &Value) -> String {
    let times = |key: &str| usize::try_from(line[key].as_u64().unwrap_or(0)).unwrap();
    let nest = "[".repeat(times("nest")) + &"]".repeat(times("nest"));
    text.replace("%PAD%", &"x".repeat(times("pad"))).replace("%NEST%", &nest)
}

fn config(settings: &Value, place: &str) -> Config {
    let mut config = Config::default();
    for (key, value) in settings.as_object().into_iter().flatten() {
        let seconds = value.as_f64().map(Duration::from_secs_f64);
        match key.as_str() {
            "ice_servers" => config.ice = IceSource::Fixed(IceServers::from_json(&value.to_string()).unwrap()),
            "device_wait_timeout" => config.device_wait_timeout = seconds,
            "first_message_timeout" => config.limits.first_message_timeout = seconds,
            "probe_timeout" => config.limits.probe_timeout = seconds.unwrap(),
            "max_message_size" => {
                config.limits.max_message_size = usize::try_from(value.as_u64().unwrap()).unwrap();
            }
            "one_client_per_device" => config.one_client_per_device = value.as_bool().unwrap(),
            "on_duplicate" if value == "replace" => config.on_duplicate = OnDuplicate::Replace,
            _ => panic!("{place}: unknown setting {key}: {value}"),
        }
    }
    config
}

pub fn assert_means(place: &str, peer: &str, heard: &str, expected: &Value) {
    let heard: Value =
        serde_json::from_str(heard).unwrap_or_else(|e| panic!("{place}: {peer} heard no JSON: {e}: {heard}"));
    assert_eq!(&heard, expected, "{place}: {peer} heard something else");
}

/// Runs all cases, and names those that failed.
pub fn run_each(cases: Vec<Case>, run: impl Fn(Case) + Send + Sync + 'static) {
    let total = cases.len();
    let run = Arc::new(run);
    let mut failed = Vec::new();
    for case in cases {
        let title = case.title.clone();
        let run = Arc::clone(&run);
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || run(case))).is_err() {
            failed.push(title);
        }
    }
    assert!(failed.is_empty(), "{} of {total} transcripts failed:\n{}", failed.len(), failed.join("\n"));
    assert!(total > 250, "only {total} transcripts were run");
}
