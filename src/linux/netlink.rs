//! A thin, blocking rtnetlink client: one request, its replies, typed messages in both directions.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkHeader, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::Error;

/// IPv4 or IPv6: routes and rules are separate for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

/// The target of a route of ours.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Into one of our devices.
    Device(String),
    /// Packets are dropped.
    Blackhole,
}

/// The attributes of a routing rule that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFact {
    /// Which rule list.
    pub family: Family,
    /// Its preference.
    pub preference: u32,
    /// The table it looks up, 0 if it has another action.
    pub table: u32,
    /// The mark it matches, and the mask.
    pub mark: Option<(u32, u32)>,
    /// Whether it matches everything (as the three default rules do).
    pub matches_all: bool,
}

/// The route to a prefix through a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceRoute {
    pub(super) net: ipnet::IpNet,
    pub(super) table: u32,
    pub(super) interface: u32,
    pub(super) metric: u32,
}

pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn new() -> Result<Self, Error> {
        let connect = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let socket = connect().map_err(|source| Error::netlink("open a netlink socket", source))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one request and collects the replies.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut replies = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest: &[u8] = &datagram;
            while let Some((head, tail)) = split_message(rest) {
                rest = tail;
                // A message that the crate cannot decode (from a newer kernel) is ignored.
                let Ok(reply) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(head) else { continue };
                if reply.header.sequence_number != self.sequence {
                    continue;
                }
                match reply.payload {
                    NetlinkPayload::Done(_) => return Ok(replies),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(replies),
                        Some(code) => return Err(io::Error::from_raw_os_error(code.get().wrapping_neg())),
                    },
                    NetlinkPayload::InnerMessage(inner) => replies.push(inner),
                    _ => {}
                }
            }
        }
    }

    /// A request that changes something: `true` if it did, `false` if the kernel answered with one of the errors in
    /// `already`.
    fn change(
        &mut self,
        what: impl FnOnce() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
        already: &[i32],
    ) -> Result<bool, Error> {
        match self.request(message, flags | NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(e) if e.raw_os_error().is_some_and(|errno| already.contains(&errno)) => Ok(false),
            Err(e) => Err(Error::netlink(what(), e)),
        }
    }

    /// All links.
    pub(super) fn links(&mut self) -> Result<Vec<LinkMessage>, Error> {
        let dump = self.request(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP);
        let links = dump.map_err(|source| Error::netlink("list the interfaces", source))?;
        Ok(links
            .into_iter()
            .filter_map(|m| if let RouteNetlinkMessage::NewLink(l) = m { Some(l) } else { None })
            .collect())
    }

    /// All addresses.
    pub(super) fn addresses(&mut self) -> Result<Vec<AddressMessage>, Error> {
        let dump = self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP);
        let addresses = dump.map_err(|source| Error::netlink("list the addresses", source))?;
        Ok(addresses
            .into_iter()
            .filter_map(|m| if let RouteNetlinkMessage::NewAddress(a) = m { Some(a) } else { None })
            .collect())
    }

    /// All rules.
    pub(super) fn rules(&mut self, family: Family) -> Result<Vec<RuleFact>, Error> {
        let mut query = RuleMessage::default();
        query.header.family = family.address_family();
        let dump = match self.request(RouteNetlinkMessage::GetRule(query), NLM_F_DUMP) {
            Ok(dump) => dump,
            // This kernel has no IPv6.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Vec::new(),
            Err(e) => return Err(Error::netlink("list the rules", e)),
        };
        let facts = dump.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRule(rule) if rule.header.family == family.address_family() => {
                Some(rule_fact(family, &rule))
            }
            _ => None,
        });
        Ok(facts.collect())
    }

    /// Adds the rule `fwmark mark/mask lookup table`.
    pub(super) fn add_mark_rule(
        &mut self,
        family: Family,
        preference: u32,
        mark: u32,
        mask: u32,
        table: u32,
    ) -> Result<(), Error> {
        let message = mark_rule(family, preference, mark, mask, table);
        let what = || format!("add the rule for mark {mark:#x}");
        self.change(what, RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL, &[libc::EEXIST]).map(drop)
    }

    /// Removes what [`Self::add_mark_rule`] added.
    pub(super) fn delete_mark_rule(
        &mut self,
        family: Family,
        preference: u32,
        mark: u32,
        mask: u32,
        table: u32,
    ) -> Result<(), Error> {
        let message = mark_rule(family, preference, mark, mask, table);
        let what = || format!("delete the rule for mark {mark:#x}");
        self.change(what, RouteNetlinkMessage::DelRule(message), 0, &GONE).map(drop)
    }

    /// Adds `from all lookup local` at `preference`.
    pub(super) fn add_local_rule(&mut self, family: Family, preference: u32) -> Result<(), Error> {
        let message = local_rule(family, preference);
        let what = || format!("add the local table's rule at preference {preference}");
        self.change(what, RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL, &[libc::EEXIST]).map(drop)
    }

    /// Removes `from all lookup local` at `preference`.
    pub(super) fn delete_local_rule(&mut self, family: Family, preference: u32) -> Result<(), Error> {
        let message = local_rule(family, preference);
        let what = || format!("delete the local table's rule at preference {preference}");
        self.change(what, RouteNetlinkMessage::DelRule(message), 0, &GONE).map(drop)
    }

    /// Adds the default route of one of our tables.
    pub(super) fn add_default_route(
        &mut self,
        family: Family,
        table: u32,
        target: &Target,
        metric: u32,
    ) -> Result<(), Error> {
        let message = self.default_route(family, table, target, metric)?;
        let what = || format!("add the default route of table {table}");
        self.change(what, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL, &[libc::EEXIST]).map(drop)
    }

    /// Removes what [`Self::add_default_route`] added.
    pub(super) fn delete_default_route(
        &mut self,
        family: Family,
        table: u32,
        target: &Target,
        metric: u32,
    ) -> Result<(), Error> {
        // The route is gone with its device.
        let Ok(message) = self.default_route(family, table, target, metric) else { return Ok(()) };
        let what = || format!("delete the default route of table {table}");
        self.change(what, RouteNetlinkMessage::DelRoute(message), 0, &GONE).map(drop)
    }

    fn default_route(
        &mut self,
        family: Family,
        table: u32,
        target: &Target,
        metric: u32,
    ) -> Result<RouteMessage, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family.address_family();
        message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Priority(metric)];
        match target {
            Target::Blackhole => message.header.kind = RouteType::BlackHole,
            Target::Device(name) => {
                message.header.kind = RouteType::Unicast;
                if family == Family::V4 {
                    message.header.scope = RouteScope::Link;
                }
                message.attributes.push(RouteAttribute::Oif(self.interface_index(name)?));
            }
        }
        Ok(message)
    }

    /// All unicast routes that lead directly to an interface or through it.
    pub(super) fn device_routes(&mut self) -> Result<Vec<DeviceRoute>, Error> {
        let mut all = Vec::new();
        for family in Family::BOTH {
            let mut query = RouteMessage::default();
            query.header.address_family = family.address_family();
            match self.request(RouteNetlinkMessage::GetRoute(query), NLM_F_DUMP) {
                Ok(dump) => all.extend(dump.iter().filter_map(|m| match m {
                    RouteNetlinkMessage::NewRoute(route) => device_route(route),
                    _ => None,
                })),
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => {}
                Err(e) => return Err(Error::netlink("list the routes", e)),
            }
        }
        Ok(all)
    }

    /// The index of the interface `name`.
    pub(super) fn interface_index(&mut self, name: &str) -> Result<u32, Error> {
        let mut query = LinkMessage::default();
        query.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let replies = self.request(RouteNetlinkMessage::GetLink(query), NLM_F_ACK);
        let replies = replies.map_err(|source| Error::netlink(format!("find interface {name}"), source))?;
        replies
            .iter()
            .find_map(|m| if let RouteNetlinkMessage::NewLink(link) = m { Some(link.header.index) } else { None })
            .ok_or_else(|| Error::NoInterface(name.to_owned()))
    }

    /// Sets MTU and queue length, and brings the interface up.
    pub(super) fn set_up(&mut self, index: u32, mtu: u32, txqueuelen: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header =
            LinkHeader { index, flags: LinkFlags::Up, change_mask: LinkFlags::Up, ..LinkHeader::default() };
        message.attributes = vec![LinkAttribute::Mtu(mtu), LinkAttribute::TxQueueLen(txqueuelen)];
        self.change(|| "configure a TUN device".to_owned(), RouteNetlinkMessage::SetLink(message), 0, &[]).map(drop)
    }
}

/// RT_TABLE_LOCAL
pub(super) const LOCAL_TABLE: u32 = 255;

/// The kernel's errors when there is nothing to delete.
const GONE: [i32; 4] = [libc::ENOENT, libc::ESRCH, libc::ENODEV, libc::EAFNOSUPPORT];

fn rule_message(family: Family, preference: u32, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family.address_family();
    message.header.table = u8::try_from(table).unwrap_or(0);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Priority(preference), RuleAttribute::Table(table)];
    message
}

fn mark_rule(family: Family, preference: u32, mark: u32, mask: u32, table: u32) -> RuleMessage {
    let mut message = rule_message(family, preference, table);
    message.attributes.extend([RuleAttribute::FwMark(mark), RuleAttribute::FwMask(mask)]);
    // So that `ip rule` shows it like rules made by hand.
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Boot));
    message
}

fn local_rule(family: Family, preference: u32) -> RuleMessage {
    let mut message = rule_message(family, preference, LOCAL_TABLE);
    // The kernel's own rule has that protocol, and the restored one must not differ.
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Kernel));
    message
}

fn rule_fact(family: Family, rule: &RuleMessage) -> RuleFact {
    let mut fact = RuleFact {
        family,
        preference: 0,
        table: u32::from(rule.header.table),
        mark: None,
        matches_all: rule.header.dst_len == 0 && rule.header.src_len == 0 && rule.header.tos == 0,
    };
    if rule.header.action != RuleAction::ToTable {
        fact.table = 0;
    }
    let (mut mark, mut mask) = (None, u32::MAX);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(preference) => fact.preference = *preference,
            RuleAttribute::Table(table) if rule.header.action == RuleAction::ToTable => fact.table = *table,
            RuleAttribute::FwMark(value) if *value != 0 => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = *value,
            RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::UidRange(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_) => fact.matches_all = false,
            RuleAttribute::L3MDev(true) => fact.matches_all = false,
            _ => {}
        }
    }
    fact.mark = mark.map(|mark| (mark, mask));
    fact.matches_all &= fact.mark.is_none();
    fact
}

pub(super) fn device_route(route: &RouteMessage) -> Option<DeviceRoute> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut interface = None;
    let mut metric = 0;
    let mut table = u32::from(route.header.table);
    let mut address: IpAddr = match route.header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => address = (*v4).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => address = (*v6).into(),
            _ => {}
        }
    }
    let net = ipnet::IpNet::new(address, route.header.destination_prefix_length).ok()?.trunc();
    Some(DeviceRoute { net, table, interface: interface?, metric })
}

/// Splits the first netlink message off a datagram that may contain several.
pub(super) fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    if len < 16 {
        return None;
    }
    let head = bytes.get(..len)?;
    let padded = len.div_ceil(4) * 4;
    Some((head, bytes.get(padded..).unwrap_or(&[])))
}
