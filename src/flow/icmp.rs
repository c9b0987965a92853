//! ICMP errors about segments of an encrypted connection, translated between the two sequence spaces.

use tcpcrypt::frame::OVERHEAD;

use super::encrypted::Encrypted;
use crate::wire::icmp::IcmpError;
use crate::wire::{C, Seq};

impl Encrypted {
    /// An error from the network about a segment that this host sent, as the local kernel would have got it for its
    /// own segment. `None` if the segment it quotes cannot be in flight (RFC 5927, section 4.1).
    pub(crate) fn icmp_from_wire(&mut self, error: &IcmpError, bytes: &[u8]) -> Option<Vec<u8>> {
        let seq = self.out.in_flight(Seq::<C>::new(error.seq))?;
        let mtu = error.mtu.map(|mtu| {
            let headers = if self.link.is_v6() { 60 } else { 40 };
            self.out.limit(usize::try_from(mtu).unwrap_or(usize::MAX).saturating_sub(headers));
            // What the kernel sends grows by what a frame adds.
            mtu.saturating_sub(OVERHEAD as u32)
        });
        error.translated(bytes, seq.0, mtu)
    }

    /// An error from the plain side about a segment that enotun delivered, as the network may see it: with a
    /// sequence number of its own, and without the plaintext it quotes.
    pub(crate) fn icmp_from_plain(&mut self, error: &IcmpError, bytes: &[u8]) -> Option<Vec<u8>> {
        let seq = self.inn.unacknowledged();
        error.translated(bytes, seq.0, error.mtu.map(|mtu| mtu.saturating_add(OVERHEAD as u32)))
    }
}
