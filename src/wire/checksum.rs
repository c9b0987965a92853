//! The Internet checksum (RFC 1071) over byte slices.

use std::net::IpAddr;

/// The one's complement sum of `bytes`, folded to 16 bits, added to `start`. `bytes` is assumed to begin at an even
/// position.
#[must_use]
pub fn sum(start: u16, bytes: &[u8]) -> u16 {
    // Native-endian 64-bit words: the one's complement sum is independent of byte order as long as the result is
    // swapped at the end (RFC 1071, section 2(B)).
    let mut total: u64 = u64::from(start.to_be());
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut w = [0; 8];
        w.copy_from_slice(word);
        let (t, carry) = total.overflowing_add(u64::from_ne_bytes(w));
        total = t.wrapping_add(u64::from(carry));
    }
    let mut last = [0; 8];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    let (t, carry) = total.overflowing_add(u64::from_ne_bytes(last));
    total = t.wrapping_add(u64::from(carry));
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::from_be(u16::try_from(total).unwrap_or(0))
}

/// The sum of the pseudo-header for `length` bytes of `protocol` (RFC 9293, section 3.1; RFC 8200, section 8.1).
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> u16 {
    let mut s = match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => sum(sum(0, &s.octets()), &d.octets()),
        (IpAddr::V6(s), IpAddr::V6(d)) => sum(sum(0, &s.octets()), &d.octets()),
        // Not a packet: the result will not verify.
        _ => 0,
    };
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    s = sum(s, &length);
    sum(s, &[0, protocol])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn agrees_with_the_definition_at_every_length() {
        let bytes: Vec<u8> = (0..200u32).map(|i| (i * 37 + 11) as u8).collect();
        for n in 0..bytes.len() {
            assert_eq!(sum(0, &bytes[..n]), naive(&bytes[..n]), "{n} bytes");
        }
        assert_eq!(sum(0, &[0xff; 1600]), naive(&[0xff; 1600]));
    }
}
