//! One version of what a stream holds.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::Range;

use crate::wire::Offset;

/// Pieces that touch are merged up to this many bytes.
pub(super) const PIECE: usize = 64 << 10;

#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// That many of `bytes` were removed from the front, never more than there are: moving the rest up for every frame that is
    /// opened costs more.
    skip: usize,
}

impl Piece {
    fn data(&self) -> &[u8] {
        &self.bytes[self.skip..]
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.skip
    }
}

/// Pieces by where they start, not overlapping; neighbours that fit into one are one.
#[derive(Debug)]
pub(super) struct Layer<S> {
    pieces: BTreeMap<Offset<S>, Piece>,
    /// The memory of all pieces.
    memory: usize,
}

impl<S> Default for Layer<S> {
    fn default() -> Self {
        Self { pieces: BTreeMap::new(), memory: 0 }
    }
}

impl<S> Layer<S> {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many pieces there are.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The memory of all pieces, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    fn insert(&mut self, start: Offset<S>, piece: Piece) {
        self.memory += piece.bytes.capacity();
        self.pieces.insert(start, piece);
    }

    fn take(&mut self, start: Offset<S>) -> Option<Piece> {
        let piece = self.pieces.remove(&start)?;
        self.memory -= piece.bytes.capacity();
        Some(piece)
    }

    /// The last piece that starts at or before `at`, and where it starts.
    fn before(&self, at: Offset<S>) -> Option<(Offset<S>, &Piece)> {
        self.pieces.range(..=at).next_back().map(|(start, piece)| (*start, piece))
    }

    /// The piece that lies behind all others.
    pub(super) fn furthest(&self) -> Option<(Offset<S>, Offset<S>)> {
        self.pieces.last_key_value().map(|(start, piece)| (*start, *start + piece.len()))
    }

    /// What is held from `at` on, as far as its piece goes.
    pub(super) fn at(&self, at: Offset<S>) -> Option<&[u8]> {
        let (start, piece) = self.before(at)?;
        piece.data().get(at.ahead_of(start)..).filter(|held| !held.is_empty())
    }

    /// Where the first piece behind `at` starts.
    pub(super) fn next_start(&self, at: Offset<S>) -> Option<Offset<S>> {
        self.pieces.range((Excluded(at), Unbounded)).next().map(|(start, _)| *start)
    }

    /// Adds the parts of `bytes` for which there are none yet; whether there were any.
    pub(super) fn fill(&mut self, start: Offset<S>, bytes: &[u8]) -> bool {
        let mut at = start;
        let mut rest = bytes;
        let mut added = false;
        while !rest.is_empty() {
            let (held, room) = match self.at(at) {
                Some(held) => (true, held.len()),
                None => (false, self.next_start(at).map_or(rest.len(), |next| next.ahead_of(at))),
            };
            let (part, behind) = rest.split_at(room.min(rest.len()));
            if !held {
                self.put(at, part);
                added = true;
            }
            at += part.len();
            rest = behind;
        }
        added
    }

    /// Adds `bytes` where there are none, merged with what they touch.
    fn put(&mut self, start: Offset<S>, bytes: &[u8]) {
        let end = start + bytes.len();
        let left = self.before(start).filter(|(at, piece)| *at + piece.len() == start);
        // With what was removed from its front: or it would grow for ever.
        let left = left.filter(|(_, piece)| piece.bytes.len() + bytes.len() <= PIECE);
        let (at, mut piece) = match left.map(|(at, _)| at).and_then(|at| Some((at, self.take(at)?))) {
            Some(left) => left,
            None => (start, Piece::default()),
        };
        let right = self.pieces.get(&end).filter(|right| piece.bytes.len() + bytes.len() + right.len() <= PIECE);
        let right = if right.is_some() { self.take(end) } else { None };
        piece.bytes.reserve(bytes.len() + right.as_ref().map_or(0, Piece::len));
        piece.bytes.extend_from_slice(bytes);
        if let Some(right) = right {
            piece.bytes.extend_from_slice(right.data());
        }
        self.insert(at, piece);
    }

    /// Removes everything in `range`.
    pub(super) fn remove(&mut self, range: &Range<Offset<S>>) {
        let mut from = range.start;
        if let Some((start, piece)) = self.before(from)
            && start + piece.len() > from
        {
            from = start;
        }
        while let Some(start) = self.pieces.range(from..).next().map(|(start, _)| *start).filter(|s| *s < range.end) {
            let Some(mut piece) = self.take(start) else { return };
            let head = range.start.ahead_of(start);
            let tail = range.end.ahead_of(start);
            if tail < piece.len() {
                let rest = if head == 0 {
                    Piece { skip: piece.skip + tail, bytes: std::mem::take(&mut piece.bytes) }
                } else {
                    Piece { bytes: piece.data()[tail..].to_vec(), skip: 0 }
                };
                self.insert(start + tail, rest);
            }
            if head > 0 {
                piece.bytes.truncate(piece.skip + head);
                piece.bytes.shrink_to_fit();
                self.insert(start, piece);
            }
            from = range.start;
        }
    }

    /// Gives back memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.memory = 0;
        for piece in self.pieces.values_mut() {
            if piece.skip > 0 {
                piece.bytes.drain(..piece.skip);
                piece.skip = 0;
            }
            piece.bytes.shrink_to_fit();
            self.memory += piece.bytes.capacity();
        }
    }

    /// The memory of all pieces, counted anew.
    #[cfg(test)]
    pub(super) fn count_memory(&self) -> usize {
        self.pieces.values().map(|piece| piece.bytes.capacity()).sum()
    }
}
