//! Bytes that have arrived and are not yet believed.
//!
//! What is neither authenticated nor acknowledged stays replaceable: where a segment brings other bytes for a place
//! that already has some, both are kept, in two layers, and authentication decides (a single forged segment must
//! not stall or kill a connection). `first` holds what came first, `last` what came later and differed.

use std::collections::VecDeque;
use std::ops::Range;

use crate::wire::Offset;

/// What an inserted segment was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// Something new in it.
    New,
    /// All of it was there, the same.
    Duplicate,
    /// Some of it was there, different.
    Conflict,
}

/// Which layer counts where both have bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    First,
    Last,
}

#[derive(Debug)]
struct Piece<S> {
    start: Offset<S>,
    bytes: Vec<u8>,
    /// That many of `bytes` were removed from the front: moving the rest up for every frame that is opened costs more.
    skip: usize,
}

impl<S> Piece<S> {
    fn data(&self) -> &[u8] {
        self.bytes.get(self.skip..).unwrap_or(&[])
    }

    fn end(&self) -> Offset<S> {
        self.start + self.data().len()
    }
}

/// A piece grows up to this many bytes before another one is begun.
const PIECE: usize = 64 << 10;
/// What a piece costs besides its bytes, about.
const PIECE_COST: usize = 64;
/// In more pieces than this no stream is kept: nothing honest crumbles that much.
const MAX_CRUMBS: usize = 4096;

/// Pieces in order, not overlapping.
#[derive(Debug)]
struct Layer<S>(VecDeque<Piece<S>>);

impl<S> Layer<S> {
    /// Index of the first piece that ends behind `at`.
    fn find(&self, at: Offset<S>) -> usize {
        self.0.partition_point(|p| p.end() <= at)
    }

    fn at(&self, at: Offset<S>) -> Option<&[u8]> {
        let piece = self.0.get(self.find(at)).filter(|p| p.start <= at)?;
        piece.data().get(at.ahead_of(piece.start)..)
    }

    /// Where the first piece behind `at` starts.
    fn next_start(&self, at: Offset<S>) -> Option<Offset<S>> {
        self.0.get(self.0.partition_point(|p| p.start <= at)).map(|p| p.start)
    }

    /// Adds the parts of `bytes` for which there are none yet; says how many bytes that were.
    fn fill(&mut self, start: Offset<S>, bytes: &[u8]) -> usize {
        let end = start + bytes.len();
        let mut at = start;
        let mut index = self.find(start);
        let mut added = 0;
        while at < end {
            let (until, skip_to) = match self.0.get(index) {
                Some(p) if p.start <= at => {
                    at = p.end();
                    index += 1;
                    continue;
                }
                Some(p) => (p.start.min(end), p.end()),
                None => (end, end),
            };
            let part = bytes.get(at.ahead_of(start)..until.ahead_of(start)).unwrap_or(&[]);
            added += part.len();
            let before = index.checked_sub(1).and_then(|i| self.0.get_mut(i));
            match before.filter(|p| p.end() == at && p.bytes.len() + part.len() <= PIECE) {
                Some(before) => {
                    before.bytes.extend_from_slice(part);
                    index += 1;
                }
                None => {
                    self.0.insert(index, Piece { start: at, bytes: part.to_vec(), skip: 0 });
                    index += 2;
                }
            }
            at = skip_to;
        }
        added
    }

    /// Removes everything in `range`; says how many bytes that were.
    fn remove(&mut self, range: Range<Offset<S>>) -> usize {
        let mut removed = 0;
        let mut index = self.find(range.start);
        while let Some(piece) = self.0.get_mut(index).filter(|p| p.start < range.end) {
            let from = range.start.ahead_of(piece.start);
            let to = range.end.ahead_of(piece.start).min(piece.data().len());
            removed += to.saturating_sub(from);
            if from == 0 {
                piece.skip += to;
                piece.start += to;
                if !piece.data().is_empty() {
                    break;
                }
                self.0.remove(index);
                continue;
            }
            let tail = piece.bytes.split_off(piece.skip + to);
            let tail_start = piece.start + to;
            piece.bytes.truncate(piece.skip + from);
            piece.bytes.shrink_to_fit();
            index += 1;
            if !tail.is_empty() {
                self.0.insert(index, Piece { start: tail_start, bytes: tail, skip: 0 });
                break;
            }
        }
        removed
    }
}

/// Bytes of one stream beyond a point, with gaps, some in two versions.
#[derive(Debug)]
pub(crate) struct Reassembly<S> {
    first: Layer<S>,
    last: Layer<S>,
    held: usize,
    /// Where segments arrived lately, latest first: the order of SACK blocks (RFC 2018, section 4).
    recent: [Option<Offset<S>>; 4],
}

impl<S> Default for Reassembly<S> {
    fn default() -> Self {
        Self { first: Layer(VecDeque::new()), last: Layer(VecDeque::new()), held: 0, recent: [None; 4] }
    }
}

impl<S> Reassembly<S> {
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.held + self.pieces() * PIECE_COST
    }

    fn pieces(&self) -> usize {
        self.first.0.len() + self.last.0.len()
    }

    /// Whether it is in too many pieces to take more.
    pub(crate) fn is_crumbled(&self) -> bool {
        self.pieces() >= MAX_CRUMBS
    }

    /// Whether some place has two versions.
    pub(crate) fn has_conflicts(&self) -> bool {
        !self.last.0.is_empty()
    }

    /// Takes in what a segment brought.
    pub(crate) fn insert(&mut self, start: Offset<S>, bytes: &[u8]) -> Inserted {
        if bytes.is_empty() {
            return Inserted::Duplicate;
        }
        let conflict = self.differs(Prefer::First, start, bytes);
        let kind = if conflict {
            if !self.differs(Prefer::Last, start, bytes) && self.covers(start, bytes.len()) {
                Inserted::Duplicate
            } else {
                self.held -= self.last.remove(start..start + bytes.len());
                self.held += self.last.fill(start, bytes);
                Inserted::Conflict
            }
        } else {
            let added = self.first.fill(start, bytes);
            self.held += added;
            if added > 0 { Inserted::New } else { Inserted::Duplicate }
        };
        self.touch(start);
        kind
    }

    fn touch(&mut self, start: Offset<S>) {
        let at = self.recent.iter().position(|r| *r == Some(start)).unwrap_or(self.recent.len() - 1);
        self.recent[..=at].rotate_right(1);
        self.recent[0] = Some(start);
    }

    fn covers(&self, start: Offset<S>, len: usize) -> bool {
        self.contiguous_end(start) >= start + len
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
                let next = [self.first.next_start(at), self.last.next_start(at)];
                match next.into_iter().flatten().min() {
                    Some(next) => at = next,
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
    pub(crate) fn contiguous_end(&self, from: Offset<S>) -> Offset<S> {
        let mut at = from;
        while let Some(held) = self.read(Prefer::First, at) {
            at += held.len();
        }
        at
    }

    /// Copies `out.len()` bytes from `from` on; false if they are not all there.
    pub(crate) fn copy(&self, prefer: Prefer, from: Offset<S>, out: &mut [u8]) -> bool {
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
    pub(crate) fn remove(&mut self, range: Range<Offset<S>>) {
        self.held -= self.first.remove(range.clone()) + self.last.remove(range);
    }

    /// Forgets everything before `until`.
    pub(crate) fn remove_before(&mut self, until: Offset<S>) {
        if !self.is_empty() {
            self.remove(Offset::new(i64::MIN / 2)..until);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives back memory that is not in use.
    pub(crate) fn shrink(&mut self) {
        self.first.0.shrink_to_fit();
        self.last.0.shrink_to_fit();
    }

    /// The ranges held beyond `after`, as SACK blocks would say it: the one with the latest arrival first.
    pub(crate) fn sack(&self, after: Offset<S>, out: &mut [Range<Offset<S>>; 4]) -> usize {
        let mut n = 0;
        for start in self.recent.into_iter().flatten() {
            let Some(range) = self.range_around(start).filter(|r| r.start > after) else { continue };
            if out[..n].contains(&range) {
                continue;
            }
            out[n] = range;
            n += 1;
            if n == out.len() {
                break;
            }
        }
        n
    }

    /// The stretch without a gap around `at`.
    fn range_around(&self, at: Offset<S>) -> Option<Range<Offset<S>>> {
        self.read(Prefer::First, at)?;
        let mut start = at;
        loop {
            let before = start - 1_i64;
            let one = self.first.0.get(self.first.find(before)).filter(|p| p.start <= before);
            let other = self.last.0.get(self.last.find(before)).filter(|p| p.start <= before);
            match one.or(other) {
                Some(p) => start = p.start,
                None => return Some(start..self.contiguous_end(at)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::C;

    fn at(n: i64) -> Offset<C> {
        Offset::new(n)
    }

    fn text(r: &Reassembly<C>, prefer: Prefer, from: i64, len: usize) -> Option<String> {
        let mut out = vec![0; len];
        r.copy(prefer, at(from), &mut out).then(|| String::from_utf8(out).expect("letters"))
    }

    #[test]
    fn pieces_in_any_order_and_with_overlaps_come_out_whole() {
        let mut r = Reassembly::default();
        assert_eq!(r.insert(at(4), b"efgh"), Inserted::New);
        assert_eq!(r.insert(at(0), b"ab"), Inserted::New);
        assert_eq!(r.contiguous_end(at(0)), at(2));
        assert_eq!(r.insert(at(1), b"bcdefghij"), Inserted::New);
        assert_eq!(text(&r, Prefer::First, 0, 10).as_deref(), Some("abcdefghij"));
        assert_eq!(r.insert(at(3), b"def"), Inserted::Duplicate);
        assert_eq!(r.held, 10);
        r.remove_before(at(7));
        assert_eq!(r.held, 3);
        assert_eq!(text(&r, Prefer::Last, 7, 3).as_deref(), Some("hij"));
    }

    #[test]
    fn both_versions_of_a_place_are_kept_until_one_is_removed() {
        let mut r = Reassembly::default();
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
        let mut r = Reassembly::default();
        r.insert(at(10), b"aa");
        r.insert(at(20), b"bb");
        r.insert(at(12), b"cc");
        let mut blocks = std::array::from_fn(|_| at(0)..at(0));
        assert_eq!(r.sack(at(0), &mut blocks), 2);
        assert_eq!(blocks[..2], [at(10)..at(14), at(20)..at(22)]);
    }

    #[test]
    fn removing_the_middle_leaves_both_ends() {
        let mut r = Reassembly::default();
        r.insert(at(0), b"0123456789");
        r.remove(at(3)..at(6));
        assert_eq!(r.held, 7);
        assert_eq!(r.contiguous_end(at(0)), at(3));
        assert_eq!(text(&r, Prefer::First, 6, 4).as_deref(), Some("6789"));
    }
}
