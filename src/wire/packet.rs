//! A packet as read from a device: what the virtio header says of it, and where its parts are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use etherparse::{IpSlice, TcpSlice};

use super::checksum;
use super::seq::Seq;

/// What is known of a packet's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is in the packet and nobody has looked at it.
    Unverified,
    /// The kernel or the hardware has verified it.
    Verified,
    /// It is left to be computed: the sum of everything from `start` on goes to `start + offset`, which
    /// now holds the pseudo-header's sum. Such a packet has not been on a wire.
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
    /// The kind as in the virtio header: 1 TCPv4, 4 TCPv6, others pass through as they are.
    pub kind: u8,
    /// Payload bytes of one segment.
    pub size: u16,
    /// Bytes before the payload, as the kernel says (a hint: it can be wrong on forwarded packets).
    pub header_len: u16,
}

/// The facts of a virtio header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// The state of the checksum.
    pub checksum: Checksum,
    /// Present on super-packets.
    pub gso: Option<Gso>,
}

impl Offload {
    /// A single packet with a checksum that nobody has verified.
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

    /// Those of a TCP header's bytes 12 and 13, the first of which has the data offset besides.
    #[must_use]
    pub fn of(bytes: [u8; 2]) -> Self {
        Self(u16::from_be_bytes(bytes) & 0x1ff)
    }
    /// Those in byte 13.
    #[must_use]
    pub fn low(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
    /// Those in byte 12.
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

/// A parsed TCP packet: numbers copied out, parts as ranges, so that the bytes stay free to be changed.
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
    /// Window field as it stands.
    pub window: u16,
    /// Urgent pointer as it stands.
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

/// Why a packet is not one that the engine works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTcp {
    /// Another protocol: none of our business.
    OtherProtocol,
    /// A fragment of a TCP packet: its ports and meaning cannot be known.
    Fragment,
    /// It says it is TCP but cannot be.
    Malformed,
}

impl<S> Packet<S> {
    /// Parses `bytes`, an IP packet.
    ///
    /// # Errors
    /// If it is no whole TCP packet.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotTcp> {
        // Cheap look first: nothing but TCP deserves a parse.
        let ip = IpSlice::from_slice(bytes).map_err(|_| {
            let tcp = match bytes.first().map(|b| b >> 4) {
                Some(4) => bytes.get(9) == Some(&6),
                Some(6) => bytes.get(6) == Some(&6),
                _ => false,
            };
            if tcp { NotTcp::Malformed } else { NotTcp::OtherProtocol }
        })?;
        let payload = ip.payload();
        if payload.ip_number != etherparse::IpNumber::TCP {
            return Err(NotTcp::OtherProtocol);
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

    /// Whether the TCP checksum is right, computed over `bytes`.
    #[must_use]
    pub fn checksum_is_right(&self, bytes: &[u8]) -> bool {
        let Some(segment) = bytes.get(self.tcp.start..self.payload.end) else { return false };
        let pseudo = checksum::pseudo_header(self.src.ip(), self.dst.ip(), 6, segment.len());
        checksum::sum(pseudo, segment) == 0xffff
    }

    /// Whether a router has marked it as having met congestion (RFC 3168, section 5).
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
