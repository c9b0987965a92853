//! The daemon's memory, in which keys are, gets to no disk (TC-21).

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use enotun::io::memory::{Swapping, keep_off_disk, trim_heap};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::process::entrance;

/// What a child of this test binary is told to be.
const ROLE: &str = "ENOTUN_DISK_ROLE";

/// Not a test: the entrance for the processes that the tests start.
#[test]
#[ignore = "the entrance for child processes"]
fn child_process() {
    match std::env::var(ROLE).as_deref() {
        Ok("crash") => crash(false),
        Ok("protected crash") => crash(true),
        Ok("locked") => locked(),
        _ => {}
    }
}

/// Runs a child in `dir` and returns how it ended and what it said.
fn child(role: &str, dir: &Path) -> std::process::Output {
    entrance(module_path!(), "child_process").env(ROLE, role).current_dir(dir).output().unwrap()
}

fn crash(protected: bool) {
    let most = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: most, maximum: most }).unwrap();
    if protected {
        keep_off_disk().unwrap();
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        assert_eq!(getrlimit(Resource::Core), none);
        // Someone with the right to do so sets it again: still nothing is dumped.
        if setrlimit(Resource::Core, Rlimit { current: None, maximum: None }).is_ok() {
            println!("limit raised");
        }
    }
    std::process::abort();
}

#[test]
fn tc_21_a_crash_leaves_no_core_dump() {
    let dir = tempfile::tempdir().unwrap();
    let ended = child("protected crash", dir.path());
    assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
    assert!(!ended.status.core_dumped());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    // Where this host dumps core at all, the test can see it.
    let ended = child("crash", dir.path());
    assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
    if !ended.status.core_dumped() {
        eprintln!("this host dumps no core, so that none was written shows little");
    }
}

/// A figure of /proc/self/status, in KiB.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn locked() {
    match keep_off_disk().unwrap() {
        Swapping::Never => {}
        Swapping::Possible(why) => return println!("not allowed: {why}"),
    }
    // Small pieces, every other one of which stays: what is free lies in between.
    let mut pieces: Vec<Vec<u8>> = (0..16_384).map(|i| vec![i as u8; 4096]).collect();
    let full = status("VmRSS");
    assert!(status("VmLck") + 4096 >= full, "{} of {full} KiB are locked", status("VmLck"));
    pieces.truncate(100);
    trim_heap();
    let left = status("VmRSS");
    assert!(left + 32 * 1024 < full, "{full} KiB, of which {left} are left");
    assert!(status("VmLck") > 0, "what is left is locked again");
    let later = vec![1_u8; 8 << 20];
    let before = status("VmLck");
    assert!(before >= 8 * 1024, "what is had later is locked: {before} KiB");
    drop(later);
    println!("locked");
}

#[test]
fn tc_21_memory_is_not_swapped_and_what_is_free_is_given_back_all_the_same() {
    let ended = child("locked", Path::new("/"));
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}\n{}", String::from_utf8_lossy(&ended.stderr));
    if !said.lines().any(|line| line.ends_with("locked")) {
        eprintln!("{said}");
        assert!(said.contains("not allowed: "), "{said}");
    }
}
