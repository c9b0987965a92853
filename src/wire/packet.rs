//! A packet as read from a device: what its virtio header says, and where its parts are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use etherparse::{IpSlice, TcpSlice};

use super::checksum;
use super::seq::Seq;

/// The state of a packet's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is in the packet, not verified.
    Unverified,
    /// The kernel or the hardware has verified it.
    Verified,
    /// It is still to be computed: the sum of everything from `start` on goes to `start + offset`, which now holds
    /// the pseudo-header's sum. Such a packet has not been on a wire.
    Partial {
        /// Bytes from the start of the packet.
        start: u16,
        /// Bytes from `start`.
        offset: u16,
    },
}

/// A super-packet: segments of `size` payload bytes each (the last may be shorter), under one header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// The kind as in the virtio header: 1 TCPv4, 4 TCPv6; others pass through unchanged.
    pub kind: u8,
    /// Payload bytes of one segment.
    pub size: u16,
    /// Bytes before the payload according to the kernel (a hint: it can be wrong on forwarded packets).
    pub header_len: u16,
}

/// The metadata of a virtio header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// The state of the checksum.
    pub checksum: Checksum,
    /// Present on super-packets.
    pub gso: Option<Gso>,
}

impl Offload {
    /// A single packet with an unverified checksum.
    pub const NONE: Self = Self { checksum: Checksum::Unverified, gso: None };
}

/// In [`Gso::kind`]: the first segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// TCP header flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u16);

#[expect(missing_docs, reason = "the names of RFC 9293, RFC 3168 and RFC 9768")]
impl Flags {
    pub const FIN: Self = Self(0x001);
    pub const SYN: Self = Self(0x002);
    pub const RST: Self = Self(0x004);
    pub const PSH: Self = Self(0x008);
    pub const ACK: Self = Self(0x010);
    pub const URG: Self = Self(0x020);
    pub const ECE: Self = Self(0x040);
    pub const CWR: Self = Self(0x080);
    pub const AE: Self = Self(0x100);

    /// The flags in a TCP header's bytes 12 and 13, the first of which also has the data offset.
    #[must_use]
    pub fn of(bytes: [u8; 2]) -> Self {
        Self(u16::from_be_bytes(bytes) & 0x1ff)
    }
    /// The flags in byte 13.
    #[must_use]
    pub fn low(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
    /// The flags in byte 12.
    #[must_use]
    pub fn high(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Whether any of `other` is set.
    #[must_use]
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// With all of `other` set too.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// With none of `other` set.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// A parsed TCP packet: numbers copied out, parts as ranges, so that the bytes remain free to be changed.
#[derive(Debug, Clone)]
pub struct Packet<S> {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Sequence number.
    pub seq: Seq<S>,
    /// Acknowledgement number, in the other direction's stream but of the same space.
    pub ack: Seq<S>,
    /// Flags.
    pub flags: Flags,
    /// Window field, unscaled.
    pub window: u16,
    /// Urgent pointer field.
    pub urgent: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv6 flow label.
    pub flow_label: u32,
    /// IPv4 don't-fragment (true for IPv6).
    pub dont_fragment: bool,
    /// Where the TCP header is.
    pub tcp: Range<usize>,
    /// Where the payload is.
    pub payload: Range<usize>,
}

/// Why the engine does not process a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTcp {
    /// Another protocol: passed through.
    OtherProtocol,
    /// A fragment of a TCP packet, or of one that may be: its ports and meaning are unknown.
    Fragment,
    /// Its headers cannot be parsed, or it claims to be TCP and cannot be.
    Malformed,
}

/// Whether what follows the IPv6 fragment header of `bytes` may be TCP as far as this fragment tells. In all
/// fragments but the first no header follows: another header named there hides the protocol.
fn may_be_tcp(bytes: &[u8]) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const TCP: u8 = 6;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    if bytes.first().is_none_or(|first| first >> 4 != 6) {
        return false;
    }
    let Some(mut next) = bytes.get(6).copied() else { return true };
    let mut at = 40;
    loop {
        let Some(header) = bytes.get(at..).filter(|header| header.len() >= 8) else { return true };
        let [following, len, offset, low, ..] = *header else { return true };
        let len = match next {
            HOP_BY_HOP | ROUTING | DESTINATION => (usize::from(len) + 1) * 8,
            AUTHENTICATION => (usize::from(len) + 2) * 4,
            FRAGMENT if u16::from_be_bytes([offset, low]) >> 3 == 0 => 8,
            FRAGMENT => {
                return matches!(following, HOP_BY_HOP | TCP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION);
            }
            protocol => return protocol == TCP,
        };
        (next, at) = (following, at + len);
    }
}

impl<S> Packet<S> {
    /// Parses `bytes`, an IP packet.
    ///
    /// # Errors
    /// If it is not a whole TCP packet.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotTcp> {
        // What cannot be parsed to its end may be TCP to somebody who parses it differently.
        let ip = IpSlice::from_slice(bytes).map_err(|_| NotTcp::Malformed)?;
        let payload = ip.payload();
        if payload.ip_number != etherparse::IpNumber::TCP {
            return Err(if payload.fragmented && may_be_tcp(bytes) { NotTcp::Fragment } else { NotTcp::OtherProtocol });
        }
        if payload.fragmented {
            return Err(NotTcp::Fragment);
        }
        let (src, dst, traffic_class, ttl, flow_label, dont_fragment): (IpAddr, IpAddr, u8, u8, u32, bool) = match &ip {
            IpSlice::Ipv4(v4) => {
                let h = v4.header();
                (
                    Ipv4Addr::from(h.source()).into(),
                    Ipv4Addr::from(h.destination()).into(),
                    h.slice().get(1).copied().unwrap_or(0),
                    h.ttl(),
                    0,
                    h.dont_fragment(),
                )
            }
            IpSlice::Ipv6(v6) => {
                let h = v6.header();
                (
                    Ipv6Addr::from(h.source()).into(),
                    Ipv6Addr::from(h.destination()).into(),
                    h.traffic_class(),
                    h.hop_limit(),
                    h.flow_label().value(),
                    true,
                )
            }
        };
        let tcp = TcpSlice::from_slice(payload.payload).map_err(|_| NotTcp::Malformed)?;
        let tcp_at = payload.payload.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        let header = tcp.header_slice();
        let flags = header.get(12..14).and_then(|two| two.try_into().ok()).ok_or(NotTcp::Malformed)?;
        let payload_at = tcp_at + header.len();
        Ok(Self {
            src: SocketAddr::new(src, tcp.source_port()),
            dst: SocketAddr::new(dst, tcp.destination_port()),
            seq: Seq::new(tcp.sequence_number()),
            ack: Seq::new(tcp.acknowledgment_number()),
            flags: Flags::of(flags),
            window: tcp.window_size(),
            urgent: tcp.urgent_pointer(),
            traffic_class,
            ttl,
            flow_label,
            dont_fragment,
            tcp: tcp_at..payload_at,
            payload: payload_at..tcp_at + payload.payload.len(),
        })
    }

    /// The raw option area.
    #[must_use]
    pub fn options<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.tcp.start + 20..self.tcp.end).unwrap_or(&[])
    }

    /// Whether the TCP checksum is correct, computed over `bytes`.
    #[must_use]
    pub fn checksum_is_right(&self, bytes: &[u8]) -> bool {
        let Some(segment) = bytes.get(self.tcp.start..self.payload.end) else { return false };
        let pseudo = checksum::pseudo_header(self.src.ip(), self.dst.ip(), 6, segment.len());
        checksum::sum(pseudo, segment) == 0xffff
    }

    /// Whether a router has marked it as having experienced congestion (RFC 3168, section 5).
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.traffic_class & 3 == 3
    }

    /// The payload's length in bytes.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv6 packet of these extension headers, the first of which has this number, and a payload.
    fn v6(next: u8, behind: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, behind.len() as u8, next, 64];
        bytes.resize(40, 1);
        bytes.extend(behind);
        bytes
    }

    fn verdict(bytes: &[u8]) -> Result<(), NotTcp> {
        Packet::<crate::wire::P>::parse(bytes).map(|_| ())
    }

    const TCP: [u8; 20] = [0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];

    #[test]
    fn headers_that_cannot_be_read_are_no_other_protocol() {
        let with = |headers: &[u8]| [headers, &TCP].concat();
        let options = |next: u8, len: u8| [next, len, 1, 4, 0, 0, 0, 0];
        assert_eq!(verdict(&v6(60, &with(&options(6, 0)))), Ok(()), "destination options before TCP");
        for (why, bytes) in [
            ("hop-by-hop options that are not first", v6(60, &with(&[options(0, 0), options(6, 0)].concat()))),
            ("a header longer than the packet", v6(60, &with(&options(6, 200)))),
            ("a routing header that ends behind the packet", v6(43, &[6, 9, 0, 0])),
            ("more payload than there is", v6(17, &[0; 8])[..44].to_vec()),
            ("an IPv4 header of 12 bytes", [&[0x43, 0, 0, 40, 0, 0, 0, 0, 64, 17][..], &[0; 30]].concat()),
            ("more IPv4 than there is", [&[0x45, 0, 0, 90, 0, 0, 0, 0, 64, 17][..], &[0; 30]].concat()),
            ("another version", vec![0x75; 60]),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(verdict(&bytes), Err(NotTcp::Malformed), "{why}");
        }
    }

    #[test]
    fn other_protocols_are_others_with_extension_headers_and_in_fragments() {
        let fragment = |next: u8, offset: u16| {
            let [high, low] = (offset << 3).to_be_bytes();
            [next, 0, high, low, 0, 0, 0, 9]
        };
        let behind = |header: [u8; 8]| v6(44, &[&header[..], &[60, 200, 1, 2, 3, 4, 5, 6, 7, 8]].concat());
        for (why, bytes) in [
            ("UDP", v6(17, &[0; 8])),
            ("ICMPv6 behind a router alert", v6(0, &[58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0, 0, 0, 0, 0])),
            ("ESP", v6(50, &[0; 16])),
            ("no next header", v6(59, &[])),
            ("a later fragment of UDP", behind(fragment(17, 100))),
            ("IPv4 UDP", [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17][..], &[0; 30]].concat()),
            ("a fragment of it", [&[0x45, 0, 0, 40, 0, 0, 0, 9, 64, 17][..], &[0; 30]].concat()),
        ] {
            assert_eq!(verdict(&bytes), Err(NotTcp::OtherProtocol), "{why}");
        }
        assert_eq!(verdict(&behind(fragment(6, 100))), Err(NotTcp::Fragment));
        // The protocol is stated in the first fragment only. Here there is data in its place, which can be read as
        // anything.
        let hidden = v6(44, &[&fragment(60, 100)[..], &[17, 0, 1, 4, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]].concat());
        assert_eq!(verdict(&hidden), Err(NotTcp::Fragment));
    }
}
