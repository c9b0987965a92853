//! Changes of the host while we are up: routes that users point at the plain device, interfaces, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket};

use super::flap::FlapDetector;
use super::netlink::{DeviceRoute, Netlink, device_route, split_message};
use super::plan::DEVICE_METRIC;
use super::{Error, TunDevices};

// <linux/rtnetlink.h>: RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, _IPV6_RULE
const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
// <linux/netfilter/nfnetlink.h>: NFNLGRP_NFTABLES
const FIREWALL_GROUPS: [u32; 1] = [7];
/// Changes come in bursts; one event covers a burst.
const QUIET: Duration = Duration::from_millis(100);
/// A longer burst is reported before its end.
const MAX_BURST: Duration = Duration::from_secs(2);

/// A change of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The current set of prefixes that users route into the plain device (`ip route add PREFIX dev tun0 table
    /// enotun`), each of which is to be selected.
    Prefixes(Vec<IpNet>),
    /// Interfaces, addresses, routing rules or firewall rules have changed: call [`super::Host::refresh`].
    Host,
    /// An interface that had lost its link came back with another address: this machine may be a copy with its own
    /// place in the network, or has moved.
    AddressChange,
}

/// Yields changes.
pub struct Watcher {
    socket: TokioSocket,
    /// Changes made with nft or iptables-nft, our own included.
    firewall: TokioSocket,
    plain: u32,
    wire: u32,
    routes: BTreeMap<(u32, IpNet), u32>,
    /// The prefixes last reported.
    told: BTreeSet<IpNet>,
    host_changed: bool,
    flaps: FlapDetector,
}

/// Starts watching. Prefixes that are already routed produce the first event. Needs tokio's I/O driver.
///
/// # Errors
/// If netlink refuses.
pub fn watch(devices: &TunDevices) -> Result<Watcher, Error> {
    let open = |protocol, groups: &[u32]| -> io::Result<TokioSocket> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind_auto()?;
        for group in groups {
            socket.socket_mut().add_membership(*group)?;
        }
        Ok(socket)
    };
    let socket =
        open(NETLINK_ROUTE, &GROUPS).map_err(|source| Error::netlink("watch routes and interfaces", source))?;
    let firewall =
        open(NETLINK_NETFILTER, &FIREWALL_GROUPS).map_err(|source| Error::netlink("watch firewall rules", source))?;
    let (plain, wire) = (devices.plain.index, devices.wire.index);
    let mut watcher = Watcher {
        socket,
        firewall,
        plain,
        wire,
        routes: BTreeMap::new(),
        told: BTreeSet::new(),
        host_changed: false,
        flaps: FlapDetector::default(),
    };
    watcher.read_routes()?;
    watcher.read_addresses()?;
    Ok(watcher)
}

impl Watcher {
    /// Waits for the next change. Cancel-safe: no change is lost if it is dropped and called again.
    ///
    /// # Errors
    /// If netlink fails for good.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.pending() {
                return Ok(event);
            }
            self.receive().await?;
            let began = Instant::now();
            while began.elapsed() < MAX_BURST
                && let Ok(received) = tokio::time::timeout(QUIET, self.receive()).await
            {
                received?;
            }
        }
    }

    fn pending(&mut self) -> Option<Event> {
        let prefixes: BTreeSet<IpNet> = self.routes.keys().map(|(_, net)| *net).collect();
        if prefixes != self.told {
            self.told.clone_from(&prefixes);
            return Some(Event::Prefixes(prefixes.into_iter().collect()));
        }
        if self.flaps.take() {
            return Some(Event::AddressChange);
        }
        std::mem::take(&mut self.host_changed).then_some(Event::Host)
    }

    async fn receive(&mut self) -> Result<(), Error> {
        let received = tokio::select! {
            received = self.socket.recv_from_full() => received,
            received = self.firewall.recv_from_full() => {
                // What it was does not matter, nor whether some were lost.
                self.host_changed = true;
                return match received {
                    Err(e) if e.raw_os_error() != Some(libc::ENOBUFS) => Err(Error::netlink("watch firewall rules", e)),
                    _ => Ok(()),
                };
            }
        };
        match received {
            Ok((datagram, _)) => {
                let mut rest: &[u8] = &datagram;
                while let Some((message, tail)) = split_message(rest) {
                    rest = tail;
                    self.take_in(message);
                }
                Ok(())
            }
            // Messages were lost: query everything again.
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                self.host_changed = true;
                self.read_addresses()?;
                self.read_routes()
            }
            Err(source) => Err(Error::netlink("watch routes and interfaces", source)),
        }
    }

    fn take_in(&mut self, message: &[u8]) {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else { return };
        let replaces = message.header.flags & NLM_F_REPLACE != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => match device_route(&route) {
                Some(route) if self.asks_for_us(&route) => {
                    self.routes.insert((route.table, route.net), route.interface);
                }
                Some(route) if replaces => {
                    self.routes.remove(&(route.table, route.net));
                }
                _ => {}
            },
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => match device_route(&route) {
                Some(route) if self.asks_for_us(&route) => {
                    self.routes.remove(&(route.table, route.net));
                }
                // One of those that lead into our devices, which then drop what is diverted.
                Some(route) if self.is_ours(route.interface) => self.host_changed = true,
                _ => {}
            },
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_)) => {
                self.host_changed = true;
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                self.host_changed |= !self.is_ours(link.header.index);
                self.note_link(&link);
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                self.host_changed |= !self.is_ours(link.header.index);
                // For another family it means that a bridge or the like has released it.
                if link.header.interface_family == AddressFamily::Unspec {
                    self.flaps.link_gone(link.header.index);
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                self.host_changed = true;
                self.note_address(&address);
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                self.host_changed = true;
                if let Some(ip) = lasting_address(&address) {
                    self.flaps.address_gone(address.header.index, ip);
                }
            }
            _ => {}
        }
    }

    fn is_ours(&self, index: u32) -> bool {
        [self.plain, self.wire].contains(&index)
    }

    /// Tunnels and dial-up lines change their address at any time; they do not stand for a copy's NIC.
    fn note_link(&mut self, link: &LinkMessage) {
        let flags = link.header.flags;
        if self.is_ours(link.header.index) || flags.intersects(LinkFlags::Loopback | LinkFlags::Pointopoint) {
            return;
        }
        for attribute in &link.attributes {
            if let LinkAttribute::IfName(name) = attribute {
                let up = flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
                self.flaps.link(link.header.index, name, up, Instant::now());
            }
        }
    }

    fn note_address(&mut self, address: &AddressMessage) {
        if let Some(ip) = lasting_address(address) {
            self.flaps.address(address.header.index, ip, Instant::now());
        }
    }

    fn read_addresses(&mut self) -> Result<(), Error> {
        let mut netlink = Netlink::new()?;
        netlink.links()?.iter().for_each(|link| self.note_link(link));
        netlink.addresses()?.iter().for_each(|address| self.note_address(address));
        Ok(())
    }

    /// A user's unicast route into the plain device.
    fn asks_for_us(&self, route: &DeviceRoute) -> bool {
        route.interface == self.plain && route.metric != DEVICE_METRIC && !route.net.addr().is_multicast()
    }

    fn read_routes(&mut self) -> Result<(), Error> {
        let all = Netlink::new()?.device_routes()?;
        let ours = all.iter().filter(|route| self.asks_for_us(route));
        self.routes = ours.map(|route| ((route.table, route.net), route.interface)).collect();
        Ok(())
    }
}

/// The address in a message, unless it changes by itself: link-local, or temporary (RFC 8981).
fn lasting_address(message: &AddressMessage) -> Option<IpAddr> {
    let temporary =
        message.header.family == AddressFamily::Inet6 && message.header.flags.contains(AddressHeaderFlags::Secondary);
    if message.header.scope != AddressScope::Universe || temporary {
        return None;
    }
    // On Ethernet both are the same.
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    })
}
