//! Files and functions stay small enough to read: at most 400 and 40 lines.

use crate::imports::Crate;

/// Lines of a file, blank lines and comments included.
const MAX_FILE: usize = 400;

/// Lines of a function, from its signature to its closing brace.
const MAX_FUNCTION: usize = 40;

/// Functions of a text with their lines. rustfmt closes a function in the column in which it begins.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line.trim_start()) else { continue };
        let ends = |other: &&str| other.starts_with(&format!("{}}}", " ".repeat(indent)));
        let is_short = line.ends_with(';') || line.ends_with('}');
        if let (false, Some(length)) = (is_short, lines[at..].iter().position(ends)) {
            found.push((name, length + 1));
        }
    }
    found
}

/// The name of the function whose signature begins in this line.
fn function_name(line: &str) -> Option<String> {
    let (before, after) = line.split_once("fn ")?;
    let is_signature = before.split_whitespace().all(|word| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "crate::server)") || word.starts_with("pub(")
    });
    is_signature.then(|| after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

#[test]
fn files_and_functions_are_short() {
    let (mut long, mut checked) = (Vec::new(), 0);
    for module in Crate::read().modules() {
        let lines = module.text.lines().count();
        if lines > MAX_FILE {
            long.push(format!("{} has {lines} lines", module.file.display()));
        }
        for (name, lines) in functions(&module.text) {
            checked += 1;
            if lines > MAX_FUNCTION {
                long.push(format!("{}: {name} has {lines} lines", module.file.display()));
            }
        }
    }
    assert!(checked > 700, "only {checked} functions were found");
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn a_function_is_measured_to_its_closing_brace() {
    let text = "impl A {\n    pub(super) async fn one(\n        a: u8,\n    ) -> u8 {\n        if a {\n        }\n    }\n}\nfn two() {}\n";
    assert_eq!(functions(text), [("one".to_owned(), 6)]);
}
