//! Settings of the host setup.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of one instance's host setup. The defaults suit a host; one instance per network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostSettings {
    /// Names the control socket, the record of changes and the nftables table.
    pub instance: String,
    /// The plain side's device; the wire side's is derived from it.
    pub tun: String,
    /// Queues per device, at least 1. More than one uses IFF_MULTI_QUEUE.
    pub queues: u16,
    /// Interfaces to the hosts behind this one, for which it encrypts. Empty: only for itself.
    pub gateway: Vec<String>,
    /// Our bits of the packet mark. The lowest one alone marks plain packets, the highest one alone wire packets. The
    /// default avoids what Docker, Kubernetes, Tailscale and wg-quick use (docs/host.md).
    pub mark_mask: u32,
    /// Routing table for the plain side.
    pub table_plain: u32,
    /// Routing table for the wire side.
    pub table_wire: u32,
    /// The first of the three rule preferences in use: plain, wire, and where the local table's rule moves if it
    /// preceded them.
    pub preference: u32,
    /// Conntrack zone of the wire leg, whose sequence numbers differ from the plain leg's.
    pub zone: u16,
    /// Transmit queue length of the devices, in packets. An overflow is packet loss.
    pub txqueuelen: u32,
    /// MTU of the devices in bytes; `None`: the largest of the host's network interfaces.
    pub mtu: Option<u32>,
    /// The directory of the records of changes, which a reboot empties.
    pub state_dir: PathBuf,
    /// The directory for routing table names.
    pub rt_tables_dir: PathBuf,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            instance: "tun0".to_owned(),
            tun: "tun0".to_owned(),
            queues: 1,
            gateway: Vec::new(),
            mark_mask: 0x9000_0000,
            table_plain: 8547,
            table_wire: 8548,
            preference: 1,
            zone: 8547,
            txqueuelen: 10_000,
            mtu: None,
            state_dir: "/run/enotun".into(),
            rt_tables_dir: "/etc/iproute2/rt_tables.d".into(),
        }
    }
}

impl HostSettings {
    /// The settings for one TUN name, with the instance named after it.
    #[must_use]
    pub fn for_tun(tun: &str) -> Self {
        Self { instance: tun.to_owned(), tun: tun.to_owned(), ..Self::default() }
    }

    /// The wire side's device name: the plain one's, cut to 13 bytes, plus `-w`.
    #[must_use]
    pub fn wire_tun(&self) -> String {
        let end = (0..=self.tun.len().min(13)).rev().find(|&i| self.tun.is_char_boundary(i));
        format!("{}-w", self.tun.get(..end.unwrap_or(0)).unwrap_or_default())
    }

    /// The mark of packets on their way to the plain device.
    #[must_use]
    pub fn mark_plain(&self) -> u32 {
        self.mark_mask & self.mark_mask.wrapping_neg()
    }

    /// The mark of packets on their way to the wire device.
    #[must_use]
    pub fn mark_wire(&self) -> u32 {
        1u32.checked_shl(31 - self.mark_mask.leading_zeros().min(31)).unwrap_or(0)
    }

    /// The nftables table: the instance's name with everything but letters, digits and `_` replaced by `_`.
    #[must_use]
    pub fn nft_table(&self) -> String {
        let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        format!("enotun_{}", self.instance.chars().map(clean).collect::<String>())
    }

    /// The guard's table. There are two names, since one is installed before the other goes.
    pub(super) fn guard_table(&self, other: bool) -> String {
        format!("{}_guard{}", self.nft_table(), if other { "2" } else { "" })
    }

    /// Whether `table` is ours: one of those above, or the stand-in while the first is replaced.
    pub(super) fn is_own_table(&self, table: &str) -> bool {
        let own = self.nft_table();
        table == own || table == stand_in(&own) || [false, true].iter().any(|other| table == self.guard_table(*other))
    }

    /// The file with the names of our routing tables, shared by all instances.
    #[must_use]
    pub fn names_file(&self) -> PathBuf {
        self.rt_tables_dir.join("enotun.conf")
    }

    /// The record of changes.
    #[must_use]
    pub fn record_path(&self) -> PathBuf {
        self.state_dir.join(format!("{}.json", self.instance))
    }
}

/// A connection that stays diverted although no selector matches it any more: it is encrypted, and must be seen
/// neither by the wire nor by the kernel without enotun in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeptFlow {
    /// Address and port on the plain side.
    pub local: SocketAddr,
    /// Address and port on the wire side.
    pub remote: SocketAddr,
}

/// The table that stands in for `table` while that is replaced.
pub(super) fn stand_in(table: &str) -> String {
    format!("{table}_next")
}
