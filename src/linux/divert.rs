//! From rules to what the kernel must divert: non-overlapping sets, as nftables requires. Pure.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::KeptFlow;
use crate::selector::{Policy, PolicyTable, PortRange, Remote, Rule, Scope, Selector, any_v4, any_v6};

/// Remote networks with the ports that are selected there.
pub(super) type NetPorts = (IpNet, PortRange);

/// What is diverted. Never less than the rules select; slightly more where a set cannot express it exactly (the
/// engine's own table decides).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Divert {
    /// Remote networks and ports, non-overlapping.
    pub(super) remote: Vec<NetPorts>,
    /// Exceptions to `remote`, non-overlapping.
    pub(super) except: Vec<NetPorts>,
    /// Local ports, non-overlapping.
    pub(super) local: Vec<PortRange>,
    /// Single connections.
    pub(super) kept: Vec<KeptFlow>,
    /// Remote and local ports for which IPv6 link-local addresses are `required`. They cannot be diverted, so they
    /// are refused. Non-overlapping.
    pub(super) link_local: Vec<(PortRange, PortRange)>,
}

impl Divert {
    /// From `rules` and `kept` connections.
    #[must_use]
    pub fn new(rules: &[Rule], kept: &[KeptFlow]) -> Self {
        let mut remote = Vec::new();
        let mut off = Vec::new();
        let mut local = Vec::new();
        for rule in rules {
            match (&rule.selector, rule.policy) {
                (Selector::Remote(Remote::Name(_), _), _) | (Selector::Local(_), Policy::Off) => {}
                (Selector::Local(ports), _) => local.push(*ports),
                (Selector::Remote(Remote::Net(net), ports), Policy::Off) => off.push((net.trunc(), *ports)),
                (Selector::Remote(Remote::Net(net), ports), _) => remote.push((net.trunc(), *ports)),
                (Selector::Remote(Remote::Any, ports), Policy::Off) => {
                    off.extend([(any_v4(), *ports), (any_v6(), *ports)]);
                }
                (Selector::Remote(Remote::Any, ports), _) => remote.extend([(any_v4(), *ports), (any_v6(), *ports)]),
            }
        }
        // Only certain exceptions are used: `off` decides everywhere within them (see PolicyTable).
        let selected: Vec<(Policy, Scope)> = rules
            .iter()
            .filter(|rule| rule.policy != Policy::Off)
            .flat_map(|rule| Scope::both(&rule.selector).map(|scope| (rule.policy, scope)))
            .collect();
        off.retain(|(net, ports)| {
            let own = Selector::Remote(Remote::Net(*net), *ports);
            Scope::both(&own).all(|own| {
                selected.iter().filter(|(_, other)| own.and(other).is_some()).all(|(policy, other)| {
                    own.is_narrower_than(other) || *policy == Policy::Opportunistic && !other.is_narrower_than(&own)
                })
            })
        });
        let mut kept = kept.to_vec();
        kept.sort_unstable();
        kept.dedup();
        let link_local = link_local(rules);
        Self { remote: disjoint(remote), except: disjoint(off), local: merged(local), kept, link_local }
    }

    /// Ports that are selected for every remote address: they need no address lookup, which is the most expensive
    /// part.
    pub(super) fn anywhere(&self) -> impl Iterator<Item = PortRange> {
        let everywhere = |ports: &PortRange| self.is_anywhere(*ports);
        self.remote.iter().filter(|(net, _)| *net == any_v4()).map(|(_, ports)| *ports).filter(everywhere)
    }

    /// Remote networks of one address family and the ports selected there, except those selected for every address.
    pub(super) fn nets(&self, v6: bool) -> impl Iterator<Item = NetPorts> {
        let here = move |(net, ports): &&NetPorts| {
            net.addr().is_ipv6() == v6 && !(net.prefix_len() == 0 && self.is_anywhere(*ports))
        };
        self.remote.iter().filter(here).copied()
    }

    fn is_anywhere(&self, ports: PortRange) -> bool {
        ports != PortRange::ALL && [any_v4(), any_v6()].iter().all(|net| self.remote.contains(&(*net, ports)))
    }

    /// Kept connections of one family, as (remote address, remote port, local port).
    pub(super) fn kept_of(&self, v6: bool) -> impl Iterator<Item = (std::net::IpAddr, u16, u16)> {
        let of_family = move |flow: &&KeptFlow| matches!(flow.remote, SocketAddr::V6(_)) == v6;
        self.kept.iter().filter(of_family).map(|flow| (flow.remote.ip(), flow.remote.port(), flow.local.port()))
    }
}

/// fe80::/10: the kernel does not forward it, so it cannot go through a device.
pub(super) fn link_local_net() -> IpNet {
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10))
}

/// Maximum number of lookups for [`link_local`].
const LOOKUPS_MAX: usize = 1 << 18;

/// Remote and local ports for which link-local addresses are `required`. No selector covers only some of these
/// addresses.
fn link_local(rules: &[Rule]) -> Vec<(PortRange, PortRange)> {
    let net = link_local_net();
    let scope = |rule: &Rule| Scope::of(&rule.selector, any_v6()).filter(|scope| scope.remote.contains(&net));
    let here: Vec<(Rule, Scope)> = rules.iter().filter_map(|rule| Some((rule.clone(), scope(rule)?))).collect();
    if !here.iter().any(|(rule, _)| rule.policy == Policy::Required) {
        return Vec::new();
    }
    let remote = pieces(here.iter().map(|(_, scope)| scope.remote_ports));
    let local = pieces(here.iter().map(|(_, scope)| scope.local_ports));
    if remote.len() * local.len() > LOOKUPS_MAX {
        return vec![(PortRange::ALL, PortRange::ALL)];
    }
    let table = PolicyTable::new(here.into_iter().map(|(rule, _)| rule));
    let required = |remote: &PortRange, local: &&PortRange| {
        let rule = table.lookup(net.addr(), remote.first, local.first);
        rule.is_some_and(|rule| rule.policy == Policy::Required)
    };
    let mut rows: Vec<(PortRange, Vec<PortRange>)> = Vec::new();
    for range in remote {
        let columns = merged(local.iter().filter(|local| required(&range, local)).copied().collect());
        match rows.last_mut() {
            Some((before, same)) if *same == columns && before.last.checked_add(1) == Some(range.first) => {
                before.last = range.last;
            }
            _ => rows.push((range, columns)),
        }
    }
    rows.into_iter().flat_map(|(remote, columns)| columns.into_iter().map(move |local| (remote, local))).collect()
}

/// The ports in any of `ranges`, cut into pieces at every range boundary.
fn pieces(ranges: impl Iterator<Item = PortRange>) -> Vec<PortRange> {
    let ranges = ranges.collect::<Vec<_>>();
    let mut starts: Vec<u16> =
        ranges.iter().flat_map(|range| [Some(range.first), range.last.checked_add(1)]).flatten().collect();
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
    let pieces = starts.iter().zip(ends).map(|(&first, last)| PortRange { first, last });
    pieces.filter(|piece| ranges.iter().any(|range| range.covers(*piece))).collect()
}

/// The same connections without overlap. Networks are nested or disjoint, so each keeps the ports that no enclosing
/// network (nor an earlier entry for the same one) has.
fn disjoint(mut entries: Vec<NetPorts>) -> Vec<NetPorts> {
    entries.sort_unstable_by_key(|(net, ports)| (net.prefix_len(), *net, *ports));
    entries.dedup();
    let mut seen: std::collections::HashMap<IpNet, Vec<PortRange>> = std::collections::HashMap::new();
    let mut result = Vec::new();
    for (net, ports) in entries {
        let mut left = vec![ports];
        for length in 0..=net.prefix_len() {
            let Ok(around) = IpNet::new(net.addr(), length) else { continue };
            for taken in seen.get(&around.trunc()).into_iter().flatten() {
                left = left.into_iter().flat_map(|range| minus(range, *taken)).collect();
            }
        }
        seen.entry(net).or_default().extend(&left);
        result.extend(left.into_iter().map(|range| (net, range)));
    }
    result
}

/// `range` minus `taken`: no range, one or two.
fn minus(range: PortRange, taken: PortRange) -> Vec<PortRange> {
    if !range.overlaps(taken) {
        return vec![range];
    }
    let below = taken.first.checked_sub(1).filter(|last| *last >= range.first && taken.first > range.first);
    let above = taken.last.checked_add(1).filter(|first| *first <= range.last && taken.last < range.last);
    let below = below.map(|last| PortRange { first: range.first, last });
    let above = above.map(|first| PortRange { first, last: range.last });
    below.into_iter().chain(above).collect()
}

/// The union, as few ranges as possible.
fn merged(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut result: Vec<PortRange> = Vec::new();
    for range in ranges {
        match result.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => result.push(range),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[(&str, Policy)]) -> Vec<Rule> {
        texts.iter().map(|(text, policy)| Rule::new(text.parse().expect("selector"), *policy)).collect()
    }

    fn shown(entries: &[NetPorts]) -> Vec<String> {
        entries.iter().map(|(net, ports)| format!("{net} {ports}")).collect()
    }

    #[test]
    fn nested_networks_and_overlapping_ports_become_disjoint() {
        use Policy::Opportunistic as On;
        let divert = Divert::new(
            &rules(&[
                ("10.1.0.0/16:150-300", On),
                ("10.0.0.0/8:100-200", On),
                ("10.0.0.0/8:180-250", On),
                ("10.2.3.4", On),
            ]),
            &[],
        );
        assert_eq!(
            shown(&divert.remote),
            [
                "10.0.0.0/8 100-200",
                "10.0.0.0/8 201-250",
                "10.1.0.0/16 251-300",
                "10.2.3.4/32 0-99",
                "10.2.3.4/32 251-65535",
            ]
        );
    }

    #[test]
    fn any_address_is_both_families_and_local_ports_merge() {
        use Policy::Opportunistic as On;
        let divert = Divert::new(&rules(&[(":443", On), ("local:80-90", On), ("local:91", On), ("local:22", On)]), &[]);
        assert_eq!(shown(&divert.remote), ["0.0.0.0/0 443", "::/0 443"]);
        let local: Vec<String> = divert.local.iter().map(ToString::to_string).collect();
        assert_eq!(local, ["22", "80-91"]);
    }

    #[test]
    fn only_ports_selected_at_every_address_of_both_families_are_looked_up_without_it() {
        use Policy::Opportunistic as On;
        let list = [(":443", On), ("0.0.0.0/0:25", On), ("10.0.0.0/8:80", On), ("::/0", On)];
        let divert = Divert::new(&rules(&list), &[]);
        assert_eq!(divert.anywhere().count(), 0, "the whole of IPv6 is no port");
        let divert = Divert::new(&rules(&list[..3]), &[]);
        assert_eq!(divert.anywhere().map(|ports| ports.to_string()).collect::<Vec<_>>(), ["443"]);
        assert_eq!(shown(&divert.nets(false).collect::<Vec<_>>()), ["0.0.0.0/0 25", "10.0.0.0/8 80"]);
        assert_eq!(shown(&divert.nets(true).collect::<Vec<_>>()), [""; 0]);
    }

    #[test]
    fn an_exception_is_left_to_the_engine_where_something_inside_is_selected() {
        use Policy::{Off, Opportunistic as On};
        let divert = Divert::new(
            &rules(&[("0.0.0.0/0", On), ("10.0.0.0/8", Off), ("10.1.0.0/16", On), ("192.0.2.0/24", Off)]),
            &[],
        );
        assert_eq!(shown(&divert.except), ["192.0.2.0/24 0-65535"]);
    }

    #[test]
    fn what_a_required_rule_crosses_is_no_exception_and_what_an_opportunistic_one_crosses_is() {
        use Policy::{Off, Opportunistic as On, Required};
        let divert = |other| Divert::new(&rules(&[("0.0.0.0/0", On), (":22", Off), other]), &[]);
        for crossing in ["local:80", "10.0.0.0/8"] {
            assert_eq!(shown(&divert((crossing, On)).except), ["0.0.0.0/0 22", "::/0 22"], "{crossing}");
        }
        assert_eq!(shown(&divert(("local:80", Required)).except), [""; 0]);
        assert_eq!(shown(&divert(("10.0.0.0/8", Required)).except), ["::/0 22"]);
    }

    #[test]
    fn link_local_addresses_are_refused_where_they_are_required_and_nowhere_else() {
        use Policy::{Off, Opportunistic as On, Required};
        let refused = |list: &[(&str, Policy)]| {
            let rules = rules(list);
            let divert = Divert::new(&rules, &[]);
            let table = PolicyTable::new(rules);
            for remote in (1..12).chain([65_535]) {
                for local in (1..12).chain([65_535]) {
                    let policy = table.lookup("fe80::1".parse().unwrap(), remote, local).map(|rule| rule.policy);
                    let hits =
                        divert.link_local.iter().filter(|(r, l)| r.contains(remote) && l.contains(local)).count();
                    assert_eq!(hits, usize::from(policy == Some(Required)), "{remote} {local}: {list:?}");
                }
            }
            divert.link_local.iter().map(|(remote, local)| format!("{remote} {local}")).collect::<Vec<_>>()
        };
        assert_eq!(refused(&[("local:7", Required)]), ["1-65535 7"]);
        assert_eq!(refused(&[(":7", Required)]), ["7 1-65535"]);
        assert_eq!(refused(&[("::/0", Required)]), ["1-65535 1-65535"]);
        assert_eq!(refused(&[("::/0", Required), ("local:7", Off)]), ["1-65535 1-6", "1-65535 8-65535"]);
        assert_eq!(refused(&[("local:7", Required), (":5", On)]), ["1-65535 7"]);
        assert_eq!(refused(&[("local:7", Required), (":5", Required)]), ["1-4 7", "5 1-65535", "6-65535 7"]);
        let none: [&str; 0] = [];
        for others in [("local:7", On), ("2001:db8::/32", Required), ("0.0.0.0/0", Required), ("local:7", Off)] {
            assert_eq!(refused(&[others]), none);
        }
        let many: Vec<Rule> = (1..2000u16)
            .flat_map(|n| [format!(":{}", 2 * n), format!("local:{}", 2 * n)])
            .map(|text| Rule::new(text.parse().unwrap(), Required))
            .collect();
        assert_eq!(Divert::new(&many, &[]).link_local, [(PortRange::ALL, PortRange::ALL)]);
    }

    /// Whatever the table selects is diverted, with rules from a small space where they collide a lot.
    #[test]
    fn nothing_that_is_selected_goes_undiverted() {
        let mut state = 7_u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for _ in 0..3000 {
            let mut list = Vec::new();
            for _ in 0..1 + next(6) {
                let (first, more) = (1 + next(6), next(3));
                let last = first + more;
                let length = [0, 6, 7, 8, 30, 31, 32][next(7) as usize];
                let address = std::net::Ipv4Addr::from(0x0a00_0000 + next(4) as u32);
                let net = ipnet::Ipv4Net::new(address, length).expect("length").trunc();
                let text = match next(6) {
                    5 => ["::/0", "2001:db8::/32", "[::/0]:3", "[2001:db8::/32]:2-4"][next(4) as usize].to_owned(),
                    0 => format!("local:{first}-{last}"),
                    1 => format!(":{first}-{last}"),
                    2 => net.to_string(),
                    _ => format!("{net}:{first}-{last}"),
                };
                let policy = [Policy::Opportunistic, Policy::Required, Policy::Off][next(3) as usize];
                list.extend(text.parse().ok().map(|selector| Rule::new(selector, policy)));
            }
            let divert = Divert::new(&list, &[]);
            let table = PolicyTable::new(list.clone());
            let hosts = (0..4).map(|host| std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + host)));
            for remote in hosts.chain(["2001:db8::1", "2001:db9::1"].map(|text| text.parse().expect("address"))) {
                for (remote_port, local_port) in (0..10).flat_map(|r| (0..10).map(move |l| (r, l))) {
                    let within = |entries: &[NetPorts]| {
                        entries
                            .iter()
                            .filter(|(net, ports)| net.contains(&remote) && ports.contains(remote_port))
                            .count()
                    };
                    assert!(within(&divert.remote) <= 1 && within(&divert.except) <= 1, "overlap: {list:?}");
                    let apart = divert.anywhere().filter(|ports| ports.contains(remote_port)).count()
                        + divert
                            .nets(remote.is_ipv6())
                            .filter(|(net, p)| net.contains(&remote) && p.contains(remote_port))
                            .count();
                    assert_eq!(apart, within(&divert.remote), "looked up: {list:?}");
                    let diverted = within(&divert.except) == 0
                        && (within(&divert.remote) == 1 || divert.local.iter().any(|p| p.contains(local_port)));
                    let selected =
                        table.lookup(remote, remote_port, local_port).is_some_and(|r| r.policy != Policy::Off);
                    assert!(diverted || !selected, "{remote} {remote_port} {local_port}: {list:?}");
                }
            }
        }
    }
}
