//! The table in docs/requirements.md is complete, and what it names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const RULES: [(&str, usize); 2] = [("ENO", 20), ("TC", 35)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the project") {
        let path = entry.expect("its entries").path();
        if path.is_dir() {
            files(&path, extension, into);
        } else if path.extension().is_some_and(|e| e == extension) {
            into.push(path);
        }
    }
}

/// Names of all Rust functions and of all scenarios of the independent peer.
fn names() -> BTreeSet<String> {
    let mut found = Vec::new();
    for folder in ["src", "tcpcrypt/src", "tests"] {
        files(&root().join(folder), "rs", &mut found);
    }
    files(&root().join("tests/peer"), "py", &mut found);
    let mut names = BTreeSet::new();
    for path in found {
        let text = fs::read_to_string(&path).expect("text");
        let python = path.extension().is_some_and(|e| e == "py");
        let keyword = if python { "def " } else { "fn " };
        for line in text.lines().map(str::trim_start) {
            if let Some(rest) = line.split_once(keyword).map(|(_, rest)| rest) {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                names.insert(if python { format!("peer:{name}") } else { name });
            }
        }
    }
    names
}

/// Rule, code cell, test cell of each row.
fn rows() -> Vec<(String, String, String)> {
    let text = fs::read_to_string(root().join("docs/requirements.md")).expect("the table");
    text.lines()
        .filter(|line| RULES.iter().any(|(kind, _)| line.starts_with(&format!("| {kind}-"))))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [rule, _, code, tests] = cells[..] else { panic!("not four cells: {line}") };
            (rule.to_owned(), code.to_owned(), tests.to_owned())
        })
        .collect()
}

fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_requirement_has_a_row() {
    let rows = rows();
    for (kind, count) in RULES {
        for n in 1..=count {
            let rule = format!("{kind}-{n}");
            assert_eq!(rows.iter().filter(|(r, ..)| *r == rule).count(), 1, "rows for {rule}");
        }
    }
}

#[test]
fn the_code_named_for_a_requirement_cites_it() {
    for (rule, code, _) in rows() {
        let files = quoted(&code);
        assert!(!files.is_empty(), "{rule} names no code");
        for file in files {
            let text = fs::read_to_string(root().join(file)).unwrap_or_else(|why| panic!("{rule}: {file}: {why}"));
            let (kind, n) = rule.split_once('-').expect("a rule");
            let n: usize = n.parse().expect("a number");
            // `ENO-12`, or `ENO-12 to ENO-15`, `TC-12 to 22`.
            let cited = text.match_indices(&format!("{kind}-")).any(|(at, found)| {
                let rest = &text[at + found.len()..];
                let first: String = rest.chars().take_while(char::is_ascii_digit).collect();
                let after = &rest[first.len()..];
                let last: String = after
                    .strip_prefix(" to ")
                    .map(|range| range.trim_start_matches(&format!("{kind}-")))
                    .map(|range| range.chars().take_while(char::is_ascii_digit).collect())
                    .unwrap_or_default();
                let first: usize = first.parse().unwrap_or(0);
                (first..=last.parse().unwrap_or(first)).contains(&n)
            });
            assert!(cited, "{file} does not cite {rule}");
        }
    }
}

#[test]
fn the_tests_named_for_a_requirement_exist() {
    let names = names();
    for (rule, _, tests) in rows() {
        let tests = quoted(&tests);
        assert!(!tests.is_empty(), "{rule} names no test");
        for test in tests {
            assert!(names.contains(test), "{rule}: there is no test {test}");
        }
    }
}
