//! What is currently protected: selectors from the file, from commands and from routes, with host names resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::selector::{self, Policy, Rule, RuleError, RuleOptions, Scope, Selected, Selector};

/// Where a selector came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The configuration file.
    File,
    /// The command line of `up`, or `enable`.
    Command,
    /// A route in table `enotun`.
    Route,
}

/// A selector as `enotun status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which connections.
    pub selector: Selector,
    /// What to do with them.
    pub policy: Policy,
    /// Their options.
    #[serde(default, skip_serializing_if = "RuleOptions::is_none")]
    pub options: RuleOptions,
    /// Where it came from.
    pub source: Source,
    /// The addresses of its host name; empty if it has none, or it could not be resolved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Selectors that decide instead of this one where both match and neither is narrower, up to a few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub yields_to: Vec<Selector>,
}

/// Maximum number of selectors reported that one yields to.
const YIELDS_MAX: usize = 8;
/// Maximum number of pairs of selectors examined for this.
const OVERLAPS_MAX: usize = 10_000;

/// All selectors.
#[derive(Debug, Clone, Default)]
pub struct Selectors {
    given: Vec<(Rule, Source)>,
    routes: BTreeSet<IpNet>,
    /// Policy of routes.
    route_policy: Policy,
    /// Disabled at run time: selectors of the file that stay disabled when the file is reloaded.
    disabled: BTreeSet<Selector>,
    addresses: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl Selectors {
    /// The selectors of the file and of the command line.
    #[must_use]
    pub fn new(file: Vec<Rule>, command: Vec<Rule>, route_policy: Policy) -> Self {
        let mut selectors = Self { route_policy, ..Self::default() };
        for rule in file {
            selectors.put(rule, Source::File);
        }
        for rule in command {
            selectors.put(rule, Source::Command);
        }
        selectors
    }

    fn put(&mut self, rule: Rule, source: Source) {
        self.given.retain(|(known, _)| known.selector != rule.selector);
        self.given.push((rule, source));
    }

    /// Adds a selector, or changes its policy and options.
    pub fn enable(&mut self, selected: Selected, policy: Policy) {
        self.disabled.remove(&selected.selector);
        self.put(selected.rule(policy), Source::Command);
    }

    /// Removes a selector. False if it is not there as written.
    pub fn disable(&mut self, selector: &Selector) -> bool {
        let before = self.given.len();
        self.given.retain(|(rule, _)| rule.selector != *selector);
        let found = self.given.len() != before;
        if found {
            self.disabled.insert(selector.clone());
        }
        found
    }

    /// Whether the selector is there as written.
    #[must_use]
    pub fn has(&self, selector: &Selector) -> bool {
        self.given.iter().any(|(rule, _)| rule.selector == *selector)
    }

    /// Replaces the selectors of the file; changes made at run time stay.
    pub fn reload(&mut self, file: Vec<Rule>, route_policy: Policy) {
        let commands: Vec<Rule> =
            self.given.drain(..).filter(|(_, source)| *source == Source::Command).map(|(rule, _)| rule).collect();
        self.route_policy = route_policy;
        for rule in file {
            if !self.disabled.contains(&rule.selector) {
                self.put(rule, Source::File);
            }
        }
        for rule in commands {
            self.put(rule, Source::Command);
        }
    }

    /// Sets what routes in table `enotun` select. True if this is a change.
    pub fn set_routes(&mut self, routes: BTreeSet<IpNet>) -> bool {
        let changed = self.routes != routes;
        self.routes = routes;
        changed
    }

    /// Host names in use, each once.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        self.given.iter().filter_map(|(rule, _)| rule.selector.name()).map(str::to_owned).collect()
    }

    /// Host names without an address.
    #[must_use]
    pub fn unresolved(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| self.addresses.get(name).is_none_or(BTreeSet::is_empty)).collect()
    }

    /// Sets the addresses of a name. True if this is a change. If there are none, the last ones stay: a failing DNS
    /// must not switch protection off.
    pub fn set_addresses(&mut self, name: &str, addresses: BTreeSet<IpAddr>) -> bool {
        if addresses.is_empty() || self.addresses.get(name) == Some(&addresses) {
            return false;
        }
        self.addresses.insert(name.to_owned(), addresses);
        true
    }

    /// Whether they can be in force together.
    ///
    /// # Errors
    /// If a security promise would be silently lost.
    pub fn check(&self) -> Result<(), RuleError> {
        let rules: Vec<Rule> = self.given.iter().map(|(rule, _)| rule.clone()).collect();
        selector::check(&rules)
    }

    /// All rules, names replaced by addresses, for the engine and the firewall.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let required = self.required();
        let in_force = |expanded: &ExpandedRule| expanded.exempted(&required).is_none();
        self.expanded().into_iter().filter(in_force).map(|expanded| expanded.rule).collect()
    }

    /// What is required by address or port.
    fn required(&self) -> Vec<&Rule> {
        let given = self.given.iter().map(|(rule, _)| rule);
        given.filter(|rule| rule.policy == Policy::Required && rule.selector.name().is_none()).collect()
    }

    /// All selectors as rules, routes first. A selector given explicitly overrides a route to the same network.
    fn expanded(&self) -> Vec<ExpandedRule> {
        let rule = |net: &IpNet| Rule::new(Selector::net(*net), self.route_policy);
        let routes = self.routes.iter().map(rule).enumerate();
        let routes = routes.filter(|(_, rule)| !self.has(&rule.selector));
        let routes = routes.map(|(at, rule)| ExpandedRule { entry: self.given.len() + at, rule, implied: true });
        let given = self.given.iter().enumerate().flat_map(|(entry, (rule, _))| {
            let implied = rule.selector.name().is_some();
            let addresses = |name: &str| self.addresses.get(name).into_iter().flatten().copied().collect();
            let resolved = rule.selector.resolved(addresses).into_iter();
            resolved.map(move |selector| ExpandedRule { entry, rule: Rule { selector, ..rule.clone() }, implied })
        });
        // A name can resolve to 127.0.0.1, and a route can lead anywhere: nobody could type such a selector, nor read
        // it back from the record of changes.
        routes.chain(given).filter(|expanded| expanded.rule.selector.leaves_host()).collect()
    }

    /// All selectors, for display.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let given = self.given.iter().map(|(rule, source)| Entry {
            selector: rule.selector.clone(),
            policy: rule.policy,
            options: rule.options,
            source: *source,
            addresses: rule
                .selector
                .name()
                .and_then(|name| self.addresses.get(name))
                .map(|addresses| addresses.iter().copied().collect())
                .unwrap_or_default(),
            yields_to: Vec::new(),
        });
        let routes = self.routes.iter().map(|net| Entry {
            selector: Selector::net(*net),
            policy: self.route_policy,
            options: RuleOptions::default(),
            source: Source::Route,
            addresses: Vec::new(),
            yields_to: Vec::new(),
        });
        let mut entries: Vec<Entry> = given.chain(routes).collect();
        for (loser, winner) in self.yielding() {
            let Some(winner) = entries.get(winner).map(|entry| entry.selector.clone()) else { continue };
            let Some(yields_to) = entries.get_mut(loser).map(|entry| &mut entry.yields_to) else { continue };
            if yields_to.len() < YIELDS_MAX && !yields_to.contains(&winner) {
                yields_to.push(winner);
            }
        }
        entries
    }

    /// Which entry yields to which.
    fn yielding(&self) -> Vec<(usize, usize)> {
        let (required, expanded) = (self.required(), self.expanded());
        let place = |selector: &Selector| self.given.iter().position(|(rule, _)| rule.selector == *selector);
        let exempted = expanded.iter().filter_map(|it| Some((it.entry, place(&it.exempted(&required)?.selector)?)));
        let rules: Vec<Rule> = expanded.iter().map(|it| it.rule.clone()).collect();
        let entry = |index: usize| expanded.get(index).map(|it| it.entry);
        let crossing = selector::overlaps(&rules, OVERLAPS_MAX).into_iter();
        let crossing = crossing.filter_map(|overlap| Some((entry(overlap.loser)?, entry(overlap.winner)?)));
        let same = |(at, net)| Some((self.given.len() + at, place(&Selector::net(net))?));
        let replaced = self.routes.iter().copied().enumerate().filter_map(same);
        replaced.chain(exempted).chain(crossing).collect()
    }
}

/// A rule, and the entry it belongs to.
struct ExpandedRule {
    entry: usize,
    rule: Rule,
    /// From a host name or a route. Neither shows that an exception is intended, and DNS answers can be forged.
    implied: bool,
}

impl ExpandedRule {
    /// The rule of `required` from which this one must not take connections.
    fn exempted<'a>(&self, required: &[&'a Rule]) -> Option<&'a Rule> {
        if !self.implied || self.rule.policy == Policy::Required {
            return None;
        }
        let covers = |rule: &&&Rule| {
            Scope::both(&self.rule.selector).all(|own| Scope::both(&rule.selector).any(|other| other.covers(&own)))
        };
        required.iter().find(covers).copied()
    }
}

#[cfg(test)]
mod tests;
