//! A pool of memory for frames in flight and for plaintext awaiting the kernel: a connection in progress allocates
//! nothing.

/// Capacities of the blocks, in bytes. The second last fits a super-packet's frames, the last the longest possible
/// content.
const SIZES: [usize; 11] = [128, 256, 512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 80 << 10];
/// Maximum number of bytes kept for reuse.
const KEEP: usize = 16 << 20;

/// Unused blocks of memory.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// One list for each size.
    free: [Vec<Vec<u8>>; SIZES.len()],
    kept: usize,
}

impl Pool {
    /// An empty block with room for `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Vec<u8> {
        let class = SIZES.partition_point(|size| *size < len);
        if let Some(piece) = self.free.get_mut(class).and_then(Vec::pop) {
            self.kept -= piece.capacity();
            return piece;
        }
        Vec::with_capacity(SIZES.get(class).copied().unwrap_or(len))
    }

    /// Returns a block to the pool.
    pub(crate) fn give(&mut self, mut piece: Vec<u8>) {
        let size = piece.capacity();
        if let Ok(class) = SIZES.binary_search(&size)
            && let Some(list) = self.free.get_mut(class)
            && self.kept + size <= KEEP
        {
            piece.clear();
            self.kept += size;
            list.push(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_given_back_is_the_next_one_taken() {
        let mut pool = Pool::default();
        let mut piece = pool.take(1500);
        piece.extend_from_slice(b"frames");
        let at = piece.as_ptr();
        pool.give(piece);
        assert_eq!(pool.kept, 2048);
        let again = pool.take(1025);
        assert!(again.as_ptr() == at && again.is_empty() && pool.kept == 0);
        let other = pool.take(1025);
        assert_ne!(other.as_ptr(), at);
    }

    #[test]
    fn the_pool_is_bounded_and_takes_only_its_own_sizes() {
        let mut pool = Pool::default();
        for _ in 0..1000 {
            pool.give(Vec::with_capacity(64 << 10));
        }
        assert_eq!(pool.kept, KEEP);
        let mut pool = Pool::default();
        pool.give(Vec::with_capacity(1000));
        pool.give(Vec::new());
        assert_eq!(pool.kept, 0);
        assert!(pool.take(1 << 20).capacity() >= 1 << 20);
    }
}
