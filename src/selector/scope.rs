//! What a selector matches, as a set of connections: a box with three axes.

use ipnet::IpNet;

use super::{PortRange, Remote, Selector, any_v4, any_v6};

/// Connections of one address family: their remote addresses, remote ports and local ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) remote: IpNet,
    pub(crate) remote_ports: PortRange,
    pub(crate) local_ports: PortRange,
}

impl Scope {
    /// What `selector` matches in the family of `any` (0.0.0.0/0 or ::/0), as far as known: a host name matches
    /// nothing until it is resolved.
    pub(crate) fn of(selector: &Selector, any: IpNet) -> Option<Self> {
        let (remote, remote_ports, local_ports) = match selector {
            Selector::Local(ports) => (any, PortRange::ALL, *ports),
            Selector::Remote(Remote::Any, ports) => (any, *ports, PortRange::ALL),
            Selector::Remote(Remote::Net(net), ports) if net.addr().is_ipv4() == any.addr().is_ipv4() => {
                (net.trunc(), *ports, PortRange::ALL)
            }
            Selector::Remote(..) => return None,
        };
        Some(Self { remote, remote_ports: real(remote_ports), local_ports: real(local_ports) })
    }

    /// What `selector` matches, for each family in which it matches anything.
    pub(crate) fn both(selector: &Selector) -> impl Iterator<Item = Self> {
        let selector = selector.clone();
        [any_v4(), any_v6()].into_iter().filter_map(move |any| Self::of(&selector, any))
    }

    /// Whether it includes every connection of `other`.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.remote.contains(&other.remote)
            && self.remote_ports.covers(other.remote_ports)
            && self.local_ports.covers(other.local_ports)
    }

    /// Whether it is a proper subset of `other`.
    pub(crate) fn is_narrower_than(&self, other: &Self) -> bool {
        self != other && other.covers(self)
    }

    /// The intersection.
    pub(crate) fn and(&self, other: &Self) -> Option<Self> {
        let remote = match (self.remote.contains(&other.remote), other.remote.contains(&self.remote)) {
            (true, _) => other.remote,
            (_, true) => self.remote,
            _ => return None,
        };
        let remote_ports = self.remote_ports.and(other.remote_ports)?;
        let local_ports = self.local_ports.and(other.local_ports)?;
        Some(Self { remote, remote_ports, local_ports })
    }

    /// Whether they intersect, and neither is narrower.
    pub(crate) fn crosses(&self, other: &Self) -> bool {
        self.and(other).is_some() && !self.is_narrower_than(other) && !other.is_narrower_than(self)
    }

    /// The selector that matches exactly this, if one can be written.
    pub(crate) fn selector(&self) -> Option<Selector> {
        let everywhere = self.remote.prefix_len() == 0;
        match (self.local_ports == EVERY_PORT, self.remote_ports == EVERY_PORT) {
            (true, true) => Some(Selector::net(self.remote)),
            (true, _) => Some(Selector::Remote(Remote::Net(self.remote), self.remote_ports)),
            (false, true) if everywhere => Some(Selector::Local(self.local_ports)),
            _ => None,
        }
    }
}

/// Every port that a connection can have.
const EVERY_PORT: PortRange = PortRange { first: 1, ..PortRange::ALL };

/// No connection has port 0, so that it makes no difference.
pub(super) fn real(ports: PortRange) -> PortRange {
    PortRange { first: ports.first.max(1), last: ports.last.max(1) }
}
