//! Sequence numbers of a connection's two spaces, and offsets in its streams.
//!
//! P is the space that the local kernel sees (plaintext), C the one on the wire (Init message, then frames). Both
//! start at the same initial sequence number, since the SYN passes with its own. They are different types: mixing
//! them does not compile.
//!
//! Packets have 32-bit [`Seq`]s; everything else uses 64-bit [`Offset`]s, where 0 is the first byte after the SYN
//! (TC-26) and the SYN itself is -1, so that nothing wraps in a connection's life.

use core::cmp::Ordering;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Add, AddAssign, Sub};

/// The plaintext sequence space.
#[derive(Debug, Clone, Copy)]
pub enum P {}
/// The ciphertext sequence space.
#[derive(Debug, Clone, Copy)]
pub enum C {}

/// A 32-bit sequence number as in a TCP header.
pub struct Seq<S>(pub u32, PhantomData<S>);

/// A position in a byte stream: bytes after the SYN. The SYN is at -1; a FIN takes one position.
pub struct Offset<S>(i64, PhantomData<S>);

impl<S> Seq<S> {
    /// The sequence number `value`.
    #[must_use]
    pub fn new(value: u32) -> Self {
        Self(value, PhantomData)
    }
}

impl<S> Offset<S> {
    /// The first byte after the SYN.
    pub const START: Self = Self(0, PhantomData);

    /// The position `value`.
    #[must_use]
    pub fn new(value: i64) -> Self {
        Self(value, PhantomData)
    }

    /// The position as a number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// The sequence number of this position in the stream whose SYN had the number `isn`.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are modulo 2^32")]
    pub fn seq(self, isn: u32) -> Seq<S> {
        Seq::new(isn.wrapping_add(1).wrapping_add(self.0 as u32))
    }

    /// The position nearest to `self` whose sequence number is `seq`.
    #[must_use]
    pub fn nearest(self, isn: u32, seq: Seq<S>) -> Self {
        let distance = seq.0.wrapping_sub(self.seq(isn).0).cast_signed();
        self + i64::from(distance)
    }

    /// How far `self` is ahead of `from`; 0 if it is not.
    #[must_use]
    pub fn ahead_of(self, from: Self) -> usize {
        usize::try_from((self.0 - from.0).max(0)).unwrap_or(usize::MAX)
    }
}

impl<S> Clone for Seq<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Seq<S> {}
impl<S> PartialEq for Seq<S> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<S> Eq for Seq<S> {}
impl<S> fmt::Debug for Seq<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S> Clone for Offset<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Offset<S> {}
impl<S> PartialEq for Offset<S> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<S> Eq for Offset<S> {}
impl<S> PartialOrd for Offset<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<S> Ord for Offset<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<S> fmt::Debug for Offset<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<S> Add<i64> for Offset<S> {
    type Output = Self;
    fn add(self, n: i64) -> Self {
        Self(self.0.wrapping_add(n), PhantomData)
    }
}
impl<S> Add<usize> for Offset<S> {
    type Output = Self;
    fn add(self, n: usize) -> Self {
        self + i64::try_from(n).unwrap_or(i64::MAX)
    }
}
impl<S> AddAssign<usize> for Offset<S> {
    fn add_assign(&mut self, n: usize) {
        *self = *self + n;
    }
}
impl<S> Sub<i64> for Offset<S> {
    type Output = Self;
    fn sub(self, n: i64) -> Self {
        Self(self.0.wrapping_sub(n), PhantomData)
    }
}
impl<S> Sub for Offset<S> {
    type Output = i64;
    fn sub(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_crosses_the_wrap_in_both_directions() {
        let isn = u32::MAX - 5;
        let at = Offset::<C>::new(3);
        assert_eq!(at.seq(isn).0, u32::MAX.wrapping_sub(1));
        let later = Offset::<C>::new(20);
        assert_eq!(at.nearest(isn, later.seq(isn)), later);
        assert_eq!(later.nearest(isn, at.seq(isn)), at);
        let far = Offset::<C>::new(10_000_000_000);
        assert_eq!((far - 1000_i64).nearest(isn, far.seq(isn)), far);
    }

    #[test]
    fn the_syn_is_one_before_the_start() {
        assert_eq!((Offset::<P>::START - 1_i64).seq(77).0, 77);
    }
}
