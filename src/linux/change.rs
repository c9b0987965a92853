//! A change to the host: the new value and the old one.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::netlink::{Family, Target};
use super::nft::AcceptRule;

/// A change to the host, with everything needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// The nftables table `inet NAME`, created and removed as a whole.
    NftTable {
        /// Its name.
        table: String,
    },
    /// A file of ours; other instances may share it.
    File {
        /// Where.
        path: PathBuf,
        /// Its content.
        content: String,
        /// Its content before any instance of ours, if it existed.
        old: Option<String>,
    },
    /// A directory created for that file; removed when it is empty.
    Directory {
        /// Where.
        path: PathBuf,
    },
    /// A sysctl, named by its path below /proc/sys.
    Sysctl {
        /// As in `net/ipv4/tcp_early_demux`.
        path: String,
        /// The new value.
        value: String,
        /// The old value; `None` on a device of ours, which takes its sysctls with it.
        old: Option<String>,
        /// Sysctls that the kernel changes along with this one, and their old values.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        along: Vec<(String, String)>,
    },
    /// The default route of a table of ours.
    Route {
        /// IPv4 or IPv6.
        family: Family,
        /// The table.
        table: u32,
        /// Where it leads.
        target: Target,
        /// Its metric; a lower one is preferred.
        metric: u32,
    },
    /// The rule that sends packets with a mark to a table.
    Rule {
        /// IPv4 or IPv6.
        family: Family,
        /// Its preference.
        preference: u32,
        /// The mark.
        mark: u32,
        /// The bits of the mark that are compared.
        mask: u32,
        /// The table.
        table: u32,
    },
    /// The local table's rule moves: added at the new preference first, then deleted at the old one.
    LocalRule {
        /// IPv4 or IPv6.
        family: Family,
        /// Where it was.
        from: u32,
        /// Where it goes.
        to: u32,
    },
    /// Rules at the head of another table's forward chain that accept our two legs.
    ForeignPass {
        /// `ip`, `ip6` or `inet`.
        family: String,
        /// The other's table.
        table: String,
        /// Its chain.
        chain: String,
        /// What is accepted.
        passes: Vec<AcceptRule>,
        /// The comment that marks the rules as ours.
        comment: String,
    },
}

impl Change {
    /// Whether it is a rule or a route.
    pub(super) fn is_routing(&self) -> bool {
        matches!(self, Self::Rule { .. } | Self::LocalRule { .. } | Self::Route { .. })
    }

    /// Whether both change the same thing (perhaps to different values).
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sysctl { path: a, .. }, Self::Sysctl { path: b, .. }) => a == b,
            (Self::File { path: a, .. }, Self::File { path: b, .. }) => a == b,
            (Self::Directory { path: a }, Self::Directory { path: b }) => a == b,
            (
                Self::ForeignPass { family: af, table: at, chain: ac, .. },
                Self::ForeignPass { family: bf, table: bt, chain: bc, .. },
            ) => (af, at, ac) == (bf, bt, bc),
            _ => self == other,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |family: &Family| match family {
            Family::V4 => "ip -4",
            Family::V6 => "ip -6",
        };
        match self {
            Self::NftTable { table } => write!(f, "nft table inet {table}"),
            Self::File { path, content, .. } => {
                write!(f, "file {}: {}", path.display(), content.trim_end().replace('\n', ", "))
            }
            Self::Directory { path } => write!(f, "directory {}", path.display()),
            Self::Sysctl { path, value, old: Some(old), .. } => write!(f, "sysctl {path} = {value} (was {old})"),
            Self::Sysctl { path, value, old: None, .. } => write!(f, "sysctl {path} = {value}"),
            Self::Route { family, table, target: Target::Device(name), .. } => {
                write!(f, "{} route add default dev {name} table {table}", ip(family))
            }
            Self::Route { family, table, target: Target::Blackhole, metric } => {
                write!(f, "{} route add blackhole default metric {metric} table {table}", ip(family))
            }
            Self::Rule { family, preference, mark, mask, table } => {
                write!(f, "{} rule add pref {preference} fwmark {mark:#x}/{mask:#x} lookup {table}", ip(family))
            }
            Self::LocalRule { family, from, to } => {
                write!(f, "{} rule from all lookup local: from pref {from} to pref {to}", ip(family))
            }
            Self::ForeignPass { family, table, chain, passes, comment } => {
                let passes: Vec<String> = passes.iter().map(ToString::to_string).collect();
                write!(f, "nft insert rule {family} {table} {chain} {} comment \"{comment}\"", passes.join("; "))
            }
        }
    }
}
