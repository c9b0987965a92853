//! `up --dry-run` says all that `up` does.

use std::process::Command;

use super::daemon::Daemon;
use super::{assert_fails, stderr, stdout};

#[test]
fn a_dry_run_prints_and_changes_nothing() {
    let Some(host) = Daemon::new("dry") else { return };
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
    let Some(mut host) = Daemon::new(name) else { return };
    let dry = stdout(&host.enotun(&[&["up", "--dry-run"], selectors].concat()));
    let before = host.state();
    host.up(selectors);
    let run = |arguments: &[&str]| {
        let output = Command::new("ip").args(["netns", "exec", host.name()]).args(arguments).output().unwrap();
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
