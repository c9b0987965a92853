//! GRO: coalesces consecutive segments of one stream into a super-packet before the engine sees them, where neither
//! NIC nor kernel has done it. The inverse of [`super::split`]: segments are coalesced only if splitting restores
//! exactly the same segments (except IPv4 identifications, which are meaningless with DF set, RFC 6864).

use std::ops::Range;

use super::checksum::{pseudo_header, sum};
use super::packet::{Checksum, Flags, Offload, Packet};
use super::seq::C;

/// For shorter packets it is not worth looking at the next one.
const MIN_PACKET: usize = 400;
/// The longest possible IP packet.
const MAX_PACKET: usize = 65_535;

/// A first segment and those appended to it.
#[derive(Debug)]
pub struct Aggregate {
    first: Packet<C>,
    /// Length of the whole packet.
    len: usize,
    /// Nothing can be appended any more: the last segment was short, or had PSH.
    ended: bool,
}

impl Aggregate {
    /// Begins with `bytes`. `None` if nothing can be appended to it.
    #[must_use]
    pub fn begin(bytes: &[u8], offload: Offload) -> Option<Self> {
        if bytes.len() < MIN_PACKET || offload.gso.is_some() {
            return None;
        }
        let first = Packet::<C>::parse(bytes).ok()?;
        // IP options and extension headers belong to the individual packet.
        let plain_header = if first.src.is_ipv4() { 20 } else { 40 };
        // Any flag other than ACK and ECE gives a segment a meaning of its own.
        let plain_flags = first.flags.without(Flags::ECE) == Flags::ACK;
        let fits = first.tcp.start == plain_header && first.payload.end == bytes.len() && first.dont_fragment;
        let right = offload.checksum != Checksum::Unverified || first.checksum_is_right(bytes);
        (plain_flags && fits && right && !first.payload.is_empty()).then_some(Self {
            len: bytes.len(),
            first,
            ended: false,
        })
    }

    /// Whether more segments may be appended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.ended
    }

    /// Appends the payload of `more` to `packet`, whose buffer is large enough, if `more` is the next segment of the
    /// stream and otherwise like the first.
    pub fn add(&mut self, packet: &mut [u8], more: &[u8], offload: Offload) -> bool {
        let payload_at = self.first.payload.start;
        let size = self.first.payload.len();
        let (Some(head), Some(header)) = (packet.get(..payload_at), more.get(..payload_at)) else { return false };
        let payload = more.get(payload_at..).unwrap_or(&[]);
        let len = self.len + payload.len();
        if self.ended || payload.is_empty() || payload.len() > size || len > MAX_PACKET || offload.gso.is_some() {
            return false;
        }
        let tcp = self.first.tcp.start;
        let flags = Flags(u16::from(header.get(tcp + 13).copied().unwrap_or(0)));
        let next = self.first.seq.0.wrapping_add(u32::try_from(self.len - payload_at).unwrap_or(0));
        let is_next = self.invariant_parts().into_iter().all(|part| head.get(part.clone()) == header.get(part))
            && flags.without(Flags::PSH) == self.first.flags
            && header.get(tcp + 4..tcp + 8) == Some(&next.to_be_bytes()[..])
            && header.get(self.length_field()) == Some(&self.length_value(more.len())[..]);
        if !is_next || (offload.checksum == Checksum::Unverified && !self.checksum_is_right(more)) {
            return false;
        }
        let Some(place) = packet.get_mut(self.len..len) else { return false };
        place.copy_from_slice(payload);
        if flags.any(Flags::PSH)
            && let Some(byte) = packet.get_mut(tcp + 13)
        {
            *byte = self.first.flags.with(Flags::PSH).low();
        }
        self.len = len;
        self.ended = flags.any(Flags::PSH) || payload.len() < size;
        true
    }

    /// Header ranges that must be identical: everything but lengths, identification, sequence number, flags and
    /// checksums.
    fn invariant_parts(&self) -> [Range<usize>; 7] {
        let (tcp, end) = (self.first.tcp.start, self.first.tcp.end);
        let [a, b, c] = if self.is_v4() { [0..2, 6..10, 12..20] } else { [0..4, 6..24, 24..40] };
        [a, b, c, tcp..tcp + 4, tcp + 8..tcp + 13, tcp + 14..tcp + 16, tcp + 18..end]
    }

    fn is_v4(&self) -> bool {
        self.first.src.is_ipv4()
    }

    /// Where the IP header states the packet's length, and what it states for a packet of `len` bytes.
    fn length_field(&self) -> Range<usize> {
        if self.is_v4() { 2..4 } else { 4..6 }
    }
    fn length_value(&self, len: usize) -> [u8; 2] {
        let counted = if self.is_v4() { len } else { len.saturating_sub(self.first.tcp.start) };
        u16::try_from(counted).unwrap_or(0).to_be_bytes()
    }

    fn pseudo_header(&self, segment_len: usize) -> u16 {
        pseudo_header(self.first.src.ip(), self.first.dst.ip(), 6, segment_len)
    }

    fn checksum_is_right(&self, bytes: &[u8]) -> bool {
        let segment = bytes.get(self.first.tcp.start..).unwrap_or(&[]);
        sum(self.pseudo_header(segment.len()), segment) == 0xffff
    }

    /// Completes the headers for all that was appended. Returns the packet's length and offload; `None` if nothing
    /// was appended and the packet is unchanged.
    #[must_use]
    pub fn finish(self, packet: &mut [u8]) -> Option<(usize, Offload)> {
        if self.len == self.first.payload.end {
            return None;
        }
        let tcp = self.first.tcp.start;
        packet.get_mut(self.length_field())?.copy_from_slice(&self.length_value(self.len));
        if self.is_v4() {
            packet.get_mut(10..12)?.fill(0);
            let sum = !sum(0, packet.get(..tcp)?);
            packet.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
        }
        let pseudo = self.pseudo_header(self.len - tcp);
        packet.get_mut(tcp + 16..tcp + 18)?.copy_from_slice(&pseudo.to_be_bytes());
        let size = u16::try_from(self.first.payload.len()).ok();
        Some((self.len, Offload::partial(tcp, self.first.payload.start, !self.is_v4(), size)))
    }
}

#[cfg(test)]
mod tests;
