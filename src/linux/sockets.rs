//! The host's own connections according to the kernel, and closing them (SOCK_DESTROY) after a daemon died, and with
//! it the keys: the kernel would keep sending their data and, once nothing is diverted any more, send it in the
//! clear.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::Error;
use super::netlink::split_message;

// <linux/netlink.h>, <linux/sock_diag.h>
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const DUMP: u16 = 0x300;
/// All states but LISTEN (10), CLOSE (7) and TIME-WAIT (6), which send no data.
const STATES: u32 = 0xfff & !(1 << 10 | 1 << 7 | 1 << 6);
/// Both SYNs were acknowledged: all of these but SYN-SENT (2), SYN-RECV (3) and NEW-SYN-RECV (12).
const OPEN: u32 = STATES & !(1 << 2 | 1 << 3 | 1 << 12);
/// `struct inet_diag_sockid`
const ID_LEN: usize = 48;

/// Local and remote address of a connection.
pub(super) type Ends = (std::net::SocketAddr, std::net::SocketAddr);

/// A TCP connection of this host.
pub(super) struct Connection {
    pub(super) ends: Ends,
    family: u8,
    id: [u8; ID_LEN],
}

/// This host's TCP connections that leave it and that `wanted` selects by local and remote address.
pub(super) fn find(
    wanted: impl Fn(std::net::SocketAddr, std::net::SocketAddr) -> bool,
) -> Result<Vec<Connection>, Error> {
    let all = connections(STATES).map_err(|source| Error::netlink("list the TCP connections", source))?;
    let known = all.into_iter().filter_map(|(family, id)| Some(Connection { ends: ends(family, &id)?, family, id }));
    Ok(known
        .filter(|Connection { ends: (local, remote), .. }| !remote.ip().is_loopback() && wanted(*local, *remote))
        .collect())
}

/// Closes `connections`. Returns how many were closed.
pub(super) fn close(connections: &[Connection]) -> Result<usize, Error> {
    let mut closed = 0;
    for Connection { family, id, .. } in connections {
        match request(SOCK_DESTROY, ACK, *family, 0xffff_ffff, id) {
            Ok(_) => closed += 1,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(source) => return Err(Error::netlink("close a TCP connection", source)),
        }
    }
    Ok(closed)
}

/// Local and remote addresses of this host's open TCP connections that leave it.
pub(super) fn open() -> Result<Vec<Ends>, Error> {
    let all = connections(OPEN).map_err(|source| Error::netlink("list the TCP connections", source))?;
    let all: HashSet<_> = all.iter().filter_map(|(family, id)| ends(*family, id)).collect();
    Ok(all.iter().copied().filter(|&(local, remote)| !all.contains(&(remote, local))).collect())
}

fn connections(states: u32) -> io::Result<Vec<(u8, [u8; ID_LEN])>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or(0);
        for message in request(SOCK_DIAG_BY_FAMILY, DUMP, family, states, &[0; ID_LEN])? {
            // `struct inet_diag_msg`: four bytes, then the ID.
            if let Some(id) = message.get(4..4 + ID_LEN).and_then(|id| id.try_into().ok()) {
                all.push((family, id));
            }
        }
    }
    Ok(all)
}

/// Local and remote address.
fn ends(family: u8, id: &[u8; ID_LEN]) -> Option<Ends> {
    let port = |at: usize| Some(u16::from_be_bytes(id.get(at..at + 2)?.try_into().ok()?));
    let address = |at: usize| -> Option<IpAddr> {
        Some(if i32::from(family) == libc::AF_INET {
            Ipv4Addr::from(<[u8; 4]>::try_from(id.get(at..at + 4)?).ok()?).into()
        } else {
            Ipv6Addr::from(<[u8; 16]>::try_from(id.get(at..at + 16)?).ok()?).to_canonical()
        })
    };
    Some(((address(4)?, port(0)?).into(), (address(20)?, port(2)?).into()))
}

/// One request on its own socket; returns the payloads of the replies.
fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; ID_LEN]) -> io::Result<Vec<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(HEADER + 8 + ID_LEN);
    let len = u32::try_from(HEADER + 8 + ID_LEN).unwrap_or(0);
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    // `struct inet_diag_req_v2`
    bytes.extend([family, 6, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let mut payloads = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest: &[u8] = &datagram;
        while let Some((message, tail)) = split_message(rest) {
            rest = tail;
            let number = |at: usize| Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?));
            match number(4) {
                Some(NLMSG_DONE) => return Ok(payloads),
                Some(NLMSG_ERROR) => {
                    let code = message.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok());
                    return match code.map_or(-libc::EPROTO, i32::from_ne_bytes) {
                        0 => Ok(payloads),
                        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
                    };
                }
                _ => payloads.push(message.get(HEADER..).unwrap_or(&[]).to_vec()),
            }
        }
    }
}
