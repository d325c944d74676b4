//! docs/protocol.md is in order, and each reference leads somewhere: from the document to transcript cases and tests,
//! from the transcripts to the document, and from comments, docs and scripts to its sections and rules.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Rules that no transcript case and no test holds. A rule leaves this list with its first row in "Held by".
const WITHOUT_A_TEST: &[&str] = &["1.20", "1.21", "5.1.2"];

/// Files and folders in which a comment, a document or a script may cite the specification.
const CITING: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "benches",
    "deploy",
    "docs",
    "examples",
    "fuzz",
    "pyproject.toml",
    "python",
    "src",
    "tests",
    "web",
];

/// Folders below them that hold no sources.
const GENERATED: &[&str] = &["target", "corpus", "artifacts", "__pycache__", "node_modules"];

/// The file name of the specification, in lower case.
const NAME: &str = "protocol.md";

/// The specification, as far as other files refer to it.
#[derive(Default)]
struct Document {
    /// `5.1` and the like.
    sections: BTreeSet<String>,
    /// `2.8`, `4.1.19`.
    rules: BTreeSet<String>,
    /// Facts about other programs, which need no test.
    facts: BTreeSet<String>,
    /// Every `id`.
    anchors: BTreeSet<String>,
    /// Rule, if there is one, and case or test of each row in "Held by".
    held_by: Vec<(Option<String>, String)>,
    /// Lines that do not keep the form.
    malformed: Vec<String>,
}

impl Document {
    fn read() -> Self {
        Self::parse(&std::fs::read_to_string(root().join("docs/protocol.md")).unwrap())
    }

    fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let (mut held_by, mut previous) = (false, "");
        for line in text.lines() {
            held_by = (held_by || line == "<details><summary>Held by</summary>") && line != "</details>";
            if held_by {
                document.take_row(line);
            } else {
                document.take_heading(line, previous);
                document.take_anchors(previous, line);
            }
            previous = line;
        }
        document.take_anchors(previous, "");
        document
    }

    /// `| 2.1 | `forward.jsonl: "null is a payload"` |`
    fn take_row(&mut self, line: &str) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        match cells[..] {
            [number, named] if named.starts_with('`') && named.ends_with('`') => {
                let number = (number != "–").then(|| number.to_owned());
                self.held_by.push((number, named.trim_matches('`').to_owned()));
            }
            _ if matches!(line, "" | "| rule | case or test |" | "|---|---|") || line.starts_with("<details>") => {}
            _ => self.malformed.push(format!("not a row of \"Held by\": {line}")),
        }
    }

    /// A heading with a number stands below its anchor.
    fn take_heading(&mut self, line: &str, previous: &str) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            return;
        }
        let Some((number, _)) = number_at(title.trim_start()) else { return };
        if previous != format!("<a id=\"{}\"></a>", slug(title)) {
            self.malformed.push(format!("the anchor {:?} is missing above: {line}", slug(title)));
        }
        self.sections.insert(number.to_owned());
    }

    /// The anchor of a rule stands in front of its number, in the same line or the one before.
    fn take_anchors(&mut self, line: &str, next: &str) {
        for part in line.split("<a id=\"").skip(1) {
            let (id, rest) = part.split_once("\"></a>").unwrap_or((part, ""));
            if !self.anchors.insert(id.to_owned()) {
                self.malformed.push(format!("the anchor {id:?} stands there twice"));
            }
            let kinds = [("rule-", &mut self.rules), ("fact-", &mut self.facts)];
            for (digits, numbers) in kinds.into_iter().filter_map(|(kind, set)| Some((id.strip_prefix(kind)?, set))) {
                let shown = if rest.is_empty() { next } else { rest }.trim_start_matches('*');
                let number = digits.replace('-', ".");
                if number_at(shown).is_none_or(|(shown, _)| shown != number) {
                    self.malformed.push(format!("the number {number} is missing behind the anchor {id:?}"));
                }
                numbers.insert(number);
            }
        }
    }

    fn has(&self, number: &str) -> bool {
        [&self.sections, &self.rules, &self.facts].iter().any(|numbers| numbers.contains(number))
    }

    /// Why a citation leads nowhere, if it does.
    fn fault_of(&self, citation: &Citation) -> Option<String> {
        match citation {
            Citation::Number(number) if !self.has(number) => {
                Some(format!("docs/{NAME} has no section or rule {number}"))
            }
            Citation::Anchor(anchor) if !self.anchors.contains(anchor) => {
                Some(format!("docs/{NAME} has no anchor {anchor:?}"))
            }
            _ => None,
        }
    }
}

/// A reference to the specification.
#[derive(Debug, PartialEq, Eq)]
enum Citation {
    /// The file name and a number: section or rule.
    Number(String),
    /// The file name, `#` and an anchor.
    Anchor(String),
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The number in front of a text, and the text behind it: `5.1` of `5.1. Device socket`.
fn number_at(text: &str) -> Option<(&str, &str)> {
    let mut end = 0;
    loop {
        let digits = text[end..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            // The dot behind it ends a sentence.
            return (end > 0).then(|| (&text[..end - 1], &text[end - 1..]));
        }
        end += digits;
        if !text[end..].starts_with('.') {
            return Some((&text[..end], &text[end..]));
        }
        end += 1;
    }
}

/// The anchor of a heading.
fn slug(title: &str) -> String {
    let words: Vec<_> = title.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-").to_lowercase()
}

/// The references in a text, each with its line.
fn citations(text: &str) -> Vec<(usize, Citation)> {
    let lines: Vec<_> = text.lines().map(str::to_ascii_lowercase).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        for part in line.split(NAME).skip(1) {
            if let Some(anchor) = part.strip_prefix('#') {
                let end = anchor.find(|c: char| !c.is_alphanumeric() && c != '-').unwrap_or(anchor.len());
                found.push((index + 1, Citation::Anchor(anchor[..end].to_owned())));
                continue;
            }
            // A number may stand in the next line, behind the marks of a comment.
            let next = lines.get(index + 1).map_or("", |next| next.trim_start_matches([' ', '\t', '/', '!', '#', '*']));
            let behind = if part.trim().is_empty() { next } else { part.strip_prefix(' ').unwrap_or_default() };
            found.extend(numbers(behind).into_iter().map(|number| (index + 1, Citation::Number(number))));
        }
    }
    found
}

/// A number, and those behind `and` or a comma: a second one counts as a citation if it has a dot.
fn numbers(text: &str) -> Vec<String> {
    let Some((first, mut rest)) = number_at(text) else { return Vec::new() };
    let mut numbers = vec![first.to_owned()];
    while let Some((more, behind)) = [" and ", ", ", " to "]
        .iter()
        .find_map(|word| number_at(rest.strip_prefix(word)?))
        .filter(|(more, _)| more.contains('.'))
    {
        numbers.push(more.to_owned());
        rest = behind;
    }
    numbers
}

/// All files that may cite the specification.
fn sources(path: PathBuf, found: &mut Vec<PathBuf>) {
    let name = path.file_name().unwrap().to_string_lossy();
    if GENERATED.contains(&&*name) || name.starts_with('.') {
        return;
    }
    if path.is_dir() {
        for entry in path.read_dir().unwrap() {
            sources(entry.unwrap().path(), found);
        }
    } else {
        found.push(path);
    }
}

/// Whether a title is meant by a pattern in which `*` stands for any characters.
fn matches(pattern: &str, title: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == title,
        Some((before, rest)) => title
            .strip_prefix(before)
            .is_some_and(|title| title.char_indices().any(|(at, _)| matches(rest, &title[at..])) || rest.is_empty()),
    }
}

/// `forward.jsonl: title` of `forward.jsonl: "title"`; `None` for a test.
fn case_of(named: &str) -> Option<String> {
    let (file, title) = named.split_once(".jsonl: ")?;
    Some(format!("{file}.jsonl: {}", title.strip_prefix('"')?.strip_suffix('"')?))
}

/// Whether `file::name` is a test.
fn is_test(named: &str) -> bool {
    let Some((file, name)) = named.split_once("::") else { return false };
    let Ok(text) = std::fs::read_to_string(root().join(file)) else { return false };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let python = [format!("def {name}("), format!("async def {name}(")];
    if name.starts_with("test_") && lines.iter().any(|line| python.iter().any(|head| line.starts_with(head))) {
        return true;
    }
    let rust = format!("fn {name}(");
    lines.windows(2).any(|pair| pair[0].starts_with("#[") && pair[1].starts_with(&rust))
}

/// Whether a test or a transcript case of this name exists.
pub fn names_a_test(named: &str) -> bool {
    case_of(named).map_or_else(|| is_test(named), |case| titles().iter().any(|title| matches(&case, title)))
}

fn titles() -> Vec<String> {
    let cases = crate::transcript::load().into_iter().filter(|case| !case.cuttlefish);
    cases.map(|case| case.title).collect()
}

#[test]
fn specification_keeps_its_form() {
    let document = Document::read();
    assert!(document.sections.len() >= 12 && document.rules.len() >= 100, "the document was not understood");
    let text = std::fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let mut wrong = document.malformed.clone();
    for part in text.split("](#").skip(1) {
        let anchor = part.split(')').next().unwrap_or_default();
        if !document.anchors.contains(anchor) {
            wrong.push(format!("a link to {anchor:?}, which is no anchor"));
        }
    }
    for rule in document.rules.iter().chain(&document.facts) {
        if rule.rsplit_once('.').is_none_or(|(section, _)| !document.has(section)) {
            wrong.push(format!("{rule} is in no section"));
        }
    }
    assert!(wrong.is_empty(), "docs/{NAME}:\n{}", wrong.join("\n"));
}

#[test]
fn cases_and_tests_that_the_specification_names_exist() {
    let (document, titles) = (Document::read(), titles());
    assert!(document.held_by.len() >= 100, "the document was not understood");
    let mut wrong = Vec::new();
    for (number, named) in &document.held_by {
        if let Some(number) = number.as_ref().filter(|number| !document.rules.contains(*number)) {
            wrong.push(format!("there is no rule {number}, which is to be held by {named}"));
        }
        match case_of(named) {
            Some(case) if !titles.iter().any(|title| matches(&case, title)) => {
                wrong.push(format!("there is no transcript case {named}"));
            }
            None if !is_test(named) => wrong.push(format!("there is no test {named}")),
            _ => {}
        }
    }
    let named: Vec<_> = document.held_by.iter().filter_map(|(_, named)| case_of(named)).collect();
    for title in titles.iter().filter(|title| !named.iter().any(|case| matches(case, title))) {
        let (file, title) = title.split_once(": ").unwrap();
        wrong.push(format!("no rule names this case; add to \"Held by\": | RULE | `{file}: \"{title}\"` |"));
    }
    assert!(wrong.is_empty(), "docs/{NAME}:\n{}", wrong.join("\n"));
}

#[test]
fn rules_without_a_test_are_known() {
    let document = Document::read();
    let held: BTreeSet<_> = document.held_by.iter().filter_map(|(number, _)| number.as_deref()).collect();
    let without: BTreeSet<_> = document.rules.iter().map(String::as_str).filter(|rule| !held.contains(rule)).collect();
    let known: BTreeSet<_> = WITHOUT_A_TEST.iter().copied().collect();
    let fresh: Vec<_> = without.difference(&known).collect();
    assert!(fresh.is_empty(), "name a case or a test for these rules in docs/{NAME}: {fresh:?}");
    let stale: Vec<_> = known.difference(&without).collect();
    assert!(stale.is_empty(), "these rules have a test now, or are gone; remove them from WITHOUT_A_TEST: {stale:?}");
}

#[test]
fn citations_lead_to_a_section_or_a_rule() {
    let document = Document::read();
    let mut files = Vec::new();
    for path in CITING {
        sources(root().join(path), &mut files);
    }
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for (line, citation) in citations(&text) {
            checked += 1;
            let place = file.strip_prefix(root()).unwrap().display();
            wrong.extend(document.fault_of(&citation).map(|fault| format!("{place}:{line}: {fault}")));
        }
    }
    assert!(checked >= 30, "only {checked} citations were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn citations_are_found_in_each_form() {
    let number = |number: &str| Citation::Number(number.into());
    let rows = [
        (format!("/// (docs/{NAME} 5.1)."), vec![(1, number("5.1"))]),
        (format!("// {NAME} 4.1.19: stays. docs/{NAME} 3, \"TLS\""), vec![(1, number("4.1.19")), (1, number("3"))]),
        (format!("docs/{NAME} 5.1 and 5.2, 2.8. 64 KiB"), ["5.1", "5.2", "2.8"].map(|n| (1, number(n))).into()),
        (format!("docs/{NAME} 2.8, 64 KiB and docs/{NAME} for more"), vec![(1, number("2.8"))]),
        (format!("x\n    //! docs/{NAME}\n    //! 5.3 x"), vec![(2, number("5.3"))]),
        (format!("[2.8](docs/{NAME}#rule-2-8)"), vec![(1, Citation::Anchor("rule-2-8".into()))]),
        (format!("docs/{NAME}.bak 7 and docs/{NAME} (7)"), Vec::new()),
    ];
    for (text, found) in rows {
        assert_eq!(citations(&text), found, "{text}");
    }
}

#[test]
fn faults_of_the_specification_are_found() {
    let form = Document::parse(
        "<a id=\"1-a\"></a>\n## 1. A\n<a id=\"rule-1-1\"></a>\n**1.1** x\n| <a id=\"fact-1-2\"></a>1.2 | y |",
    );
    assert_eq!(form.malformed, [""; 0]);
    assert_eq!(form.fault_of(&Citation::Number("1.1".into())), None);
    assert!(form.fault_of(&Citation::Number("1.3".into())).unwrap().contains("no section or rule 1.3"));
    assert!(form.fault_of(&Citation::Anchor("rule-1-3".into())).unwrap().contains("no anchor \"rule-1-3\""));
    for (text, fault) in [
        ("## 1. A", "the anchor \"1-a\" is missing"),
        ("<a id=\"rule-1-1\"></a>**1.2** x", "the number 1.1 is missing"),
        ("<a id=\"x\"></a>\n<a id=\"x\"></a>", "\"x\" stands there twice"),
        ("<details><summary>Held by</summary>\n| 1.1 | x.jsonl |", "not a row"),
    ] {
        let malformed = Document::parse(text).malformed;
        assert!(malformed.len() == 1 && malformed[0].contains(fault), "{text}: {malformed:?}");
    }
    assert!(matches("*: a", "device: a") && matches("a*", "a") && !matches("*: a", "device: ab") && !matches("a", "b"));
    assert!(is_test("tests/core/citations.rs::faults_of_the_specification_are_found"));
    assert!(!is_test("tests/core/citations.rs::titles") && !is_test("tests/core/nowhere.rs::titles"));
}
