//! Everything that touches the kernel, except the packet loop: TUN devices, rules, routes, nftables, sysctls. Each
//! change is recorded before it is made, so that `down` (or the next `up`) can undo it.
//!
//! [`Host::up`] takes the settings and the rules and returns the two devices; [`Host::update`] changes what is
//! diverted; [`Host::down`] restores the host, [`down`] does so for an instance whose daemon died. [`dry_run`] lists
//! what `up` would do, [`doctor()`] reports problems, [`watch()`] yields changes made by others.

mod apply;
mod chains;
mod change;
mod conntrack;
mod divert;
mod doctor;
mod error;
mod expr;
mod facts;
mod flap;
mod guard;
mod netlink;
mod nft;
mod plan;
mod quotes;
mod record;
mod sets;
mod settings;
mod sockets;
mod sys;
mod tun;
mod watch;

pub use change::Change;
pub use divert::Divert;
pub use doctor::{Check, Level, doctor};
pub use error::Error;
pub use facts::{ForwardChain, HostFacts, Link};
pub use netlink::{Family, RuleFact, Target};
pub use nft::{AcceptRule, Ruleset};
pub use plan::Plan;
pub use record::enter_namespace;
pub use settings::{HostSettings, KeptFlow};

pub(crate) use tun::is_interface_name;
pub use tun::{Offloads, VIRTIO_HEADER_LEN};
pub use watch::{Event, Watcher, watch};

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::selector::{Policy, PolicyTable, Rule};
use guard::Guard;
use netlink::Netlink;
use record::{Namespace, Record, Store};

/// One TUN device.
#[derive(Debug)]
pub struct TunDevice {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// What the kernel agreed to offload.
    pub offloads: Offloads,
    /// One non-blocking descriptor per queue. Every packet read and written has a virtio header of 10 bytes before it.
    pub queues: Vec<OwnedFd>,
}

/// The two devices of an instance.
#[derive(Debug)]
pub struct TunDevices {
    /// P sequence numbers: the local kernel, and at a gateway the hosts behind it.
    pub plain: TunDevice,
    /// C sequence numbers: the network.
    pub wire: TunDevice,
}

/// A host that is set up. Dropping it changes nothing: what was set up stays (and drops traffic once the devices are
/// closed), as after a crash.
#[derive(Debug)]
pub struct Host {
    settings: HostSettings,
    store: Store,
    record: Record,
    ruleset: Ruleset,
    /// The guard, and which of its two names it has. `None`: it could not be installed, which was logged.
    guard: Option<(bool, Guard)>,
    unguarded: bool,
    /// The devices' MTU.
    mtu: u32,
    orphans: Option<Vec<(SocketAddr, SocketAddr)>>,
}

impl Host {
    /// Sets up the host. Changes recorded by an earlier daemon of the instance that died are taken over: what is
    /// still wanted stays in force without a gap, the rest is undone.
    ///
    /// # Errors
    /// What is wrong and what to do; all changes are undone then (or, after a crash, as they were).
    pub fn up(settings: HostSettings, rules: &[Rule]) -> Result<(Self, TunDevices), Error> {
        let store = Store::open(&settings.state_dir, &settings.instance)?;
        let earlier = store.load()?;
        // Nobody knows them later: neither when other selectors are in force, nor when this instance comes down.
        let orphans = earlier.as_ref().map(close_unknown);
        match Self::up_with(settings, rules, &store, earlier.as_ref()) {
            Ok((record, ruleset, settings, devices)) => {
                let mtu = devices.plain.mtu;
                let (guard, unguarded) = (None, false);
                let mut host = Self { settings, store, record, ruleset, guard, unguarded, mtu, orphans };
                host.guard();
                Ok((host, devices))
            }
            Err(error) => {
                match earlier {
                    // Fail closed: what the earlier instance left stays.
                    Some(record) => store.save(&record)?,
                    None if matches!(error, Error::Revert(_)) => {}
                    None => store.remove()?,
                }
                Err(error)
            }
        }
    }

    fn up_with(
        settings: HostSettings,
        rules: &[Rule],
        store: &Store,
        earlier: Option<&Record>,
    ) -> Result<(Record, Ruleset, HostSettings, TunDevices), Error> {
        let namespace = Namespace::current()?;
        if let Some(other) = store.others().into_iter().find(|record| record.is_of(&namespace)) {
            return Err(Error::NamespaceTaken(other.instance));
        }
        // A missing permission shows first when the devices are created, before anything is changed.
        let (plain, plain_offloads) = tun::open(&settings.tun, settings.queues)?;
        let (wire, wire_offloads) = tun::open(&settings.wire_tun(), settings.queues)?;
        let before = earlier.map(|record| record.changes.as_slice()).unwrap_or_default();
        let (plan, _) = plan(&settings, rules, &[], before, store)?;
        let instance = settings.instance.clone();
        let mut record = Record { instance, namespace, rules: rules.to_vec(), kept: Vec::new(), changes: Vec::new() };
        let mut netlink = Netlink::new()?;
        let plain_index = netlink.interface_index(&settings.tun)?;
        let wire_index = netlink.interface_index(&settings.wire_tun())?;
        let configure = |netlink: &mut Netlink| {
            netlink.set_up(plain_index, plan.mtu, settings.txqueuelen)?;
            netlink.set_up(wire_index, plan.mtu, settings.txqueuelen)
        };
        if let Err(error) = reconcile(&mut netlink, store, &mut record, before, &plan, configure) {
            if earlier.is_none()
                && let Err(Error::Revert(undone)) = undo(&mut netlink, store, &record.changes)
            {
                return Err(Error::Revert(format!("{undone}; this followed: {error}")));
            }
            return Err(error);
        }
        let device = |name: String, index, offloads, queues| TunDevice { name, index, mtu: plan.mtu, offloads, queues };
        let devices = TunDevices {
            plain: device(settings.tun.clone(), plain_index, plain_offloads, plain),
            wire: device(settings.wire_tun(), wire_index, wire_offloads, wire),
        };
        Ok((record, plan.ruleset, settings, devices))
    }

    /// If an earlier daemon of this instance died without cleaning up: the connections, by local and remote address,
    /// that were open when that was found and that it may have encrypted. They are unknown now, and must be refused.
    #[must_use]
    pub fn orphans(&self) -> Option<&[(SocketAddr, SocketAddr)]> {
        self.orphans.as_deref()
    }

    /// The settings in effect.
    #[must_use]
    pub fn settings(&self) -> &HostSettings {
        &self.settings
    }

    /// Applies `rules` as the selectors. `kept` are connections that stay diverted as well.
    ///
    /// # Errors
    /// If nftables fails; the old selectors are in force then.
    pub fn update(&mut self, rules: &[Rule], kept: &[KeptFlow]) -> Result<(), Error> {
        // If we die here, both what was and what will be diverted may be encrypted.
        let mut both = self.record.clone();
        both.rules.extend(rules.iter().cloned());
        both.kept.extend(kept);
        self.store.save(&both)?;
        let ruleset = self.ruleset.selecting(&self.settings, &Divert::new(rules, kept));
        apply::replace_table("changing the selectors", &ruleset)?;
        self.ruleset = ruleset;
        self.record.kept = kept.to_vec();
        self.record.rules = rules.to_vec();
        self.guard();
        self.store.save(&self.record)
    }

    /// Makes sure that the guard is installed and covers what is diverted now.
    fn guard(&mut self) {
        let divert = Divert::new(&self.record.rules, &self.record.kept);
        let rules = |other| guard::rules(&self.settings, &divert, self.ruleset.zones(), other);
        let other = match &mut self.guard {
            Some((other, guard)) => {
                if guard.is(&rules(*other)) {
                    return;
                }
                !*other
            }
            None => false,
        };
        match Guard::new(rules(other)) {
            // This drops the earlier one.
            Ok(guard) => (self.guard, self.unguarded) = (Some((other, guard)), false),
            Err(error) if !self.unguarded => {
                self.unguarded = true;
                tracing::warn!(
                    "{error}: if another program deletes our rules, connections continue in the clear until they are restored"
                );
            }
            Err(_) => {}
        }
    }

    /// Adapts to changes of the host: interfaces that came or went, chains of other firewalls, and changes of ours
    /// that others have undone (`nft flush ruleset`, or systemd-networkd, which deletes unknown rules).
    ///
    /// # Errors
    /// If something could not be changed; the next call tries again.
    pub fn refresh(&mut self) -> Result<(), Error> {
        let (names, txqueuelen) = ([self.settings.tun.clone(), self.settings.wire_tun()], self.settings.txqueuelen);
        let configure = |netlink: &mut Netlink, mtu: u32| {
            names.iter().try_for_each(|name| {
                let index = netlink.interface_index(name)?;
                netlink.set_up(index, mtu, txqueuelen)
            })
        };
        let mut netlink = Netlink::new()?;
        // Without the devices the rest has no effect. What is there stays.
        configure(&mut netlink, self.mtu)?;
        for change in self.record.changes.iter().filter(|change| change.is_routing()) {
            apply::apply(&mut netlink, change, &self.ruleset)?;
        }
        let before = self.record.changes.clone();
        let (plan, own_chains) = plan(&self.settings, &self.record.rules, &self.record.kept, &before, &self.store)?;
        // The devices' MTU only grows, so that packets in flight still fit.
        let mtu = plan.mtu.max(self.mtu);
        let is_whole = own_chains == self.ruleset.chain_count();
        if is_whole && plan.changes == before && plan.ruleset == self.ruleset && mtu == self.mtu {
            self.guard();
            return Ok(());
        }
        if !is_whole {
            tracing::warn!("another program has deleted our nftables table; it is restored");
        }
        let configure = |netlink: &mut Netlink| configure(netlink, mtu);
        reconcile(&mut netlink, &self.store, &mut self.record, &before, &plan, configure)?;
        (self.ruleset, self.mtu) = (plan.ruleset, mtu);
        self.guard();
        Ok(())
    }

    /// Closes those of `flows` that this host still has: a RST did not reach the kernel.
    pub fn close(&self, flows: &[KeptFlow]) {
        let flows: HashSet<&KeptFlow> = flows.iter().collect();
        let found = sockets::find(|local, remote| flows.contains(&KeptFlow { local, remote }));
        match found.and_then(|found| sockets::close(&found)) {
            Ok(0) => {}
            Ok(count) => tracing::warn!("closed {count} connections whose end the kernel had missed"),
            Err(error) => tracing::warn!("connections that were encrypted may continue in the clear: {error}"),
        }
    }

    /// Undoes all changes and removes the record. Encrypted connections must have been aborted: from here on the
    /// kernel talks to the network itself.
    ///
    /// # Errors
    /// If something could not be restored; it is still in the record then.
    pub fn down(self) -> Result<(), Error> {
        drop(self.guard);
        put_back(self.store, self.record)
    }
}

/// Restores the host after an instance that died; `false` if there is nothing to restore. Connections of this host
/// that were selected are closed first: nobody can tell which of them were encrypted, and the kernel would send their
/// data in the clear.
///
/// # Errors
/// If the instance is running, or something could not be restored (it is still in the record then).
pub fn down(settings: &HostSettings) -> Result<bool, Error> {
    let store = Store::open(&settings.state_dir, &settings.instance)?;
    match store.load()? {
        Some(record) => {
            let _ = close_unknown(&record);
            put_back(store, record).map(|()| true)
        }
        None => store.remove().map(|()| false),
    }
}

/// Closes this host's connections that a dead daemon may have encrypted: the kernel would send their data in the
/// clear. Returns them, and those forwarded for others, by local and remote address.
fn close_unknown(record: &Record) -> Vec<(SocketAddr, SocketAddr)> {
    let rules = PolicyTable::new(record.rules.iter().cloned());
    let selected = |local: SocketAddr, remote: SocketAddr| {
        let rule = rules.lookup(remote.ip(), remote.port(), local.port());
        rule.is_some_and(|rule| rule.policy != Policy::Off) || record.kept.contains(&KeptFlow { local, remote })
    };
    let found = sockets::find(selected).unwrap_or_else(|error| {
        tracing::warn!(
            "cannot list the connections that a dead daemon left open, which may continue in the clear: {error}"
        );
        Vec::new()
    });
    match sockets::close(&found) {
        Ok(count) if count > 0 => tracing::warn!("closed {count} connections that a dead daemon had left open"),
        Ok(_) => {}
        // A kernel without CONFIG_INET_DIAG_DESTROY.
        Err(error) => tracing::warn!("cannot close the connections that a dead daemon left open: {error}"),
    }
    let mut all: Vec<_> = found.iter().map(|connection| connection.ends).collect();
    all.extend(conntrack::forwarded(&all).into_iter().filter(|(local, remote)| selected(*local, *remote)));
    all
}

/// Local and remote addresses of this host's open TCP connections that leave it.
///
/// # Errors
/// If the kernel does not list them.
pub fn open_connections() -> Result<Vec<(SocketAddr, SocketAddr)>, Error> {
    sockets::open()
}

/// The same, plus those forwarded for others, as far as connection tracking knows them; each of these in both
/// directions.
///
/// # Errors
/// If the kernel does not list its own.
pub fn all_connections() -> Result<Vec<(SocketAddr, SocketAddr)>, Error> {
    let mut all = sockets::open()?;
    all.extend(conntrack::forwarded(&all));
    Ok(all)
}

/// What `up` would do, one line per device, rule, route, sysctl, chain and file, including the guard's. Changes
/// nothing.
///
/// # Errors
/// If the host cannot be inspected, or the settings do not fit it.
pub fn dry_run(settings: &HostSettings, rules: &[Rule]) -> Result<Vec<String>, Error> {
    let before = record::read(&settings.record_path())?.map(|record| record.changes).unwrap_or_default();
    let facts = HostFacts::gather(settings)?.before(&before);
    let divert = Divert::new(rules, &[]);
    let plan = Plan::new(&facts, settings, &divert)?;
    let mut lines = plan.lines(settings);
    lines.extend(guard::rules(settings, &divert, plan.ruleset.zones(), false).lines());
    Ok(lines)
}

/// The plan for this host as it would be without us, and the number of chains in our table.
fn plan(
    settings: &HostSettings,
    rules: &[Rule],
    kept: &[KeptFlow],
    before: &[Change],
    store: &Store,
) -> Result<(Plan, usize), Error> {
    let mut facts = HostFacts::gather(settings)?;
    let own_chains = facts.own_chains;
    // Whatever other instances (in other namespaces) share with us is not the host's own either.
    for other in store.others() {
        let shared = |change: &&Change| matches!(change, Change::File { .. } | Change::Directory { .. });
        let shared: Vec<Change> = other.changes.iter().filter(shared).cloned().collect();
        facts = facts.before(&shared);
    }
    Ok((Plan::new(&facts.before(before), settings, &Divert::new(rules, kept))?, own_chains))
}

/// Applies the plan's changes and undoes those in `before` that are no longer wanted. The record lists all of them
/// first.
fn reconcile(
    netlink: &mut Netlink,
    store: &Store,
    record: &mut Record,
    before: &[Change],
    plan: &Plan,
    configure: impl FnOnce(&mut Netlink) -> Result<(), Error>,
) -> Result<(), Error> {
    let stays = |old: &&Change| plan.changes.iter().any(|new| new.same_place(old));
    let leftover: Vec<Change> = before.iter().filter(|old| !stays(old)).cloned().collect();
    record.changes = leftover.iter().chain(&plan.changes).cloned().collect();
    store.save(record)?;
    let mut configure = Some(configure);
    for change in &plan.changes {
        if matches!(change, Change::Route { .. })
            && let Some(configure) = configure.take()
        {
            configure(netlink)?;
        }
        apply::apply(netlink, change, &plan.ruleset)?;
    }
    undo(netlink, store, &leftover)?;
    record.changes.clone_from(&plan.changes);
    store.save(record)
}

/// Undoes `changes`, last first. A failure does not keep the rest from being undone.
fn undo(netlink: &mut Netlink, store: &Store, changes: &[Change]) -> Result<(), Error> {
    let others = store.others();
    let shared = |path: &Path| {
        let is_it = |change: &Change| matches!(change, Change::File { path: other, .. } if other == path);
        others.iter().any(|record| record.changes.iter().any(is_it))
    };
    let mut failed = Vec::new();
    for change in changes.iter().rev() {
        if let Err(error) = apply::revert(netlink, change, shared) {
            failed.push(format!("{change} ({error})"));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Revert(failed.join("; "))) }
}

fn put_back(store: Store, record: Record) -> Result<(), Error> {
    undo(&mut Netlink::new()?, &store, &record.changes)?;
    store.remove()
}
