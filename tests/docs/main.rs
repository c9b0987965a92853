//! Documents beside the program: what they name exists, and what they promise and a test can check is so. Keys, defaults and
//! ranges, counters and fields are compared beside the code that has them.

mod requirements;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// All documents for users, by their path.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        paths.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(path))).collect()
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_enotun")).args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that `help` lists.
fn commands(help: &str) -> BTreeSet<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Text in backquotes, and lines of blocks.
fn code(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced || line.starts_with("    ") {
            found.push(line.split('#').next().unwrap_or_default().trim().to_owned());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// As GitHub makes them.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    for (path, text) in documents() {
        let folder = Path::new(&path).parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { PathBuf::from(&path) } else { folder.join(file) };
            assert!(root().join(&file).exists(), "{path}: {target}");
            let headings: Vec<String> = read(&file)
                .lines()
                .filter_map(|line| Some(anchor(line.strip_prefix('#')?.trim_start_matches('#'))))
                .collect();
            assert!(place.is_empty() || headings.iter().any(|it| it == place), "{path}: {target}: {headings:?}");
        }
    }
}

#[test]
fn every_document_is_named_by_another() {
    let documents = documents();
    for (path, _) in documents.iter().filter(|(path, _)| path != "README.md") {
        let name = Path::new(path).file_name().unwrap().to_str().unwrap();
        assert!(documents.iter().any(|(other, text)| other != path && text.contains(name)), "{path}");
    }
}

#[test]
fn the_commands_and_options_that_are_named_exist() {
    let known = commands(&help(&[]));
    assert!(known.contains("up") && known.contains("doctor"), "{known:?}");
    let mut checked = 0;
    for (path, text) in documents() {
        for code in code(&text) {
            let Some(rest) = code.strip_prefix("enotun ") else { continue };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let Some(name) = words.first().filter(|word| word.chars().all(|c| c.is_ascii_lowercase())) else {
                continue;
            };
            assert!(known.contains(*name), "{path}: `{code}`");
            // Of a command with commands of its own, theirs.
            let own = help(&[*name]);
            let inner = words.get(1).filter(|word| commands(&own).contains(**word));
            let own = inner.map_or(own, |inner| help(&[*name, *inner]));
            for option in words.iter().filter(|word| word.starts_with("--")) {
                let option = option.split('=').next().unwrap();
                let listed = |word: &str| word.trim_end_matches([',', '.', ')']) == option;
                assert!(own.split_whitespace().any(listed), "{path}: `{code}`: {option}");
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked} commands");
}

#[test]
fn every_command_says_what_it_prints_as_json() {
    let output = read("docs/output.md");
    for command in commands(&help(&[])).iter().filter(|command| *command != "help") {
        let row = |line: &&str| {
            line.starts_with("| `")
                && line.split('|').nth(1).is_some_and(|cell| {
                    cell.split('`').skip(1).step_by(2).any(|code| code.split_whitespace().next() == Some(command))
                })
        };
        assert!(output.lines().any(|line| row(&line)), "{command}");
    }
}

#[test]
fn the_configuration_keys_that_are_named_exist() {
    let table = read("docs/configuration.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split('`').next());
    let known: BTreeSet<&str> = rows.collect();
    let tables = ["selectors", "negotiation", "resumption", "rekey", "limits", "host"];
    let mut texts = documents();
    texts.extend(["alerts", "diagnosis", "settings", "life"].map(|name| {
        let path = format!("src/daemon/{name}.rs");
        (path.clone(), read(path))
    }));
    for (path, text) in texts {
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))) {
            let Some((table, key)) = word.trim_end_matches('.').split_once('.') else { continue };
            // In code, `limits.max_flows` is a field.
            let is_key = key.len() > 2 && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            if tables.contains(&table) && is_key && !path.ends_with(".rs")
                || key.contains('-') && tables.contains(&table)
            {
                assert!(known.contains(format!("{table}.{key}").as_str()), "{path}: {table}.{key}");
            }
        }
    }
}

#[test]
fn versions_are_those_of_the_build_and_of_the_code() {
    let manifest = read("Cargo.toml");
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"')).unwrap();
    assert!(read("CONTRIBUTING.md").contains(&format!("Rust {rust} or later")), "{rust}");
    for (code, version) in [("src/linux/guard.rs", "5.12"), ("src/linux/plan.rs", "6.17")] {
        assert!(read(code).contains(&format!("Linux {version}")), "{code}");
        assert!(read("docs/operating.md").contains(version), "{version}");
    }
    let (readme, operating) = (read("README.md"), read("docs/operating.md"));
    for version in ["Linux 5.6", "0.9.9"] {
        assert!(readme.contains(version) && operating.contains(version), "{version}");
    }
}

#[test]
fn what_an_operator_must_know_has_its_place() {
    let operating = read("docs/operating.md");
    for (what, words) in [
        ("start order", &["firewalld", "ufw", "Docker"][..]),
        ("restart", &["reset every encrypted connection"]),
        ("crash", &["A crash"]),
        ("cost", &["each frame", "MSS"]),
        ("versions", &["kernel", "nft"]),
        ("monitoring", &["tcpdump", "ciphertext", "plaintext"]),
        ("overload", &["tx_dropped"]),
        ("secrets", &["core dump", "swapped"]),
        ("precedence", &["which-selector-decides"]),
    ] {
        for word in words {
            assert!(operating.contains(word), "{what}: {word}");
        }
    }
    for text in [read("README.md"), read("docs/host.md")] {
        assert!(text.contains("IPv4 fragments"), "fragments");
    }
    assert!(read("docs/host.md").contains("rt_tables.d/enotun.conf"));
}

/// In each row of docs/architecture.md's tables, every function named is in a file that the row names.
#[test]
fn functions_are_in_the_files_where_the_architecture_has_them() {
    let text = read("docs/architecture.md");
    let tables = text
        .split("\n## ")
        .filter(|part| part.starts_with("A packet's way") || part.starts_with("Where the rules are"));
    let mut named = 0;
    for row in tables.flat_map(str::lines).filter(|line| line.starts_with("| ")) {
        let names: Vec<String> = row.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let (files, functions): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.contains('/'));
        let code: String = files.iter().map(read).collect();
        for function in functions.iter().filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_')) {
            assert!(
                [format!("fn {function}("), format!("fn {function}<")].iter().any(|text| code.contains(text)),
                "{function} is not in {files:?}"
            );
            named += 1;
        }
    }
    assert!(named > 20, "hardly anything was read: {named}");
}
