//! What changes about the host while we are up: routes that users point at the plain device, interfaces, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_ROUTE};

use super::netlink::{DeviceRoute, Netlink, device_route, split_message};
use super::plan::DEVICE_METRIC;
use super::{Devices, Error};

// <linux/rtnetlink.h>: RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// Changes come in bursts; one event tells of all of a burst.
const QUIET: Duration = Duration::from_millis(100);

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// These, and no others, are the prefixes that users route into the plain device now
    /// (`ip route add PREFIX dev tun0 table enotun`). Each asks to be selected.
    Prefixes(Vec<IpNet>),
    /// Interfaces or addresses have changed: call [`super::Host::refresh`].
    Host,
}

/// Yields what changes.
pub struct Watcher {
    socket: TokioSocket,
    plain: u32,
    wire: u32,
    routes: BTreeMap<(u32, IpNet), u32>,
    /// What was last told.
    told: BTreeSet<IpNet>,
    host_changed: bool,
}

/// Starts watching. Prefixes that are routed already make the first event. Needs tokio's I/O driver.
///
/// # Errors
/// If netlink refuses.
pub fn watch(devices: &Devices) -> Result<Watcher, Error> {
    let open = || -> io::Result<TokioSocket> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(socket)
    };
    let socket = open().map_err(|source| Error::netlink("watch routes and interfaces", source))?;
    let (plain, wire) = (devices.plain.index, devices.wire.index);
    let mut watcher =
        Watcher { socket, plain, wire, routes: BTreeMap::new(), told: BTreeSet::new(), host_changed: false };
    watcher.read_routes()?;
    Ok(watcher)
}

impl Watcher {
    /// Waits for the next change. May be dropped and called again without losing one.
    ///
    /// # Errors
    /// If netlink fails for good.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.pending() {
                return Ok(event);
            }
            self.receive().await?;
            while let Ok(received) = tokio::time::timeout(QUIET, self.receive()).await {
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
        std::mem::take(&mut self.host_changed).then_some(Event::Host)
    }

    async fn receive(&mut self) -> Result<(), Error> {
        match self.socket.recv_from_full().await {
            Ok((datagram, _)) => {
                let mut rest: &[u8] = &datagram;
                while let Some((message, tail)) = split_message(rest) {
                    rest = tail;
                    self.take_in(message);
                }
                Ok(())
            }
            // Messages were lost: ask for everything again.
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                self.host_changed = true;
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
                _ => {}
            },
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link))
                if ![self.plain, self.wire].contains(&link.header.index) =>
            {
                self.host_changed = true
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_)) => {
                self.host_changed = true;
            }
            _ => {}
        }
    }

    /// A user's route into the plain device, for unicast.
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
