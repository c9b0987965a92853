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
mod tests;
