//! What is taken of a stream for one packet.

use crate::wire::{C, Flags, Offset, Seq};

/// The payload of one packet (a segment, or a super-packet), and what its header says of it.
pub(super) struct Portion<'a, 'b, S> {
    pub(super) seq: Seq<S>,
    pub(super) flags: Flags,
    /// The urgent pointer.
    pub(super) urgent: u16,
    pub(super) data: &'b [&'a [u8]],
    /// Where the next one begins.
    pub(super) next: Offset<S>,
}

/// The offset that a frame at this place is sealed and opened with (TC-26).
pub(super) fn stream_offset(at: Offset<C>) -> u64 {
    debug_assert!(at >= Offset::START, "frames begin behind the SYN");
    at.get().cast_unsigned()
}
