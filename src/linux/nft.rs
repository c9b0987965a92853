//! Our nftables table: as values, as JSON for libnftables, as text for people. Pure.

use std::fmt;

use serde_json::{Value, json};

use super::chains::chains;
use super::divert::Divert;
use super::expr::{Chain, Left, Part, Right, Set};
use super::sets::{NonForwarding, sets};
use super::settings::{HostSettings, stand_in};

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    table: String,
    closed: NonForwarding,
    zones: bool,
    sets: Vec<Set>,
    chains: Vec<Chain>,
}

/// The comment by which our rules in other tables' chains are recognised.
pub(super) fn comment(instance: &str) -> String {
    format!("enotun {instance}")
}

impl Ruleset {
    /// `zones`: connections may be tracked, so the two legs are kept apart. Without that need the zone is left out, for
    /// setting one turns tracking on for every packet of the host.
    pub(super) fn new(settings: &HostSettings, divert: &Divert, closed: &NonForwarding, zones: bool) -> Self {
        let sets = sets(settings, divert, closed);
        let chains = chains(settings, divert, closed, zones, &sets);
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

/// The transaction that removes the table, if there is one.
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
