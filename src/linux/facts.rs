//! The state of the host: everything that the plan depends on, gathered once.

use std::collections::BTreeMap;
use std::fs;

use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use serde_json::Value;

use super::change::Change;
use super::netlink::{Family, LOCAL_TABLE, Netlink, RuleFact};
use super::{Error, HostSettings};

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Whether it is a port of a bridge or bond, which has the addresses instead.
    pub port: bool,
}

/// A base chain on the forward hook that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardChain {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Whether it drops what no rule accepts: by policy, or by a rule that drops or rejects everything.
    pub drops: bool,
}

/// What the plan depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All routing rules.
    pub rules: Vec<RuleFact>,
    /// Sysctls by their path below /proc/sys; those that do not exist are not in it.
    pub sysctls: BTreeMap<String, String>,
    /// Base chains of others on the forward hook.
    pub forward_chains: Vec<ForwardChain>,
    /// Other software has packet filters, which may track connections.
    pub others_filter: bool,
    /// Whether the directory for routing table names exists.
    pub names_directory: bool,
    /// The content of the file with our routing table names.
    pub names_file: Option<String>,
    /// Number of chains in our table.
    pub own_chains: usize,
}

/// Per interface.
const CONF4: [&str; 4] = ["forwarding", "rp_filter", "src_valid_mark", "accept_local"];
const CONF6: [&str; 5] = ["forwarding", "force_forwarding", "accept_ra", "disable_ipv6", "addr_gen_mode"];

impl HostFacts {
    /// Queries the kernel.
    ///
    /// # Errors
    /// If netlink or nft cannot be used.
    pub fn gather(settings: &HostSettings) -> Result<Self, Error> {
        let mut netlink = Netlink::new()?;
        let links = links(&mut netlink)?;
        let mut rules = netlink.rules(Family::V4)?;
        rules.extend(netlink.rules(Family::V6)?);
        let mut paths = vec!["net/ipv4/tcp_early_demux".to_owned()];
        for name in links.iter().map(|link| link.name.as_str()).chain(["all", "default"]) {
            paths.extend(CONF4.map(|key| conf(Family::V4, name, key)));
            paths.extend(CONF6.map(|key| conf(Family::V6, name, key)));
        }
        let sysctls = paths.into_iter().filter_map(|path| read_sysctl(&path).map(|value| (path, value))).collect();
        let chains = list("chains")?;
        let others_filter = has_chains_of_others(&chains, |table| settings.is_own_table(table)) || has_legacy_tables();
        let own_chains = chains_of(&chains, &settings.nft_table());
        let mut forward_chains = forward_chains(&chains);
        forward_chains.retain(|chain| !settings.is_own_table(&chain.table));
        for chain in forward_chains.iter_mut().filter(|chain| !chain.drops) {
            chain.drops = drops_the_rest(&list_chain(&chain.family, &chain.table, &chain.name)?);
        }
        let names_directory = settings.rt_tables_dir.is_dir();
        let names_file = fs::read_to_string(settings.names_file()).ok();
        Ok(Self { links, rules, sysctls, forward_chains, others_filter, names_directory, names_file, own_chains })
    }

    /// The host as it was before the recorded changes, from which the plan of a later `up` must start.
    #[must_use]
    pub fn before(mut self, changes: &[Change]) -> Self {
        for change in changes.iter().rev() {
            match change {
                Change::Sysctl { path, value, old, along } => {
                    let Some(current) = self.sysctls.get_mut(path) else { continue };
                    if current == value {
                        if let Some(old) = old {
                            old.clone_into(current);
                        }
                        for (path, old) in along {
                            if let Some(current) = self.sysctls.get_mut(path) {
                                old.clone_into(current);
                            }
                        }
                    }
                }
                Change::LocalRule { family, from, to } => {
                    let is_at = |rule: &RuleFact, at| is_local(rule, *family) && rule.preference == at;
                    if !self.rules.iter().any(|rule| is_at(rule, *from))
                        && let Some(moved) = self.rules.iter_mut().find(|rule| is_at(rule, *to))
                    {
                        moved.preference = *from;
                    } else {
                        self.rules.retain(|rule| !is_at(rule, *to));
                    }
                }
                Change::Directory { .. } => self.names_directory = false,
                Change::File { old, .. } => self.names_file.clone_from(old),
                Change::Rule { family, preference, table, .. } => {
                    let ours = (*family, *preference, *table);
                    self.rules.retain(|rule| (rule.family, rule.preference, rule.table) != ours);
                }
                _ => {}
            }
        }
        self
    }

    /// A sysctl as a number; `None` if it does not exist.
    pub(super) fn number(&self, path: &str) -> Option<i64> {
        self.sysctls.get(path)?.parse().ok()
    }

    /// Whether the kernel has IPv6.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.sysctls.contains_key(&conf(Family::V6, "all", "forwarding"))
    }
}

/// The path of a per-interface sysctl.
pub(super) fn conf(family: Family, interface: &str, key: &str) -> String {
    match family {
        Family::V4 => format!("net/ipv4/conf/{interface}/{key}"),
        Family::V6 => format!("net/ipv6/conf/{interface}/{key}"),
    }
}

/// The rule that sends everything to the local table.
pub(super) fn is_local(rule: &RuleFact, family: Family) -> bool {
    rule.family == family && rule.table == LOCAL_TABLE && rule.matches_all
}

pub(super) fn read_sysctl(path: &str) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim().to_owned())
}

pub(super) fn links(netlink: &mut Netlink) -> Result<Vec<Link>, Error> {
    let describe = |message: netlink_packet_route::link::LinkMessage| {
        let mut link = Link {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            ..Link::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => link.port = index != 0,
                _ => {}
            }
        }
        link
    };
    Ok(netlink.links()?.into_iter().map(describe).collect())
}

/// nft's listing of `chains` or `ruleset`, as JSON.
pub(super) fn list(what: &'static str) -> Result<Value, Error> {
    run_list(&["list", what])
}

/// The tables that are not ours and have chains, each as listed by `nft list table`. Not all at once: nft up to 1.0.6
/// can crash when it lists a table with an owner as JSON, and our guard has one.
pub(super) fn list_tables_of_others(settings: &HostSettings) -> Result<Vec<Value>, Error> {
    let chains = list("chains")?;
    let objects = chains.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let word = |chain: &Value, key: &str| Some(chain.get(key)?.as_str()?.to_owned());
    let table = |object: &Value| {
        let chain = object.get("chain")?;
        Some((word(chain, "family")?, word(chain, "table")?))
    };
    let tables: std::collections::BTreeSet<_> = objects.filter_map(table).collect();
    let others = tables.into_iter().filter(|(_, table)| !settings.is_own_table(table));
    others.map(|(family, table)| run_list(&["list", "table", &family, &table])).collect()
}

/// One chain with its rules.
pub(super) fn list_chain(family: &str, table: &str, chain: &str) -> Result<Value, Error> {
    run_list(&["-a", "list", "chain", family, table, chain])
}

fn run_list(arguments: &[&str]) -> Result<Value, Error> {
    let text = nftables::helper::get_current_ruleset_raw(nftables::helper::DEFAULT_NFT, arguments)
        .map_err(|error| nft_error("listing the ruleset", error))?;
    serde_json::from_str(&text).map_err(|error| Error::Nft { what: "listing the ruleset", why: error.to_string() })
}

/// The first line of nft's message, which names the problem.
pub(super) fn nft_error(what: &'static str, error: nftables::helper::NftablesError) -> Error {
    use nftables::helper::NftablesError as E;
    match error {
        E::NftExecution { inner, .. } => Error::NftMissing(inner),
        E::NftFailed { stderr, stdout, .. } => {
            let said = if stderr.trim().is_empty() { stdout } else { stderr };
            if said.contains("Operation not permitted") {
                return Error::Permission;
            }
            Error::Nft { what, why: said.lines().next().unwrap_or_default().trim().to_owned() }
        }
        other => Error::Nft { what, why: other.to_string() },
    }
}

/// The number of chains of `table` in the output of `nft list chains`.
pub(super) fn chains_of(listing: &Value, table: &str) -> usize {
    let objects = listing.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let chains = objects.filter_map(|object| object.get("chain"));
    chains.filter(|chain| chain.get("table").and_then(Value::as_str) == Some(table)).count()
}

/// Whether `nft list chains` shows base chains in tables that are not ours: they may use connection tracking.
pub(super) fn has_chains_of_others(listing: &Value, ours: impl Fn(&str) -> bool) -> bool {
    let objects = listing.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let mut chains = objects.filter_map(|object| object.get("chain"));
    chains.any(|chain| chain.get("hook").is_some() && !chain.get("table").and_then(Value::as_str).is_some_and(&ours))
}

/// Whether iptables-legacy has tables, which nft does not list.
fn has_legacy_tables() -> bool {
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"]
        .into_iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|names| !names.trim().is_empty()))
}

/// The filter chains on the forward hook in the output of `nft list chains`.
pub(super) fn forward_chains(listing: &Value) -> Vec<ForwardChain> {
    let text = |chain: &Value, key: &str| chain.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let objects = listing.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let chains = objects.filter_map(|object| object.get("chain"));
    let wanted = |chain: &&Value| {
        text(chain, "hook") == "forward"
            && text(chain, "type") == "filter"
            && ["ip", "ip6", "inet"].contains(&text(chain, "family").as_str())
    };
    chains
        .filter(wanted)
        .map(|chain| ForwardChain {
            family: text(chain, "family"),
            table: text(chain, "table"),
            name: text(chain, "name"),
            drops: text(chain, "policy") == "drop",
        })
        .collect()
}

/// Whether a chain has a rule that drops or rejects unconditionally.
fn drops_the_rest(listing: &Value) -> bool {
    let objects = listing.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let rules = objects.filter_map(|object| object.pointer("/rule/expr")?.as_array());
    let has = |rule: &[Value], keys: &[&str]| rule.iter().any(|part| keys.iter().any(|key| part.get(key).is_some()));
    let only = |rule: &[Value]| {
        let known = ["drop", "reject", "counter", "log"];
        rule.iter().all(|part| known.iter().any(|key| part.get(key).is_some()))
    };
    rules.into_iter().any(|rule| has(rule, &["drop", "reject"]) && only(rule))
}
