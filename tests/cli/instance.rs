//! A daemon's life: up, what is asked of it and changed, down.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::daemon::{Daemon, eventually};
use super::{ENOTUN, assert_fails, assert_usage_error, stderr, stdout};

#[test]
fn a_daemon_comes_up_answers_and_goes_down() {
    let Some(mut host) = Daemon::new("life") else { return };
    let before = host.state();
    host.up(&["198.51.100.0/24"]);
    assert_ne!(host.state(), before);

    let status = host.json(&["status"]);
    assert_eq!(status["instance"], host.name());
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
        &std::fs::metadata(format!("/run/enotun/{}.sock", host.name())).unwrap().permissions(),
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
    let Some(mut host) = Daemon::new("select") else { return };
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

    let Some(mut host) = Daemon::new("contra") else { return };
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
    eventually(
        10,
        || host.logged(),
        || host.logged().contains("the configuration is not changed: `:7000` is off and `203.0.113.0/25`"),
    );
    assert_eq!(host.json(&["status"])["selectors"].as_array().unwrap().len(), 4);
}

#[test]
fn options_of_selectors_and_of_the_protocol_are_taken_and_shown() {
    let Some(mut host) = Daemon::new("options") else { return };
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
    eventually(
        10,
        || host.logged(),
        || host.json(&["status"])["selectors"][0]["options"] == serde_json::json!(["aware"]),
    );
    assert!(host.logged().contains("only selectors, policy and log change"), "{}", host.logged());
    assert_eq!(host.json(&["status"])["protocol"]["nonce_length"], 4);
}

#[test]
fn signals_end_it_and_put_the_host_back() {
    let Some(mut host) = Daemon::new("signals") else { return };
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
    let Some(mut host) = Daemon::new("crash") else { return };
    let before = host.state();
    host.up(&["198.51.100.0/24"]);
    // Nothing that could not be read back from the record: a name that stands for loopback, a route that leads there.
    assert_fails(&host.enotun(&["enable", "localhost:80"]), "no address outside this host");
    for prefix in ["127.0.0.0/8", "10.9.0.0/16"] {
        let route = ["-n", host.name(), "route", "add", prefix, "dev", "tun0", "table", "enotun"];
        assert!(Command::new("ip").args(route).status().unwrap().success());
    }
    eventually(
        10,
        || host.json(&["status"])["selectors"].to_string(),
        || host.json(&["status"])["selectors"].to_string().contains("10.9.0.0/16"),
    );
    let other = Command::new("ip")
        .args(["netns", "exec", host.name(), ENOTUN, "up", "--instance", "cli-other", "--tun", "tun5", ":80"])
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
    let Some(mut host) = Daemon::new("reload") else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("enotun.toml");
    std::fs::write(&path, "[selectors]\nrequired = [\"198.51.100.0/24\"]\n").unwrap();
    host.up(&["--config", path.to_str().unwrap()]);
    host.enotun(&["enable", ":8443"]);
    let selectors = |host: &Daemon| -> Vec<String> {
        let status = host.json(&["status"]);
        let entries = status["selectors"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| format!("{} {}", entry["selector"].as_str().unwrap(), entry["policy"].as_str().unwrap()))
            .collect()
    };
    let wait_for = |host: &Daemon, wanted: &[&str]| {
        eventually(10, || format!("{:?}\n{}", selectors(host), host.logged()), || selectors(host) == wanted);
    };
    wait_for(&host, &["198.51.100.0/24 required", ":8443 opportunistic"]);
    std::fs::write(&path, "policy = \"required\"\n[selectors]\noff = [\"203.0.113.9\"]\n").unwrap();
    host.signal("-HUP");
    wait_for(&host, &["203.0.113.9 off", ":8443 opportunistic"]);
    std::fs::write(&path, "polizy = \"required\"\n").unwrap();
    host.signal("-HUP");
    eventually(10, || host.logged(), || host.logged().contains("the configuration is not changed"));
    wait_for(&host, &["203.0.113.9 off", ":8443 opportunistic"]);
    let problems = host.json(&["status"])["problems"].clone();
    assert!(problems.to_string().contains("polizy"), "{problems}");
    std::fs::write(&path, "[selectors]\nopportunistic = [\"does-not-exist.invalid:80\"]\n").unwrap();
    host.signal("-HUP");
    eventually(20, || host.logged(), || host.logged().contains("`does-not-exist.invalid` has no address yet"));
}

#[test]
fn doctor_gives_each_finding_a_level_and_fails_if_one_does() {
    let Some(mut host) = Daemon::new("doctor") else { return };
    let look = |host: &Daemon| -> Vec<Value> {
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
    let nft = Command::new("ip").args(["netns", "exec", host.name(), "nft", "flush", "ruleset"]).status().unwrap();
    assert!(nft.success());
    assert!(failed(&look(&host)));
}

#[test]
fn down_and_all_that_looks_work_from_another_network_namespace() {
    let Some(mut host) = Daemon::new("outside") else { return };
    let before = host.state();
    let outside =
        |arguments: &[&str]| Command::new(ENOTUN).args(arguments).args(["--instance", host.name()]).output().unwrap();
    let name = host.name().to_owned();
    let mut inside = host.command(&["up", "198.51.100.0/24"]).stderr(Stdio::null()).spawn().unwrap();
    eventually(20, || format!("{name} is not ready"), || outside(&["status"]).status.success());
    inside.kill().unwrap();
    inside.wait().unwrap();
    let down = outside(&["down"]);
    assert!(stdout(&down).contains("cleaned up"), "{}", stderr(&down));
    assert_eq!(host.state(), before);
    host.daemon = None;
}

#[test]
fn a_route_in_table_enotun_selects_its_prefix() {
    let Some(mut host) = Daemon::new("route") else { return };
    host.up(&[]);
    let ip = |arguments: &[&str]| {
        assert!(Command::new("ip").args(["-n", host.name(), "route"]).args(arguments).status().unwrap().success());
    };
    let wait_for = |wanted: Value| {
        eventually(
            10,
            || host.json(&["status"])["selectors"].to_string(),
            || host.json(&["status"])["selectors"] == wanted,
        );
    };
    ip(&["add", "10.9.0.0/16", "dev", "tun0", "table", "enotun"]);
    wait_for(serde_json::json!([{ "selector": "10.9.0.0/16", "policy": "opportunistic", "source": "route" }]));
    ip(&["del", "10.9.0.0/16", "dev", "tun0", "table", "enotun"]);
    wait_for(serde_json::json!([]));
}
