//! What needs no daemon: usage, help, errors.

use super::{assert_fails, assert_usage_error, enotun, stderr, stdout};

#[test]
fn wrong_usage_has_exit_status_2() {
    assert_usage_error(&[], "a command is missing: up, down, enable, disable, status, flows");
    assert_usage_error(&["frobnicate"], "frobnicate");
    assert_usage_error(&["statsu"], "status");
    assert_usage_error(&["up", "--json", "10.0.0.0/8"], "up prints JSON with --dry-run only");
    assert_usage_error(&["up", "--frobnicate"], "--frobnicate");
    assert_usage_error(&["up", "--policy", "perhaps"], "opportunistic, required, off");
    assert_usage_error(&["up", "--tun", "a-name-of-more-than-15"], "1 to 15 characters");
    assert_usage_error(&["up", "--instance", "../x"], "cannot name an instance");
    assert_usage_error(&["up", "--tun", "abcdefghijklm-w"], "second device");
    assert_usage_error(&["up", "--gateway", "tun0"], "none behind `tun0`");
    assert_usage_error(&["up", "--policy", "required", "db.example:5432"], "or `:5432` for that port of every address");
    assert_usage_error(&["enable"], "SELECTOR");
    assert_usage_error(&["disable"], "SELECTOR");
    assert_usage_error(&["session", "10.0.0.1:1"], "REMOTE");
    assert_usage_error(&["session", "10.0.0.1", "10.0.0.2:2"], "`10.0.0.1` is not an address with a port");
    assert_usage_error(&["rekey", "here:1", "10.0.0.2:2"], "here:1");
    assert_usage_error(&["rekey", "2001:db8::1:443", "10.0.0.2:2"], "in brackets");
    assert_usage_error(&["up", "--tep", "Curve25519,P384"], "P256, P521, Curve25519, Curve448");
    assert_usage_error(&["up", "--tep", "P256,p256"], "twice");
    assert_usage_error(&["up", "--aead", "AES-128-CBC"], "AES-128-GCM, AES-256-GCM, ChaCha20-Poly1305");
    assert_usage_error(&["enable", "10.0.0.0/8,no-resumption"], "no-resume");
    assert_usage_error(&["cache"], "flush");
    assert_usage_error(&["cache", "flush", "10.0.0.2:80"], "`10.0.0.2:80` is not an address");
    assert_usage_error(&["cache", "flush", "--connection", "10.0.0.1:1"], "REMOTE");
    assert_usage_error(&["cache", "flush", "10.0.0.2", "--connection", "10.0.0.1:1", "10.0.0.2:2"], "cannot be used");
}

#[test]
fn selectors_that_mean_nothing_have_exit_status_2() {
    for selector in [
        "",
        ":",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "10.0.0.0/8:0",
        "10.0.0.0/8:99999",
        "[fd00::/64",
        "local:x",
        "127.0.0.1",
        "fe80::/64",
        "a b",
    ] {
        for command in ["up", "enable", "disable"] {
            assert_usage_error(&[command, "--instance", "cli-none", selector], "SELECTOR");
        }
    }
}

#[test]
fn a_selector_with_host_bits_is_refused_with_what_was_probably_meant() {
    assert_usage_error(&["up", "10.0.0.1/8"], "10.0.0.0/8");
}

#[test]
fn commands_without_a_daemon_fail_with_one_line_that_says_what_to_do() {
    for arguments in [
        &["status"][..],
        &["flows"],
        &["flows", "--json"],
        &["enable", "10.0.0.0/8"],
        &["disable", "10.0.0.0/8"],
        &["session", "10.0.0.1:1", "10.0.0.2:2"],
        &["rekey", "10.0.0.1:1", "10.0.0.2:2"],
        &["cache", "list"],
        &["cache", "flush", "10.0.0.2"],
    ] {
        let mut all = vec!["--instance", "cli-nobody"];
        all.extend(arguments);
        assert_fails(&enotun(&all), "start it with `enotun up --instance cli-nobody`");
    }
}

#[test]
fn a_missing_configuration_fails_and_a_wrong_one_is_wrong_usage() {
    assert_fails(&enotun(&["up", "--config", "/nonexistent.toml"]), "/nonexistent.toml");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enotun.toml");
    std::fs::write(&path, "policy = \"required\"\nselector = [\"10.0.0.0/8\"]\n").unwrap();
    let output = enotun(&["up", "--dry-run", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("enotun.toml, line 2: unknown field `selector`, expected one of"), "{text}");
}

#[test]
fn help_is_a_manual() {
    let output = enotun(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for command in ["up", "down", "enable", "disable", "status", "flows", "session", "cache", "rekey", "doctor"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(command)), "{command}\n{text}");
        let output = enotun(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let help = stdout(&output);
        assert!(help.contains("--instance") && help.contains("--json"), "{help}");
    }
    for words in ["Exit status: 0 done, 1 failed, 2 wrong usage", "not authenticated", "Examples:"] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let up = stdout(&enotun(&["up", "--help"]));
    for words in [
        "--config",
        "--tun",
        "--policy",
        "--tep",
        "--aead",
        "10.0.0.0/8:443,no-resume",
        "--dry-run",
        "--gateway",
        "local:8080",
        "table enotun",
    ] {
        assert!(up.contains(words), "{words}\n{up}");
    }
}

#[test]
fn nothing_calls_unauthenticated_encryption_secure() {
    for arguments in
        [&["--help"][..], &["up", "--help"], &["session", "--help"], &["flows", "--help"], &["status", "--help"]]
    {
        assert!(!stdout(&enotun(arguments)).to_lowercase().contains("secure"), "{arguments:?}");
    }
}

#[test]
fn version_is_the_packages() {
    assert_eq!(stdout(&enotun(&["--version"])), format!("enotun {}\n", env!("CARGO_PKG_VERSION")));
}
