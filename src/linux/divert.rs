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
mod tests;
