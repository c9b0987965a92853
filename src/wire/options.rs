//! TCP options: the few that the engine must understand, and a builder for option areas.
//!
//! Option areas are walked byte by byte here: generic parsers stop at kinds they do not know, and so at ENO's (kind
//! 69).

/// Option kinds (IANA registry "TCP Option Kind Numbers").
pub mod kind {
    #![expect(missing_docs, reason = "the registry's names")]
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const MSS: u8 = 2;
    pub const WINDOW_SCALE: u8 = 3;
    pub const SACK_PERMITTED: u8 = 4;
    pub const SACK: u8 = 5;
    pub const TIMESTAMPS: u8 = 8;
    pub const MD5: u8 = 19;
    pub const AO: u8 = 29;
    pub const MPTCP: u8 = 30;
    pub const FAST_OPEN: u8 = 34;
    pub const ENO: u8 = 69;
    /// The two shared experimental kinds (RFC 6994), used in the past by Fast Open and by ENO's predecessor.
    pub const EXPERIMENTS: [u8; 2] = [253, 254];
}

/// Maximum length of an option area.
pub const MAX_AREA: usize = 40;

/// RFC 6994 experiment identifier of TCP Fast Open before it had its own kind.
const FAST_OPEN_EXPERIMENT: [u8; 2] = [0xf9, 0x89];
/// The same of ENO's predecessor (RFC 8547, section 11).
const ENO_EXPERIMENT: [u8; 2] = [0x45, 0x4e];

/// Options one after another, kind and length included; ends at an end-of-list or at the first malformed option. NOPs
/// are skipped.
#[derive(Debug, Clone)]
pub struct Walk<'a>(&'a [u8]);

/// Walks the option area `area`.
#[must_use]
pub fn walk(area: &[u8]) -> Walk<'_> {
    Walk(area)
}

impl<'a> Iterator for Walk<'a> {
    /// Kind, and the whole option.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match *self.0 {
                [] | [kind::END, ..] => return None,
                [kind::NOP, ref rest @ ..] => self.0 = rest,
                [k, len, ..] => {
                    let len = usize::from(len);
                    if len < 2 {
                        return None;
                    }
                    let (option, rest) = self.0.split_at_checked(len)?;
                    self.0 = rest;
                    return Some((k, option));
                }
                [_] => return None,
            }
        }
    }
}

/// A timestamps option's two values (RFC 7323).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// The value it echoes.
    pub echo: u32,
}

fn u16_at(option: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(option.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(option: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(option.get(at..at + 4)?.try_into().ok()?))
}

/// The options of a SYN that matter here.
#[derive(Debug, Clone, Copy, Default)]
pub struct SynOptions {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale, at most 14 (RFC 7323).
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Multipath TCP.
    pub mptcp: bool,
    /// The segment is signed (MD5 or AO), which a rewriter would invalidate.
    pub signed: bool,
}

impl SynOptions {
    /// Parses `area`.
    #[must_use]
    pub fn parse(area: &[u8]) -> Self {
        let mut found = Self::default();
        for (k, option) in walk(area) {
            match k {
                kind::MSS => found.mss = u16_at(option, 2),
                kind::WINDOW_SCALE => found.window_scale = option.get(2).map(|s| (*s).min(14)),
                kind::SACK_PERMITTED => found.sack_permitted = true,
                kind::TIMESTAMPS => found.timestamps = timestamps(option),
                kind::MPTCP => found.mptcp = true,
                kind::MD5 | kind::AO => found.signed = true,
                _ => {}
            }
        }
        found
    }
}

fn timestamps(option: &[u8]) -> Option<Timestamps> {
    Some(Timestamps { value: u32_at(option, 2)?, echo: u32_at(option, 6)? })
}

/// The options of a non-SYN segment that matter here.
#[derive(Debug, Clone, Copy, Default)]
pub struct SegmentOptions {
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks, left and right edges as sequence numbers.
    pub sack: [(u32, u32); 4],
    /// Number of SACK blocks.
    pub sack_blocks: usize,
    /// Whether there is an ENO option (ENO-1).
    pub eno: bool,
}

impl SegmentOptions {
    /// Parses `area`.
    #[must_use]
    pub fn parse(area: &[u8]) -> Self {
        let mut found = Self::default();
        // The layout of nearly all segments: NOP NOP timestamps (RFC 7323, appendix A).
        if let [1, 1, kind::TIMESTAMPS, 10, rest @ ..] = area
            && rest.len() == 8
        {
            found.timestamps = u32_at(rest, 0).zip(u32_at(rest, 4)).map(|(value, echo)| Timestamps { value, echo });
            return found;
        }
        for (k, option) in walk(area) {
            match k {
                kind::TIMESTAMPS => found.timestamps = timestamps(option),
                kind::SACK => {
                    for (block, edges) in found.sack.iter_mut().zip(option.get(2..).unwrap_or(&[]).chunks_exact(8)) {
                        if let (Some(left), Some(right)) = (u32_at(edges, 0), u32_at(edges, 4)) {
                            *block = (left, right);
                            found.sack_blocks += 1;
                        }
                    }
                }
                kind::ENO => found.eno = true,
                _ => {}
            }
        }
        found
    }

    /// The SACK blocks.
    #[must_use]
    pub fn sack(&self) -> &[(u32, u32)] {
        self.sack.get(..self.sack_blocks).unwrap_or(&[])
    }
}

/// Whether `option` is TCP Fast Open's, with a cookie or without.
#[must_use]
pub fn is_fast_open(kind_: u8, option: &[u8]) -> bool {
    kind_ == kind::FAST_OPEN || is_experiment(kind_, option, FAST_OPEN_EXPERIMENT)
}

/// Whether `option` is ENO's, of its own kind or of its predecessor's, which never appear together (ENO-20).
#[must_use]
pub fn is_eno_or_its_predecessor(kind_: u8, option: &[u8]) -> bool {
    kind_ == kind::ENO || is_experiment(kind_, option, ENO_EXPERIMENT)
}

fn is_experiment(kind_: u8, option: &[u8], id: [u8; 2]) -> bool {
    kind::EXPERIMENTS.contains(&kind_) && option.get(2..4) == Some(&id)
}

/// An option area under construction.
#[derive(Debug, Clone, Copy)]
pub struct OptionBuf {
    bytes: [u8; MAX_AREA],
    len: usize,
}

impl Default for OptionBuf {
    fn default() -> Self {
        Self { bytes: [kind::END; MAX_AREA], len: 0 }
    }
}

impl OptionBuf {
    /// Bytes used, before padding.
    #[must_use]
    pub fn used(&self) -> usize {
        self.len
    }

    /// Bytes still free.
    #[must_use]
    pub fn room(&self) -> usize {
        MAX_AREA - self.len
    }

    /// Appends a whole option; false, without effect, if it does not fit.
    #[must_use]
    pub fn push(&mut self, option: &[u8]) -> bool {
        let Some(room) = self.bytes.get_mut(self.len..self.len + option.len()) else { return false };
        room.copy_from_slice(option);
        self.len += option.len();
        true
    }

    /// Appends timestamps in the usual layout, preceded by two NOPs.
    #[must_use]
    pub fn push_timestamps(&mut self, ts: Timestamps) -> bool {
        let mut option = [kind::NOP, kind::NOP, kind::TIMESTAMPS, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        option[4..8].copy_from_slice(&ts.value.to_be_bytes());
        option[8..12].copy_from_slice(&ts.echo.to_be_bytes());
        self.push(&option)
    }

    /// Appends as many of `blocks` as fit, preceded by two NOPs.
    pub fn push_sack(&mut self, blocks: &[(u32, u32)]) {
        let fit = (self.room().saturating_sub(4) / 8).min(4).min(blocks.len());
        if fit == 0 {
            return;
        }
        let mut option = [0; 36];
        #[expect(clippy::cast_possible_truncation, reason = "at most 4 blocks")]
        let head = [kind::NOP, kind::NOP, kind::SACK, 2 + 8 * fit as u8];
        option[..4].copy_from_slice(&head);
        for (space, (left, right)) in option[4..].chunks_exact_mut(8).zip(&blocks[..fit]) {
            space[..4].copy_from_slice(&left.to_be_bytes());
            space[4..].copy_from_slice(&right.to_be_bytes());
        }
        let fits = self.push(&option[..4 + 8 * fit]);
        debug_assert!(fits, "the number of blocks was chosen to fit");
    }

    /// The area, padded to a multiple of 4 bytes with end-of-list bytes.
    #[must_use]
    pub fn padded(&self) -> &[u8] {
        self.bytes.get(..self.len.next_multiple_of(4)).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_behind_eno_are_seen() {
        let area = [69, 3, 0x23, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0];
        let parsed = SynOptions::parse(&area);
        assert_eq!(parsed.timestamps, Some(Timestamps { value: 7, echo: 9 }));
        let parsed = SegmentOptions::parse(&area);
        assert!(parsed.eno);
        assert_eq!(parsed.timestamps.map(|t| t.value), Some(7));
    }

    #[test]
    fn impossible_lengths_end_the_walk() {
        for area in [&[2u8, 1][..], &[2], &[2, 0, 1], &[8, 10, 0], &[69]] {
            assert_eq!(walk(area).count(), 0, "{area:?}");
        }
    }

    #[test]
    fn a_full_area_takes_what_fits_of_sack() {
        let mut buf = OptionBuf::default();
        assert!(buf.push_timestamps(Timestamps { value: 1, echo: 2 }));
        buf.push_sack(&[(1, 2), (3, 4), (5, 6), (7, 8)]);
        assert_eq!(buf.padded().len(), 40);
        assert_eq!(SegmentOptions::parse(buf.padded()).sack(), &[(1, 2), (3, 4), (5, 6)]);
        assert!(!buf.push(&[69, 2]));
    }
}
