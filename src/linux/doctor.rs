//! Actual and possible problems of this host, and what to do about them. Only inspects, changes nothing.

use std::fmt;
use std::fs;

use serde::Serialize;
use serde_json::Value;

use super::change::Change;
use super::facts::{HostFacts, Link, chains_of, list, list_tables_of_others, read_sysctl};
use super::netlink::{Netlink, Target};
use super::record::{self, Namespace, Store};
use super::{Error, HostSettings, tun};

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Possible trouble.
    Warn,
    /// Does not work.
    Fail,
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its severity.
    pub level: Level,
    /// The finding.
    pub what: String,
    /// What to do about it; empty if nothing needs to be done.
    pub todo: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        write!(f, "{level} {}", self.what)?;
        if self.todo.is_empty() { Ok(()) } else { write!(f, "\n     -> {}", self.todo) }
    }
}

fn ok(what: impl Into<String>) -> Check {
    Check { level: Level::Ok, what: what.into(), todo: String::new() }
}

fn warn(what: impl Into<String>, todo: impl Into<String>) -> Check {
    Check { level: Level::Warn, what: what.into(), todo: todo.into() }
}

fn fail(what: impl Into<String>, todo: impl Into<String>) -> Check {
    Check { level: Level::Fail, what: what.into(), todo: todo.into() }
}

/// Runs all checks, for the instance with these settings, up or not.
#[must_use]
pub fn doctor(settings: &HostSettings) -> Vec<Check> {
    let mut checks = vec![capability(), tun_device(), entropy()];
    match HostFacts::gather(settings) {
        Ok(facts) => {
            let (record, alive) = instance(settings, &mut checks);
            rules(&facts, settings, &record, &mut checks);
            mtu(&facts, settings, &mut checks);
            // After a crash one line says it all: what is left is what drops the selected traffic.
            for change in record.iter().filter(|_| alive) {
                still_so(change, settings, &mut checks);
            }
            forward_policy(&facts, &record, &mut checks);
        }
        Err(error) => checks.push(fail(format!("cannot inspect this host's network: {error}"), "fix that first")),
    }
    match list_tables_of_others(settings) {
        Ok(tables) => tables.iter().for_each(|table| input_rules(table, settings, &mut checks)),
        Err(error) => checks.push(fail(format!("cannot list the firewall: {error}"), "install nftables, run as root")),
    }
    legacy_tables(settings, &mut checks);
    conntrack(&mut checks);
    checks
}

fn capability() -> Check {
    // Bit 12 of the effective set.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()) {
        Some(set) if set & (1 << 12) != 0 => ok("CAP_NET_ADMIN is available"),
        _ => fail("no CAP_NET_ADMIN", "run as root, or give the process CAP_NET_ADMIN"),
    }
}

fn tun_device() -> Check {
    match tun::is_available() {
        Ok(()) => ok("/dev/net/tun can be opened"),
        Err(Error::NoTun) => fail("no /dev/net/tun", "modprobe tun, or give the container the device"),
        Err(error) => fail(format!("/dev/net/tun cannot be opened: {error}"), "run as root"),
    }
}

/// ENO-18
fn entropy() -> Check {
    let mut byte = [0_u8; 1];
    match rustix::rand::getrandom(&mut byte[..], rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(_) => ok("the kernel's random generator is seeded"),
        Err(_) => fail(
            "the kernel's random generator is not seeded: no connection is encrypted until it is (ENO-18)",
            "give the machine a source of entropy (virtio-rng, rngd)",
        ),
    }
}

/// Determines whether the instance runs, is down or has crashed; returns its recorded changes, and whether it runs.
fn instance(settings: &HostSettings, checks: &mut Vec<Check>) -> (Vec<Change>, bool) {
    let nothing = (Vec::new(), false);
    let name = &settings.instance;
    let record = match record::read(&settings.record_path()) {
        Ok(Some(record)) => record,
        Ok(None) => {
            checks.push(ok(format!("instance {name} is not up")));
            return nothing;
        }
        Err(error) => {
            checks.push(fail(error.to_string(), "see there"));
            return nothing;
        }
    };
    if !Namespace::current().is_ok_and(|current| record.is_of(&current)) {
        checks.push(warn(
            format!("instance {name} belongs to another network namespace"),
            "run doctor there (ip netns exec NAMESPACE enotun doctor)",
        ));
        return nothing;
    }
    let alive = matches!(Store::open(&settings.state_dir, name), Err(Error::Running(_)));
    checks.push(if alive {
        ok(format!("instance {name} is up"))
    } else {
        fail(
            format!("instance {name} has died: the traffic it had selected is dropped"),
            format!("start it again, or `enotun down --instance {name}`"),
        )
    });
    (record.changes, alive)
}

fn rules(facts: &HostFacts, settings: &HostSettings, record: &[Change], checks: &mut Vec<Check>) {
    let ours = |rule: &super::RuleFact| {
        record.iter().any(|change| {
            matches!(change, Change::Rule { family, preference, table, .. }
                if (*family, *preference, *table) == (rule.family, rule.preference, rule.table))
        })
    };
    for change in record {
        let Change::Rule { family, preference, mark, .. } = change else { continue };
        let present =
            facts.rules.iter().any(|rule| ours(rule) && (rule.family, rule.preference) == (*family, *preference));
        let earlier_local =
            facts.rules.iter().any(|rule| super::facts::is_local(rule, *family) && rule.preference <= *preference);
        if !present {
            checks.push(fail(
                format!("missing: {change}"),
                "another program deletes routing rules; restart enotun, and find that program",
            ));
        } else if earlier_local {
            checks.push(fail(
                format!("the local table's rule precedes the one for mark {mark:#x}: inbound packets are not diverted"),
                "another program has restored it; restart enotun",
            ));
        }
    }
    let (low, high) = (settings.preference, settings.preference + 2);
    for rule in facts.rules.iter().filter(|rule| !ours(rule) && !super::facts::is_local(rule, rule.family)) {
        if (low..=high).contains(&rule.preference) {
            checks.push(warn(
                format!("another program's rule has preference {}, which is one of ours", rule.preference),
                "set `host.preference` in the configuration to the first of three that are free",
            ));
        }
        if let Some((mark, mask)) = rule.mark
            && mask != u32::MAX
            && mark & mask & settings.mark_mask != 0
        {
            checks.push(warn(
                format!("another program's rule uses mark {mark:#x}/{mask:#x}, which shares bits with ours"),
                "set `host.mark-mask` in the configuration to two bits that nothing else uses",
            ));
        }
    }
}

fn mtu(facts: &HostFacts, settings: &HostSettings, checks: &mut Vec<Check>) {
    let ours = [settings.tun.clone(), settings.wire_tun()];
    let is_ours = |link: &&Link| ours.contains(&link.name);
    let Some(device) = facts.links.iter().filter(is_ours).map(|link| link.mtu).min() else { return };
    let nics = facts.links.iter().filter(|link| !is_ours(link) && !link.loopback && link.up);
    match nics.max_by_key(|link| link.mtu).filter(|link| link.mtu > device) {
        Some(link) => checks.push(fail(
            format!(
                "{} has MTU {}, more than our devices' {device}: its full-size packets are refused",
                link.name, link.mtu
            ),
            "restart enotun, or set `host.mtu` in the configuration",
        )),
        None => checks.push(ok(format!("MTU of our devices: {device}"))),
    }
}

/// A recorded change that somebody has undone.
fn still_so(change: &Change, settings: &HostSettings, checks: &mut Vec<Check>) {
    match change {
        Change::Sysctl { path, value, .. } => match read_sysctl(path) {
            Some(current) if current != *value => checks.push(fail(
                format!("sysctl {path} is {current}, must be {value}"),
                format!("find out what changes it (sysctl.d, another daemon), then: sysctl -w {path}={value}"),
            )),
            _ => {}
        },
        Change::Route { target: Target::Device(name), table, .. } => {
            let up = Netlink::new().and_then(|mut netlink| netlink.interface_index(name)).is_ok();
            if !up {
                checks.push(fail(format!("device {name} of table {table} is gone"), "restart enotun"));
            }
        }
        Change::NftTable { table } => {
            let listing = list("chains").unwrap_or_default();
            if chains_of(&listing, table) == 0 {
                checks.push(fail(
                    format!("the nftables table inet {table} is gone: nothing is diverted"),
                    format!("something has flushed the ruleset; restart enotun (instance {})", settings.instance),
                ));
            } else if [false, true].iter().all(|other| chains_of(&listing, &settings.guard_table(*other)) == 0) {
                checks.push(warn(
                    format!(
                        "the guard is not up: if another program deletes {table}, connections continue in the clear for a moment"
                    ),
                    "the log says why; it needs Linux 5.12 and an nft with interactive mode",
                ));
            }
        }
        _ => {}
    }
}

fn forward_policy(facts: &HostFacts, record: &[Change], checks: &mut Vec<Check>) {
    for chain in facts.forward_chains.iter().filter(|chain| chain.drops) {
        let passed = record.iter().any(|change| {
            matches!(change, Change::ForeignPass { family, table, chain: name, .. }
                if (family, table, name) == (&chain.family, &chain.table, &chain.name))
        });
        let name = format!("{} {} {}", chain.family, chain.table, chain.name);
        if passed {
            checks.push(ok(format!("forward chain {name} drops by policy; our two devices are accepted")));
        } else {
            checks.push(warn(
                format!("forward chain {name} drops by policy"),
                "`up` inserts rules that accept our devices; if it is up already, this chain is new: restart enotun",
            ));
        }
    }
}

/// Rules of others that match an input interface: diverted traffic arrives on the plain device.
fn input_rules(ruleset: &Value, settings: &HostSettings, checks: &mut Vec<Check>) {
    let ours = [settings.tun.clone(), settings.wire_tun(), "lo".to_owned()];
    let objects = ruleset.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let mut chains: Vec<String> = Vec::new();
    for rule in objects.filter_map(|object| object.get("rule")) {
        let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
        if settings.is_own_table(text("table")) || text("comment").starts_with("enotun ") {
            continue;
        }
        let parts = rule.get("expr").and_then(Value::as_array).into_iter().flatten();
        let names_one = parts.filter_map(|part| part.get("match")).any(|matched| {
            let key = matched.pointer("/left/meta/key").and_then(Value::as_str);
            let is_ours =
                matched.get("right").and_then(Value::as_str).is_some_and(|name| ours.iter().any(|o| o == name));
            matches!(key, Some("iifname" | "iif")) && !is_ours
        });
        if names_one {
            chains.push(format!("{} {} {}", text("family"), text("table"), text("chain")));
        }
    }
    chains.dedup();
    for chain in chains {
        checks.push(warn(
            format!("rules in {chain} match the input interface"),
            format!(
                "selected traffic arrives on `{}`: add that interface to the rules that should apply to it",
                settings.tun
            ),
        ));
    }
}

fn legacy_tables(settings: &HostSettings, checks: &mut Vec<Check>) {
    for (file, program) in
        [("/proc/net/ip_tables_names", "iptables-legacy"), ("/proc/net/ip6_tables_names", "ip6tables-legacy")]
    {
        let tables = fs::read_to_string(file).unwrap_or_default();
        if tables.lines().any(|table| table == "filter") {
            checks.push(warn(
                format!("{program} has a filter table, which nftables does not show"),
                format!(
                    "if its FORWARD chain drops: {program} -I FORWARD -i {} -j ACCEPT, and the same with -o",
                    settings.wire_tun()
                ),
            ));
        }
    }
}

fn conntrack(checks: &mut Vec<Check>) {
    let number = |key: &str| read_sysctl(&format!("net/netfilter/{key}"))?.parse::<u64>().ok();
    if let (Some(count), Some(max)) = (number("nf_conntrack_count"), number("nf_conntrack_max")) {
        // Each connection is tracked once per leg.
        if count * 10 > max * 9 {
            checks.push(warn(
                format!("connection tracking is nearly full: {count} of {max}"),
                format!(
                    "each selected connection takes two entries: sysctl -w net.netfilter.nf_conntrack_max={}",
                    max * 2
                ),
            ));
        } else {
            checks.push(ok(format!("connection tracking: {count} of {max} entries")));
        }
    }
    if number("nf_conntrack_tcp_loose") == Some(0) {
        checks.push(warn(
            "net.netfilter.nf_conntrack_tcp_loose is 0: connections that are open when enotun comes up look invalid to a firewall",
            "expect them to break where `ct state invalid` is dropped",
        ));
    }
}
