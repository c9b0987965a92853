//! Packets as the tests see them: an own, plain implementation, so that it does not share mistakes with `enotun::wire`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use enotun::wire::{Checksum, Gso, Offload};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const CWR: u8 = 0x80;

/// The TCP-ENO option kind (ENO-1).
pub const ENO: u8 = 69;

/// A TCP segment.
#[derive(Clone, PartialEq, Eq)]
pub struct Seg {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub win: u16,
    pub urgent: u16,
    pub traffic_class: u8,
    pub ttl: u8,
    pub id: u16,
    /// IPv4 don't-fragment.
    pub df: bool,
    /// The flag that AccECN has taken over (RFC 9768), in byte 12.
    pub ae: bool,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn pseudo(src: IpAddr, dst: IpAddr, tcp_len: usize) -> u32 {
    let mut sum = match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => add(add(0, &s.octets()), &d.octets()),
        (IpAddr::V6(s), IpAddr::V6(d)) => add(add(0, &s.octets()), &d.octets()),
        _ => panic!("mixed address families"),
    };
    sum = add(sum, &(tcp_len as u32).to_be_bytes());
    add(sum, &[0, 6])
}

impl Seg {
    /// With the options that Linux's have: those of a SYN, or timestamps.
    pub fn like_linux(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        let options: &[u8] = if flags & SYN != 0 {
            &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]
        } else {
            &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]
        };
        Self { options: options.to_vec(), ..Self::new(src, dst) }
    }

    pub fn new(src: SocketAddr, dst: SocketAddr) -> Self {
        Self {
            src,
            dst,
            seq: 0,
            ack: 0,
            flags: ACK,
            win: 0xffff,
            urgent: 0,
            traffic_class: 0,
            ttl: 64,
            id: 0,
            df: true,
            ae: false,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Parses a whole, unfragmented TCP packet without IP options or extension headers.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (src, dst, at, traffic_class, ttl, id, end): (IpAddr, IpAddr, _, _, _, _, _);
        match bytes.first()? >> 4 {
            4 => {
                at = usize::from(bytes[0] & 15) * 4;
                end = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
                if at < 20 || *bytes.get(9)? != 6 || u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff != 0 {
                    return None;
                }
                src = IpAddr::from(<[u8; 4]>::try_from(bytes.get(12..16)?).ok()?);
                dst = IpAddr::from(<[u8; 4]>::try_from(bytes.get(16..20)?).ok()?);
                (traffic_class, ttl) = (bytes[1], bytes[8]);
                id = u16::from_be_bytes([bytes[4], bytes[5]]);
            }
            6 => {
                at = 40;
                end = 40 + usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
                if *bytes.get(6)? != 6 {
                    return None;
                }
                src = IpAddr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?);
                dst = IpAddr::from(<[u8; 16]>::try_from(bytes.get(24..40)?).ok()?);
                traffic_class = (bytes[0] << 4) | (bytes[1] >> 4);
                ttl = bytes[7];
                id = 0;
            }
            _ => return None,
        }
        let t = bytes.get(at..end)?;
        if t.len() < 20 {
            return None;
        }
        let data = usize::from(t[12] >> 4) * 4;
        let be32 = |i: usize| u32::from_be_bytes([t[i], t[i + 1], t[i + 2], t[i + 3]]);
        let be16 = |i: usize| u16::from_be_bytes([t[i], t[i + 1]]);
        Some(Self {
            src: SocketAddr::new(src, be16(0)),
            dst: SocketAddr::new(dst, be16(2)),
            seq: be32(4),
            ack: be32(8),
            flags: t[13],
            win: be16(14),
            urgent: be16(18),
            traffic_class,
            ttl,
            id,
            df: src.is_ipv6() || bytes[6] & 0x40 != 0,
            ae: t[12] & 1 != 0,
            options: t.get(20..data)?.to_vec(),
            payload: t[data..].to_vec(),
        })
    }

    fn headers(&self) -> Vec<u8> {
        assert!(self.options.len() <= 40 && self.options.len().is_multiple_of(4), "options {:02x?}", self.options);
        let tcp_len = 20 + self.options.len() + self.payload.len();
        let mut b = Vec::with_capacity(60 + tcp_len);
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                b.extend([0x45, self.traffic_class]);
                b.extend((20 + tcp_len as u16).to_be_bytes());
                b.extend(self.id.to_be_bytes());
                b.extend([if self.df { 0x40 } else { 0 }, 0, self.ttl, 6, 0, 0]);
                b.extend(s.octets());
                b.extend(d.octets());
                let sum = !(add(0, &b) as u16);
                b[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                b.extend([0x60 | (self.traffic_class >> 4), self.traffic_class << 4, 0, 0]);
                b.extend((tcp_len as u16).to_be_bytes());
                b.extend([6, self.ttl]);
                b.extend(s.octets());
                b.extend(d.octets());
            }
            _ => panic!("mixed address families"),
        }
        b.extend(self.src.port().to_be_bytes());
        b.extend(self.dst.port().to_be_bytes());
        b.extend(self.seq.to_be_bytes());
        b.extend(self.ack.to_be_bytes());
        b.extend([(5 + self.options.len() as u8 / 4) << 4 | u8::from(self.ae), self.flags]);
        b.extend(self.win.to_be_bytes());
        b.extend([0, 0]);
        b.extend(self.urgent.to_be_bytes());
        b.extend(&self.options);
        b
    }

    fn ip_len(&self) -> usize {
        if self.src.is_ipv4() { 20 } else { 40 }
    }

    /// The packet with a whole checksum.
    pub fn build(&self) -> Vec<u8> {
        let mut b = self.headers();
        b.extend(&self.payload);
        let at = self.ip_len();
        let sum = !(add(pseudo(self.src.ip(), self.dst.ip(), b.len() - at), &b[at..]) as u16);
        b[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        b
    }

    /// The packet with the checksum left to be computed, as kernels hand it to a device with offloads.
    pub fn build_partial(&self) -> Vec<u8> {
        let mut b = self.headers();
        b.extend(&self.payload);
        let at = self.ip_len();
        let sum = pseudo(self.src.ip(), self.dst.ip(), b.len() - at) as u16;
        b[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        b
    }

    /// The offload facts of [`Self::build_partial`].
    pub fn partial_offload(&self, gso_size: Option<u16>) -> Offload {
        let start = self.ip_len() as u16;
        let header_len = start + 20 + self.options.len() as u16;
        Offload {
            checksum: Checksum::Partial { start, offset: 16 },
            gso: gso_size.map(|size| Gso { kind: if self.src.is_ipv4() { 1 } else { 4 }, size, header_len }),
        }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
    /// The sequence numbers it occupies.
    pub fn seq_len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
    /// The options as (kind, contents) pairs; `None` if they cannot be walked.
    pub fn option_list(&self) -> Option<Vec<(u8, Vec<u8>)>> {
        let mut list = Vec::new();
        let mut rest = &self.options[..];
        while let Some(kind) = rest.first() {
            match kind {
                0 => break,
                1 => rest = &rest[1..],
                _ => {
                    let len = usize::from(*rest.get(1)?);
                    if len < 2 {
                        return None;
                    }
                    list.push((*kind, rest.get(2..len)?.to_vec()));
                    rest = &rest[len..];
                }
            }
        }
        Some(list)
    }
    pub fn option(&self, kind: u8) -> Option<Vec<u8>> {
        self.option_list()?.into_iter().find(|(k, _)| *k == kind).map(|(_, c)| c)
    }
    pub fn set_options(&mut self, list: &[(u8, Vec<u8>)]) {
        self.options.clear();
        for (kind, contents) in list {
            self.options.extend([*kind, contents.len() as u8 + 2]);
            self.options.extend(contents);
        }
        while !self.options.len().is_multiple_of(4) {
            self.options.push(1);
        }
    }
    /// Adds `shift` to the edges of SACK blocks.
    pub fn shift_sack(&mut self, shift: u32) {
        let Some(mut list) = self.option_list() else { return };
        for (_, contents) in list.iter_mut().filter(|(kind, _)| *kind == 5) {
            for edge in contents.chunks_exact_mut(4) {
                let value = u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]]).wrapping_add(shift);
                edge.copy_from_slice(&value.to_be_bytes());
            }
        }
        if list.iter().any(|(kind, _)| *kind == 5) {
            self.set_options(&list);
        }
    }
    pub fn eno(&self) -> bool {
        self.option(ENO).is_some()
    }
    pub fn mss(&self) -> Option<u16> {
        self.option(2).and_then(|c| Some(u16::from_be_bytes([*c.first()?, *c.get(1)?])))
    }
    pub fn window_scale(&self) -> Option<u8> {
        self.option(3).and_then(|c| c.first().copied())
    }
}

/// Whether the packet's IP and TCP checksums are right.
pub fn checksums_are_right(bytes: &[u8]) -> bool {
    let Some(seg) = Seg::parse(bytes) else { return false };
    let at = seg.ip_len();
    let ip_ok = seg.src.is_ipv6() || add(0, &bytes[..at]) == 0xffff;
    let end = at + 20 + seg.options.len() + seg.payload.len();
    ip_ok && add(pseudo(seg.src.ip(), seg.dst.ip(), end - at), &bytes[at..end]) == 0xffff
}

/// What a device or driver does with a packet handed to it with `offload`: cuts it into segments and fills in
/// checksums. What the engine `built` has to be in order, what it passed on is as it came.
///
/// # Errors
/// If the packet and what is said of it do not fit together.
pub fn materialise(bytes: &[u8], offload: Offload, built: bool) -> Result<Vec<Vec<u8>>, String> {
    let Some(seg) = Seg::parse(bytes) else {
        return if offload == Offload::NONE {
            Ok(vec![bytes.to_vec()])
        } else {
            Err(format!("not TCP but {offload:?}: {bytes:02x?}"))
        };
    };
    let at = seg.ip_len();
    if at + 20 + seg.options.len() + seg.payload.len() != bytes.len() {
        return Err(format!("IP length and packet length {} differ: {seg:?}", bytes.len()));
    }
    if built && seg.option_list().is_none() {
        return Err(format!("options are ill-formed: {:02x?} in {seg:?}", seg.options));
    }
    if seg.src.is_ipv4() && add(0, &bytes[..at]) != 0xffff {
        return Err(format!("IPv4 header checksum is wrong: {seg:?}"));
    }
    match offload.checksum {
        Checksum::Partial { start, offset } => {
            if usize::from(start) != at || offset != 16 {
                return Err(format!("checksum at {start}+{offset}, TCP header at {at}: {seg:?}"));
            }
            let field = u16::from_be_bytes([bytes[at + 16], bytes[at + 17]]);
            let right = pseudo(seg.src.ip(), seg.dst.ip(), bytes.len() - at);
            // 0 and 0xffff are the same number in one's complement.
            if u32::from(field) % 0xffff != right % 0xffff {
                return Err(format!("pseudo-header sum is {field:#06x}, not {right:#06x}: {seg:?}"));
            }
        }
        // Passed on as it came, right or wrong.
        Checksum::Unverified if offload.gso.is_none() => return Ok(vec![bytes.to_vec()]),
        Checksum::Unverified => return Err(format!("a super-packet nobody verified: {seg:?}")),
        // What is in the checksum field was not looked at by anybody since; a driver fills it in.
        Checksum::Verified => {}
    }
    let Some(gso) = offload.gso else {
        return Ok(vec![seg.build()]);
    };
    if gso.kind & !0x80 != if seg.src.is_ipv4() { 1 } else { 4 } || gso.size == 0 {
        return Err(format!("bad {gso:?}: {seg:?}"));
    }
    if usize::from(gso.header_len) != bytes.len() - seg.payload.len() {
        return Err(format!("header length is wrong in {gso:?}: {seg:?}"));
    }
    if seg.has(SYN | RST | URG) {
        return Err(format!("super-packet with flags that make no sense: {seg:?}"));
    }
    let mut out = Vec::new();
    let count = seg.payload.len().div_ceil(usize::from(gso.size)).max(1);
    for i in 0..count {
        let mut piece = seg.clone();
        let from = i * usize::from(gso.size);
        let to = (from + usize::from(gso.size)).min(seg.payload.len());
        piece.payload = seg.payload[from..to].to_vec();
        piece.seq = seg.seq.wrapping_add(from as u32);
        piece.id = seg.id.wrapping_add(i as u16);
        if i + 1 < count {
            piece.flags &= !(FIN | PSH);
        }
        if i > 0 {
            piece.flags &= !CWR;
        }
        out.push(piece.build());
    }
    Ok(out)
}

/// Merges runs of segments that continue each other, as a kernel's GRO does or as its TSO never splits
/// them: same header but for sequence number, all but the last of one size, PSH and FIN only on the last. `stop` ends a
/// run early now and then.
pub fn merge(segments: Vec<Seg>, mut stop: impl FnMut() -> bool) -> Vec<(Seg, Option<u16>)> {
    let mut out: Vec<(Seg, Option<u16>, bool)> = Vec::new();
    for seg in segments {
        if let Some((last, size, open)) = out.last_mut() {
            let limit = size.map_or(last.payload.len(), usize::from);
            let fits = *open
                && last.src == seg.src
                && last.dst == seg.dst
                && last.ack == seg.ack
                && last.win == seg.win
                && last.options == seg.options
                && last.traffic_class == seg.traffic_class
                && last.ttl == seg.ttl
                && last.flags == ACK
                && seg.flags & !(PSH | FIN) == ACK
                && !seg.payload.is_empty()
                && !last.payload.is_empty()
                && seg.payload.len() <= limit
                && last.seq.wrapping_add(last.payload.len() as u32) == seg.seq
                && last.payload.len() + seg.payload.len() <= 64_000;
            if fits && !stop() {
                size.get_or_insert(limit as u16);
                *open = seg.payload.len() == limit;
                last.payload.extend(&seg.payload);
                last.flags |= seg.flags;
                continue;
            }
        }
        out.push((seg, None, true));
    }
    out.into_iter().map(|(seg, size, _)| (seg, size)).collect()
}

impl fmt::Debug for Seg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} {} seq={}", self.src, self.dst, flag_names(self.flags), self.seq)?;
        if self.has(ACK) {
            write!(f, " ack={}", self.ack)?;
        }
        write!(f, " win={} len={}", self.win, self.payload.len())?;
        write_options(f, self, 0)
    }
}

pub fn flag_names(flags: u8) -> String {
    let mut names = Vec::new();
    for (bit, name) in [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (URG, "URG")] {
        if flags & bit != 0 {
            names.push(name);
        }
    }
    format!("[{}]", names.join(","))
}

/// The options in words; SACK edges relative to `sack_base`.
pub fn write_options(f: &mut dyn fmt::Write, seg: &Seg, sack_base: u32) -> fmt::Result {
    let Some(list) = seg.option_list() else { return write!(f, " <ill-formed options {:02x?}>", seg.options) };
    for (kind, c) in list {
        let be32 = |i: usize| c.get(i..i + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        match kind {
            2 => write!(f, " MSS={}", be32(0).max(u32::from(seg.mss().unwrap_or(0))))?,
            3 => write!(f, " WS={}", c.first().copied().unwrap_or(0))?,
            4 => write!(f, " SACK_PERM")?,
            5 => {
                for block in 0..c.len() / 8 {
                    let edge = |i| be32(block * 8 + i).wrapping_sub(sack_base);
                    write!(f, " SACK={}-{}", edge(0), edge(4))?;
                }
            }
            8 => write!(f, " TS={}/{}", be32(0), be32(4))?,
            ENO => write!(f, " ENO={}", hex::encode(&c))?,
            _ => write!(f, " opt{kind}={}", hex::encode(&c))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(v6: bool) -> Seg {
        let a = |n: u8| -> SocketAddr {
            if v6 {
                format!("[fd00::{n}]:100{n}").parse().unwrap()
            } else {
                format!("10.0.0.{n}:100{n}").parse().unwrap()
            }
        };
        let mut seg = Seg::new(a(1), a(2));
        seg.seq = u32::MAX - 100;
        seg.ack = 77;
        seg.flags = ACK | PSH | FIN;
        seg.options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        seg.payload = (0..1000u32).map(|i| i as u8).collect();
        seg
    }

    #[test]
    fn what_is_cut_is_merged_again() {
        for v6 in [false, true] {
            let seg = sample(v6);
            assert_eq!(Seg::parse(&seg.build()), Some(seg.clone()));
            assert!(checksums_are_right(&seg.build()));
            let cut = materialise(&seg.build_partial(), seg.partial_offload(Some(300)), true).unwrap();
            assert_eq!(cut.len(), 4);
            assert!(cut.iter().all(|c| checksums_are_right(c)));
            let cut: Vec<Seg> = cut.iter().map(|c| Seg::parse(c).unwrap()).collect();
            assert_eq!(cut[3].flags, ACK | PSH | FIN);
            assert_eq!(cut[3].seq, seg.seq.wrapping_add(900));
            assert_eq!(merge(cut, || false), vec![(seg, Some(300))]);
        }
    }

    #[test]
    fn a_packet_that_does_not_fit_what_is_said_of_it_is_noticed() {
        let seg = sample(false);
        let mut wrong_sum = seg.build_partial();
        wrong_sum[36] ^= 1;
        assert!(materialise(&wrong_sum, seg.partial_offload(None), true).is_err());
        let mut longer = seg.build_partial();
        longer.push(0);
        assert!(materialise(&longer, seg.partial_offload(None), true).is_err());
    }
}
