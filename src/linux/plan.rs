//! From the state of the host to the list of changes. Pure.

use super::change::Change;
use super::divert::Divert;
use super::facts::{HostFacts, Link, conf, is_local};
use super::netlink::{Family, Target};
use super::nft::{self, AcceptRule, Ruleset};
use super::sets::NonForwarding;
use super::{Error, HostSettings};

/// The metric of the blackhole routes behind our devices.
const BLACKHOLE_METRIC: u32 = u32::MAX;
/// The metric of the default routes into the devices: routes added by users take precedence even without a longer
/// prefix.
pub(super) const DEVICE_METRIC: u32 = 8547;

/// What `up` does, in this order; `down` undoes it in reverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// MTU of both devices, in bytes.
    pub mtu: u32,
    /// The table that the change `NftTable` refers to.
    pub ruleset: Ruleset,
    /// The changes.
    pub changes: Vec<Change>,
}

impl Plan {
    /// The plan for a host that has nothing of ours yet (see [`HostFacts::before`]).
    ///
    /// # Errors
    /// If the settings do not fit the host.
    pub fn new(facts: &HostFacts, settings: &HostSettings, divert: &Divert) -> Result<Self, Error> {
        if settings.mark_mask.count_ones() < 2 {
            return Err(Error::MarkMask(settings.mark_mask));
        }
        if let Some(missing) = settings.gateway.iter().find(|name| !facts.links.iter().any(|link| link.name == **name))
        {
            return Err(Error::NoInterface(missing.clone()));
        }
        let plan = Planner { facts, settings, wire: settings.wire_tun() };
        // The order matters: our filter is in place before anything can be forwarded; the marks have no effect before
        // there are rules.
        let mut changes = vec![Change::NftTable { table: settings.nft_table() }];
        changes.extend(plan.names());
        changes.extend(plan.foreign_passes());
        changes.extend(plan.devices());
        changes.extend(plan.early_demux());
        changes.extend(plan.reverse_path());
        let (forwarding, closed) = plan.forwarding();
        changes.extend(forwarding);
        changes.extend(plan.routes());
        changes.extend(plan.rules());
        let mtu = settings.mtu.unwrap_or_else(|| plan.mtu());
        Ok(Self { mtu, ruleset: Ruleset::new(settings, divert, &closed, facts.others_filter), changes })
    }

    /// One line per device, rule, route, sysctl, chain and file.
    #[must_use]
    pub fn lines(&self, settings: &HostSettings) -> Vec<String> {
        let device = |name: &str, side| {
            format!(
                "tun {name} ({side} side): mtu {} txqueuelen {} queues {}",
                self.mtu, settings.txqueuelen, settings.queues
            )
        };
        let mut lines = vec![device(&settings.tun, "plain"), device(&settings.wire_tun(), "wire")];
        for change in &self.changes {
            match change {
                Change::NftTable { .. } => lines.extend(self.ruleset.lines()),
                other => lines.push(other.to_string()),
            }
        }
        lines
    }
}

struct Planner<'a> {
    facts: &'a HostFacts,
    settings: &'a HostSettings,
    wire: String,
}

impl Planner<'_> {
    fn families(&self) -> impl Iterator<Item = Family> {
        let v6 = self.facts.has_ipv6();
        Family::BOTH.into_iter().filter(move |family| *family == Family::V4 || v6)
    }

    fn is_ours(&self, name: &str) -> bool {
        name == self.settings.tun || name == self.wire
    }

    /// Interfaces on which packets of others arrive.
    fn nics(&self) -> impl Iterator<Item = &Link> {
        self.facts.links.iter().filter(|link| !link.loopback && !link.port && !self.is_ours(&link.name))
    }

    /// At least the largest MTU of the interfaces that are up: what they accept is forwarded into the devices.
    fn mtu(&self) -> u32 {
        self.nics().filter(|link| link.up).map(|link| link.mtu).max().unwrap_or(0).clamp(1500, 65_535)
    }

    /// Names for the tables, so that `ip route add PREFIX dev tun0 table enotun` works.
    fn names(&self) -> Vec<Change> {
        let content = format!("{} enotun\n{} enotun-wire\n", self.settings.table_plain, self.settings.table_wire);
        let mut changes = Vec::new();
        if !self.facts.names_directory {
            changes.push(Change::Directory { path: self.settings.rt_tables_dir.clone() });
        }
        if self.facts.names_file.as_ref() != Some(&content) {
            let old = self.facts.names_file.clone();
            changes.push(Change::File { path: self.settings.names_file(), content, old });
        }
        changes
    }

    /// Another firewall's forward chain does not know our devices. Both legs still traverse its other filters: the
    /// plain leg of a host, its input and output chains.
    fn foreign_passes(&self) -> Vec<Change> {
        let pass =
            |from: Option<&str>, to: Option<&str>| AcceptRule { from: from.map(Into::into), to: to.map(Into::into) };
        let mut passes = vec![pass(Some(&self.wire), None), pass(None, Some(&self.wire))];
        for inside in &self.settings.gateway {
            passes.push(pass(Some(inside), Some(&self.settings.tun)));
            passes.push(pass(Some(&self.settings.tun), Some(inside)));
        }
        let change = |chain: &super::facts::ForwardChain| Change::ForeignPass {
            family: chain.family.clone(),
            table: chain.table.clone(),
            chain: chain.name.clone(),
            passes: passes.clone(),
            comment: nft::comment(&self.settings.instance),
        };
        self.facts.forward_chains.iter().filter(|chain| chain.drops).map(change).collect()
    }

    /// A sysctl of a device of ours.
    fn own(&self, family: Family, name: &str, key: &str, value: &str) -> Change {
        Change::Sysctl { path: conf(family, name, key), value: value.to_owned(), old: None, along: Vec::new() }
    }

    /// A sysctl of the host, unless it has that value already (or does not exist).
    fn set(&self, path: String, value: i64) -> Option<Change> {
        let old = self.facts.number(&path)?;
        let change = Change::Sysctl { path, value: value.to_string(), old: Some(old.to_string()), along: Vec::new() };
        (old != value).then_some(change)
    }

    fn devices(&self) -> Vec<Change> {
        let (plain, wire) = (self.settings.tun.as_str(), self.wire.as_str());
        let mut changes = vec![
            // The source of whatever comes out of either device is reached another way.
            self.own(Family::V4, plain, "rp_filter", "0"),
            self.own(Family::V4, wire, "rp_filter", "0"),
            // Packets from our own addresses come out of the wire device.
            self.own(Family::V4, wire, "accept_local", "1"),
            self.own(Family::V4, wire, "forwarding", "1"),
            self.own(Family::V4, plain, "forwarding", if self.settings.gateway.is_empty() { "0" } else { "1" }),
        ];
        if self.facts.has_ipv6() {
            for name in [plain, wire] {
                changes.push(self.own(Family::V6, name, "disable_ipv6", "0"));
                // No link-local addresses: there is nobody to solicit routers from or report groups to.
                changes.push(self.own(Family::V6, name, "addr_gen_mode", "1"));
            }
            if self.forces_forwarding() {
                changes.push(self.own(Family::V6, wire, "force_forwarding", "1"));
                if !self.settings.gateway.is_empty() {
                    changes.push(self.own(Family::V6, plain, "force_forwarding", "1"));
                }
            }
        }
        changes
    }

    /// With early demultiplexing the kernel assigns an inbound segment to its socket before routing, and then refuses
    /// to forward it. The setting applies to IPv6 as well.
    fn early_demux(&self) -> Option<Change> {
        self.set("net/ipv4/tcp_early_demux".to_owned(), 0)
    }

    /// The effective reverse path filter is the higher one of `all` and the interface's. Our devices have no
    /// addresses, so that even loose mode drops what comes out of them. `all` is lowered, the others are raised to
    /// what was in force. With src_valid_mark the filter routes with the mark of inbound packets, which leads to our
    /// device and not to the interface: strict becomes loose there.
    fn reverse_path(&self) -> Vec<Change> {
        let path = |name: &str| conf(Family::V4, name, "rp_filter");
        let flag = |name: &str| self.facts.number(&conf(Family::V4, name, "src_valid_mark")).unwrap_or(0) != 0;
        let all = self.facts.number(&path("all")).unwrap_or(0);
        let mut changes = Vec::new();
        for name in self.facts.links.iter().map(|link| link.name.as_str()).chain(["default"]) {
            if self.is_ours(name) {
                continue;
            }
            let own = self.facts.number(&path(name)).unwrap_or(0);
            let mut wanted = own.max(all);
            if wanted == 1 && name != "default" && name != "lo" && (flag("all") || flag(name)) {
                wanted = 2;
            }
            changes.extend(self.set(path(name), wanted));
        }
        changes.extend(self.set(path("all"), 0));
        changes
    }

    /// Whether IPv6 forwarding can be enabled per interface (Linux 6.17).
    fn forces_forwarding(&self) -> bool {
        self.facts.sysctls.contains_key(&conf(Family::V6, "all", "force_forwarding"))
    }

    /// Forwarding of what each interface receives, and the interfaces that did not forward before.
    fn forwarding(&self) -> (Vec<Change>, NonForwarding) {
        let mut changes = Vec::new();
        let mut closed = NonForwarding::default();
        for nic in self.nics() {
            let change = self.set(conf(Family::V4, &nic.name, "forwarding"), 1);
            if change.is_some() {
                closed.v4.push(nic.name.clone());
            }
            changes.extend(change);
        }
        let all6 = conf(Family::V6, "all", "forwarding");
        if self.facts.number(&all6) != Some(0) {
            return (changes, closed);
        }
        if self.forces_forwarding() {
            for nic in self.nics() {
                let change = self.set(conf(Family::V6, &nic.name, "force_forwarding"), 1);
                if change.is_some() {
                    closed.v6.push(nic.name.clone());
                }
                changes.extend(change);
            }
            return (changes, closed);
        }
        // Only `all` decides. It turns every interface into a router's, which ignores router advertisements unless
        // told otherwise, and forgets default routes learned from them: accept_ra comes first.
        let mut along = Vec::new();
        for name in self.facts.links.iter().map(|link| link.name.as_str()).chain(["default"]) {
            if self.is_ours(name) {
                continue;
            }
            let forwarding = conf(Family::V6, name, "forwarding");
            let accept_ra = conf(Family::V6, name, "accept_ra");
            let is_host = self.facts.number(&forwarding) == Some(0);
            if is_host && name != "lo" && self.facts.number(&accept_ra) == Some(1) {
                changes.extend(self.set(accept_ra, 2));
            }
            along.extend(self.facts.sysctls.get(&forwarding).map(|old| (forwarding.clone(), old.clone())));
        }
        closed.v6.extend(self.nics().map(|nic| nic.name.clone()));
        changes.push(Change::Sysctl { path: all6, value: "1".to_owned(), old: Some("0".to_owned()), along });
        (changes, closed)
    }

    /// Each table leads into its device, and drops packets if that is gone: it fails closed.
    fn routes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for family in self.families() {
            for (table, device) in
                [(self.settings.table_plain, &self.settings.tun), (self.settings.table_wire, &self.wire)]
            {
                changes.push(Change::Route { family, table, target: Target::Blackhole, metric: BLACKHOLE_METRIC });
                let target = Target::Device(device.clone());
                changes.push(Change::Route { family, table, target, metric: DEVICE_METRIC });
            }
        }
        changes
    }

    fn rules(&self) -> Vec<Change> {
        let settings = self.settings;
        let mut changes = Vec::new();
        for family in self.families() {
            let rule =
                |preference, mark, table| Change::Rule { family, preference, mark, mask: settings.mark_mask, table };
            changes.push(rule(settings.preference, settings.mark_plain(), settings.table_plain));
            changes.push(rule(settings.preference + 1, settings.mark_wire(), settings.table_wire));
            // Packets for our own addresses must meet our rules before the local table.
            let locals = self.facts.rules.iter().filter(|rule| is_local(rule, family));
            let to = settings.preference + 2;
            if let Some(from) = locals.map(|rule| rule.preference).min().filter(|from| *from <= settings.preference + 1)
            {
                changes.push(Change::LocalRule { family, from, to });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests;
