//! Which connections are protected: selectors as users write them, the table that finds the rule of a new connection
//! (`table.rs`), and which rules conflict (`check.rs`).
//!
//! A selector names the remote side (an address, a network or a host name, each with an optional port or port range)
//! or, as `local:PORT`, the local side of a service offered here. Pure: names are resolved by the caller.

mod check;
mod options;
mod scope;
mod table;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use check::{Overlap, RuleError, check, overlaps};
pub use options::{RuleOptions, Selected};
pub(crate) use scope::Scope;
pub use table::PolicyTable;

/// What to do with the connections that a selector matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Policy {
    /// Encrypt if the peer can, else plain TCP.
    #[default]
    Opportunistic,
    /// Never plain: a connection that cannot be encrypted is refused.
    Required,
    /// Leave alone: an exception to a wider selector.
    Off,
}

impl Policy {
    /// Which of two policies decides where neither rule is narrower: a security promise is not lost to an exception
    /// that does not name it, and an exception says more than `opportunistic`, which makes no promise that could be
    /// broken.
    #[must_use]
    pub(crate) fn rank(self) -> u8 {
        match self {
            Self::Opportunistic => 0,
            Self::Off => 1,
            Self::Required => 2,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opportunistic => "opportunistic",
            Self::Required => "required",
            Self::Off => "off",
        })
    }
}

impl FromStr for Policy {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        match text {
            "opportunistic" => Ok(Self::Opportunistic),
            "required" => Ok(Self::Required),
            "off" => Ok(Self::Off),
            _ => Err(SelectorError::Policy(text.to_owned())),
        }
    }
}

/// An inclusive range of TCP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port, never below `first`.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// Whether `port` lies in the range.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether every port of `other` lies in the range.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether the two ranges share a port.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The ports in both ranges.
    #[must_use]
    pub fn and(self, other: Self) -> Option<Self> {
        self.overlaps(other).then(|| Self { first: self.first.max(other.first), last: self.last.min(other.last) })
    }

    fn width(self) -> u32 {
        u32::from(self.last) - u32::from(self.first)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// The remote side's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// Any address, IPv4 or IPv6.
    Any,
    /// One address (a prefix of full length) or a network, host bits zero.
    Net(IpNet),
    /// A host name, still to be resolved.
    Name(String),
}

/// Selects connections. Written and serialised in the form that users type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// Connections to (or from) this remote address and port.
    Remote(Remote, PortRange),
    /// Connections whose local port is in the range: services offered here.
    Local(PortRange),
}

/// Why a text is not a selector (or not a policy).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// Nothing there.
    #[error("empty selector; write an address, a network, a host name, `:PORT` or `local:PORT`")]
    Empty,
    /// Not a port or port range.
    #[error("`{0}` is not a port or port range (1-65535, as in `443` or `8000-8100`)")]
    Port(String),
    /// Neither address, network nor host name.
    #[error("`{0}` is not an address, network or host name")]
    Host(String),
    /// A network with host bits set.
    #[error("`{0}` has host bits set; did you mean `{1}`?")]
    HostBits(String, IpNet),
    /// An address for which no TCP connection is diverted.
    #[error("`{0}` matches no TCP connection that can be protected: loopback, link-local (IPv6) and multicast are not")]
    Unreachable(String),
    /// Not a policy.
    #[error("`{0}` is not a policy; use opportunistic, required or off")]
    Policy(String),
    /// Not a selector option.
    #[error("`{0}` is not a selector option; known are {words}", words = options::words())]
    Option(String),
}

impl Selector {
    /// The selector for a whole network, as given by a route to the TUN device.
    #[must_use]
    pub fn net(net: IpNet) -> Self {
        Self::Remote(Remote::Net(net.trunc()), PortRange::ALL)
    }

    /// The selector with its host name replaced by the addresses it stands for: one selector per address, or itself
    /// if it has no host name.
    #[must_use]
    pub fn resolved(&self, addresses: impl FnOnce(&str) -> Vec<IpAddr>) -> Vec<Self> {
        match self {
            Self::Remote(Remote::Name(name), ports) => addresses(name)
                .into_iter()
                .map(|address| Self::Remote(Remote::Net(canonical(address).into()), *ports))
                .collect(),
            other => vec![other.clone()],
        }
    }

    /// Whether it can match a connection that is diverted, see [`leaves_host`].
    pub(crate) fn leaves_host(&self) -> bool {
        match self {
            Self::Remote(Remote::Net(net), _) => leaves_host(*net),
            _ => true,
        }
    }

    /// The host name still to be resolved, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Remote(Remote::Name(name), _) => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(ports) => write!(f, "local:{ports}"),
            Self::Remote(Remote::Any, ports) => write!(f, ":{ports}"),
            Self::Remote(Remote::Name(name), ports) => write_with_port(f, name, *ports),
            Self::Remote(Remote::Net(net), ports) => {
                let full = net.prefix_len() == net.max_prefix_len();
                let text = if full { net.addr().to_string() } else { net.to_string() };
                match net {
                    IpNet::V6(_) if *ports != PortRange::ALL => write!(f, "[{text}]:{ports}"),
                    _ => write_with_port(f, &text, *ports),
                }
            }
        }
    }
}

fn write_with_port(f: &mut fmt::Formatter<'_>, host: &str, ports: PortRange) -> fmt::Result {
    if ports == PortRange::ALL { f.write_str(host) } else { write!(f, "{host}:{ports}") }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SelectorError::Empty);
        }
        // Case-insensitive, like host names: `Local:80` must not be the port of a host called `local`.
        if let Some((_, ports)) = text.split_at_checked(6).filter(|(word, _)| word.eq_ignore_ascii_case("local:")) {
            return Ok(Self::Local(parse_ports(ports)?));
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(|| SelectorError::Host(text.to_owned()))?;
            let net = parse_net(host)?.ok_or_else(|| SelectorError::Host(host.to_owned()))?;
            let ports = match rest.strip_prefix(':') {
                Some(ports) => parse_ports(ports)?,
                None if rest.is_empty() => PortRange::ALL,
                None => return Err(SelectorError::Host(text.to_owned())),
            };
            return Ok(Self::Remote(Remote::Net(net), ports));
        }
        // More than one colon and no brackets: an IPv6 address or network without a port.
        let (host, ports) = match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => (text, PortRange::ALL),
            Some((host, ports)) => (host, parse_ports(ports)?),
            None => (text, PortRange::ALL),
        };
        if host.is_empty() {
            return Ok(Self::Remote(Remote::Any, ports));
        }
        let remote = match parse_net(host)? {
            Some(net) => Remote::Net(net),
            None if is_host_name(host) => Remote::Name(host.to_ascii_lowercase()),
            None => return Err(SelectorError::Host(host.to_owned())),
        };
        Ok(Self::Remote(remote, ports))
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn parse_ports(text: &str) -> Result<PortRange, SelectorError> {
    let error = || SelectorError::Port(text.to_owned());
    // u16's own parser would take "+80".
    let port = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
        true => digits.parse::<u16>().ok().filter(|port| *port != 0),
        false => None,
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: port(first).ok_or_else(error)?, last: port(last).ok_or_else(error)? };
    if range.first > range.last { Err(error()) } else { Ok(range) }
}

/// `None` if the text is neither an address nor a network (it may be a name then).
fn parse_net(text: &str) -> Result<Option<IpNet>, SelectorError> {
    let net = if let Ok(address) = text.parse::<IpAddr>() {
        IpNet::from(canonical(address))
    } else if let Ok(net) = text.parse::<IpNet>() {
        if net.addr() != net.network() {
            return Err(SelectorError::HostBits(text.to_owned(), net.trunc()));
        }
        canonical_net(net)
    } else {
        return Ok(None);
    };
    if leaves_host(net) { Ok(Some(net)) } else { Err(SelectorError::Unreachable(text.to_owned())) }
}

/// Whether a TCP connection to or from `net` can be diverted. Loopback traffic never leaves the host, the kernel does
/// not forward link-local IPv6, and TCP has no multicast. The whole address space, 0.0.0.0/1 and the like do contain
/// usable addresses.
pub(crate) fn leaves_host(net: IpNet) -> bool {
    let nowhere = match net {
        IpNet::V4(net) => {
            let address: Ipv4Addr = net.network();
            address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast()
                || (address.is_unspecified() && net.prefix_len() >= 8)
        }
        IpNet::V6(net) => {
            let address: Ipv6Addr = net.network();
            address.is_loopback()
                || address.is_multicast()
                || (address.is_unicast_link_local() && net.prefix_len() >= 10)
                || (address.is_unspecified() && net.prefix_len() >= 96)
        }
    };
    !nowhere
}

/// An IPv4 address written as `::ffff:a.b.c.d` is that IPv4 address on the wire.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The same for networks.
fn canonical_net(net: IpNet) -> IpNet {
    match (net.addr().to_canonical(), net.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(prefix)) if net.addr().is_ipv6() => {
            Ipv4Net::new(address, prefix).map_or(net, IpNet::from)
        }
        _ => net,
    }
}

/// RFC 1123 section 2.1, with underscores allowed. A last label of digits is a mistyped address (`10.0.0`,
/// `300.1.1.1`), not a name.
fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253
        && text.split('.').all(label_ok)
        && text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}

/// A selector, its policy and its options.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Which connections.
    pub selector: Selector,
    /// What to do with them.
    #[serde(default)]
    pub policy: Policy,
    /// Its options.
    #[serde(default, skip_serializing_if = "RuleOptions::is_none")]
    pub options: RuleOptions,
}

impl Rule {
    /// A rule without options.
    #[must_use]
    pub fn new(selector: Selector, policy: Policy) -> Self {
        Self { selector, policy, options: RuleOptions::default() }
    }
}

/// 0.0.0.0/0
pub(crate) fn any_v4() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::default())
}

/// ::/0
pub(crate) fn any_v6() -> IpNet {
    IpNet::V6(ipnet::Ipv6Net::default())
}

#[cfg(test)]
mod tests;
