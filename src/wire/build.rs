//! Headers for packets that the engine builds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::checksum;
use super::outgoing::{HEADER_ROOM, HeaderBuf};
use super::packet::Flags;

/// IP header fields other than addresses and lengths.
#[derive(Debug, Clone, Copy)]
pub struct IpFields {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv6 flow label, 20 bits.
    pub flow_label: u32,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4 don't-fragment.
    pub dont_fragment: bool,
}

/// TCP header fields, with numbers of either sequence space.
#[derive(Debug, Clone, Copy)]
pub struct TcpFields<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: Flags,
    /// Window field.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Option area, a multiple of 4 bytes, at most 40.
    pub options: &'a [u8],
}

/// Builds IP and TCP headers for `payload_len` bytes from `src` to `dst`. The TCP checksum field holds the
/// pseudo-header's sum, for the device or [`super::split`] to complete. Returns the headers and where the TCP header
/// starts; `None` if the packet would exceed the IP length limit, or the addresses are of different families.
#[must_use]
pub fn headers(
    src: SocketAddr,
    dst: SocketAddr,
    ip: &IpFields,
    tcp: &TcpFields<'_>,
    payload_len: usize,
) -> Option<(HeaderBuf, usize)> {
    let tcp_len = 20 + tcp.options.len();
    let segment_len = tcp_len + payload_len;
    let mut header = HeaderBuf::default();
    let tcp_at = match (src.ip(), dst.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => header.push(&ipv4(s, d, ip, segment_len)?).then_some(20)?,
        (IpAddr::V6(s), IpAddr::V6(d)) => header.push(&ipv6(s, d, ip, segment_len)?).then_some(40)?,
        _ => return None,
    };
    let mut h = [0; 20];
    h[..2].copy_from_slice(&src.port().to_be_bytes());
    h[2..4].copy_from_slice(&dst.port().to_be_bytes());
    h[4..8].copy_from_slice(&tcp.seq.to_be_bytes());
    h[8..12].copy_from_slice(&tcp.ack.to_be_bytes());
    h[12] = u8::try_from(tcp_len / 4).ok()?.checked_shl(4).filter(|_| tcp.options.len() <= 40)? | tcp.flags.high();
    h[13] = tcp.flags.low();
    h[14..16].copy_from_slice(&tcp.window.to_be_bytes());
    let pseudo = checksum::pseudo_header(src.ip(), dst.ip(), 6, segment_len);
    h[16..18].copy_from_slice(&pseudo.to_be_bytes());
    h[18..20].copy_from_slice(&tcp.urgent.to_be_bytes());
    (header.push(&h) && header.push(tcp.options)).then_some((header, tcp_at))
}

/// An IPv4 header for a segment of so many bytes; `None` if it is too long.
fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, ip: &IpFields, segment_len: usize) -> Option<[u8; 20]> {
    let mut h = [0; 20];
    h[0] = 0x45;
    h[1] = ip.traffic_class;
    h[2..4].copy_from_slice(&u16::try_from(20 + segment_len).ok()?.to_be_bytes());
    h[4..6].copy_from_slice(&ip.id.to_be_bytes());
    h[6] = if ip.dont_fragment { 0x40 } else { 0 };
    h[8] = ip.ttl;
    h[9] = 6;
    h[12..16].copy_from_slice(&src.octets());
    h[16..20].copy_from_slice(&dst.octets());
    let sum = !checksum::sum(0, &h);
    h[10..12].copy_from_slice(&sum.to_be_bytes());
    Some(h)
}

/// An IPv6 header for a segment of so many bytes; `None` if it is too long.
fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, ip: &IpFields, segment_len: usize) -> Option<[u8; 40]> {
    let first = (6u32 << 28) | (u32::from(ip.traffic_class) << 20) | (ip.flow_label & 0xf_ffff);
    let mut h = [0; 40];
    h[..4].copy_from_slice(&first.to_be_bytes());
    h[4..6].copy_from_slice(&u16::try_from(segment_len).ok()?.to_be_bytes());
    h[6] = 6;
    h[7] = ip.ttl;
    h[8..24].copy_from_slice(&src.octets());
    h[24..40].copy_from_slice(&dst.octets());
    Some(h)
}

const _: () = assert!(HEADER_ROOM >= 40 + 60, "the longest headers built here must fit");
