//! Our nftables table: as values, as JSON for libnftables, as text for people. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::divert::{Divert, link_local_net};
use super::expr::{Element, Left, Part, Right, Set};
use super::netlink::Family;
use super::settings::{HostSettings, stand_in};
use crate::selector::PortRange;

/// The hook of a base chain: type, hook, priority.
pub(super) type Hook = (&'static str, &'static str, i32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Vec<Part>>,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    table: String,
    closed: NonForwarding,
    zones: bool,
    sets: Vec<Set>,
    chains: Vec<Chain>,
}

/// Facts that the table depends on besides the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NonForwarding {
    /// Interfaces that did not forward IPv4 before.
    pub(super) v4: Vec<String>,
    /// Interfaces that did not forward IPv6 before.
    pub(super) v6: Vec<String>,
}

/// The comment by which our rules in other tables' chains are recognised.
pub(super) fn comment(instance: &str) -> String {
    format!("enotun {instance}")
}

// Priorities, as named in <linux/netfilter_ipv4.h>. Marking inbound packets and choosing their zone comes before
// connection tracking (-200) but after defragmentation (-400); our own filter comes before other filters. Outbound
// marking comes after DNAT (-100), since selection goes by the real destination, and after other software sets its
// marks (-150).
const RAW: i32 = -300;
const BEHIND_NAT: i32 = -99;
const FILTER: i32 = 0;

impl Ruleset {
    /// `zones`: connections may be tracked, so the two legs are kept apart. Otherwise the zone is left out, because
    /// setting one turns on tracking for every packet of the host.
    pub(super) fn new(settings: &HostSettings, divert: &Divert, closed: &NonForwarding, zones: bool) -> Self {
        let (plain, wire) = (settings.tun.clone(), settings.wire_tun());
        let gateway = !settings.gateway.is_empty();
        let sets = sets(settings, divert, closed);
        let filled = |name: &str| sets.iter().any(|set| set.name == name && !set.elements.is_empty());
        let tcp = || Part::Is(Left::Meta("l4proto"), Right::Word("tcp".to_owned()));
        let local = || Right::Word("local".to_owned());
        let mark = |value| Part::Mark { mask: settings.mark_mask, value };
        let is_remote =
            |ip, address, port, set| Part::Is(Left::Concat(vec![(ip, address), ("tcp", port)]), Right::Set(set));
        // Traffic to or from a selected remote continues in `chain`.
        let selected = |address, port, own_port, chain| {
            let remote = [("ip", "remote4"), ("ip6", "remote6")].into_iter().filter(|(_, set)| filled(set));
            let ports = [(port, "anywhere"), (own_port, "local")].into_iter().filter(|(_, set)| filled(set));
            let ports =
                ports.map(|(port, set)| vec![Part::Is(Left::Field("tcp", port), Right::Set(set)), Part::Goto(chain)]);
            let remote = remote.map(|(ip, set)| vec![is_remote(ip, address, port, set), Part::Goto(chain)]);
            ports.chain(remote).collect::<Vec<_>>()
        };
        let excepted = |address, port, link_local: Option<&'static str>| {
            let except = [("ip", "except4"), ("ip6", "except6")].into_iter().filter(|(_, set)| filled(set));
            let mut rules: Vec<Vec<Part>> =
                except.map(|(ip, set)| vec![is_remote(ip, address, port, set), Part::Return]).collect();
            let then = link_local.filter(|_| !divert.link_local.is_empty()).map_or(Part::Return, Part::Goto);
            rules.push(vec![Part::Is(Left::Field("ip6", address), Right::Prefix(link_local_net())), then]);
            rules
        };
        // Connections that stay diverted whatever is selected now get `then`.
        let kept = |address, port, own_port, then: Part| {
            let kept = [("ip", "kept4"), ("ip6", "kept6")].into_iter().filter(|(_, set)| filled(set));
            let key = |ip| Left::Concat(vec![(ip, address), ("tcp", port), ("tcp", own_port)]);
            kept.map(|(ip, set)| vec![Part::Is(key(ip), Right::Set(set)), then.clone()]).collect::<Vec<_>>()
        };
        let devices = || Right::OneOf(vec!["lo".to_owned(), plain.clone(), wire.clone()]);

        // The chains below are ordered for the fewest comparisons on unselected TCP, which is most of the host's
        // traffic. The device is checked only when everything else matches.

        // Outbound plaintext of this host. Traffic to its own addresses stays on loopback.
        let mut output = vec![vec![tcp(), Part::Goto("tcp_out")]];
        output.push(vec![to("lo"), Part::Goto("own_errors")]);
        output.extend(quotes_tcp("icmp_out", "icmp6_out"));
        let mut tcp_out = kept("daddr", "dport", "sport", Part::Goto("out_now"));
        tcp_out.extend(selected("daddr", "dport", "sport", "out"));
        let mut out = excepted("daddr", "dport", Some("own_out"));
        if gateway {
            out.push(vec![Part::Is(Left::Meta("oifname"), Right::Set("inside")), Part::Return]);
        }
        out.push(vec![Part::Goto("out_now")]);
        let out_now = vec![vec![to("lo"), Part::Return], vec![mark(settings.mark_plain())]];

        // All inbound traffic.
        let mut prerouting = Vec::new();
        if zones {
            prerouting.push(vec![from(&wire), Part::Zone(settings.zone), Part::Return]);
        }
        prerouting.push(vec![tcp(), Part::Goto("tcp_in")]);
        prerouting.push(vec![Part::Is(Left::Meta("iifname"), devices()), Part::Return]);
        if gateway {
            prerouting.push(vec![Part::Is(Left::Meta("iifname"), Right::Set("inside")), Part::Goto("errors_inside")]);
        }
        prerouting.extend(quotes_tcp("icmp_in", "icmp6_in"));
        let mut tcp_in = Vec::new();
        if gateway {
            tcp_in.push(vec![Part::Is(Left::Meta("iifname"), Right::Set("inside")), Part::Goto("tcp_inside")]);
        }
        tcp_in.extend(kept("saddr", "sport", "dport", Part::Goto("in_now")));
        tcp_in.extend(selected("saddr", "sport", "dport", "in"));
        let mut inbound = excepted("saddr", "sport", Some("own_in"));
        inbound.push(vec![Part::Goto("in_now")]);
        let mut in_now = vec![vec![Part::Is(Left::Meta("iifname"), devices()), Part::Return]];
        if !gateway {
            in_now.push(vec![Part::IsNot(Left::DestinationType, local()), Part::Return]);
        }
        let zone = zones.then_some(Part::Zone(settings.zone));
        in_now.push([mark(settings.mark_wire())].into_iter().chain(zone).collect());

        let chain = |name, rules| Chain { name, hook: None, rules };
        let mut chains = forward(settings, closed);
        if !divert.link_local.is_empty() {
            chains.push(chain("own_out", refuse_link_local("oifname", gateway, ["dport", "sport"], Part::Reject)));
            chains.push(chain("own_in", refuse_link_local("iifname", gateway, ["sport", "dport"], Part::Drop)));
        }
        chains.extend([
            chain("in_now", in_now),
            chain("in", inbound),
            chain("tcp_in", tcp_in),
            chain("out_now", out_now),
            chain("out", out),
            chain("tcp_out", tcp_out),
            chain("own_now", vec![vec![mark(settings.mark_wire())]]),
        ]);
        // At a gateway: outbound plaintext of the hosts inside. What stays inside is left alone.
        if gateway {
            let mut inside = excepted("daddr", "dport", None);
            inside.push(vec![Part::Is(Left::DestinationType, local()), Part::Return]);
            let stays = Part::Is(Left::DestinationInterface, Right::OneOf(settings.gateway.clone()));
            inside.push(vec![stays, Part::Return]);
            inside.push(vec![mark(settings.mark_plain())]);
            let mut tcp_inside = kept("daddr", "dport", "sport", mark(settings.mark_plain()));
            tcp_inside.extend(selected("daddr", "dport", "sport", "inside"));
            chains.extend([chain("inside", inside), chain("tcp_inside", tcp_inside)]);
        }
        chains.extend(quoting(divert));
        if gateway {
            chains.push(chain("errors_inside", quotes_tcp("icmp_out", "icmp6_out")));
        }
        // ICMP errors that this host itself generates for packets of the wire side go to the engine as well.
        chains.push(chain("own_errors", quotes_tcp("icmp_own", "icmp6_own")));
        chains.push(Chain { name: "prerouting", hook: Some(("filter", "prerouting", RAW)), rules: prerouting });
        chains.push(Chain { name: "output", hook: Some(("route", "output", BEHIND_NAT)), rules: output });
        Self { table: settings.nft_table(), closed: closed.clone(), zones, sets, chains }
    }

    /// Another table, with the same sets and these chains.
    pub(super) fn beside(
        table: String,
        settings: &HostSettings,
        divert: &Divert,
        zones: bool,
        chains: Vec<Chain>,
    ) -> Self {
        let closed = NonForwarding::default();
        let sets = sets(settings, divert, &closed);
        Self { table, closed, zones, sets, chains }
    }

    /// Its name.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Whether the two legs are in different conntrack zones.
    pub(super) fn zones(&self) -> bool {
        self.zones
    }

    /// Number of its chains.
    pub(super) fn chain_count(&self) -> usize {
        self.chains.len()
    }

    /// The same table for other selectors.
    pub(super) fn selecting(&self, settings: &HostSettings, divert: &Divert) -> Self {
        Self::new(settings, divert, &self.closed, self.zones)
    }

    /// The transactions that replace an earlier version of the table, to be run one after the other.
    ///
    /// One would not be enough. The kernel switches to the new rules first and only then, set by set, to the new
    /// contents of sets with ranges (`nft_pipapo_commit`): for a moment the rules find nothing in them, and packets
    /// of encrypted connections would pass undiverted, in the clear. So a copy stands in while the table is replaced.
    /// While both exist, they do the same to a packet.
    pub(super) fn replacement(&self) -> [Value; 3] {
        let copy = Self { table: stand_in(&self.table), ..self.clone() };
        [copy.json(), self.json(), delete_table(&copy.table)]
    }

    /// The transaction that creates the table anew.
    fn json(&self) -> Value {
        let table = json!({"family": "inet", "name": self.table});
        let mut commands = vec![
            json!({"add": {"table": table}}),
            json!({"delete": {"table": table}}),
            json!({"add": {"table": table}}),
        ];
        commands.extend(self.commands());
        json!({"nftables": commands})
    }

    /// The transaction that fills the existing, empty table.
    pub(super) fn contents(&self) -> Value {
        json!({"nftables": self.commands()})
    }

    fn commands(&self) -> Vec<Value> {
        let mut commands = Vec::new();
        for set in &self.sets {
            commands.push(set.declaration(&self.table));
            commands.extend(set.contents(&self.table));
        }
        for chain in &self.chains {
            let mut body = json!({"family": "inet", "table": self.table, "name": chain.name});
            if let (Some((kind, hook, priority)), Some(body)) = (&chain.hook, body.as_object_mut()) {
                let hook = json!({"type": kind, "hook": hook, "prio": priority, "policy": "accept"});
                body.extend(hook.as_object().cloned().unwrap_or_default());
            }
            commands.push(json!({"add": {"chain": body}}));
        }
        for chain in &self.chains {
            commands.extend(chain.rules.iter().map(|rule| add_rule(&self.table, chain.name, rule)));
        }
        commands
    }

    /// One line per set, chain and rule, in nft syntax.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let table = format!("inet {}", self.table);
        let mut lines = vec![format!("nft add table {table}")];
        for set in &self.sets {
            let elements: Vec<String> = set.elements.iter().map(ToString::to_string).collect();
            let flags = if set.interval { "; flags interval" } else { "" };
            let elements =
                if elements.is_empty() { String::new() } else { format!("; elements = {{ {} }}", elements.join(", ")) };
            lines.push(format!(
                "nft add set {table} {} {{ type {}{flags}{elements}; }}",
                set.name,
                set.types.join(" . ")
            ));
        }
        for chain in &self.chains {
            let hook =
                chain.hook.map(|(kind, hook, priority)| format!(" {{ type {kind} hook {hook} priority {priority}; }}"));
            lines.push(format!("nft add chain {table} {}{}", chain.name, hook.unwrap_or_default()));
        }
        for chain in &self.chains {
            for rule in &chain.rules {
                let parts: Vec<String> = rule.iter().map(ToString::to_string).collect();
                lines.push(format!("nft add rule {table} {} {}", chain.name, parts.join(" ")));
            }
        }
        lines
    }
}

/// The rules for link-local addresses where they are `required`: since they cannot be diverted, new connections are
/// refused. `interface`: where packets leave or arrive; what stays inside this host, or a gateway's network, is not
/// affected. `ports`: the remote and the local one.
pub(super) fn refuse_link_local(
    interface: &'static str,
    gateway: bool,
    ports: [&'static str; 2],
    refuse: Part,
) -> Vec<Vec<Part>> {
    let [remote, local] = ports;
    let stays = |name| vec![Part::Is(Left::Meta(interface), name), Part::Return];
    let mut rules = vec![stays(Right::Word("lo".to_owned()))];
    rules.extend(gateway.then(|| stays(Right::Set("inside"))));
    let required = Part::Is(Left::Concat(vec![("tcp", remote), ("tcp", local)]), Right::Set("link_local"));
    // The SYN bit.
    rules.push(vec![Part::Is(Left::Bits(110, 1), Right::Number(1)), required, refuse]);
    rules
}

/// Rules that send ICMP errors about TCP (RFC 792, RFC 4443 section 3) to chains that match the quoted packet. Those
/// that leave this host (or come from inside) quote decrypted data, which must not reach the network unchanged.
fn quotes_tcp(v4: &'static str, v6: &'static str) -> Vec<Vec<Part>> {
    let kinds = |words: &[&str]| Right::OneOf(words.iter().map(|word| (*word).to_owned()).collect());
    let errors4 = kinds(&["destination-unreachable", "time-exceeded", "parameter-problem"]);
    let errors6 = kinds(&["destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"]);
    // The quoted header begins 8 bytes into the message; its protocol is byte 9 (IPv4) or 6 (IPv6).
    vec![
        vec![
            Part::Is(Left::Field("icmp", "type"), errors4),
            Part::Is(Left::Bits(136, 8), Right::Number(6)),
            Part::Goto(v4),
        ],
        vec![
            Part::Is(Left::Field("icmpv6", "type"), errors6),
            Part::Is(Left::Bits(112, 8), Right::Number(6)),
            Part::Goto(v6),
        ],
    ]
}

fn from(name: &str) -> Part {
    Part::Is(Left::Meta("iifname"), Right::Word(name.to_owned()))
}

fn to(name: &str) -> Part {
    Part::Is(Left::Meta("oifname"), Right::Word(name.to_owned()))
}

/// Where forwarding was off, only our two legs may be forwarded, and no packet may loop.
fn forward(settings: &HostSettings, interfaces: &NonForwarding) -> Vec<Chain> {
    let (plain, wire) = (settings.tun.as_str(), settings.wire_tun());
    let loops = || {
        let both = Right::OneOf(vec![plain.to_owned(), wire.clone()]);
        vec![Part::Is(Left::Meta("oifname"), both), Part::Drop]
    };
    let closed = |family: &str, set, names: &[String]| {
        let family = Part::Is(Left::Meta("nfproto"), Right::Word(family.to_owned()));
        let rule = vec![family, Part::Is(Left::Meta("iifname"), Right::Set(set)), Part::Drop];
        (!names.is_empty()).then_some(rule)
    };
    let wire_mark = Part::IsNot(Left::MarkBits(settings.mark_mask), Right::Number(settings.mark_wire().into()));
    let mut rules = vec![
        vec![from(&wire), Part::Goto("from_wire")],
        vec![to(&wire), Part::Goto("to_wire")],
        vec![from(plain), Part::Jump("from_plain")],
    ];
    let mut from_plain = vec![loops()];
    if !settings.gateway.is_empty() {
        let inside = |key| Part::Is(Left::Meta(key), Right::Set("inside"));
        rules.push(vec![inside("iifname"), to(plain), Part::Accept]);
        from_plain.push(vec![inside("oifname"), Part::Accept]);
        from_plain.push(vec![Part::Drop]);
    }
    rules.extend(closed("ipv4", "closed4", &interfaces.v4));
    rules.extend(closed("ipv6", "closed6", &interfaces.v6));
    let chain = |name, rules| Chain { name, hook: None, rules };
    vec![
        chain("from_wire", vec![loops(), vec![Part::Accept]]),
        chain("to_wire", vec![vec![from(plain), Part::Drop], vec![wire_mark, Part::Drop], vec![Part::Accept]]),
        chain("from_plain", from_plain),
        Chain { name: "forward", hook: Some(("filter", "forward", FILTER - 10)), rules },
    ]
}

/// The sets that the rules use.
fn sets(settings: &HostSettings, divert: &Divert, closed: &NonForwarding) -> Vec<Set> {
    const NET4: &[&str] = &["ipv4_addr", "inet_service"];
    const NET6: &[&str] = &["ipv6_addr", "inet_service"];
    let of = |entries: &[(IpNet, PortRange)], v6: bool| {
        entries.iter().copied().filter(|(net, _)| net.addr().is_ipv6() == v6).collect()
    };
    let nets = |name, types, entries: Vec<(IpNet, PortRange)>| Set {
        name,
        types,
        interval: true,
        elements: entries.into_iter().map(|(net, ports)| Element::NetPorts(net, ports)).collect(),
    };
    let kept = |name, types, v6| Set {
        name,
        types,
        interval: false,
        elements: divert.kept_of(v6).map(|(remote, port, own)| Element::Flow(remote, port, own)).collect(),
    };
    let mut sets = vec![
        nets("remote4", NET4, divert.nets(false).collect()),
        nets("remote6", NET6, divert.nets(true).collect()),
        nets("except4", NET4, of(&divert.except, false)),
        nets("except6", NET6, of(&divert.except, true)),
        ports("anywhere", divert.anywhere()),
        ports("local", divert.local.iter().copied()),
        kept("kept4", &["ipv4_addr", "inet_service", "inet_service"], false),
        kept("kept6", &["ipv6_addr", "inet_service", "inet_service"], true),
        Set {
            name: "link_local",
            types: &["inet_service", "inet_service"],
            interval: true,
            elements: divert.link_local.iter().map(|&(remote, local)| Element::PortPair(remote, local)).collect(),
        },
        names("closed4", &closed.v4),
        names("closed6", &closed.v6),
    ];
    if !settings.gateway.is_empty() {
        sets.push(names("inside", &settings.gateway));
    }
    sets
}

/// Ports: individually if there are not too many, because the kernel then keeps them in a bitmap, which is the
/// fastest to look up.
fn ports(name: &'static str, ranges: impl Iterator<Item = PortRange>) -> Set {
    const MAX_QUOTE_RULES: usize = 1024;
    let mut ranges: Vec<PortRange> = ranges.collect();
    ranges.sort_unstable();
    let single = ranges.iter().flat_map(|range| range.first..=range.last).take(MAX_QUOTE_RULES + 1);
    let single: Vec<PortRange> = single.map(|port| PortRange { first: port, last: port }).collect();
    let interval = single.len() > MAX_QUOTE_RULES;
    let elements = if interval { ranges } else { single };
    Set { name, types: &["inet_service"], interval, elements: elements.into_iter().map(Element::Ports).collect() }
}

fn names(name: &'static str, members: &[String]) -> Set {
    let elements = members.iter().cloned().map(Element::Name).collect();
    Set { name, types: &["ifname"], interval: false, elements }
}

/// The chains for ICMP errors about TCP. The quoted packet cannot be looked up in a set (its fields have no type), so
/// there is one rule per selector; only those errors traverse them.
fn quoting(divert: &Divert) -> Vec<Chain> {
    let chain = |name, rules| Chain { name, hook: None, rules };
    vec![
        chain("icmp_in", quoted(divert, Family::V4, Quote::ToRemote, "in_now")),
        chain("icmp6_in", quoted(divert, Family::V6, Quote::ToRemote, "in_now")),
        chain("icmp_own", quoted(divert, Family::V4, Quote::ToRemote, "own_now")),
        chain("icmp6_own", quoted(divert, Family::V6, Quote::ToRemote, "own_now")),
        chain("icmp_out", quoted(divert, Family::V4, Quote::FromRemote, "out_now")),
        chain("icmp6_out", quoted(divert, Family::V6, Quote::FromRemote, "out_now")),
    ]
}

/// Above this number of selectors, one rule each is not worth it to find out whether an ICMP error is about a
/// selected connection.
const MAX_QUOTE_RULES: usize = 256;

/// The direction of a quoted packet.
#[derive(Clone, Copy)]
enum Quote {
    ToRemote,
    FromRemote,
}

/// One rule per selector, matching the remote address and the ports of a quoted packet.
fn quoted(divert: &Divert, family: Family, quote: Quote, target: &'static str) -> Vec<Vec<Part>> {
    // Offsets of the remote address, the remote and the local port, in bits from the start of the ICMP header (IPv4
    // without options).
    let (source, ports, width) = match family {
        Family::V4 => (160, 224, 32),
        Family::V6 => (128, 384, 128),
    };
    let (address, remote_port, local_port) = match quote {
        Quote::FromRemote => (source, ports, ports + 16),
        Quote::ToRemote => (source + width, ports + 16, ports),
    };
    let port_is = |offset: u16, range: PortRange| match range {
        PortRange::ALL => None,
        PortRange { first, last } if first == last => {
            Some(Part::Is(Left::Bits(offset, 16), Right::Number(first.into())))
        }
        PortRange { first, last } => Some(Part::Is(Left::Bits(offset, 16), Right::Range(first, last))),
    };
    let address_is = |net: IpNet| {
        let bits: u128 = match net.network() {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let length = u16::from(net.prefix_len());
        // The first `length` bits of the address, as a number.
        let prefix = bits.checked_shr(u32::from(width - length)).unwrap_or(0);
        (length > 0).then_some(Part::Is(Left::Bits(address, length), Right::Number(prefix)))
    };
    let v6 = family == Family::V6;
    let mut rules: Vec<Vec<Part>> = Vec::new();
    if divert.remote.len() + divert.kept.len() + divert.local.len() > MAX_QUOTE_RULES {
        // Divert all of them: the engine passes on what it does not know. But not those from this host to itself.
        return if target == "own_now" { rules } else { vec![vec![Part::Goto(target)]] };
    }
    for (net, range) in divert.remote.iter().filter(|(net, _)| net.addr().is_ipv6() == v6) {
        rules.push(address_is(*net).into_iter().chain(port_is(remote_port, *range)).collect());
    }
    for (remote, port, own_port) in divert.kept_of(v6) {
        let one = |port| PortRange { first: port, last: port };
        let matches = address_is(remote.into()).into_iter().chain(port_is(remote_port, one(port)));
        rules.push(matches.chain(port_is(local_port, one(own_port))).collect());
    }
    rules.extend(divert.local.iter().map(|range| port_is(local_port, *range).into_iter().collect()));
    for rule in &mut rules {
        rule.push(Part::Goto(target));
    }
    rules
}

/// The transaction that removes the table, if it exists.
pub(super) fn delete_table(table: &str) -> Value {
    let table = json!({"table": {"family": "inet", "name": table}});
    json!({"nftables": [{"add": table}, {"delete": table}]})
}

/// A pair of interfaces between which another table's forward chain must accept packets.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AcceptRule {
    /// The input interface, if it matters.
    pub from: Option<String>,
    /// The output interface, if it matters.
    pub to: Option<String>,
}

impl AcceptRule {
    fn parts(&self) -> Vec<Part> {
        let name = |key, name: &Option<String>| name.clone().map(|name| Part::Is(Left::Meta(key), Right::Word(name)));
        let matches = name("iifname", &self.from).into_iter().chain(name("oifname", &self.to));
        matches.chain([Part::Accept]).collect()
    }
}

impl fmt::Display for AcceptRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts().iter().map(ToString::to_string).collect();
        f.write_str(&parts.join(" "))
    }
}

/// Commands that insert `passes` at the head of another table's chain.
pub(super) fn insert_passes(chain: (&str, &str, &str), passes: &[AcceptRule], comment: &str) -> Vec<Value> {
    let (family, table, chain) = chain;
    let insert = |pass: &AcceptRule| {
        let expr: Vec<Value> = pass.parts().iter().map(Part::json).collect();
        let rule = json!({"family": family, "table": table, "chain": chain, "expr": expr, "comment": comment});
        json!({"insert": {"rule": rule}})
    };
    passes.iter().rev().map(insert).collect()
}

fn add_rule(table: &str, chain: &str, rule: &[Part]) -> Value {
    let expr: Vec<Value> = rule.iter().map(Part::json).collect();
    json!({"add": {"rule": {"family": "inet", "table": table, "chain": chain, "expr": expr}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_one_by_one_unless_there_are_many() {
        let range = |first, last| PortRange { first, last };
        let few = ports("local", [range(80, 82), range(22, 22)].into_iter());
        assert!(!few.interval);
        assert_eq!(few.elements.iter().map(ToString::to_string).collect::<Vec<_>>(), ["22", "80", "81", "82"]);
        let many = ports("local", [PortRange::ALL].into_iter());
        assert!(many.interval);
        assert_eq!(many.elements, [Element::Ports(PortRange::ALL)]);
    }
}
