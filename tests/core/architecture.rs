//! The paths in ARCHITECTURE.md lead through the code: each function is in its file, and names the next one.

use std::path::{Path, PathBuf};

/// One line of a path.
struct Step {
    /// A waker, a queue or a thread begins it: the step before does not name it.
    is_woken: bool,
    file: PathBuf,
    /// `Pump`, where it is a method.
    owner: Option<String>,
    function: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The paths of the section "Paths", each with its title.
fn paths() -> Vec<(String, Vec<Step>)> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let section = text.split("## Paths").nth(1).unwrap();
    let block = section.split("```").nth(1).unwrap();
    let mut found: Vec<(String, Vec<Step>)> = Vec::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_prefix("* ").map(|rest| (true, rest)).or(line.strip_prefix("  ").map(|rest| (false, rest))) {
            Some((is_woken, rest)) => found.last_mut().unwrap().1.push(step(is_woken, rest)),
            None => found.push((line.to_owned(), Vec::new())),
        }
    }
    found
}

fn step(is_woken: bool, line: &str) -> Step {
    let (file, name) = line.split_once(' ').unwrap();
    let folder = if Path::new(file).extension() == Some("py".as_ref()) { "python/cuttlefish_signaling" } else { "src" };
    let name = name.trim().replace("::", ".");
    let (owner, function) = match name.rsplit_once('.') {
        Some((owner, function)) => (Some(owner.to_owned()), function.to_owned()),
        None => (None, name),
    };
    Step { is_woken, file: root().join(folder).join(file), owner, function }
}

/// Whether a text has this word as a whole.
fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

#[test]
fn functions_of_the_paths_are_in_their_files_and_call_the_next() {
    let paths = paths();
    assert_eq!(paths.len(), 3, "a forward, a registration, start and stop");
    for (title, steps) in paths {
        assert!(steps.len() >= 10, "{title}: only {} steps", steps.len());
        let mut before: Option<(String, String)> = None;
        for step in steps {
            let place = format!("{title}: {} {}", step.file.display(), step.function);
            let text = std::fs::read_to_string(&step.file).unwrap_or_else(|error| panic!("{place}: {error}"));
            let keyword = if step.file.extension().unwrap() == "py" { "def" } else { "fn" };
            assert!(
                text.split(&format!("{keyword} {}", step.function)).skip(1).any(|rest| rest.starts_with(['(', '<'])),
                "{place} is not defined there"
            );
            if let Some(owner) = &step.owner {
                assert!(has_word(&text, owner), "{place}: no {owner} in the file");
            }
            if let Some((previous, code)) = before.filter(|_| !step.is_woken) {
                // A constructor is called by the name of its class.
                let name = if step.function == "__init__" { step.owner.as_deref().unwrap() } else { &step.function };
                assert!(has_word(&code, name), "{place} is not named in {previous}");
            }
            before = Some((step.file.display().to_string(), text));
        }
    }
}
