//! Processes that tests start: this test binary once more, and the program.

use std::process::{Command, Stdio};

/// This test binary once more, to run nothing but `test` of `module` (`module_path!()`), a test that is ignored otherwise and
/// is the entrance for such a process. What it says is not captured.
pub fn entrance(module: &str, test: &str) -> Command {
    let path = module.split("::").skip(1).chain([test]).collect::<Vec<_>>().join("::");
    let mut command = Command::new(std::env::current_exe().expect("this test binary"));
    command.args(["--exact", &path, "--ignored", "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command
}
