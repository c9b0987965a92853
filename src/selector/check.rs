//! Which rules conflict: a security promise is never lost silently.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

use super::scope::Scope;
use super::{Policy, PortRange, Remote, Rule, Selector, any_v4, any_v6};

/// Two rules with different policies that match some of the same connections, neither being part of the other. For
/// these connections the winner decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Overlap {
    /// The rule that yields, by its index among the rules.
    pub loser: usize,
    /// The rule that decides, likewise.
    pub winner: usize,
}

/// Why rules cannot be in force together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A host name with policy `required`.
    #[error(
        "`{0}` is a host name, and `required` takes none: a connection to one of its addresses that enotun does not know (yet) would be plain; list its addresses{alternative}",
        alternative = port_alternative(.0)
    )]
    RequiredName(Selector),
    /// An exception to what is required, by host name.
    #[error(
        "`{off}` is off by a host name, which makes no exception to `{required}` (required): DNS answers can be forged; list its addresses"
    )]
    OffName {
        /// The rule that is off.
        off: Selector,
        /// The one that is required.
        required: Selector,
    },
    /// Connections that are required by one and left alone by the other.
    #[error("`{off}` is off and `{required}` required, and neither is part of the other: {}", way_out(.both.as_ref()))]
    Contradiction {
        /// The rule that is off.
        off: Selector,
        /// The one that is required.
        required: Selector,
        /// What both match, if it can be written.
        both: Option<Selector>,
    },
}

impl RuleError {
    /// The selector that has to change, and its policy.
    #[must_use]
    pub fn culprit(&self) -> (&Selector, Policy) {
        match self {
            Self::RequiredName(selector) => (selector, Policy::Required),
            Self::OffName { off, .. } | Self::Contradiction { off, .. } => (off, Policy::Off),
        }
    }
}

fn port_alternative(selector: &Selector) -> String {
    match selector {
        Selector::Remote(_, ports) if *ports != PortRange::ALL => {
            format!(", or `:{ports}` for that port of every address")
        }
        _ => String::new(),
    }
}

fn way_out(both: Option<&Selector>) -> String {
    match both {
        Some(both) => format!("say which applies where both match, by also listing `{both}` as off or as required"),
        None => {
            "no selector can name what both match, so leave one of them out, or make it part of the other".to_owned()
        }
    }
}

/// Whether `rules` can be in force together.
///
/// # Errors
/// If a host name is `required`; or if connections are `required` by one rule and `off` by another, neither is
/// narrower, and no rule of their own decides.
pub fn check(rules: &[Rule]) -> Result<(), RuleError> {
    let named = |rule: &&Rule| rule.selector.name().is_some();
    if let Some(rule) = rules.iter().filter(named).find(|rule| rule.policy == Policy::Required) {
        return Err(RuleError::RequiredName(rule.selector.clone()));
    }
    let required = || rules.iter().filter(|rule| rule.policy == Policy::Required);
    for off in rules.iter().filter(named).filter(|rule| rule.policy == Policy::Off) {
        // Whatever the address is.
        if let Some(rule) = required().find(|rule| meets_every_address(&off.selector, &rule.selector)) {
            return Err(RuleError::OffName { off: off.selector.clone(), required: rule.selector.clone() });
        }
    }
    let opposed: Vec<&Rule> = rules.iter().filter(|rule| rule.policy != Policy::Opportunistic).collect();
    let stated: HashSet<Scope> = rules.iter().flat_map(|rule| Scope::both(&rule.selector)).collect();
    let mut found = Ok(());
    each_overlap(&opposed, |overlap| {
        let (Some(off), Some(required)) = (opposed.get(overlap.loser), opposed.get(overlap.winner)) else {
            return ControlFlow::Continue(());
        };
        let (off, required) = (&off.selector, &required.selector);
        match crossing(off, required).find(|both| both.is_none_or(|both| !stated.contains(&both))) {
            None => ControlFlow::Continue(()),
            Some(both) => {
                let both = both.and_then(|both| both.selector());
                found = Err(RuleError::Contradiction { off: off.clone(), required: required.clone(), both });
                ControlFlow::Break(())
            }
        }
    });
    found
}

/// The overlaps among `rules`, at most `most`.
#[must_use]
pub fn overlaps(rules: &[Rule], most: usize) -> Vec<Overlap> {
    let mut found = BTreeSet::new();
    each_overlap(&rules.iter().collect::<Vec<_>>(), |overlap| {
        found.insert(overlap);
        if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    found.into_iter().collect()
}

/// Address families in which the two cross, and what both match there: `None` if that is all that either matches.
fn crossing<'a>(one: &'a Selector, other: &'a Selector) -> impl Iterator<Item = Option<Scope>> + 'a {
    [any_v4(), any_v6()].into_iter().filter_map(move |any| {
        let (one, other) = (Scope::of(one, any)?, Scope::of(other, any)?);
        one.crosses(&other).then(|| one.and(&other).filter(|both| *both != one))
    })
}

/// Whether a host name's connections are among those of `other`, whatever its addresses are.
fn meets_every_address(name: &Selector, other: &Selector) -> bool {
    let Selector::Remote(_, ports) = name else { return false };
    match other {
        Selector::Local(_) => true,
        Selector::Remote(Remote::Name(_), _) => false,
        Selector::Remote(Remote::Any, others) => ports.overlaps(*others),
        Selector::Remote(Remote::Net(net), others) => net.prefix_len() == 0 && ports.overlaps(*others),
    }
}

/// Calls `see` for each overlap, once per address family.
fn each_overlap(rules: &[&Rule], mut see: impl FnMut(Overlap) -> ControlFlow<()>) {
    let Some(first) = rules.first() else { return };
    if rules.iter().all(|rule| rule.policy == first.policy) {
        return;
    }
    for any in [any_v4(), any_v6()] {
        // Networks are nested or disjoint: one overlapping network's prefix is a prefix of the other's.
        let scopes: Vec<(usize, Scope)> = rules
            .iter()
            .enumerate()
            .filter_map(|(index, rule)| Some((index, Scope::of(&rule.selector, any)?)))
            .collect();
        let mut nets: HashMap<ipnet::IpNet, Vec<usize>> = HashMap::new();
        for (at, (_, scope)) in scopes.iter().enumerate() {
            nets.entry(scope.remote).or_default().push(at);
        }
        let lengths: BTreeSet<u8> = nets.keys().map(ipnet::IpNet::prefix_len).collect();
        for (at, (index, scope)) in scopes.iter().enumerate() {
            for length in lengths.range(..=scope.remote.prefix_len()) {
                let Ok(around) = ipnet::IpNet::new(scope.remote.addr(), *length) else { continue };
                for other_at in nets.get(&around.trunc()).into_iter().flatten() {
                    let Some((other, others)) = scopes.get(*other_at) else { continue };
                    if others.remote == scope.remote && *other_at >= at {
                        continue;
                    }
                    let Some(overlap) = overlap(rules, *index, *other) else { continue };
                    if scope.crosses(others) && see(overlap).is_break() {
                        return;
                    }
                }
            }
        }
    }
}

/// Which of two rules of different policies wins.
fn overlap(rules: &[&Rule], one: usize, other: usize) -> Option<Overlap> {
    let rank = |index: usize| rules.get(index).map(|rule| rule.policy.rank());
    match rank(one)?.cmp(&rank(other)?) {
        std::cmp::Ordering::Less => Some(Overlap { loser: one, winner: other }),
        std::cmp::Ordering::Greater => Some(Overlap { loser: other, winner: one }),
        std::cmp::Ordering::Equal => None,
    }
}
