//! The command line: usage, exit statuses, the shapes of JSON, and a daemon's life in a network namespace of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const ENOTUN: &str = env!("CARGO_BIN_EXE_enotun");

fn enotun(arguments: &[&str]) -> Output {
    Command::new(ENOTUN).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_usage_error(arguments: &[&str], says: &str) {
    let output = enotun(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains(says), "{arguments:?}: {text}");
    assert!(text.starts_with("enotun: ") && text.lines().count() == 1, "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

/// Failed, with one line that says why.
#[track_caller]
fn assert_fails(output: &Output, says: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("enotun: "), "{text}");
    assert!(text.contains(says), "{text}");
}

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

/// A network namespace with one interface, gone with everything in it when dropped.
struct Namespace {
    name: String,
    daemon: Option<Child>,
}

impl Namespace {
    /// `None`, and a line that says why, where there cannot be one.
    fn new(test: &str) -> Option<Self> {
        let name = format!("cli-{}-{test}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        if !made.is_ok_and(|output| output.status.success()) || !PathBuf::from("/dev/net/tun").exists() {
            println!("skipped: needs root, `ip netns` and /dev/net/tun");
            return None;
        }
        let namespace = Self { name, daemon: None };
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"],
            // No link-local addresses, which would appear in the middle of a test.
            &["link", "set", "eth0", "addrgenmode", "none"],
            &["link", "set", "eth1", "addrgenmode", "none"],
            &["addr", "add", "192.0.2.1/24", "dev", "eth0"],
            &["link", "set", "eth0", "up"],
            &["link", "set", "eth1", "up"],
        ] {
            let output = Command::new("ip").args(["-n", &namespace.name]).args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        }
        Some(namespace)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, ENOTUN]).args(arguments).args(["--instance", &self.name]);
        command.stdin(Stdio::null());
        command
    }

    fn enotun(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(arguments).arg("--json").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts a daemon and waits until it is ready.
    #[track_caller]
    fn up(&mut self, arguments: &[&str]) {
        let mut all = vec!["up"];
        all.extend(arguments);
        let log = std::fs::File::create(self.log()).unwrap();
        let mut child = self.command(&all).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while !self.enotun(&["status"]).status.success() {
            assert_eq!(child.try_wait().unwrap(), None, "{}", self.logged());
            assert!(Instant::now() < end, "not ready: {}", self.logged());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.daemon = Some(child);
    }

    fn log(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{}.log", self.name))
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn wait(&mut self) -> Option<i32> {
        self.daemon.take().unwrap().wait().unwrap().code()
    }

    /// Rules, routes, links and firewall, for comparing.
    fn state(&self) -> String {
        let mut text = String::new();
        for arguments in [
            &["ip", "rule"][..],
            &["ip", "-6", "rule"],
            &["ip", "route", "show", "table", "all"],
            &["ip", "-br", "link"],
            &["nft", "list", "ruleset"],
            &["sysctl", "net.ipv4.tcp_early_demux", "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.all.rp_filter"],
        ] {
            let output = Command::new("ip").args(["netns", "exec", &self.name]).args(arguments).output().unwrap();
            text.push_str(&stdout(&output));
        }
        text
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
            let _ = self.enotun(&["down"]);
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
        let _ = std::fs::remove_file(self.log());
    }
}

#[test]
fn a_daemon_comes_up_answers_and_goes_down() {
    let Some(mut host) = Namespace::new("life") else { return };
    let before = host.state();
    host.up(&["198.51.100.0/24"]);
    assert_ne!(host.state(), before);

    let status = host.json(&["status"]);
    assert_eq!(status["instance"], host.name.as_str());
    assert_eq!(status["policy"], "opportunistic");
    assert_eq!(status["selectors"][0]["selector"], "198.51.100.0/24");
    assert_eq!(status["devices"][0]["name"], "tun0");
    assert_eq!(status["devices"][1]["name"], "tun0-w");
    assert_eq!(status["connections"]["encrypted"], 0);
    assert_eq!(status["counters"]["connections_refused"], 0);
    assert!(status["up_since"].as_str().unwrap().ends_with('Z'));
    assert!(stdout(&host.enotun(&["status"])).contains("198.51.100.0/24  opportunistic  by command"));

    assert_eq!(host.json(&["flows"]), serde_json::json!([]));
    assert_eq!(stdout(&host.enotun(&["flows"])), "no connections\n");
    for command in [&["session"][..], &["rekey"], &["cache", "flush", "--connection"]] {
        for ends in [["192.0.2.1:1", "198.51.100.1:2"], ["[::ffff:192.0.2.1]%eth0:1", "[::ffff:198.51.100.1]:2"]] {
            let says = "no connection 192.0.2.1:1 - 198.51.100.1:2";
            assert_fails(&host.enotun(&[command, &ends].concat()), says);
        }
    }
    assert_eq!(host.json(&["cache", "list"]), serde_json::json!([]));
    assert_eq!(stdout(&host.enotun(&["cache", "list"])), "no sessions\n");
    assert_eq!(host.json(&["cache", "flush"]), serde_json::json!({ "flushed": 0 }));
    assert_eq!(stdout(&host.enotun(&["cache", "flush", "198.51.100.1"])), "0 sessions erased\n");

    let second = host.enotun(&["up", "198.51.100.0/24"]);
    assert_fails(&second, "already running");
    assert!(host.enotun(&["status"]).status.success());

    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(format!("/run/enotun/{}.sock", host.name)).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);

    let down = host.enotun(&["down"]);
    assert!(down.status.success(), "{}", stderr(&down));
    assert_eq!(host.wait(), Some(0));
    assert_eq!(host.state(), before);
    assert_fails(&host.enotun(&["down"]), "nothing to clean up");
    let log = host.logged();
    assert!(log.contains("up: instance") && log.contains("down: the host is as it was before"), "{log}");
}

#[test]
fn selectors_change_at_run_time() {
    let Some(mut host) = Namespace::new("select") else { return };
    host.up(&["--policy", "required", "198.51.100.0/24"]);
    let entries = host.json(&["enable", "203.0.113.0/24:443", "local:8080"]);
    let policies: Vec<_> = entries.as_array().unwrap().iter().map(|entry| entry["policy"].as_str().unwrap()).collect();
    assert_eq!(policies, ["required"; 3]);
    let shown = stdout(&host.enotun(&["disable", "local:8080"]));
    assert!(!shown.contains("local:8080") && shown.contains("203.0.113.0/24:443"), "{shown}");
    let entries = host.json(&["enable", "--policy", "off", "203.0.113.0/24:443"]);
    assert!(
        entries.as_array().unwrap().iter().any(|it| it["selector"] == "203.0.113.0/24:443" && it["policy"] == "off")
    );
    assert_fails(&host.enotun(&["disable", "198.51.100.7"]), "--policy off 198.51.100.7");
    // By default required, which a name cannot be.
    assert_fails(&host.enotun(&["enable", "db.example"]), "nothing is changed: `db.example` is a host name");
    assert_fails(&host.enotun(&["enable", "--policy", "off", "does-not-exist.invalid"]), "has no address");
    assert_eq!(host.json(&["status"])["selectors"].as_array().unwrap().len(), 2);
}

#[test]
fn contradictions_of_selectors_are_refused_wherever_they_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enotun.toml");
    let file = |text: &str| std::fs::write(&path, text).unwrap();
    file("[selectors]\nrequired = [\"198.51.100.0/24\"]\noff = [\":7000\"]\n");
    let config = ["up", "--dry-run", "--config", path.to_str().unwrap()];
    assert_usage_error(&config, "enotun.toml, line 3: selectors.off: `:7000` is off and `198.51.100.0/24` required");
    file("[selectors]\nrequired = [\"198.51.100.0/24\"]\n");
    let both = [&config[..], &["--policy", "off", ":7000"]].concat();
    assert_usage_error(&both, "listing `198.51.100.0/24:7000` as off or as required");

    let Some(mut host) = Namespace::new("contra") else { return };
    host.up(&config[2..]);
    let off = |selectors: &[&str]| host.enotun(&[&["enable", "--policy", "off"], selectors].concat());
    assert_fails(&off(&[":7000"]), "nothing is changed: `:7000` is off");
    assert!(off(&[":7000", "198.51.100.0/24:7000"]).status.success());
    assert_fails(&host.enotun(&["disable", "198.51.100.0/24:7000"]), "nothing is changed: `:7000` is off");
    host.enotun(&["enable", "203.0.113.0/24"]);
    let told = stdout(&host.enotun(&["status"]));
    assert!(
        told.contains("203.0.113.0/24        opportunistic  by command  where both match, yields to :7000"),
        "{told}"
    );
    assert_eq!(host.json(&["status"])["selectors"][3]["yields_to"], serde_json::json!([":7000"]));
    file("[selectors]\nrequired = [\"198.51.100.0/24\", \"203.0.113.0/25\"]\n");
    host.signal("-HUP");
    let end = Instant::now() + Duration::from_secs(10);
    while !host.logged().contains("the configuration is not changed: `:7000` is off and `203.0.113.0/25`") {
        assert!(Instant::now() < end, "{}", host.logged());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(host.json(&["status"])["selectors"].as_array().unwrap().len(), 4);
}

#[test]
fn options_of_selectors_and_of_the_protocol_are_taken_and_shown() {
    let Some(mut host) = Namespace::new("options") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enotun.toml");
    let file = "[negotiation]\nteps = [\"P256\"]\naeads = [\"AES-256-GCM\", \"AES-128-GCM\"]\naware = true\n\
                [resumption]\nnonce-length = 4\n[selectors]\nrequired = [\"198.51.100.0/24,no-resume,no-cache\"]\n";
    std::fs::write(&path, file).unwrap();
    host.up(&["--config", path.to_str().unwrap(), "--tep", "Curve448,Curve25519"]);
    host.enotun(&["enable", "203.0.113.9:179,role-b", ":80"]);
    let status = host.json(&["status"]);
    let protocol = &status["protocol"];
    assert_eq!(protocol["teps"], serde_json::json!(["Curve448", "Curve25519"]), "the command line wins");
    assert_eq!(protocol["aeads"], serde_json::json!(["AES-256-GCM", "AES-128-GCM"]));
    assert_eq!((&protocol["aware"], &protocol["nonce_length"]), (&true.into(), &4.into()));
    assert_eq!(status["selectors"][0]["options"], serde_json::json!(["no-resume", "no-cache"]));
    assert_eq!(status["selectors"][1]["options"], serde_json::json!(["role-b"]));
    assert!(status["problems"].to_string().contains("nonce-length"), "{}", status["problems"]);
    let text = stdout(&host.enotun(&["status"]));
    for line in [
        "offers       Curve25519, Curve448",
        "protected    198.51.100.0/24  required       no-resume, no-cache  by file",
        "             203.0.113.9:179  opportunistic  role-b               by command",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    let entries = host.json(&["disable", "203.0.113.9:179,role-b"]);
    assert_eq!(entries.as_array().unwrap().len(), 2);

    // What the packet loop was started with stays; selectors and their options do not.
    std::fs::write(&path, "[selectors]\nrequired = [\"198.51.100.0/24,aware\"]\n").unwrap();
    host.signal("-HUP");
    let end = Instant::now() + Duration::from_secs(10);
    while host.json(&["status"])["selectors"][0]["options"] != serde_json::json!(["aware"]) {
        assert!(Instant::now() < end, "{}", host.logged());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(host.logged().contains("only selectors, policy and log change"), "{}", host.logged());
    assert_eq!(host.json(&["status"])["protocol"]["nonce_length"], 4);
}

#[test]
fn signals_end_it_and_put_the_host_back() {
    let Some(mut host) = Namespace::new("signals") else { return };
    let before = host.state();
    for signal in ["-TERM", "-INT"] {
        host.up(&["198.51.100.0/24"]);
        host.signal(signal);
        assert_eq!(host.wait(), Some(0), "{}", host.logged());
        assert_eq!(host.state(), before);
    }
}

#[test]
fn down_cleans_up_after_a_daemon_that_died() {
    let Some(mut host) = Namespace::new("crash") else { return };
    let before = host.state();
    host.up(&["198.51.100.0/24"]);
    // Nothing that could not be read back from the record: a name that stands for loopback, a route that leads there.
    assert_fails(&host.enotun(&["enable", "localhost:80"]), "no address outside this host");
    for prefix in ["127.0.0.0/8", "10.9.0.0/16"] {
        let route = ["-n", &host.name, "route", "add", prefix, "dev", "tun0", "table", "enotun"];
        assert!(Command::new("ip").args(route).status().unwrap().success());
    }
    let end = Instant::now() + Duration::from_secs(10);
    while !host.json(&["status"])["selectors"].to_string().contains("10.9.0.0/16") {
        assert!(Instant::now() < end, "{}", host.json(&["status"])["selectors"]);
        std::thread::sleep(Duration::from_millis(20));
    }
    let other = Command::new("ip")
        .args(["netns", "exec", &host.name, ENOTUN, "up", "--instance", "cli-other", "--tun", "tun5", ":80"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_fails(&other, "is already up in this network namespace");
    let other = Command::new(ENOTUN).args(["status", "--instance", "cli-other"]).output().unwrap();
    assert_fails(&other, ", or name one that runs with --instance: ");

    host.signal("-KILL");
    host.wait();
    assert_fails(&host.enotun(&["status"]), "no daemon runs");
    let down = host.enotun(&["down"]);
    assert!(stdout(&down).contains("cleaned up"), "{}", stderr(&down));
    assert_eq!(host.state(), before);
}

#[test]
fn a_hangup_reads_the_configuration_again() {
    let Some(mut host) = Namespace::new("reload") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enotun.toml");
    std::fs::write(&path, "[selectors]\nrequired = [\"198.51.100.0/24\"]\n").unwrap();
    host.up(&["--config", path.to_str().unwrap()]);
    host.enotun(&["enable", ":8443"]);
    let selectors = |host: &Namespace| -> Vec<String> {
        let status = host.json(&["status"]);
        let entries = status["selectors"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| format!("{} {}", entry["selector"].as_str().unwrap(), entry["policy"].as_str().unwrap()))
            .collect()
    };
    let wait_for = |host: &Namespace, wanted: &[&str]| {
        let end = Instant::now() + Duration::from_secs(10);
        while selectors(host) != wanted {
            assert!(Instant::now() < end, "{:?}\n{}", selectors(host), host.logged());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(&host, &["198.51.100.0/24 required", ":8443 opportunistic"]);
    std::fs::write(&path, "policy = \"required\"\n[selectors]\noff = [\"203.0.113.9\"]\n").unwrap();
    host.signal("-HUP");
    wait_for(&host, &["203.0.113.9 off", ":8443 opportunistic"]);
    std::fs::write(&path, "polizy = \"required\"\n").unwrap();
    host.signal("-HUP");
    let end = Instant::now() + Duration::from_secs(10);
    while !host.logged().contains("the configuration is not changed") {
        assert!(Instant::now() < end, "{}", host.logged());
        std::thread::sleep(Duration::from_millis(20));
    }
    wait_for(&host, &["203.0.113.9 off", ":8443 opportunistic"]);
    let problems = host.json(&["status"])["problems"].clone();
    assert!(problems.to_string().contains("polizy"), "{problems}");
    std::fs::write(&path, "[selectors]\nopportunistic = [\"does-not-exist.invalid:80\"]\n").unwrap();
    host.signal("-HUP");
    let end = Instant::now() + Duration::from_secs(20);
    while !host.logged().contains("`does-not-exist.invalid` has no address yet") {
        assert!(Instant::now() < end, "{}", host.logged());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_dry_run_prints_and_changes_nothing() {
    let Some(host) = Namespace::new("dry") else { return };
    let before = host.state();
    let output = host.enotun(&["up", "--dry-run", "198.51.100.0/24"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for words in ["tcp_early_demux", "198.51.100.0/24", "tun0-w"] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let gateway = host.enotun(&["up", "--dry-run", "--gateway", "eth0", "--gateway", "eth1", "198.51.100.0/24"]);
    assert!(stdout(&gateway).contains("198.51.100.0/24"), "{}", stderr(&gateway));
    assert_fails(&host.enotun(&["up", "--dry-run", "--gateway", "eth0,eth7"]), "eth7");
    assert!(host.json(&["up", "--dry-run", "198.51.100.0/24"]).as_array().is_some_and(|lines| lines.len() > 5));
    assert_eq!(host.state(), before);
}

#[test]
fn a_dry_run_prints_all_that_up_does() {
    let selectors = ["--policy", "required", "198.51.100.0/24", "2001:db8::/32", ":8443", "local:22"];
    prints_all_that_it_does("alldry", &selectors);
}

#[test]
fn a_dry_run_of_a_gateway_prints_all_that_up_does() {
    prints_all_that_it_does("gatedry", &["--policy", "required", "--gateway", "eth1", "::/0", "local:22"]);
}

fn prints_all_that_it_does(name: &str, selectors: &[&str]) {
    let Some(mut host) = Namespace::new(name) else { return };
    let dry = stdout(&host.enotun(&[&["up", "--dry-run"], selectors].concat()));
    let before = host.state();
    host.up(selectors);
    let run = |arguments: &[&str]| {
        let output = Command::new("ip").args(["netns", "exec", &host.name]).args(arguments).output().unwrap();
        stdout(&output)
    };
    // Every chain, set and table of the firewall.
    let tables = run(&["nft", "list", "tables"]);
    let mut counted = 0;
    for table in tables.lines().filter_map(|line| line.strip_prefix("table inet ")) {
        assert!(dry.contains(&format!("nft add table inet {table}")), "{table}\n{dry}");
        let listed = run(&["nft", "list", "table", "inet", table]);
        for line in listed.lines().map(str::trim) {
            let named = |kind| line.strip_prefix(kind).and_then(|rest| rest.strip_suffix(" {"));
            for (kind, name) in [("chain", named("chain ")), ("set", named("set "))] {
                let Some(name) = name else { continue };
                assert!(
                    dry.contains(&format!("nft add {kind} inet {table} {name} {{"))
                        || dry.lines().any(|line| line == format!("nft add {kind} inet {table} {name}")),
                    "{kind} {name}"
                );
                counted += 1;
            }
        }
        let rules = dry.lines().filter(|line| line.starts_with(&format!("nft add rule inet {table} "))).count();
        let heads = ["table ", "chain ", "set ", "type ", "flags ", "elements ", "policy "];
        let is_rule = |line: &str| !line.is_empty() && line != "}" && !heads.iter().any(|head| line.starts_with(head));
        let in_chains = listed.split("\tchain ").skip(1).flat_map(str::lines).map(str::trim);
        let real = in_chains.filter(|line| is_rule(line) && !line.ends_with(" {")).count();
        assert_eq!(rules, real, "rules of {table}\n{listed}\n{dry}");
    }
    assert!(counted > 20, "{counted} chains and sets\n{tables}");
    // Every rule of routing and every route, link and sysctl that is new.
    let after = host.state();
    for line in after.lines().filter(|line| !before.contains(*line)) {
        let told = if let Some((preference, rule)) = line.split_once(":\tfrom all ") {
            rule.starts_with("lookup local")
                || dry.contains(&format!("preference {preference}"))
                || dry.contains(preference)
        } else if let Some((name, value)) = line.split_once(" = ").filter(|(name, _)| name.starts_with("net.")) {
            dry.contains(&format!("sysctl {} = {value}", name.replace('.', "/")))
        } else if line.starts_with("tun0") {
            let name = line.split_whitespace().next().unwrap();
            dry.contains(&format!("tun {name} "))
        } else if line.starts_with("default dev") || line.starts_with("blackhole") {
            dry.lines().any(|told| told.contains("route") && told.contains(line.split_whitespace().nth(2).unwrap()))
        } else {
            true
        };
        assert!(told, "`{line}` is not in\n{dry}");
    }
    assert!(
        dry.contains("rt_tables.d/enotun.conf") || std::fs::exists("/etc/iproute2/rt_tables.d/enotun.conf").unwrap()
    );
}

#[test]
fn doctor_gives_each_finding_a_level_and_fails_if_one_does() {
    let Some(mut host) = Namespace::new("doctor") else { return };
    let look = |host: &Namespace| -> Vec<Value> {
        let output = host.command(&["doctor"]).arg("--json").output().unwrap();
        let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        assert!(!findings.is_empty());
        for finding in &findings {
            assert!(["ok", "warn", "fail"].contains(&finding["level"].as_str().unwrap()), "{finding}");
            assert!(finding["what"].is_string() && finding["todo"].is_string(), "{finding}");
        }
        let failed = findings.iter().any(|finding| finding["level"] == "fail");
        assert_eq!(output.status.code(), Some(i32::from(failed)), "{findings:?}");
        findings
    };
    let failed = |findings: &[Value]| findings.iter().any(|finding| finding["level"] == "fail");
    assert!(!failed(&look(&host)));
    host.up(&["198.51.100.0/24"]);
    let findings = look(&host);
    assert!(!failed(&findings), "{findings:?}");
    let nft = Command::new("ip").args(["netns", "exec", &host.name, "nft", "flush", "ruleset"]).status().unwrap();
    assert!(nft.success());
    assert!(failed(&look(&host)));
}

#[test]
fn down_and_all_that_looks_work_from_another_network_namespace() {
    let Some(mut host) = Namespace::new("outside") else { return };
    let before = host.state();
    let outside =
        |arguments: &[&str]| Command::new(ENOTUN).args(arguments).args(["--instance", &host.name]).output().unwrap();
    let name = host.name.clone();
    let mut inside = host.command(&["up", "198.51.100.0/24"]).stderr(Stdio::null()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !outside(&["status"]).status.success() {
        assert!(Instant::now() < end, "{name} is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    inside.kill().unwrap();
    inside.wait().unwrap();
    let down = outside(&["down"]);
    assert!(stdout(&down).contains("cleaned up"), "{}", stderr(&down));
    assert_eq!(host.state(), before);
    host.daemon = None;
}

#[test]
fn a_route_in_table_enotun_selects_its_prefix() {
    let Some(mut host) = Namespace::new("route") else { return };
    host.up(&[]);
    let ip = |arguments: &[&str]| {
        assert!(Command::new("ip").args(["-n", &host.name, "route"]).args(arguments).status().unwrap().success());
    };
    let wait_for = |wanted: Value| {
        let end = Instant::now() + Duration::from_secs(10);
        while host.json(&["status"])["selectors"] != wanted {
            assert!(Instant::now() < end, "{}", host.json(&["status"])["selectors"]);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    ip(&["add", "10.9.0.0/16", "dev", "tun0", "table", "enotun"]);
    wait_for(serde_json::json!([{ "selector": "10.9.0.0/16", "policy": "opportunistic", "source": "route" }]));
    ip(&["del", "10.9.0.0/16", "dev", "tun0", "table", "enotun"]);
    wait_for(serde_json::json!([]));
}
