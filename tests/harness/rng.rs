//! The one source of chance: everything in a run follows from a 64-bit seed.

use std::time::Duration;

/// SplitMix64's output function. It is a bijection, see [`unmix`].
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The inverse of [`mix`].
pub fn unmix(mut z: u64) -> u64 {
    z = (z ^ (z >> 31) ^ (z >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    z = (z ^ (z >> 27) ^ (z >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    z ^ (z >> 30) ^ (z >> 60)
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x6a09_e667_f3bc_c908))
    }
    /// A generator of its own for a part of the run, so that parts do not disturb each other.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
    /// 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }
    /// `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
    /// `low` to `high`, every order of magnitude alike.
    pub fn scale(&mut self, low: u64, high: u64) -> u64 {
        let (low_f, high_f) = ((low.max(1) as f64).ln(), (high as f64).ln());
        let x = low_f + (high_f - low_f) * (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        (x.exp() as u64).clamp(low, high)
    }
    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && ((self.next() >> 11) as f64 / (1u64 << 53) as f64) < p
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
    pub fn micros(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.range(low, high))
    }
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// What one end of a connection sends: an endless stream that is its own marker. Each aligned
/// 8-byte word is `mix(key + index)`, so that any 15 bytes of it can be recognised anywhere, with `unmix`.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub key: u64,
}

impl Stream {
    pub fn byte(self, at: u64) -> u8 {
        mix(self.key.wrapping_add(at / 8)).to_le_bytes()[(at % 8) as usize]
    }
    pub fn bytes(self, from: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 16);
        let mut word = from / 8;
        let skip = (from % 8) as usize;
        while out.len() < len + skip {
            out.extend_from_slice(&mix(self.key.wrapping_add(word)).to_le_bytes());
            word += 1;
        }
        out.drain(..skip);
        out.truncate(len);
        out
    }
    /// Where in the first `length` bytes of the stream the word is from, if it is.
    pub fn find(self, unmixed: u64, length: u64) -> Option<u64> {
        let index = unmixed.wrapping_sub(self.key);
        (index < length / 8).then(|| index * 8)
    }
}

/// The first place in `bytes` that shows a piece of one of `streams` (each with the bytes written so far).
pub fn leak(bytes: &[u8], streams: &[(Stream, u64)]) -> Option<(usize, usize, u64)> {
    for (at, window) in bytes.windows(8).enumerate() {
        let mut word = [0; 8];
        word.copy_from_slice(window);
        let unmixed = unmix(u64::from_le_bytes(word));
        for (which, (stream, length)) in streams.iter().enumerate() {
            if let Some(offset) = stream.find(unmixed, *length) {
                return Some((at, which, offset));
            }
        }
    }
    None
}

#[test]
fn mixing_is_undone() {
    for i in 0..1000u64 {
        let x = i.wrapping_mul(0x1234_5678_9abc_def1);
        assert_eq!(unmix(mix(x)), x);
    }
}

#[test]
fn any_fifteen_bytes_of_a_stream_are_recognised() {
    let stream = Stream { key: 77 };
    for from in 0..40 {
        let mut wire = vec![0x55; 13];
        wire.extend(stream.bytes(from, 15));
        wire.extend([0x55; 5]);
        assert!(leak(&wire, &[(stream, 100)]).is_some(), "from {from}");
    }
    assert_eq!(leak(&[0x55; 100], &[(stream, 100)]), None);
    let piece = stream.bytes(3, 20);
    assert!(piece.iter().enumerate().all(|(i, b)| *b == stream.byte(3 + i as u64)));
}
