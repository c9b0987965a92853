//! The layout of a frame (RFC 8548, section 4.2; TC-23 to TC-25, TC-30): header and plaintext, without any keys.

use alloc::vec::Vec;
use core::ops::Range;

use crate::constants::TAG_LEN;
use crate::error::PeerViolation;

/// Length of control byte and clen.
pub const HEADER_LEN: usize = 3;
/// Longest ciphertext that clen can express, tag included.
pub const MAX_CLEN: usize = u16::MAX as usize;
/// Longest possible frame.
pub const MAX_FRAME: usize = HEADER_LEN + MAX_CLEN;
/// Overhead of a frame without urgent data: header, flags byte, tag.
pub const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;
/// Length of the urgent field.
pub const URGENT_LEN: usize = 2;
/// Most data in a frame without an urgent field.
pub const MAX_DATA: usize = MAX_FRAME - OVERHEAD;

const CONTROL_REKEY: u8 = 0x01;
const FLAG_FIN: u8 = 0x01;
const FLAG_URGENT: u8 = 0x02;

/// A frame's first three bytes, which are its associated data (TC-25).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The control byte as received, reserved bits included.
    pub control: u8,
    /// Length of the ciphertext with its tag.
    pub clen: u16,
}

impl Header {
    /// The header at the front of `bytes`; `None` if there are fewer than three.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [control, high, low, ..] = *bytes else { return None };
        Some(Self { control, clen: u16::from_be_bytes([high, low]) })
    }

    /// The header of a frame to send.
    pub(crate) fn new(rekey: bool, clen: u16) -> Self {
        Self { control: if rekey { CONTROL_REKEY } else { 0 }, clen }
    }

    /// The three bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [high, low] = self.clen.to_be_bytes();
        [self.control, high, low]
    }

    /// Whether this is the first frame of a new generation (TC-31). The other bits are ignored (TC-23).
    #[must_use]
    pub fn rekey(self) -> bool {
        self.control & CONTROL_REKEY != 0
    }

    /// Length of the whole frame.
    #[must_use]
    pub fn frame_len(self) -> usize {
        HEADER_LEN + usize::from(self.clen)
    }

    /// Whether a frame with this header can authenticate at all: its ciphertext is long enough for a tag.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        usize::from(self.clen) >= TAG_LEN
    }
}

/// What goes into a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plaintext<'a> {
    /// FINp: this is the last frame (TC-29).
    pub fin: bool,
    /// The last urgent byte, as an offset from where `data` begins in the application stream (TC-30).
    pub urgent: Option<u16>,
    /// Application data.
    pub data: &'a [u8],
}

impl Plaintext<'_> {
    /// Length of the whole frame that carries it.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        HEADER_LEN + self.prefix_len() + self.data.len() + TAG_LEN
    }

    /// Length of flags byte and urgent field.
    fn prefix_len(&self) -> usize {
        if self.urgent.is_some() { 1 + URGENT_LEN } else { 1 }
    }

    /// Writes it to the front of `out` and returns its length; `None` if `out` is too short.
    pub(crate) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let (flags, rest) = out.split_first_mut()?;
        *flags = if self.fin { FLAG_FIN } else { 0 };
        let rest = match self.urgent {
            None => rest,
            Some(urgent) => {
                *flags |= FLAG_URGENT;
                let (field, rest) = rest.split_first_chunk_mut()?;
                *field = urgent.to_be_bytes();
                rest
            }
        };
        rest.get_mut(..self.data.len())?.copy_from_slice(self.data);
        Some(self.prefix_len() + self.data.len())
    }

    /// Appends it to `out`.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let mut prefix = [0; 1 + URGENT_LEN];
        let head = Plaintext { data: &[], ..*self };
        // The buffer has the length of the longest prefix.
        let len = head.write(&mut prefix).unwrap_or(0);
        out.extend_from_slice(prefix.get(..len).unwrap_or(&[]));
        out.extend_from_slice(self.data);
    }
}

/// The contents of an opened frame; the data is in the frame's own buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Where in the frame's buffer the application data is.
    pub data: Range<usize>,
    /// FINp: this was the last frame (TC-29).
    pub fin: bool,
    /// The last urgent byte, as an offset from where the data begins in the application stream (TC-30).
    pub urgent: Option<u16>,
    /// The frame is the first of a new remote generation.
    pub rekeyed: bool,
}

/// Parses an authentic plaintext; the range is within `plaintext`.
///
/// # Errors
/// No flags byte, or URGp without the urgent field: a violation by the peer, since the plaintext is authentic
/// (docs/readings.md, reading 12).
pub(crate) fn read_plaintext(plaintext: &[u8]) -> Result<(bool, Option<u16>, Range<usize>), PeerViolation> {
    let (&flags, rest) = plaintext.split_first().ok_or(PeerViolation::NoFlags)?;
    let fin = flags & FLAG_FIN != 0;
    if flags & FLAG_URGENT == 0 {
        return Ok((fin, None, 1..plaintext.len()));
    }
    let urgent = *rest.first_chunk().ok_or(PeerViolation::NoUrgent)?;
    Ok((fin, Some(u16::from_be_bytes(urgent)), 1 + URGENT_LEN..plaintext.len()))
}
