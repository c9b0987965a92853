//! The rule for a connection.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::scope::{Scope, real};
use super::{PortRange, Remote, Rule, Selector, any_v4, any_v6, canonical};

/// All rules, indexed for looking up one connection.
///
/// A rule is narrower than another if it matches some of the same connections and no others. Of the rules that match,
/// those for which a narrower one also matches do not count. Of the rest `required` decides, then `off`, then
/// `opportunistic`; among equal policies the longest prefix, the fewest ports, the rule given last.
///
/// A lookup costs one hash per prefix length in use (at most 33 or 129), whatever the number of rules; only port
/// ranges of one network that overlap without one being within the other are compared one by one.
#[derive(Clone, Debug, Default)]
pub struct PolicyTable {
    rules: Vec<Rule>,
    v4: Family,
    v6: Family,
    local: Ports,
}

/// Indices of rules.
type Indices = Box<[usize]>;

/// Non-overlapping port ranges in ascending order, each with the rules that match there and to which none of the same
/// network is narrower.
#[derive(Clone, Debug, Default)]
struct Ports(Vec<(PortRange, Indices)>);

impl Ports {
    fn new(mut ranges: Vec<(PortRange, usize)>, rules: &[Rule]) -> Self {
        // The same range twice: one decides, everywhere.
        let rank = |index: usize| (rules.get(index).map(|rule| rule.policy.rank()), index);
        ranges.sort_unstable_by_key(|(range, index)| (*range, Reverse(rank(*index))));
        ranges.dedup_by_key(|(range, _)| *range);
        let mut edges: Vec<u32> = Vec::with_capacity(ranges.len() * 2);
        for (range, _) in &ranges {
            edges.extend([u32::from(range.first), u32::from(range.last) + 1]);
        }
        edges.sort_unstable();
        edges.dedup();
        let mut coming = ranges.iter().copied().peekable();
        let mut here: Vec<(PortRange, usize)> = Vec::new();
        let mut flat: Vec<(PortRange, Indices)> = Vec::new();
        for pair in edges.windows(2) {
            let &[start, end] = pair else { continue };
            let (Ok(first), Ok(last)) = (u16::try_from(start), u16::try_from(end - 1)) else { continue };
            here.retain(|(range, _)| range.last >= first);
            while let Some(next) = coming.next_if(|(range, _)| range.first <= first) {
                here.push(next);
            }
            let narrowest = |range: PortRange| {
                !here.iter().any(|(other, _)| real(*other) != real(range) && real(range).covers(real(*other)))
            };
            let winners: Indices =
                here.iter().filter(|(range, _)| narrowest(*range)).map(|(_, index)| *index).collect();
            match flat.last_mut() {
                Some((before, same)) if *same == winners && before.last.checked_add(1) == Some(first) => {
                    before.last = last;
                }
                _ if winners.is_empty() => {}
                _ => flat.push((PortRange { first, last }, winners)),
            }
        }
        Self(flat)
    }

    fn find(&self, port: u16) -> &[usize] {
        let at = self.0.partition_point(|(range, _)| range.last < port);
        self.0.get(at).filter(|(range, _)| range.contains(port)).map_or(&[], |(_, indices)| indices)
    }
}

#[derive(Clone, Debug, Default)]
struct Family {
    /// Prefix lengths in use.
    lengths: Vec<u8>,
    nets: HashMap<IpNet, Ports>,
}

impl Family {
    fn new(nets: HashMap<IpNet, Vec<(PortRange, usize)>>, rules: &[Rule]) -> Self {
        let mut lengths: Vec<u8> = nets.keys().map(IpNet::prefix_len).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let nets = nets.into_iter().map(|(net, ranges)| (net, Ports::new(ranges, rules))).collect();
        Self { lengths, nets }
    }

    fn find(&self, address: IpAddr, port: u16) -> impl Iterator<Item = usize> {
        let net = move |length: &u8| self.nets.get(&IpNet::new(address, *length).ok()?.trunc());
        self.lengths.iter().filter_map(net).flat_map(move |ports| ports.find(port)).copied()
    }
}

/// A rule that matches.
pub(super) struct Match<'a> {
    index: usize,
    rule: &'a Rule,
    scope: Scope,
}

impl Match<'_> {
    /// The greatest decides.
    fn precedence(&self) -> impl Ord + use<> {
        let local = matches!(self.rule.selector, Selector::Local(_));
        let ports = if local { self.scope.local_ports } else { self.scope.remote_ports };
        (self.rule.policy.rank(), self.scope.remote.prefix_len(), Reverse(ports.width()), self.index)
    }
}

impl PolicyTable {
    /// Builds the table. Rules whose host name is not resolved match nothing.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let rules: Vec<Rule> = rules.into_iter().collect();
        let (mut v4, mut v6) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let mut local = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            match &rule.selector {
                Selector::Local(ports) => local.push((*ports, index)),
                Selector::Remote(Remote::Name(_), _) => {}
                Selector::Remote(Remote::Net(net), ports) => {
                    let family = if net.addr().is_ipv4() { &mut v4 } else { &mut v6 };
                    family.entry(net.trunc()).or_default().push((*ports, index));
                }
                Selector::Remote(Remote::Any, ports) => {
                    v4.entry(any_v4()).or_default().push((*ports, index));
                    v6.entry(any_v6()).or_default().push((*ports, index));
                }
            }
        }
        let (v4, v6, local) = (Family::new(v4, &rules), Family::new(v6, &rules), Ports::new(local, &rules));
        Self { rules, v4, v6, local }
    }

    /// The rule for a connection, or `None` if nothing selects it.
    #[must_use]
    pub fn lookup(&self, remote: IpAddr, remote_port: u16, local_port: u16) -> Option<&Rule> {
        let matching: Vec<Match> = self.matching(remote, remote_port, local_port).collect();
        let narrowest = |it: &&Match| !matching.iter().any(|other| other.scope.is_narrower_than(&it.scope));
        matching.iter().filter(narrowest).max_by_key(|it| it.precedence()).map(|it| it.rule)
    }

    /// The rules that match, without those to which one of the same network is narrower.
    pub(super) fn matching(
        &self,
        remote: IpAddr,
        remote_port: u16,
        local_port: u16,
    ) -> impl Iterator<Item = Match<'_>> {
        let remote = canonical(remote);
        let (family, any) = if remote.is_ipv4() { (&self.v4, any_v4()) } else { (&self.v6, any_v6()) };
        let local = self.local.find(local_port).iter().copied();
        family.find(remote, remote_port).chain(local).filter_map(move |index| {
            let rule = self.rules.get(index)?;
            Some(Match { index, rule, scope: Scope::of(&rule.selector, any)? })
        })
    }

    /// The rules as given.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Adds a rule, replacing the one with the same selector, if any.
    pub fn enable(&mut self, rule: Rule) {
        let mut rules = std::mem::take(&mut self.rules);
        rules.retain(|old| old.selector != rule.selector);
        rules.push(rule);
        *self = Self::new(rules);
    }

    /// Removes the rule with exactly this selector; `false` if there was none.
    pub fn disable(&mut self, selector: &Selector) -> bool {
        let mut rules = std::mem::take(&mut self.rules);
        let before = rules.len();
        rules.retain(|old| old.selector != *selector);
        let found = rules.len() != before;
        *self = Self::new(rules);
        found
    }
}
