//! The guard: a second table, which drops selected traffic that bypasses the devices. It does not divert.
//!
//! Packets reach the devices by the marks that the main table sets and by rules that turn marks into routes. Others
//! can undo all of that: `nft flush ruleset` is the first line of Debian's nftables.conf, systemd-networkd deletes
//! unknown rules, a rule at preference 0 precedes ours, another firewall overwrites marks. Until it is restored,
//! encrypted connections would continue in the clear. The guard drops those packets.
//!
//! Its table has an owner, so that nobody else can delete it: a child process, nft, to whose netlink socket it is
//! bound. It disappears when that process ends, which is when the daemon does; then only the main table is left.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::chains::refuse_link_local;
use super::divert::{Divert, link_local_net};
use super::expr::{Chain, Left, Part, Right};
use super::nft::Ruleset;
use super::{Error, HostSettings, facts};

/// Timeout for nft.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often its progress is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// After everything that decides where a packet goes, before source NAT (100).
const PRIORITY: i32 = 90;

/// An installed guard.
#[derive(Debug)]
pub(super) struct Guard {
    nft: Child,
    rules: Ruleset,
}

impl Guard {
    /// Installs it.
    ///
    /// # Errors
    /// If nft cannot be run in this way, or the kernel has no owned tables (Linux 5.12).
    pub(super) fn new(rules: Ruleset) -> Result<Self, Error> {
        let mut command = Command::new("nft");
        // Each line is a transaction. nft must not write its history anywhere, and a Ctrl-C is for the daemon alone.
        command.args(["-j", "-i"]).env("HOME", "/nonexistent").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut guard = Self { nft: command.spawn().map_err(Error::NftMissing)?, rules };
        guard.install()?;
        Ok(guard)
    }

    /// Whether it guards what `rules` say, as far as this process knows.
    pub(super) fn is(&mut self, rules: &Ruleset) -> bool {
        self.rules == *rules && matches!(self.nft.try_wait(), Ok(None))
    }

    fn install(&mut self) -> Result<(), Error> {
        let table = self.rules.table();
        // The JSON of older versions cannot express the owner.
        let lines = format!("add table inet {table} {{ flags owner; }}\n{}\n", self.rules.contents());
        let written = self.nft.stdin.as_mut().map(|stdin| stdin.write_all(lines.as_bytes()));
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        written.unwrap_or_else(|| Err(broken())).map_err(|error| refused(&error.to_string()))?;
        let start = Instant::now();
        while facts::chains_of(&facts::list("chains")?, table) != self.rules.chain_count() {
            if start.elapsed() >= TIMEOUT || !matches!(self.nft.try_wait(), Ok(None)) {
                return Err(refused("nft did not create it"));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Whether it was still running or not, it is gone now, and the table with it.
        let _ = self.nft.kill();
        let _ = self.nft.wait();
    }
}

fn refused(why: &str) -> Error {
    Error::Nft { what: "installing the guard", why: why.to_owned() }
}

/// The guard's table, ordered for the fewest comparisons on unselected TCP, which is most of the host's traffic.
/// `zones`: as for the main table.
pub(super) fn rules(settings: &HostSettings, divert: &Divert, zones: bool, other: bool) -> Ruleset {
    let gateway = !settings.gateway.is_empty();
    let is = |key, word: &str| Part::Is(Left::Meta(key), Right::Word(word.to_owned()));
    let inside = |key| Part::Is(Left::Meta(key), Right::Set("inside"));
    let own = |key| Part::Is(Left::Meta(key), Right::OneOf(vec!["lo".to_owned(), settings.tun.clone()]));

    let mut stop_in = vec![vec![own("iifname"), Part::Return]];
    if gateway {
        stop_in.push(vec![inside("iifname"), Part::Return]);
    }
    if zones {
        // What was on its way to another host and was redirected to this one is not diverted.
        stop_in.push(vec![Part::Is(Left::TrackStatus, Right::Word("dnat".to_owned())), Part::Return]);
    }
    stop_in.push(vec![Part::Drop]);

    let mut stop_out =
        vec![vec![own("oifname"), Part::Return], vec![is("iifname", &settings.wire_tun()), Part::Return]];
    if gateway {
        stop_out.push(vec![inside("oifname"), Part::Return]);
        stop_out.push(vec![inside("iifname"), Part::Drop]);
    }
    // What others send through this host does not concern it.
    stop_out.push(vec![Part::Is(Left::Meta("iif"), Right::Number(0)), Part::Drop]);

    let chain = |name, rules| Chain { name, hook: None, rules };
    let base = |name, hook, then| Chain {
        name,
        hook: Some(("filter", hook, PRIORITY)),
        rules: vec![vec![is("l4proto", "tcp"), Part::Goto(then)]],
    };
    let [tcp_in, inward] = selected(divert, ["saddr", "sport", "dport"], ["in", "stop_in", "own_in"]);
    let [tcp_out, outward] = selected(divert, ["daddr", "dport", "sport"], ["out", "stop_out", "own_out"]);
    let mut chains = Vec::new();
    if !divert.link_local.is_empty() {
        chains.push(chain("own_out", refuse_link_local("oifname", gateway, ["dport", "sport"], Part::Drop)));
        chains.push(chain("own_in", refuse_link_local("iifname", gateway, ["sport", "dport"], Part::Drop)));
    }
    chains.extend([
        chain("stop_in", stop_in),
        chain("stop_out", stop_out),
        chain("in", inward),
        chain("out", outward),
        chain("tcp_in", tcp_in),
        chain("tcp_out", tcp_out),
        base("input", "input", "tcp_in"),
        base("postrouting", "postrouting", "tcp_out"),
    ]);
    Ruleset::beside(settings.guard_table(other), settings, divert, zones, chains)
}

/// The rules of two chains: selected or kept traffic goes to the one called `then` first, which exempts what is not
/// to be diverted after all, and from there to the other. `fields`: remote address, remote port, local port.
fn selected(
    divert: &Divert,
    fields: [&'static str; 3],
    [then, stop, link_local]: [&'static str; 3],
) -> [Vec<Vec<Part>>; 2] {
    let [address, port, own_port] = fields;
    let key = |ip| Left::Concat(vec![(ip, address), ("tcp", port)]);
    let is_in = |key: Left, set, then: Part| vec![Part::Is(key, Right::Set(set)), then];
    let families = [("ip", false, ["kept4", "remote4", "except4"]), ("ip6", true, ["kept6", "remote6", "except6"])];
    let mut first = Vec::new();
    let mut second = Vec::new();
    for (ip, v6, [kept, ..]) in families {
        if divert.kept_of(v6).next().is_some() {
            let key = Left::Concat(vec![(ip, address), ("tcp", port), ("tcp", own_port)]);
            first.push(is_in(key, kept, Part::Goto(stop)));
        }
    }
    if divert.anywhere().next().is_some() {
        first.push(is_in(Left::Field("tcp", port), "anywhere", Part::Goto(then)));
    }
    if !divert.local.is_empty() {
        first.push(is_in(Left::Field("tcp", own_port), "local", Part::Goto(then)));
    }
    for (ip, v6, [_, remote, except]) in families {
        if divert.nets(v6).next().is_some() {
            first.push(is_in(key(ip), remote, Part::Goto(then)));
        }
        if divert.except.iter().any(|(net, _)| net.addr().is_ipv6() == v6) {
            second.push(is_in(key(ip), except, Part::Return));
        }
    }
    let then = if divert.link_local.is_empty() { Part::Return } else { Part::Goto(link_local) };
    second.push(vec![Part::Is(Left::Field("ip6", address), Right::Prefix(link_local_net())), then]);
    second.push(vec![Part::Goto(stop)]);
    [first, second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::{Policy, Rule};

    fn lines(gateway: &[&str], selectors: &[&str], zones: bool) -> String {
        let settings =
            HostSettings { gateway: gateway.iter().map(ToString::to_string).collect(), ..HostSettings::default() };
        let list: Vec<Rule> =
            selectors.iter().map(|text| Rule::new(text.parse().expect("selector"), Policy::Opportunistic)).collect();
        let lines = rules(&settings, &Divert::new(&list, &[]), zones, false).lines();
        let rule = |line: &String| line.strip_prefix("nft add rule inet enotun_tun0_guard ").map(str::to_owned);
        lines.iter().filter_map(rule).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_not_selected_is_compared_with_the_selectors_and_no_more() {
        assert_eq!(
            lines(&[], &["10.0.0.0/8"], false),
            "stop_in iifname { lo, tun0 } return\n\
             stop_in drop\n\
             stop_out oifname { lo, tun0 } return\n\
             stop_out iifname tun0-w return\n\
             stop_out iif 0x0 drop\n\
             in ip6 saddr fe80::/10 return\n\
             in goto stop_in\n\
             out ip6 daddr fe80::/10 return\n\
             out goto stop_out\n\
             tcp_in ip saddr . tcp sport @remote4 goto in\n\
             tcp_out ip daddr . tcp dport @remote4 goto out\n\
             input meta l4proto tcp goto tcp_in\n\
             postrouting meta l4proto tcp goto tcp_out"
        );
    }

    #[test]
    fn required_link_local_addresses_are_refused_by_the_table_and_by_the_guard() {
        let list = [Rule::new("local:80".parse().expect("selector"), Policy::Required)];
        for gateway in [&[][..], &["eth1".to_owned()]] {
            let settings = HostSettings { gateway: gateway.to_vec(), ..HostSettings::default() };
            let divert = Divert::new(&list, &[]);
            let closed = crate::linux::sets::NonForwarding::default();
            for (ruleset, out) in [
                (Ruleset::new(&settings, &divert, &closed, false), "reject with tcp reset"),
                (rules(&settings, &divert, false, false), "drop"),
            ] {
                let lines = ruleset.lines();
                let at = |chain: &str, rule: &str| {
                    let line = format!("nft add rule inet {} {chain} {rule}", ruleset.table());
                    lines.iter().position(|it| *it == line).unwrap_or_else(|| panic!("{line}: {lines:#?}"))
                };
                let set = format!("nft add set inet {} link_local ", ruleset.table());
                let set = lines.iter().find(|line| line.starts_with(&set)).expect("the set");
                assert!(set.ends_with("elements = { 1-65535 . 80 }; }"), "{set}");
                at("out", "ip6 daddr fe80::/10 goto own_out");
                at("in", "ip6 saddr fe80::/10 goto own_in");
                let refused = at("own_out", &format!("@th,110,1 0x1 tcp dport . tcp sport @link_local {out}"));
                assert!(at("own_out", "oifname lo return") < refused);
                let dropped = at("own_in", "@th,110,1 0x1 tcp sport . tcp dport @link_local drop");
                assert!(at("own_in", "iifname lo return") < dropped);
                if !gateway.is_empty() {
                    assert!(at("own_out", "oifname @inside return") < refused);
                    assert!(at("own_in", "iifname @inside return") < dropped);
                }
            }
        }
    }

    #[test]
    fn a_gateway_stops_what_comes_from_inside_as_well() {
        let lines = lines(&["eth1"], &["local:80"], true);
        for rule in ["stop_out oifname @inside return\nstop_out iifname @inside drop", "stop_in ct status dnat return"]
        {
            assert!(lines.contains(rule), "{rule}: {lines}");
        }
    }
}
