//! The 10-byte virtio header that precedes every packet on a TUN device with `IFF_VNET_HDR` (`struct virtio_net_hdr`
//! in linux/virtio_net.h), in native byte order, which is TUN's default.

use crate::wire::packet::GSO_ECN;
use crate::wire::{Checksum, Gso, Offload};

/// Its length in bytes.
pub const LEN: usize = 10;

/// The checksum is still to be computed.
const NEEDS_CSUM: u8 = 1;
/// The checksum was verified.
const DATA_VALID: u8 = 2;

/// A header that does not fit its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the virtio header does not fit the packet")]
pub struct InvalidHeader;

/// What a header says about a packet of `packet_len` bytes. Every offset in the result is within the packet. The kind
/// of super-packet is not checked.
///
/// # Errors
/// If it points outside the packet, or the segment size is 0.
pub fn decode(header: &[u8; LEN], packet_len: usize) -> Result<Offload, InvalidHeader> {
    let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = *header;
    let [header_len, size, start, offset] = [[h0, h1], [s0, s1], [c0, c1], [o0, o1]].map(u16::from_ne_bytes);
    let checksum = if flags & NEEDS_CSUM != 0 {
        if usize::from(start) + usize::from(offset) + 2 > packet_len {
            return Err(InvalidHeader);
        }
        Checksum::Partial { start, offset }
    } else if flags & DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Unverified
    };
    let gso = if kind & !GSO_ECN == 0 {
        None
    } else {
        if size == 0 || usize::from(header_len) > packet_len {
            return Err(InvalidHeader);
        }
        Some(Gso { kind, size, header_len })
    };
    Ok(Offload { checksum, gso })
}

/// The header for `offload`.
#[must_use]
pub fn encode(offload: Offload) -> [u8; LEN] {
    let (flags, start, offset) = match offload.checksum {
        Checksum::Partial { start, offset } => (NEEDS_CSUM, start, offset),
        Checksum::Verified => (DATA_VALID, 0, 0),
        Checksum::Unverified => (0, 0, 0),
    };
    let gso = offload.gso.unwrap_or(Gso { kind: 0, size: 0, header_len: 0 });
    let [[h0, h1], [s0, s1], [c0, c1], [o0, o1]] = [gso.header_len, gso.size, start, offset].map(u16::to_ne_bytes);
    [flags, gso.kind, h0, h1, s0, s1, c0, c1, o0, o1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(flags: u8, kind: u8, fields: [u16; 4]) -> [u8; LEN] {
        let mut header = [0; LEN];
        header[0] = flags;
        header[1] = kind;
        for (at, field) in header[2..].chunks_mut(2).zip(fields) {
            at.copy_from_slice(&field.to_ne_bytes());
        }
        header
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let partial = Checksum::Partial { start: 20, offset: 16 };
        let tcp4 = Gso { kind: 1, size: 1448, header_len: 52 };
        for checksum in [Checksum::Unverified, Checksum::Verified, partial] {
            for gso in [None, Some(tcp4), Some(Gso { kind: 0x84, ..tcp4 }), Some(Gso { kind: 0x42, ..tcp4 })] {
                let offload = Offload { checksum, gso };
                assert_eq!(decode(&encode(offload), 3000), Ok(offload));
            }
        }
    }

    #[test]
    fn the_layout_is_the_kernels() {
        let offload = Offload::partial(20, 52, false, Some(1448));
        assert_eq!(encode(offload), raw(1, 1, [52, 1448, 20, 16]));
        assert_eq!(decode(&raw(0, 0, [54, 9, 9, 9]), 60), Ok(Offload::NONE), "fields without their flag mean nothing");
        assert_eq!(decode(&raw(0, 0x80, [0; 4]), 60), Ok(Offload::NONE), "ECN alone is no super-packet");
    }

    #[test]
    fn offsets_outside_of_the_packet_are_refused() {
        assert!(decode(&raw(1, 0, [0, 0, 20, 16]), 38).is_ok());
        assert_eq!(decode(&raw(1, 0, [0, 0, 20, 16]), 37), Err(InvalidHeader));
        assert_eq!(decode(&raw(1, 0, [0, 0, u16::MAX, u16::MAX]), 65_535), Err(InvalidHeader));
        assert_eq!(decode(&raw(1, 0, [0, 0, 0, 0]), 0), Err(InvalidHeader));
        assert!(decode(&raw(0, 1, [52, 1, 0, 0]), 52).is_ok());
        assert_eq!(decode(&raw(0, 1, [53, 1, 0, 0]), 52), Err(InvalidHeader));
        assert_eq!(decode(&raw(0, 1, [40, 0, 0, 0]), 52), Err(InvalidHeader));
    }
}
