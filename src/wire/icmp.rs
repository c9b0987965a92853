//! ICMP errors about TCP segments: which connection they concern, and the same error with translated numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::IpSlice;

use super::checksum;

/// An ICMP or ICMPv6 error that quotes the beginning of a TCP segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IcmpError {
    /// Source address and port of the segment it is about.
    pub src: SocketAddr,
    /// Destination address and port of the segment it is about.
    pub dst: SocketAddr,
    /// Sequence number of that segment.
    pub seq: u32,
    /// The MTU it reports, if it is "too big".
    pub mtu: Option<u32>,
    time_exceeded: bool,
    outer: (IpAddr, IpAddr),
    icmp_at: usize,
    icmp_end: usize,
    tcp_at: usize,
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;
/// Length of the ICMP or ICMPv6 header before the quoted packet.
const ICMP_HEADER: usize = 8;
/// The minimum of a TCP header that is quoted (RFC 792): ports and sequence number.
const QUOTED_TCP: usize = 8;

/// What an error quotes of a segment whose TTL expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired<'a> {
    /// Its IPv4 identification, or the last 16 bits of its IPv6 flow label.
    pub id: u16,
    /// Its TCP option area, if all of it is quoted.
    pub options: Option<&'a [u8]>,
}

impl IcmpError {
    /// The sender of the error.
    #[must_use]
    pub fn reporter(&self) -> IpAddr {
        self.outer.0
    }

    /// Whether its checksum is correct, computed over `bytes`, which is what was parsed.
    #[must_use]
    pub fn checksum_is_right(&self, bytes: &[u8]) -> bool {
        let Some(icmp) = bytes.get(self.icmp_at..self.icmp_end) else { return false };
        checksum::sum(self.pseudo_header(icmp.len()), icmp) == 0xffff
    }

    /// The pseudo-header part of the checksum.
    fn pseudo_header(&self, len: usize) -> u16 {
        match self.outer.0 {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => checksum::pseudo_header(self.outer.0, self.outer.1, ICMPV6, len),
        }
    }

    /// The quote, if the error is "time exceeded" (RFC 792, RFC 4443 section 3.3). `bytes` is what was parsed.
    #[must_use]
    pub fn time_exceeded<'a>(&self, bytes: &'a [u8]) -> Option<Expired<'a>> {
        let quote = bytes.get(self.icmp_at + ICMP_HEADER..).filter(|_| self.time_exceeded)?;
        let id = be16(quote, if self.src.is_ipv6() { 2 } else { 4 })?;
        let tcp = bytes.get(self.tcp_at..)?;
        let header = tcp.get(12).map(|offset| usize::from(offset >> 4) * 4);
        Some(Expired { id, options: header.and_then(|end| tcp.get(20..end)) })
    }

    /// Parses `bytes`, an IP packet; `None` if it is anything else.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let ip = IpSlice::from_slice(bytes).ok()?;
        let payload = ip.payload();
        let icmp = payload.payload;
        let icmp_at = icmp.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        let (kind, code) = (*icmp.first()?, *icmp.get(1)?);
        let v6 = match (payload.ip_number.0, payload.fragmented) {
            (ICMP, false) => matches!(kind, 3 | 11 | 12).then_some(false)?,
            (ICMPV6, false) => matches!(kind, 1..=4).then_some(true)?,
            _ => return None,
        };
        let mtu = if v6 {
            (kind == 2).then(|| be32(icmp, 4)).flatten()
        } else {
            (kind == 3 && code == 4).then(|| be16(icmp, 6).map(u32::from)).flatten()
        };
        let quote = icmp.get(ICMP_HEADER..)?;
        let version = quote.first()? >> 4;
        let (protocol, header_len, src, dst): (u8, usize, IpAddr, IpAddr) = match (version, v6) {
            (4, false) => (
                *quote.get(9)?,
                usize::from(quote.first()? & 0x0f) * 4,
                Ipv4Addr::from(<[u8; 4]>::try_from(quote.get(12..16)?).ok()?).into(),
                Ipv4Addr::from(<[u8; 4]>::try_from(quote.get(16..20)?).ok()?).into(),
            ),
            (6, true) => (
                *quote.get(6)?,
                40,
                Ipv6Addr::from(<[u8; 16]>::try_from(quote.get(8..24)?).ok()?).into(),
                Ipv6Addr::from(<[u8; 16]>::try_from(quote.get(24..40)?).ok()?).into(),
            ),
            _ => return None,
        };
        let tcp = quote.get(header_len..).filter(|tcp| protocol == TCP && tcp.len() >= QUOTED_TCP)?;
        let outer = (ip.source_addr(), ip.destination_addr());
        Some(Self {
            src: SocketAddr::new(src, be16(tcp, 0)?),
            dst: SocketAddr::new(dst, be16(tcp, 2)?),
            seq: be32(tcp, 4)?,
            mtu,
            time_exceeded: kind == if v6 { 3 } else { 11 },
            outer,
            icmp_at,
            icmp_end: icmp_at + icmp.len(),
            tcp_at: icmp_at + ICMP_HEADER + header_len,
        })
    }

    /// The same error about sequence number `seq`, with `mtu` if it reports one. Of the quoted segment it keeps ports
    /// and sequence number only: what follows them belongs to the other space, and may be plaintext.
    #[must_use]
    pub fn translated(&self, bytes: &[u8], seq: u32, mtu: Option<u32>) -> Option<Vec<u8>> {
        let mut out = bytes.get(..self.tcp_at + QUOTED_TCP)?.to_vec();
        out.get_mut(self.tcp_at + 4..self.tcp_at + 8)?.copy_from_slice(&seq.to_be_bytes());
        let length = out.len();
        let icmp_len = length - self.icmp_at;
        if let Some(mtu) = mtu.filter(|_| self.mtu.is_some()) {
            let field = out.get_mut(self.icmp_at + 4..self.icmp_at + 8)?;
            if self.src.is_ipv6() {
                field.copy_from_slice(&mtu.to_be_bytes());
            } else {
                field.get_mut(2..)?.copy_from_slice(&u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        let v6 = self.outer.0.is_ipv6();
        if v6 {
            // Extension headers count as payload.
            out.get_mut(4..6)?.copy_from_slice(&u16::try_from(length - 40).ok()?.to_be_bytes());
        } else {
            out.get_mut(2..4)?.copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
            out.get_mut(10..12)?.fill(0);
            let header_len = usize::from(out.first()? & 0x0f) * 4;
            let sum = !checksum::sum(0, out.get(..header_len)?);
            out.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
        }
        out.get_mut(self.icmp_at + 2..self.icmp_at + 4)?.fill(0);
        let sum = !checksum::sum(self.pseudo_header(icmp_len), out.get(self.icmp_at..)?);
        out.get_mut(self.icmp_at + 2..self.icmp_at + 4)?.copy_from_slice(&sum.to_be_bytes());
        Some(out)
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "Fragmentation needed, MTU 1400" from 192.0.2.9 about a segment of 10.0.0.1:1000 to 10.0.0.2:80, with data.
    fn too_big_v4() -> Vec<u8> {
        let mut p = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 9, 10, 0, 0, 1];
        p.extend([3, 4, 0, 0, 0, 0, 0x05, 0x78]);
        p.extend([0x45, 0, 5, 0xdc, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        p.extend([0x03, 0xe8, 0, 80, 0, 0, 0, 7, 0, 0, 0, 1, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        p.extend(b"plaintext");
        let length = (p.len() as u16).to_be_bytes();
        p[2..4].copy_from_slice(&length);
        p
    }

    #[test]
    fn says_what_segment_it_is_about() {
        let error = IcmpError::parse(&too_big_v4()).expect("an error about TCP");
        assert_eq!((error.src.to_string(), error.dst.to_string()), ("10.0.0.1:1000".into(), "10.0.0.2:80".into()));
        assert_eq!((error.seq, error.mtu), (7, Some(1400)));
    }

    #[test]
    fn translation_has_the_new_numbers_right_checksums_and_no_payload() {
        let bytes = too_big_v4();
        let error = IcmpError::parse(&bytes).expect("an error about TCP");
        let out = error.translated(&bytes, 99, Some(1380)).expect("long enough");
        let again = IcmpError::parse(&out).expect("still an error about TCP");
        assert_eq!((again.seq, again.mtu), (99, Some(1380)));
        assert_eq!(checksum::sum(0, &out[..20]), 0xffff);
        assert_eq!(checksum::sum(0, &out[20..]), 0xffff);
        assert!(again.checksum_is_right(&out) && !error.checksum_is_right(&bytes));
        let mut damaged = out.clone();
        damaged[26] ^= 1;
        assert!(!again.checksum_is_right(&damaged));
        assert!(!out.windows(9).any(|w| w == b"plaintext"));
    }

    #[test]
    fn a_router_quotes_the_options_of_a_segment_whose_time_has_run_out_or_says_less() {
        let mut bytes = too_big_v4();
        assert_eq!(IcmpError::parse(&bytes).expect("an error").time_exceeded(&bytes), None, "it is too big");
        (bytes[20], bytes[21]) = (11, 0);
        bytes[32..34].copy_from_slice(&[0xe4, 3]);
        bytes[60] = 0x60;
        bytes[68..72].copy_from_slice(&[69, 3, 0x23, 0]);
        let cut = |len: usize| {
            let mut bytes = bytes[..len].to_vec();
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let error = IcmpError::parse(&bytes).expect("an error about TCP");
            error.time_exceeded(&bytes).map(|expired| (expired.id, expired.options.map(<[u8]>::to_vec)))
        };
        assert_eq!(cut(bytes.len()), Some((0xe403, Some(vec![69, 3, 0x23, 0]))));
        assert_eq!(cut(56), Some((0xe403, None)), "eight bytes of TCP, as RFC 792 asks for");
        assert_eq!(cut(70), Some((0xe403, None)));
    }

    #[test]
    fn truncated_or_other_packets_are_none() {
        let bytes = too_big_v4();
        for n in 0..56 {
            assert_eq!(IcmpError::parse(&bytes[..n]), None, "{n} bytes");
        }
        let mut echo = bytes.clone();
        echo[20] = 8;
        assert_eq!(IcmpError::parse(&echo), None);
        let mut udp = bytes;
        udp[28 + 9] = 17;
        assert_eq!(IcmpError::parse(&udp), None);
    }
}
