//! Detects that an interface which had lost its link comes back with another address: this machine may be a copy that
//! was given its own place in the network (TC-14, docs/clones.md). Pure: netlink events in, a sign out.
//!
//! Everyday events are not signs: a renewed lease, an address added to an interface that stays up, a link that comes
//! back with the same addresses, a new interface, temporary IPv6 addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A new address within this time after the link is back counts as part of it: DHCP may take a while.
const SETTLE_TIME: Duration = Duration::from_secs(60);

/// An interface.
#[derive(Debug, Default)]
struct Link {
    up: bool,
    addresses: BTreeSet<IpAddr>,
    /// The addresses it had when its link was lost, until it has settled again.
    before: Option<BTreeSet<IpAddr>>,
    /// When the link came back.
    back: Option<Instant>,
}

/// All interfaces.
#[derive(Debug, Default)]
pub(super) struct FlapDetector {
    /// By name: an interface that is deleted and re-created has another index.
    links: BTreeMap<String, Link>,
    names: BTreeMap<u32, String>,
    changed: bool,
}

impl FlapDetector {
    /// An interface exists, with its link `up` or down.
    pub(super) fn link(&mut self, index: u32, name: &str, up: bool, now: Instant) {
        if self.names.get(&index).is_some_and(|known| known != name) {
            // Renamed: its history stays.
            if let Some(link) = self.names.get(&index).and_then(|known| self.links.remove(known)) {
                self.links.insert(name.to_owned(), link);
            }
        }
        self.names.insert(index, name.to_owned());
        let link = self.links.entry(name.to_owned()).or_default();
        if link.up && !up {
            link.link_lost();
        } else if up && !link.up && link.before.is_some() {
            link.back = Some(now);
        }
        link.up = up;
        self.evaluate(index, now);
    }

    /// An interface is gone.
    pub(super) fn link_gone(&mut self, index: u32) {
        let Some(name) = self.names.remove(&index) else { return };
        let Some(link) = self.links.get_mut(&name) else { return };
        link.link_lost();
        (link.up, link.addresses) = (false, BTreeSet::new());
        // Names of containers' interfaces are not reused, and without a link loss there is nothing to compare.
        if link.before.is_none() {
            self.links.remove(&name);
        }
    }

    /// An interface has an address.
    pub(super) fn address(&mut self, index: u32, address: IpAddr, now: Instant) {
        if let Some(link) = self.names.get(&index).and_then(|name| self.links.get_mut(name)) {
            link.addresses.insert(address);
            self.evaluate(index, now);
        }
    }

    /// An interface has lost an address.
    pub(super) fn address_gone(&mut self, index: u32, address: IpAddr) {
        if let Some(link) = self.names.get(&index).and_then(|name| self.links.get_mut(name)) {
            link.addresses.remove(&address);
        }
    }

    /// Whether there was a sign since the last call.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn evaluate(&mut self, index: u32, now: Instant) {
        let Some(link) = self.names.get(&index).and_then(|name| self.links.get_mut(name)) else { return };
        let (Some(before), Some(back), true) = (&link.before, link.back, link.up) else { return };
        let settled = now.saturating_duration_since(back) > SETTLE_TIME;
        let other = !settled && link.addresses.difference(before).next().is_some();
        if settled || other {
            (link.before, link.back) = (None, None);
        }
        self.changed |= other;
    }
}

impl Link {
    fn link_lost(&mut self) {
        self.back = None;
        // With several losses, the addresses before the first one count; without an address there is nothing to
        // compare.
        if self.before.is_none() && !self.addresses.is_empty() {
            self.before = Some(self.addresses.clone());
        }
    }
}

#[cfg(test)]
mod tests;
