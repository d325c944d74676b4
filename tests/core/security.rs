//! `SECURITY.md`: each claim of its table is one sentence, and names tests that exist.

use crate::citations::{names_a_test, root};

/// A row of the table: the threat, the claim and the tests.
type Row = (String, String, Vec<String>);

/// The rows of the table, and the faults of its form.
fn read(text: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut faults, mut threat) = (Vec::new(), Vec::new(), String::new());
    for line in text.lines().filter(|line| line.starts_with('|')).skip(2) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [named, claim, tests] = cells[..] else {
            faults.push(format!("not three cells: {line}"));
            continue;
        };
        if !named.is_empty() {
            named.clone_into(&mut threat);
        }
        if claim.is_empty() || claim.contains(". ") || claim.contains("; ") && !claim.contains("(not loopback; ") {
            faults.push(format!("not one claim, give each a row of its own: {claim:?}"));
        }
        // Titles of transcripts may have quotes, but no backticks.
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rows.push((threat.clone(), claim.to_owned(), tests));
    }
    (rows, faults)
}

/// The faults of the rows.
fn faults_of(rows: &[Row]) -> Vec<String> {
    let mut faults = Vec::new();
    for (threat, claim, tests) in rows {
        if tests.is_empty() {
            faults.push(format!("{threat}: {claim:?} has no test"));
        }
        let missing = tests.iter().filter(|test| !names_a_test(test));
        faults.extend(missing.map(|test| format!("{claim:?}: there is no test {test}")));
    }
    faults
}

#[test]
fn each_claim_names_tests_that_exist() {
    let (rows, mut faults) = read(&std::fs::read_to_string(root().join("SECURITY.md")).unwrap());
    assert!(rows.len() >= 60, "the table was not understood: {} rows", rows.len());
    faults.extend(faults_of(&rows));
    assert!(faults.is_empty(), "SECURITY.md:\n{}", faults.join("\n"));
}

#[test]
fn faults_of_the_table_are_found() {
    let table = "| threat | defence | test |\n|---|---|---|\n\
        | A | one | `tests/core/security.rs::faults_of_the_table_are_found` |\n\
        | | two | |\n\
        | B | three | `tests/core/security.rs::nowhere`; `malformed.jsonl: \"nowhere\"` |\n\
        | B | four; five | `malformed.jsonl: \"device: empty text\"` |\n\
        | B | six |\n";
    let (rows, form) = read(table);
    assert_eq!(rows.len(), 4);
    assert_eq!(form.len(), 2, "{form:?}");
    assert!(form[0].contains("four; five") && form[1].contains("not three cells"), "{form:?}");
    let faults = faults_of(&rows);
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[0].contains(r#"A: "two" has no test"#) && faults[1].contains("nowhere"), "{faults:?}");
}
