//! Bytes that have arrived and are not yet trusted.
//!
//! What is neither authenticated nor acknowledged remains replaceable: where a segment has different bytes for a
//! position that already has some, both are kept, in two layers, and authentication decides (a single forged segment
//! must not stall or kill a connection). `first` has what came first, `last` what came later and differed.

mod layer;

use std::collections::BTreeMap;
use std::ops::Range;

use self::layer::{Layer, PIECE};
use crate::wire::Offset;

/// The effect of inserting a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// It had new bytes.
    New,
    /// All of it was held already, identically.
    Duplicate,
    /// Some of it was held, with different bytes.
    Conflict,
    /// Rejected: the stream is in too many pieces, and this would be one more, after all others.
    Refused,
}

/// Which layer takes precedence where both have bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    First,
    Last,
}

/// Approximate overhead of a piece with its range, besides its bytes.
const PIECE_COST: usize = 128;
/// Maximum number of pieces of a stream, apart from those that its bytes need: no honest stream is in more.
const MAX_CRUMBS: usize = 256;

/// Bytes of one stream beyond a point, with gaps, some in two versions. Most streams have none.
#[derive(Debug)]
pub(crate) struct Reassembly<S>(Option<Box<Held<S>>>);

impl<S> Default for Reassembly<S> {
    fn default() -> Self {
        Self(None)
    }
}

impl<S> Reassembly<S> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|held| held.is_empty())
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.held())
    }

    /// Whether any position has two versions.
    pub(crate) fn has_conflicts(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.has_conflicts())
    }

    /// Inserts a segment's bytes. Of a stream in too many pieces the last ones are dropped; the sender retransmits
    /// them.
    pub(crate) fn insert(&mut self, start: Offset<S>, bytes: &[u8]) -> Inserted {
        if bytes.is_empty() {
            return Inserted::Duplicate;
        }
        self.0.get_or_insert_default().insert(start, bytes)
    }

    /// The end of the contiguous bytes from `from` on.
    pub(crate) fn contiguous_end(&self, from: Offset<S>) -> Offset<S> {
        self.0.as_ref().map_or(from, |held| held.contiguous_end(from))
    }

    /// Copies `out.len()` bytes from `from` on; false if they are not all there.
    pub(crate) fn copy(&self, prefer: Prefer, from: Offset<S>, out: &mut [u8]) -> bool {
        self.0.as_ref().map_or(out.is_empty(), |held| held.copy(prefer, from, out))
    }

    /// Forgets `range`.
    pub(crate) fn remove(&mut self, range: Range<Offset<S>>) {
        if let Some(held) = &mut self.0 {
            held.remove(range);
        }
    }

    /// Forgets everything before `until`.
    pub(crate) fn remove_before(&mut self, until: Offset<S>) {
        if let Some(held) = &mut self.0 {
            held.remove_before(until);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    /// Releases unused memory.
    pub(crate) fn shrink(&mut self) {
        self.0.take_if(|held| held.is_empty());
        if let Some(held) = &mut self.0 {
            held.shrink();
        }
    }

    /// The ranges held beyond `after`, in the order of SACK blocks: the one with the latest arrival first.
    pub(crate) fn sack(&self, after: Offset<S>, out: &mut [Range<Offset<S>>; 4]) -> usize {
        self.0.as_ref().map_or(0, |held| held.sack(after, out))
    }
}

/// What a [`Reassembly`] holds.
#[derive(Debug)]
struct Held<S> {
    first: Layer<S>,
    last: Layer<S>,
    /// What is held in either, without gaps: where it begins, and where it ends.
    ranges: BTreeMap<Offset<S>, Offset<S>>,
    /// Where segments arrived lately, latest first: the order of SACK blocks (RFC 2018, section 4).
    recent: [Option<Offset<S>>; 4],
}

impl<S> Default for Held<S> {
    fn default() -> Self {
        Self { first: Layer::default(), last: Layer::default(), ranges: BTreeMap::new(), recent: [None; 4] }
    }
}

impl<S> Held<S> {
    fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes of memory held.
    fn held(&self) -> usize {
        self.memory() + self.pieces() * PIECE_COST
    }

    fn pieces(&self) -> usize {
        self.first.len() + self.last.len()
    }

    fn memory(&self) -> usize {
        self.first.memory() + self.last.memory()
    }

    fn is_crumbled(&self) -> bool {
        self.pieces() > MAX_CRUMBS + self.memory() / (PIECE / 4)
    }

    /// Whether some place has two versions.
    fn has_conflicts(&self) -> bool {
        !self.last.is_empty()
    }

    /// Takes in what a segment brought. Of a stream in too many pieces the last ones are dropped; the sender sends them again.
    fn insert(&mut self, start: Offset<S>, bytes: &[u8]) -> Inserted {
        let end = start + bytes.len();
        let kind = if self.differs(Prefer::First, start, bytes) {
            if self.contiguous_end(start) >= end && !self.differs(Prefer::Last, start, bytes) {
                Inserted::Duplicate
            } else {
                self.last.remove(&(start..end));
                self.last.fill(start, bytes);
                Inserted::Conflict
            }
        } else if self.first.fill(start, bytes) {
            Inserted::New
        } else {
            Inserted::Duplicate
        };
        if kind != Inserted::Duplicate {
            self.cover(start, end);
            while self.is_crumbled()
                && let Some(furthest) = self.furthest()
            {
                self.remove(furthest.clone());
                if furthest.start <= start {
                    return Inserted::Refused;
                }
            }
        }
        self.touch(start);
        kind
    }

    /// The piece that lies behind all others.
    fn furthest(&self) -> Option<Range<Offset<S>>> {
        self.first.furthest().max(self.last.furthest()).map(|(start, end)| start..end)
    }

    /// Notes that `start..end` is held.
    fn cover(&mut self, mut start: Offset<S>, mut end: Offset<S>) {
        if let Some((from, to)) = self.ranges.range(..=start).next_back().map(|(from, to)| (*from, *to))
            && to >= start
        {
            (start, end) = (from, end.max(to));
        }
        while let Some((from, to)) = self.ranges.range(start..=end).next().map(|(from, to)| (*from, *to)) {
            self.ranges.remove(&from);
            end = end.max(to);
        }
        self.ranges.insert(start, end);
    }

    /// Notes that `range` is not held any more.
    fn uncover(&mut self, range: &Range<Offset<S>>) {
        if let Some((from, to)) = self.range_of(range.start)
            && from < range.start
        {
            self.ranges.insert(from, range.start);
            self.ranges.insert(range.start, to);
        }
        while let Some((from, to)) = self.ranges.range(range.clone()).next().map(|(from, to)| (*from, *to)) {
            self.ranges.remove(&from);
            if to > range.end {
                self.ranges.insert(range.end, to);
            }
        }
    }

    /// The stretch without a gap in which `at` lies.
    fn range_of(&self, at: Offset<S>) -> Option<(Offset<S>, Offset<S>)> {
        self.ranges.range(..=at).next_back().map(|(from, to)| (*from, *to)).filter(|(_, to)| *to > at)
    }

    fn touch(&mut self, start: Offset<S>) {
        let at = self.recent.iter().position(|r| *r == Some(start)).unwrap_or(self.recent.len() - 1);
        self.recent[..=at].rotate_right(1);
        self.recent[0] = Some(start);
    }

    /// Whether `bytes` differ somewhere from what is held, read with `prefer`.
    fn differs(&self, prefer: Prefer, start: Offset<S>, bytes: &[u8]) -> bool {
        let end = start + bytes.len();
        let mut at = start;
        while at < end {
            let offset = at.ahead_of(start);
            if let Some(held) = self.read(prefer, at) {
                let n = held.len().min(bytes.len() - offset);
                if held.get(..n) != bytes.get(offset..offset + n) {
                    return true;
                }
                at += n;
            } else {
                match self.ranges.range(at..).next() {
                    Some((next, _)) => at = *next,
                    None => break,
                }
            }
        }
        false
    }

    /// The bytes held from `at` on, as far as one layer says in one piece.
    fn read(&self, prefer: Prefer, at: Offset<S>) -> Option<&[u8]> {
        let (one, other) = match prefer {
            Prefer::First => (&self.first, &self.last),
            Prefer::Last => (&self.last, &self.first),
        };
        one.at(at).or_else(|| {
            let held = other.at(at)?;
            let until = one.next_start(at).map_or(held.len(), |next| next.ahead_of(at));
            held.get(..until.min(held.len()))
        })
    }

    /// The end of what is held without a gap from `from` on.
    fn contiguous_end(&self, from: Offset<S>) -> Offset<S> {
        self.range_of(from).map_or(from, |(_, to)| to)
    }

    /// Copies `out.len()` bytes from `from` on; false if they are not all there.
    fn copy(&self, prefer: Prefer, from: Offset<S>, out: &mut [u8]) -> bool {
        let mut done = 0;
        while let Some(room) = out.get_mut(done..).filter(|r| !r.is_empty()) {
            let Some(held) = self.read(prefer, from + done) else { return false };
            let n = held.len().min(room.len());
            room[..n].copy_from_slice(&held[..n]);
            done += n;
        }
        true
    }

    /// Forgets `range`.
    fn remove(&mut self, range: Range<Offset<S>>) {
        if range.start < range.end {
            self.first.remove(&range);
            self.last.remove(&range);
            self.uncover(&range);
        }
    }

    /// Forgets everything before `until`.
    fn remove_before(&mut self, until: Offset<S>) {
        if let Some((first, _)) = self.ranges.first_key_value() {
            self.remove(*first..until);
        }
    }

    /// Gives back memory that is not in use.
    fn shrink(&mut self) {
        self.first.shrink();
        self.last.shrink();
    }

    /// The ranges held beyond `after`, as SACK blocks would say it: the one with the latest arrival first.
    fn sack(&self, after: Offset<S>, out: &mut [Range<Offset<S>>; 4]) -> usize {
        let mut n = 0;
        for start in self.recent.into_iter().flatten() {
            let Some((from, to)) = self.range_of(start).filter(|(from, _)| *from > after) else { continue };
            if out[..n].contains(&(from..to)) {
                continue;
            }
            out[n] = from..to;
            n += 1;
            if n == out.len() {
                break;
            }
        }
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::C;

    fn at(n: i64) -> Offset<C> {
        Offset::new(n)
    }

    fn text(r: &Held<C>, prefer: Prefer, from: i64, len: usize) -> Option<String> {
        let mut out = vec![0; len];
        r.copy(prefer, at(from), &mut out).then(|| String::from_utf8(out).expect("letters"))
    }

    #[test]
    fn pieces_in_any_order_and_with_overlaps_come_out_whole() {
        let mut r = Held::default();
        assert_eq!(r.insert(at(4), b"efgh"), Inserted::New);
        assert_eq!(r.insert(at(0), b"ab"), Inserted::New);
        assert_eq!(r.contiguous_end(at(0)), at(2));
        assert_eq!(r.insert(at(1), b"bcdefghij"), Inserted::New);
        assert_eq!(text(&r, Prefer::First, 0, 10).as_deref(), Some("abcdefghij"));
        assert_eq!(r.insert(at(3), b"def"), Inserted::Duplicate);
        assert_eq!(r.contiguous_end(at(0)), at(10));
        r.remove_before(at(7));
        assert_eq!(r.ranges.len(), 1);
        assert_eq!(text(&r, Prefer::Last, 7, 3).as_deref(), Some("hij"));
    }

    #[test]
    fn both_versions_of_a_place_are_kept_until_one_is_removed() {
        let mut r = Held::default();
        r.insert(at(0), b"FORGED");
        assert_eq!(r.insert(at(2), b"genuine"), Inserted::Conflict);
        assert_eq!(text(&r, Prefer::First, 0, 9).as_deref(), Some("FORGEDine"));
        assert_eq!(text(&r, Prefer::Last, 0, 9).as_deref(), Some("FOgenuine"));
        assert_eq!(r.insert(at(2), b"genuine"), Inserted::Duplicate);
        assert_eq!(r.insert(at(0), b"FORGED"), Inserted::Duplicate);
        r.remove(at(0)..at(9));
        assert!(r.is_empty() && !r.has_conflicts());
    }

    #[test]
    fn sack_blocks_name_the_latest_arrival_first() {
        let mut r = Held::default();
        r.insert(at(10), b"aa");
        r.insert(at(20), b"bb");
        r.insert(at(12), b"cc");
        let mut blocks = std::array::from_fn(|_| at(0)..at(0));
        assert_eq!(r.sack(at(0), &mut blocks), 2);
        assert_eq!(blocks[..2], [at(10)..at(14), at(20)..at(22)]);
    }

    #[test]
    fn removing_the_middle_leaves_both_ends() {
        let mut r = Held::default();
        r.insert(at(0), b"0123456789");
        r.remove(at(3)..at(6));
        assert_eq!(r.contiguous_end(at(0)), at(3));
        assert_eq!(text(&r, Prefer::First, 6, 4).as_deref(), Some("6789"));
    }

    /// One byte at a time from behind: what each further segment costs does not grow.
    #[test]
    fn bytes_in_falling_order_become_one_piece() {
        let mut r = Held::default();
        for n in (1..4_000).rev() {
            assert_eq!(r.insert(at(n), &[n as u8]), Inserted::New);
            assert_eq!((r.pieces(), r.ranges.len()), (1, 1));
        }
        assert!(r.held() < 9_000, "{}", r.held());
    }

    #[test]
    fn of_a_stream_in_too_many_pieces_the_furthest_are_dropped() {
        let mut r = Held::default();
        for n in 0..10_000 {
            r.insert(at(20_000 - 2 * n), b"x");
            assert!(r.pieces() <= MAX_CRUMBS + 1 && r.ranges.len() == r.pieces());
        }
        assert_eq!(r.contiguous_end(at(2)), at(3), "the nearest stay");
        assert_eq!(r.insert(at(30_000), b"x"), Inserted::Refused);
        assert!(r.held() < 64 << 10, "{}", r.held());
        // Much that is whole is not crumbs.
        let mut r = Held::default();
        for n in 0..1_000 {
            assert_eq!(r.insert(at(n * 70_000), &[7; 64 << 10]), Inserted::New);
        }
        assert_eq!(r.pieces(), 1_000);
    }

    /// Against a plain model: what is held, where gaps are, and what both layers say.
    #[test]
    fn random_segments_and_removals_agree_with_a_model() {
        let mut seed = 1_u64;
        let mut random = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        for _ in 0..200 {
            let mut r = Held::default();
            let mut first = [None::<u8>; 64];
            for _ in 0..40 {
                let start = random(60) as usize;
                let end = (start + 1 + random(12) as usize).min(64);
                if random(4) == 0 {
                    r.remove(at(start as i64)..at(end as i64));
                    first[start..end].fill(None);
                } else {
                    // The same bytes in the same place, so that no layer but the first is used.
                    let bytes: Vec<u8> = (start..end).map(|n| n as u8).collect();
                    let new = first[start..end].iter().any(Option::is_none);
                    assert_eq!(r.insert(at(start as i64), &bytes) == Inserted::New, new);
                    (start..end).for_each(|n| first[n] = Some(n as u8));
                }
                for n in 0..64 {
                    let gap = (n..64).find(|n| first[*n].is_none()).unwrap_or(64);
                    assert_eq!(r.contiguous_end(at(n as i64)), at(gap as i64));
                    let mut out = vec![0; gap - n];
                    assert!(r.copy(Prefer::First, at(n as i64), &mut out));
                    assert!(out.iter().enumerate().all(|(i, byte)| usize::from(*byte) == n + i));
                }
                assert_eq!(r.first.memory(), r.first.count_memory());
            }
        }
    }
}
