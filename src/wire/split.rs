//! Splits super-packets for a device or network without offloads: into single segments with complete checksums.
//!
//! The result equals the kernel's own (`tcp_gso_segment`): IPv4 identifications count up, the sequence number
//! advances, CWR stays on the first segment only, FIN and PSH on the last only. The payload is not copied: a segment
//! is a header and slices of the original payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, LaxIpSlice};

use super::checksum::{pseudo_header, sum};
use super::outgoing::Outgoing;
use super::packet::{Checksum, Flags, GSO_ECN, Gso, Offload, Packet};

/// Why a packet could not be split or its checksum not be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSplit {
    /// A super-packet of a kind other than TCP.
    #[error("a super-packet of kind {0:#x} cannot be split")]
    Kind(u8),
    /// The headers are not IP and TCP.
    #[error("the headers of a super-packet are not whole IP and TCP headers")]
    Headers,
    /// The segment size is 0.
    #[error("a super-packet with segments of 0 bytes")]
    NoSize,
    /// Its checksum is not partial: computing it now would hide earlier corruption.
    #[error("a super-packet with a checksum that nobody has verified")]
    Unverified,
    /// The checksum's position is outside the headers.
    #[error("a checksum to be completed outside of the packet")]
    ChecksumPlace,
}

/// Splits a packet into single segments and passes each, header and pieces of payload, to `each`. Returns their
/// number. A packet that is not a TCP super-packet is passed on as it is, with its checksum completed if it was
/// partial.
///
/// `header` holds at least everything before the payload.
///
/// # Errors
/// If the packet is not what `offload` says it is; `each` was not called then.
pub fn split(
    header: &[u8],
    payload: &[&[u8]],
    offload: Offload,
    mut each: impl FnMut(&[u8], &[&[u8]]),
) -> Result<usize, NotSplit> {
    let Some(gso) = offload.gso else {
        let Checksum::Partial { start, offset } = offload.checksum else {
            each(header, payload);
            return Ok(1);
        };
        let mut header = header.to_vec();
        complete(&mut header, payload, start, offset)?;
        each(&header, payload);
        return Ok(1);
    };
    let cut = Cut::new(header, payload, offload.checksum, gso)?;
    let mut header = header.to_vec();
    let mut rest = Pieces { slices: payload, used: 0 };
    let mut segment = Vec::new();
    let mut done = 0;
    let mut count = 0;
    loop {
        let len = cut.size.min(cut.payload_len.saturating_sub(done));
        rest.take(len, &mut segment);
        cut.patch(&mut header, &segment, count, done, len)?;
        each(&header, &segment);
        count += 1;
        done += len;
        if done >= cut.payload_len {
            return Ok(count);
        }
    }
}

/// [`split`] for a whole packet in contiguous memory, as read from a device.
///
/// # Errors
/// As for [`split`].
pub fn split_bytes(bytes: &[u8], offload: Offload, each: impl FnMut(&[u8], &[&[u8]])) -> Result<usize, NotSplit> {
    let Some(gso) = offload.gso else { return split(bytes, &[], offload, each) };
    tcp_kind(gso)?;
    // The kernel's header_len is a hint that can be wrong on forwarded packets: parse instead.
    let parts = Packet::<()>::parse(bytes).map_err(|_| NotSplit::Headers)?;
    let header = bytes.get(..parts.payload.start).ok_or(NotSplit::Headers)?;
    let payload = bytes.get(parts.payload).ok_or(NotSplit::Headers)?;
    split(header, &[payload], offload, each)
}

/// The segments of a packet that the engine built, each in contiguous memory (for tests).
///
/// # Errors
/// As for [`split`].
pub fn segments(packet: &Outgoing<'_>) -> Result<Vec<Vec<u8>>, NotSplit> {
    let mut all = Vec::new();
    split(packet.header, packet.payload, packet.offload, |header, payload| all.push(join(header, payload)))?;
    Ok(all)
}

/// The segments of a whole packet, each in contiguous memory (for tests).
///
/// # Errors
/// As for [`split_bytes`].
pub fn segments_of_bytes(bytes: &[u8], offload: Offload) -> Result<Vec<Vec<u8>>, NotSplit> {
    let mut all = Vec::new();
    split_bytes(bytes, offload, |header, payload| all.push(join(header, payload)))?;
    Ok(all)
}

/// Completes a checksum of [`Checksum::Partial`]: the sum of everything from `start` on goes to `start + offset`,
/// which holds the pseudo-header's sum until then.
///
/// # Errors
/// If that position is not in `bytes`.
pub fn complete_checksum(bytes: &mut [u8], start: u16, offset: u16) -> Result<(), NotSplit> {
    complete(bytes, &[], start, offset)
}

/// [`complete_checksum`] for a packet whose payload is elsewhere.
fn complete(header: &mut [u8], payload: &[&[u8]], start: u16, offset: u16) -> Result<(), NotSplit> {
    let start = usize::from(start);
    let at = start + usize::from(offset);
    let summed = header.get(start..).ok_or(NotSplit::ChecksumPlace)?;
    let total = sum_pieces(0, summed, payload);
    let field = header.get_mut(at..at + 2).ok_or(NotSplit::ChecksumPlace)?;
    field.copy_from_slice(&finish(total).to_be_bytes());
    Ok(())
}

/// The checksum field for a sum. 0 is never sent: in UDP it means "no checksum".
fn finish(total: u16) -> u16 {
    match !total {
        0 => 0xffff,
        field => field,
    }
}

/// The sum of `first` followed by `pieces`, which may begin at odd positions.
fn sum_pieces(start: u16, first: &[u8], pieces: &[&[u8]]) -> u16 {
    let mut total = sum(start, first);
    let mut odd = first.len() % 2 == 1;
    for piece in pieces {
        // From an odd position on, every byte counts in the other half of its word (RFC 1071, section 2(B)).
        let part = sum(0, piece);
        total = add(total, if odd { part.swap_bytes() } else { part });
        odd ^= piece.len() % 2 == 1;
    }
    total
}

/// One's complement addition.
fn add(a: u16, b: u16) -> u16 {
    let (total, carry) = a.overflowing_add(b);
    total.wrapping_add(u16::from(carry))
}

/// Whether a super-packet is TCP, and of which IP version. The ECN flag in the kind does not matter here.
fn tcp_kind(gso: Gso) -> Result<bool, NotSplit> {
    match gso.kind & !GSO_ECN {
        1 => Ok(false),
        4 => Ok(true),
        _ => Err(NotSplit::Kind(gso.kind)),
    }
}

/// What all segments of a super-packet have in common.
struct Cut {
    src: IpAddr,
    dst: IpAddr,
    tcp_at: usize,
    header_len: usize,
    payload_len: usize,
    size: usize,
    id: u16,
    seq: u32,
    flags: Flags,
}

impl Cut {
    fn new(header: &[u8], payload: &[&[u8]], checksum: Checksum, gso: Gso) -> Result<Self, NotSplit> {
        let v6 = tcp_kind(gso)?;
        if gso.size == 0 {
            return Err(NotSplit::NoSize);
        }
        if checksum == Checksum::Unverified {
            return Err(NotSplit::Unverified);
        }
        // Lax: the lengths in the headers cover payload that is elsewhere.
        let (ip, _) = LaxIpSlice::from_slice(header).map_err(|_| NotSplit::Headers)?;
        let (src, dst): (IpAddr, IpAddr) = match &ip {
            LaxIpSlice::Ipv4(v4) if !v6 => {
                (Ipv4Addr::from(v4.header().source()).into(), Ipv4Addr::from(v4.header().destination()).into())
            }
            LaxIpSlice::Ipv6(h) if v6 => {
                (Ipv6Addr::from(h.header().source()).into(), Ipv6Addr::from(h.header().destination()).into())
            }
            _ => return Err(NotSplit::Headers),
        };
        let tcp = ip.payload();
        if tcp.ip_number != IpNumber::TCP || tcp.fragmented {
            return Err(NotSplit::Headers);
        }
        let fixed = tcp.payload.first_chunk::<20>().ok_or(NotSplit::Headers)?;
        let tcp_len = usize::from(fixed[12] >> 4) * 4;
        let tcp_at = header.len().checked_sub(tcp.payload.len()).ok_or(NotSplit::Headers)?;
        // Anything after the headers in `header` would be payload in the wrong place.
        if tcp_len != tcp.payload.len() {
            return Err(NotSplit::Headers);
        }
        Ok(Self {
            src,
            dst,
            tcp_at,
            header_len: header.len(),
            payload_len: payload.iter().map(|p| p.len()).sum(),
            size: usize::from(gso.size),
            id: header.get(4..6).map_or(0, |id| u16::from_be_bytes([id[0], id[1]])),
            seq: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            flags: Flags::of([fixed[12], fixed[13]]),
        })
    }

    /// Turns `header` into that of segment number `index`, which begins `at` bytes into the payload.
    fn patch(&self, header: &mut [u8], payload: &[&[u8]], index: usize, at: usize, len: usize) -> Result<(), NotSplit> {
        let total = u16::try_from(self.header_len + len).map_err(|_| NotSplit::Headers)?;
        let (ip, tcp) = header.split_at_mut_checked(self.tcp_at).ok_or(NotSplit::Headers)?;
        if self.src.is_ipv4() {
            #[expect(clippy::cast_possible_truncation, reason = "identifications wrap")]
            let id = self.id.wrapping_add(index as u16);
            put(ip, 2, total.to_be_bytes())?;
            put(ip, 4, id.to_be_bytes())?;
            put(ip, 10, [0, 0])?;
            let check = !sum(0, ip);
            put(ip, 10, check.to_be_bytes())?;
        } else {
            put(ip, 4, total.saturating_sub(40).to_be_bytes())?;
        }
        let mut flags = self.flags;
        if index > 0 {
            flags = flags.without(Flags::CWR);
        }
        if at + len < self.payload_len {
            flags = flags.without(Flags::FIN.with(Flags::PSH));
        }
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are modulo 2^32")]
        let seq = self.seq.wrapping_add(at as u32);
        put(tcp, 4, seq.to_be_bytes())?;
        put(tcp, 13, [flags.low()])?;
        put(tcp, 16, [0, 0])?;
        let pseudo = pseudo_header(self.src, self.dst, 6, tcp.len() + len);
        let check = finish(sum_pieces(pseudo, tcp, payload));
        put(tcp, 16, check.to_be_bytes())
    }
}

/// Writes `value` at `at`.
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Result<(), NotSplit> {
    bytes.get_mut(at..at + N).ok_or(NotSplit::Headers)?.copy_from_slice(&value);
    Ok(())
}

/// Slices from whose front some bytes were taken.
struct Pieces<'a, 'b> {
    slices: &'b [&'a [u8]],
    used: usize,
}

impl<'a> Pieces<'a, '_> {
    /// Sets `out` to the next `len` bytes, or what is left.
    fn take(&mut self, mut len: usize, out: &mut Vec<&'a [u8]>) {
        out.clear();
        while len > 0 {
            let Some((first, others)) = self.slices.split_first() else { return };
            let left = first.get(self.used..).unwrap_or(&[]);
            let part = left.get(..len).unwrap_or(left);
            if !part.is_empty() {
                out.push(part);
            }
            len -= part.len();
            self.used += part.len();
            if self.used >= first.len() {
                self.slices = others;
                self.used = 0;
            }
        }
    }
}

fn join(header: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    [&[header], payload].concat().concat()
}

#[cfg(test)]
mod tests;
