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
mod tests {
    use super::*;

    fn rule(selector: &str, policy: Policy) -> Rule {
        Rule::new(selector.parse().unwrap(), policy)
    }

    fn shown(selectors: &Selectors) -> Vec<String> {
        selectors.rules().iter().map(|rule| format!("{} {}", rule.selector, rule.policy)).collect()
    }

    #[test]
    fn enabling_again_changes_policy_and_options() {
        let mut selectors =
            Selectors::new(vec![rule("10.0.0.0/8", Policy::Opportunistic)], vec![], Policy::Opportunistic);
        selectors.enable("10.0.0.0/8,no-cache".parse().unwrap(), Policy::Required);
        assert_eq!(shown(&selectors), ["10.0.0.0/8 required"]);
        assert_eq!(selectors.rules()[0].options.words(), ["no-cache"]);
        selectors.enable("10.0.0.0/8".parse().unwrap(), Policy::Required);
        assert_eq!(selectors.entries().len(), 1);
        assert!(selectors.entries()[0].options.is_none());
    }

    #[test]
    fn disabling_needs_the_selector_as_it_was_given() {
        let mut selectors =
            Selectors::new(vec![rule("10.0.0.0/8", Policy::Opportunistic)], vec![], Policy::Opportunistic);
        assert!(!selectors.disable(&"10.0.0.1".parse().unwrap()));
        assert!(selectors.disable(&"10.0.0.0/8".parse().unwrap()));
        assert!(shown(&selectors).is_empty());
    }

    #[test]
    fn a_reload_keeps_what_was_changed_at_run_time() {
        let file = || vec![rule("10.0.0.0/8", Policy::Opportunistic), rule(":80", Policy::Opportunistic)];
        let mut selectors = Selectors::new(file(), vec![rule("192.0.2.1", Policy::Required)], Policy::Opportunistic);
        selectors.disable(&":80".parse().unwrap());
        selectors.enable("198.51.100.0/24".parse().unwrap(), Policy::Opportunistic);
        let mut changed = file();
        changed.push(rule(":443", Policy::Off));
        selectors.reload(changed, Policy::Opportunistic);
        assert_eq!(
            shown(&selectors),
            ["10.0.0.0/8 opportunistic", ":443 off", "192.0.2.1 required", "198.51.100.0/24 opportunistic"]
        );
    }

    #[test]
    fn a_name_service_that_fails_does_not_switch_protection_off() {
        let mut selectors =
            Selectors::new(vec![rule("db.example:5432", Policy::Opportunistic)], vec![], Policy::Opportunistic);
        assert_eq!(selectors.unresolved(), ["db.example"]);
        assert!(shown(&selectors).is_empty());
        assert!(selectors.set_addresses("db.example", BTreeSet::from(["192.0.2.5".parse().unwrap()])));
        assert!(!selectors.set_addresses("db.example", BTreeSet::new()));
        assert_eq!(shown(&selectors), ["192.0.2.5:5432 opportunistic"]);
        assert!(selectors.unresolved().is_empty());
    }

    #[test]
    fn names_and_routes_select_nothing_that_could_not_be_typed() {
        let mut selectors = Selectors::new(vec![rule("db.example", Policy::Off)], vec![], Policy::Opportunistic);
        let addresses = ["127.0.1.1", "::1", "fe80::7", "192.0.2.5"].map(|text| text.parse().unwrap());
        selectors.set_addresses("db.example", BTreeSet::from(addresses));
        selectors.set_routes(["127.0.0.0/8", "224.0.0.0/4", "fe80::/64"].map(|text| text.parse().unwrap()).into());
        assert_eq!(shown(&selectors), ["192.0.2.5 off"]);
        // They are in the record of changes, which is read again after a crash.
        for rule in selectors.rules() {
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
        }
    }

    #[test]
    fn routes_select_with_the_default_policy_and_yield_to_what_was_said() {
        let mut selectors = Selectors::new(vec![rule("10.9.0.0/16", Policy::Required)], vec![], Policy::Opportunistic);
        let routes = BTreeSet::from(["10.9.0.0/16".parse().unwrap()]);
        assert!(selectors.set_routes(routes.clone()));
        assert!(!selectors.set_routes(routes));
        assert_eq!(shown(&selectors), ["10.9.0.0/16 required"]);
        assert_eq!(selectors.entries()[1].yields_to, ["10.9.0.0/16".parse().unwrap()]);
        // Even where a route has the stricter policy, since nobody gave that policy for this network.
        let mut selectors = Selectors::new(vec![rule("10.9.0.0/16", Policy::Off)], vec![], Policy::Required);
        selectors.set_routes(BTreeSet::from(["10.9.0.0/16".parse().unwrap(), "10.8.0.0/16".parse().unwrap()]));
        assert_eq!(shown(&selectors), ["10.8.0.0/16 required", "10.9.0.0/16 off"]);
    }

    #[test]
    fn neither_a_name_nor_a_route_takes_connections_from_what_is_required() {
        let given = vec![
            rule("10.0.0.0/8", Policy::Required),
            rule("db.example:5432", Policy::Opportunistic),
            rule("www.example", Policy::Off),
            rule("10.7.0.0/16", Policy::Opportunistic),
        ];
        let mut selectors = Selectors::new(given, vec![], Policy::Opportunistic);
        selectors.set_addresses("db.example", ["10.1.0.5", "192.0.2.5"].map(|text| text.parse().unwrap()).into());
        selectors.set_addresses("www.example", BTreeSet::from(["10.1.0.6".parse().unwrap()]));
        selectors.set_routes(BTreeSet::from(["10.9.0.0/16".parse().unwrap()]));
        assert_eq!(
            shown(&selectors),
            ["10.0.0.0/8 required", "192.0.2.5:5432 opportunistic", "10.7.0.0/16 opportunistic"]
        );
        let required: Selector = "10.0.0.0/8".parse().unwrap();
        let yields: Vec<bool> = selectors.entries().iter().map(|entry| entry.yields_to.contains(&required)).collect();
        assert_eq!(yields, [false, true, true, false, true]);
    }

    #[test]
    fn an_entry_says_to_whom_it_yields_a_few_at_most() {
        let mut given: Vec<Rule> = (1..=20).map(|port| rule(&format!(":{port}"), Policy::Required)).collect();
        given.push(rule("10.0.0.0/8", Policy::Opportunistic));
        let entries = Selectors::new(given, vec![], Policy::Opportunistic).entries();
        assert_eq!(entries[20].yields_to.len(), YIELDS_MAX);
        assert!(entries[..20].iter().all(|entry| entry.yields_to.is_empty()));
    }
}
