//! Frame boundaries in both sequence spaces, and the bytes of frames in flight.

use std::collections::VecDeque;

use super::pool::Pool;
use crate::wire::{C, Offset, P};

/// The end of a frame (or an Init message, or a FIN) in both spaces. It starts at the end of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) c: Offset<C>,
    pub(crate) p: Offset<P>,
}

impl Boundary {
    pub(crate) const START: Self = Self { c: Offset::START, p: Offset::START };
}

/// The boundaries of frames that are not completely acknowledged on both sides, in order.
#[derive(Debug)]
pub(crate) struct Boundaries {
    /// Where the first of `ends` begins.
    base: Boundary,
    ends: VecDeque<Boundary>,
}

impl Default for Boundaries {
    fn default() -> Self {
        Self { base: Boundary::START, ends: VecDeque::new() }
    }
}

impl Boundaries {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.ends.len() * size_of::<Boundary>()
    }

    /// How many frames are listed.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The boundary before the first frame still listed.
    pub(crate) fn base(&self) -> Boundary {
        self.base
    }

    /// The end of the last frame.
    pub(crate) fn end(&self) -> Boundary {
        self.ends.back().copied().unwrap_or(self.base)
    }

    /// The end of the first frame still listed.
    pub(crate) fn first(&self) -> Option<Boundary> {
        self.ends.front().copied()
    }

    /// Adds a frame that ends at `end`.
    pub(crate) fn push(&mut self, end: Boundary) {
        debug_assert!(end.c > self.end().c && end.p >= self.end().p, "frames are appended in order");
        self.ends.push_back(end);
    }

    /// The same, replacing the last one if there is nothing of P in between: where single frames do not matter, empty
    /// ones take no memory.
    pub(crate) fn push_in_place(&mut self, end: Boundary) {
        match self.ends.back_mut().filter(|last| last.p == end.p) {
            Some(last) => *last = end,
            None => self.push(end),
        }
    }

    /// The ends of the frames that end at or before `ack` in C.
    pub(crate) fn up_to(&self, ack: Offset<C>) -> impl Iterator<Item = Boundary> + '_ {
        self.ends.iter().copied().take_while(move |end| end.c <= ack)
    }

    /// Removes the frames that end at or before `ack` in C; returns the P position up to which whole frames are
    /// acknowledged.
    pub(crate) fn acknowledge_c(&mut self, ack: Offset<C>) -> Offset<P> {
        while let Some(end) = self.ends.front().copied().filter(|e| e.c <= ack) {
            self.base = end;
            self.ends.pop_front();
        }
        self.base.p
    }

    /// Removes the frames that end at or before `ack` in P; returns the C position up to which everything is
    /// acknowledged.
    pub(crate) fn acknowledge_p(&mut self, ack: Offset<P>) -> Offset<C> {
        while let Some(end) = self.ends.front().copied().filter(|e| e.p <= ack) {
            self.base = end;
            self.ends.pop_front();
        }
        self.base.c
    }

    /// Gives back memory that is not in use.
    pub(crate) fn shrink(&mut self) {
        self.ends.shrink_to_fit();
    }

    /// The last boundary at or before `c`.
    pub(crate) fn floor_c(&self, c: Offset<C>) -> Boundary {
        match self.ends.partition_point(|e| e.c <= c).checked_sub(1) {
            Some(i) => self.ends.get(i).copied().unwrap_or(self.base),
            None => self.base,
        }
    }

    /// The first boundary at or after `c`, or the last one if there is none.
    pub(crate) fn ceil_c(&self, c: Offset<C>) -> Boundary {
        if c <= self.base.c {
            return self.base;
        }
        self.ends.get(self.ends.partition_point(|e| e.c < c)).copied().unwrap_or_else(|| self.end())
    }

    /// The C range of the frames that contain the P range `from..to`.
    pub(crate) fn cover_p(&self, from: Offset<P>, to: Offset<P>) -> (Offset<C>, Offset<C>) {
        let before = |i: usize| i.checked_sub(1).and_then(|i| self.ends.get(i)).copied().unwrap_or(self.base);
        let mut first = self.ends.partition_point(|e| e.p <= from);
        // Includes frames without P bytes right before it, since the kernel will never ask for them.
        while first > 0 && before(first).p == before(first - 1).p {
            first -= 1;
        }
        let start = before(first).c;
        let last = self.ends.partition_point(|e| e.p < to);
        let end = self.ends.get(last).copied().unwrap_or_else(|| self.end());
        (start, end.c.max(start))
    }
}

/// The ends of recently acknowledged frames, to which D-SACKs refer (RFC 2883).
#[derive(Debug, Default)]
pub(crate) struct Acknowledged(VecDeque<Boundary>);

impl Acknowledged {
    /// The frames in flight during ten milliseconds at a gigabit per second.
    const MOST: usize = 1024;

    /// Notes that the frame that ends at `end` was acknowledged.
    pub(crate) fn note(&mut self, end: Boundary) {
        if self.0.len() >= Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(end);
    }

    /// The P range of the whole frames in the C range `left..right`, if it is known and there are any with bytes of
    /// P.
    pub(crate) fn within(&self, left: Offset<C>, right: Offset<C>) -> Option<(Offset<P>, Offset<P>)> {
        self.0.front().filter(|first| first.c <= left)?;
        let from = self.0.get(self.0.partition_point(|end| end.c < left))?;
        let to = self.0.get(self.0.partition_point(|end| end.c <= right).checked_sub(1)?)?;
        (from.p < to.p).then_some((from.p, to.p))
    }

    /// Gives back the memory.
    pub(crate) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }
}

/// Bytes of a stream that are kept until they are acknowledged, in their original pieces.
#[derive(Debug)]
pub(crate) struct Store<S> {
    pieces: VecDeque<Stored<S>>,
    held: usize,
}

#[derive(Debug)]
struct Stored<S> {
    start: Offset<S>,
    bytes: Vec<u8>,
}

impl<S> Default for Store<S> {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), held: 0 }
    }
}

/// Maximum number of pieces gathered into one packet.
pub(crate) const MAX_PIECES: usize = 64;

impl<S> Store<S> {
    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Appends `bytes`, which begin at `start`, where the ones before ended.
    pub(crate) fn append(&mut self, start: Offset<S>, bytes: Vec<u8>) {
        self.held += bytes.capacity();
        self.pieces.push_back(Stored { start, bytes });
    }

    /// Appends `bytes`, if there are any, in memory from `pool`.
    pub(crate) fn push(&mut self, start: Offset<S>, bytes: Vec<u8>, pool: &mut Pool) {
        if bytes.is_empty() {
            pool.give(bytes);
        } else {
            self.append(start, bytes);
        }
    }

    /// Releases every piece that is entirely before `until`.
    pub(crate) fn release(&mut self, until: Offset<S>, pool: &mut Pool) {
        while self.pieces.front().is_some_and(|p| p.start + p.bytes.len() <= until) {
            if let Some(piece) = self.pieces.pop_front() {
                self.held -= piece.bytes.capacity();
                pool.give(piece.bytes);
            }
        }
    }

    /// Releases unused memory.
    pub(crate) fn shrink(&mut self) {
        self.pieces.shrink_to_fit();
    }

    /// The bytes `from..to` as slices in `out`, and where they end: before `to` if there are not so many or they lie in too many
    /// pieces. `None` if what begins at `from` is not here.
    pub(crate) fn gather<'a, 'b>(
        &'a self,
        from: Offset<S>,
        to: Offset<S>,
        out: &'b mut [&'a [u8]; MAX_PIECES],
    ) -> Option<(&'b [&'a [u8]], Offset<S>)> {
        let first = self.pieces.partition_point(|p| p.start + p.bytes.len() <= from);
        let mut at = from;
        let mut n = 0;
        for (slot, piece) in out.iter_mut().zip(self.pieces.range(first..)) {
            if at >= to || piece.start > at {
                break;
            }
            let begin = at.ahead_of(piece.start);
            let end = to.ahead_of(piece.start).min(piece.bytes.len());
            *slot = piece.bytes.get(begin..end)?;
            at += slot.len();
            n += 1;
        }
        Some((out.get(..n)?, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b(c: i64, p: i64) -> Boundary {
        Boundary { c: Offset::new(c), p: Offset::new(p) }
    }

    /// An Init message of 100 bytes, two frames of 10 bytes, an empty frame, one of 5.
    fn example() -> Boundaries {
        let mut f = Boundaries::default();
        for end in [b(100, 0), b(130, 10), b(160, 20), b(180, 20), b(205, 25)] {
            f.push(end);
        }
        f
    }

    #[test]
    fn an_acknowledgement_inside_a_frame_counts_for_the_frames_before() {
        let mut f = example();
        assert_eq!(f.acknowledge_c(Offset::new(159)), Offset::new(10));
        assert_eq!(f.acknowledge_c(Offset::new(160)), Offset::new(20));
        assert_eq!(f.acknowledge_c(Offset::new(1000)), Offset::new(25));
        assert!(f.is_empty());
    }

    #[test]
    fn frames_without_data_are_acknowledged_with_the_data_before_them() {
        let mut f = example();
        assert_eq!(f.acknowledge_p(Offset::new(0)), Offset::new(100));
        assert_eq!(f.acknowledge_p(Offset::new(19)), Offset::new(130));
        assert_eq!(f.acknowledge_p(Offset::new(20)), Offset::new(180));
    }

    #[test]
    fn a_plaintext_range_is_covered_by_whole_frames_and_the_empty_ones_before_it() {
        let f = example();
        let cover = |from, to| {
            let (s, e) = f.cover_p(Offset::new(from), Offset::new(to));
            (s.get(), e.get())
        };
        assert_eq!(cover(0, 10), (0, 130));
        assert_eq!(cover(12, 13), (130, 160));
        assert_eq!(cover(20, 25), (160, 205));
        assert_eq!(cover(5, 25), (0, 205), "the Init message before the frame goes along");
    }

    #[test]
    fn what_was_acknowledged_is_told_in_whole_frames_of_the_kernels() {
        let mut all = Acknowledged::default();
        for end in [b(100, 0), b(130, 10), b(160, 20), b(180, 20), b(205, 25)] {
            all.note(end);
        }
        let within =
            |left, right| all.within(Offset::new(left), Offset::new(right)).map(|(from, to)| (from.get(), to.get()));
        assert_eq!(within(100, 130), Some((0, 10)));
        assert_eq!(within(101, 179), Some((10, 20)));
        assert_eq!(within(100, 300), Some((0, 25)));
        assert_eq!(within(160, 180), None, "nothing of the kernel's");
        assert_eq!(within(101, 159), None, "no whole frame");
        assert_eq!(within(99, 130), None, "forgotten");
        for n in 0..2_000 {
            all.note(b(1_000 + n * 30, 1_000 + n * 10));
        }
        assert_eq!(all.0.len(), Acknowledged::MOST);
    }

    #[test]
    fn edges_shrink_to_frames() {
        let f = example();
        assert_eq!(f.floor_c(Offset::new(159)), b(130, 10));
        assert_eq!(f.ceil_c(Offset::new(131)), b(160, 20));
        assert_eq!(f.ceil_c(Offset::new(130)), b(130, 10));
        assert_eq!(f.floor_c(Offset::new(0)), b(0, 0));
    }

    #[test]
    fn a_store_gathers_across_pieces_and_lets_go_of_whole_ones() {
        let mut s = Store::<C>::default();
        let mut pool = Pool::default();
        s.push(Offset::new(0), b"abc".to_vec(), &mut pool);
        s.push(Offset::new(3), b"defg".to_vec(), &mut pool);
        let mut out = [&[][..]; MAX_PIECES];
        let (found, end) = s.gather(Offset::new(1), Offset::new(5), &mut out).expect("it is here");
        assert_eq!(found, [b"bc", b"de"]);
        assert_eq!(end, Offset::new(5));
        s.release(Offset::new(4), &mut pool);
        assert_eq!(s.pieces.len(), 1);
        let mut out = [&[][..]; MAX_PIECES];
        let (found, end) = s.gather(Offset::new(4), Offset::new(99), &mut out).expect("it is here");
        assert_eq!((found.len(), end), (1, Offset::new(7)));
    }
}
