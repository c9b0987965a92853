//! The chains of our nftables table: what leads packets to the two devices. Pure.

use super::divert::{Divert, link_local_net};
use super::expr::{Chain, Left, Part, Right, Set};
use super::quotes::quoting;
use super::sets::NonForwarding;
use super::settings::HostSettings;

// Priorities, as named in <linux/netfilter_ipv4.h>. Marking inbound packets and choosing their zone comes before
// connection tracking (-200) but after defragmentation (-400); our own filter comes before other filters. Outbound
// marking comes after DNAT (-100), since selection goes by the real destination, and after other software sets its
// marks (-150).
const RAW: i32 = -300;
const BEHIND_NAT: i32 = -99;
const FILTER: i32 = 0;

/// Everything that the chains follow from.
struct Diversion<'a> {
    settings: &'a HostSettings,
    divert: &'a Divert,
    sets: &'a [Set],
    zones: bool,
    gateway: bool,
}

/// All chains, each before the rules that name it.
pub(super) fn chains(
    settings: &HostSettings,
    divert: &Divert,
    closed: &NonForwarding,
    zones: bool,
    sets: &[Set],
) -> Vec<Chain> {
    let gateway = !settings.gateway.is_empty();
    let diversion = Diversion { settings, divert, sets, zones, gateway };
    let mut chains = forward(settings, closed);
    if !divert.link_local.is_empty() {
        chains.push(chain("own_out", refuse_link_local("oifname", gateway, ["dport", "sport"], Part::Reject)));
        chains.push(chain("own_in", refuse_link_local("iifname", gateway, ["sport", "dport"], Part::Drop)));
    }
    chains.extend(diversion.inbound());
    chains.extend(diversion.outbound());
    chains.push(chain("own_now", vec![vec![diversion.mark(settings.mark_wire())]]));
    if gateway {
        chains.extend(diversion.inside());
    }
    chains.extend(quoting(divert));
    if gateway {
        chains.push(chain("errors_inside", quotes_tcp("icmp_out", "icmp6_out")));
    }
    // ICMP errors that this host itself makes out of packets of the wire side are for the engine as well.
    chains.push(chain("own_errors", quotes_tcp("icmp_own", "icmp6_own")));
    chains.push(Chain { name: "prerouting", hook: Some(("filter", "prerouting", RAW)), rules: diversion.prerouting() });
    chains.push(Chain { name: "output", hook: Some(("route", "output", BEHIND_NAT)), rules: output() });
    chains
}

fn chain(name: &'static str, rules: Vec<Vec<Part>>) -> Chain {
    Chain { name, hook: None, rules }
}

fn tcp() -> Part {
    Part::Is(Left::Meta("l4proto"), Right::Word("tcp".to_owned()))
}

fn is_local() -> Right {
    Right::Word("local".to_owned())
}

fn comes_from_inside(then: Part) -> Vec<Part> {
    vec![Part::Is(Left::Meta("iifname"), Right::Set("inside")), then]
}

fn is_remote(ip: &'static str, address: &'static str, port: &'static str, set: &'static str) -> Part {
    Part::Is(Left::Concat(vec![(ip, address), ("tcp", port)]), Right::Set(set))
}

/// Outbound traffic of this host. Traffic to its own addresses stays on loopback.
fn output() -> Vec<Vec<Part>> {
    let mut output = vec![vec![tcp(), Part::Goto("tcp_out")]];
    output.push(vec![to("lo"), Part::Goto("own_errors")]);
    output.extend(quotes_tcp("icmp_out", "icmp6_out"));
    output
}

// The chains are ordered for the fewest comparisons on unselected TCP, which is most of the host's traffic. The device is
// checked only when everything else matches.
impl Diversion<'_> {
    fn filled(&self, name: &str) -> bool {
        self.sets.iter().any(|set| set.name == name && !set.elements.is_empty())
    }

    fn mark(&self, value: u32) -> Part {
        Part::Mark { mask: self.settings.mark_mask, value }
    }

    /// Our two devices and loopback.
    fn devices(&self) -> Right {
        Right::OneOf(vec!["lo".to_owned(), self.settings.tun.clone(), self.settings.wire_tun()])
    }

    /// Traffic to or from a selected remote continues in `chain`.
    fn selected(
        &self,
        address: &'static str,
        port: &'static str,
        own_port: &'static str,
        chain: &'static str,
    ) -> Vec<Vec<Part>> {
        let remote = [("ip", "remote4"), ("ip6", "remote6")].into_iter().filter(|(_, set)| self.filled(set));
        let ports = [(port, "anywhere"), (own_port, "local")].into_iter().filter(|(_, set)| self.filled(set));
        let ports =
            ports.map(|(port, set)| vec![Part::Is(Left::Field("tcp", port), Right::Set(set)), Part::Goto(chain)]);
        let remote = remote.map(|(ip, set)| vec![is_remote(ip, address, port, set), Part::Goto(chain)]);
        ports.chain(remote).collect()
    }

    fn excepted(&self, address: &'static str, port: &'static str, link_local: Option<&'static str>) -> Vec<Vec<Part>> {
        let except = [("ip", "except4"), ("ip6", "except6")].into_iter().filter(|(_, set)| self.filled(set));
        let mut rules: Vec<Vec<Part>> =
            except.map(|(ip, set)| vec![is_remote(ip, address, port, set), Part::Return]).collect();
        let then = link_local.filter(|_| !self.divert.link_local.is_empty()).map_or(Part::Return, Part::Goto);
        rules.push(vec![Part::Is(Left::Field("ip6", address), Right::Prefix(link_local_net())), then]);
        rules
    }

    /// Connections that stay diverted whatever is selected now get `then`.
    fn kept(&self, address: &'static str, port: &'static str, own_port: &'static str, then: &Part) -> Vec<Vec<Part>> {
        let kept = [("ip", "kept4"), ("ip6", "kept6")].into_iter().filter(|(_, set)| self.filled(set));
        let key = |ip| Left::Concat(vec![(ip, address), ("tcp", port), ("tcp", own_port)]);
        kept.map(|(ip, set)| vec![Part::Is(key(ip), Right::Set(set)), then.clone()]).collect()
    }

    /// Outbound plaintext of this host.
    fn outbound(&self) -> [Chain; 3] {
        let mut tcp_out = self.kept("daddr", "dport", "sport", &Part::Goto("out_now"));
        tcp_out.extend(self.selected("daddr", "dport", "sport", "out"));
        let mut out = self.excepted("daddr", "dport", Some("own_out"));
        if self.gateway {
            out.push(vec![Part::Is(Left::Meta("oifname"), Right::Set("inside")), Part::Return]);
        }
        out.push(vec![Part::Goto("out_now")]);
        let out_now = vec![vec![to("lo"), Part::Return], vec![self.mark(self.settings.mark_plain())]];
        [chain("out_now", out_now), chain("out", out), chain("tcp_out", tcp_out)]
    }

    /// All inbound traffic.
    fn prerouting(&self) -> Vec<Vec<Part>> {
        let mut prerouting = Vec::new();
        if self.zones {
            prerouting.push(vec![from(&self.settings.wire_tun()), Part::Zone(self.settings.zone), Part::Return]);
        }
        prerouting.push(vec![tcp(), Part::Goto("tcp_in")]);
        prerouting.push(vec![Part::Is(Left::Meta("iifname"), self.devices()), Part::Return]);
        if self.gateway {
            prerouting.push(comes_from_inside(Part::Goto("errors_inside")));
        }
        prerouting.extend(quotes_tcp("icmp_in", "icmp6_in"));
        prerouting
    }

    /// Inbound ciphertext.
    fn inbound(&self) -> [Chain; 3] {
        let mut tcp_in = Vec::new();
        if self.gateway {
            tcp_in.push(comes_from_inside(Part::Goto("tcp_inside")));
        }
        tcp_in.extend(self.kept("saddr", "sport", "dport", &Part::Goto("in_now")));
        tcp_in.extend(self.selected("saddr", "sport", "dport", "in"));
        let mut inbound = self.excepted("saddr", "sport", Some("own_in"));
        inbound.push(vec![Part::Goto("in_now")]);
        let mut in_now = vec![vec![Part::Is(Left::Meta("iifname"), self.devices()), Part::Return]];
        if !self.gateway {
            in_now.push(vec![Part::IsNot(Left::DestinationType, is_local()), Part::Return]);
        }
        let zone = self.zones.then_some(Part::Zone(self.settings.zone));
        in_now.push([self.mark(self.settings.mark_wire())].into_iter().chain(zone).collect());
        [chain("in_now", in_now), chain("in", inbound), chain("tcp_in", tcp_in)]
    }

    /// At a gateway, plaintext on its way out from the hosts inside. What stays inside is left alone.
    fn inside(&self) -> [Chain; 2] {
        let plain = self.mark(self.settings.mark_plain());
        let mut inside = self.excepted("daddr", "dport", None);
        inside.push(vec![Part::Is(Left::DestinationType, is_local()), Part::Return]);
        let stays = Part::Is(Left::DestinationInterface, Right::OneOf(self.settings.gateway.clone()));
        inside.push(vec![stays, Part::Return]);
        inside.push(vec![plain.clone()]);
        let mut tcp_inside = self.kept("daddr", "dport", "sport", &plain);
        tcp_inside.extend(self.selected("daddr", "dport", "sport", "inside"));
        [chain("inside", inside), chain("tcp_inside", tcp_inside)]
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
