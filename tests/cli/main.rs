//! The command line: usage, exit statuses, the shapes of JSON, and a daemon's life in a network namespace of its own.
#![allow(unreachable_pub, reason = "modules of a test crate have no outside")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

mod daemon;
mod dry_run;
mod instance;
#[path = "../harness/netns.rs"]
#[allow(dead_code, reason = "each test crate uses its part")]
mod netns;
mod usage;

use std::process::{Command, Output, Stdio};

pub const ENOTUN: &str = env!("CARGO_BIN_EXE_enotun");

pub fn enotun(arguments: &[&str]) -> Output {
    Command::new(ENOTUN).args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
pub fn assert_usage_error(arguments: &[&str], says: &str) {
    let output = enotun(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains(says), "{arguments:?}: {text}");
    assert!(text.starts_with("enotun: ") && text.lines().count() == 1, "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

/// Failed, with one line that says why.
#[track_caller]
pub fn assert_fails(output: &Output, says: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("enotun: "), "{text}");
    assert!(text.contains(says), "{text}");
}
