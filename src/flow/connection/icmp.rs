//! ICMP errors about segments of an encrypted connection, translated between the two sequence spaces.

use tcpcrypt::frame::OVERHEAD;

use super::receiver::Receiver;
use super::sender::Sender;
use crate::time::Instant;
use crate::wire::icmp::IcmpError;
use crate::wire::{C, P, Seq};

/// The least that IPv4 takes (RFC 791): no router can mean less (RFC 1191, section 3).
const LEAST_V4: u32 = 68;
/// Linux's `min_pmtu`: of a path that claims to take less, no more than this is believed. A router from before RFC 1191 says 0.
const FLOOR_V4: u32 = 552;
/// The least that a link for IPv6 takes: an error that says less is to be discarded (RFC 8201, section 4).
const LEAST_V6: u32 = 1280;

/// As much of a router's `mtu` as can be believed, if any.
fn believable(mtu: u32, v6: bool) -> Option<u32> {
    match (v6, mtu) {
        (true, ..LEAST_V6) | (false, 1..LEAST_V4) => None,
        (true, _) => Some(mtu),
        (false, _) => Some(mtu.max(FLOOR_V4)),
    }
}

/// An error from the network about a segment that this host sent, as the local kernel would have got it for its
/// own segment. `None` if the segment it quotes cannot be in flight (RFC 5927, section 4.1), or its MTU cannot be true.
pub(super) fn from_wire(tx: &mut Sender, v6: bool, now: Instant, error: &IcmpError, bytes: &[u8]) -> Option<Vec<u8>> {
    let seq = tx.in_flight(Seq::<C>::new(error.seq))?;
    let mtu = match error.mtu {
        None => None,
        Some(mtu) => {
            let mtu = believable(mtu, v6)?;
            let headers = if v6 { 60 } else { 40 };
            tx.limit_segments(usize::try_from(mtu).unwrap_or(usize::MAX).saturating_sub(headers), now);
            // What the kernel sends grows by what a frame adds. Of less than the floor it believes nothing; what it sends then is cut.
            Some(mtu.saturating_sub(OVERHEAD as u32).max(if v6 { LEAST_V6 } else { FLOOR_V4 }))
        }
    };
    error.translated(bytes, seq.0, mtu)
}

/// An error from the plain side about a segment that enotun delivered, as the network may see it: with a
/// sequence number of its own, and without the plaintext it quotes.
pub(super) fn from_plain(rx: &Receiver, v6: bool, error: &IcmpError, bytes: &[u8]) -> Option<Vec<u8>> {
    let (acknowledged, delivered) = rx.kernel_view();
    // A bare segment has the number of the next byte, one that asks whether the kernel is there that of the last.
    let quoted = rx.position_p(Seq::<P>::new(error.seq));
    if quoted < acknowledged - 1_i64 || quoted > delivered {
        return None;
    }
    let mtu = match error.mtu {
        None => None,
        Some(mtu) => Some(believable(mtu, v6)?.saturating_add(OVERHEAD as u32)),
    };
    error.translated(bytes, rx.unacknowledged().0, mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_router_says_is_believed_within_what_the_families_have() {
        for (v6, said, believed) in [
            (false, 0, Some(552)),
            (false, 1, None),
            (false, 67, None),
            (false, 68, Some(552)),
            (false, 1400, Some(1400)),
            (true, 0, None),
            (true, 1279, None),
            (true, 1280, Some(1280)),
            (true, u32::MAX, Some(u32::MAX)),
        ] {
            assert_eq!(believable(said, v6), believed, "{said}");
        }
    }
}
