//! What the rules of our nftables table look up.

use ipnet::IpNet;

use super::divert::Divert;
use super::expr::{Element, Set};
use super::settings::HostSettings;
use crate::selector::PortRange;

/// Facts that the table depends on besides the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NonForwarding {
    /// Interfaces that did not forward IPv4 before.
    pub(super) v4: Vec<String>,
    /// Interfaces that did not forward IPv6 before.
    pub(super) v6: Vec<String>,
}

/// The sets that the rules use.
pub(super) fn sets(settings: &HostSettings, divert: &Divert, closed: &NonForwarding) -> Vec<Set> {
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
    const MANY: usize = 1024;
    let mut ranges: Vec<PortRange> = ranges.collect();
    ranges.sort_unstable();
    let single = ranges.iter().flat_map(|range| range.first..=range.last).take(MANY + 1);
    let single: Vec<PortRange> = single.map(|port| PortRange { first: port, last: port }).collect();
    let interval = single.len() > MANY;
    let elements = if interval { ranges } else { single };
    Set { name, types: &["inet_service"], interval, elements: elements.into_iter().map(Element::Ports).collect() }
}

fn names(name: &'static str, members: &[String]) -> Set {
    let elements = members.iter().cloned().map(Element::Name).collect();
    Set { name, types: &["ifname"], interval: false, elements }
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
