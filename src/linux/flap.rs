//! Tells when an interface that had lost its link comes back with another address: this machine may be a copy that was
//! given its own place in the network (TC-14, docs/clones.md). Pure: what netlink says comes in, a sign comes out.
//!
//! What happens every day is none: a lease that is renewed, an address that is added to an interface that stays up, a
//! link that comes back with the same addresses, an interface that is new, temporary addresses of IPv6.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Another address within this time after the link is back belongs to its coming back: DHCP may take a while.
const SETTLES: Duration = Duration::from_secs(60);

/// An interface.
#[derive(Debug, Default)]
struct Link {
    up: bool,
    addresses: BTreeSet<IpAddr>,
    /// The addresses it had when its link was lost, until it is settled again.
    before: Option<BTreeSet<IpAddr>>,
    /// When the link came back.
    back: Option<Instant>,
}

/// All interfaces.
#[derive(Debug, Default)]
pub(super) struct FlapDetector {
    /// By name: an interface that is removed and made again has another index.
    links: BTreeMap<String, Link>,
    names: BTreeMap<u32, String>,
    changed: bool,
}

impl FlapDetector {
    /// An interface is there, with its link `up` or not.
    pub(super) fn link(&mut self, index: u32, name: &str, up: bool, now: Instant) {
        if self.names.get(&index).is_some_and(|known| known != name) {
            // Renamed: what was known is known of it still.
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
        // Names of containers' interfaces do not come again. There is nothing to compare them with.
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

    /// An interface has an address no more.
    pub(super) fn address_gone(&mut self, index: u32, address: IpAddr) {
        if let Some(link) = self.names.get(&index).and_then(|name| self.links.get_mut(name)) {
            link.addresses.remove(&address);
        }
    }

    /// Whether there was a sign since this was last called.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn evaluate(&mut self, index: u32, now: Instant) {
        let Some(link) = self.names.get(&index).and_then(|name| self.links.get_mut(name)) else { return };
        let (Some(before), Some(back), true) = (&link.before, link.back, link.up) else { return };
        let settled = now.saturating_duration_since(back) > SETTLES;
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
        // What it had before the first of several losses counts; without an address there is nothing to compare.
        if self.before.is_none() && !self.addresses.is_empty() {
            self.before = Some(self.addresses.clone());
        }
    }
}

#[cfg(test)]
#[path = "flap_tests.rs"]
mod tests;
