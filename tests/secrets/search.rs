//! Looks for pieces of secrets in memory.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::known::Secret;

/// So many bytes in a row are taken for a piece of a secret.
const PIECE: usize = 8;

/// What is looked for: every piece of every secret, at whatever address.
pub struct Search {
    pieces: HashMap<[u8; PIECE], (usize, usize)>,
    /// Which first two bytes any of them has.
    begins: Vec<bool>,
}

/// Where a piece was found: which secret, which byte of it, at which address or offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub secret: usize,
    pub piece: usize,
    pub at: usize,
}

impl Search {
    pub fn new(secrets: &[Secret]) -> Self {
        let mut pieces = HashMap::new();
        let mut begins = vec![false; 1 << 16];
        for (n, secret) in secrets.iter().enumerate() {
            for (at, piece) in secret.bytes.as_chunks::<PIECE>().0.iter().enumerate() {
                let before = pieces.insert(*piece, (n, at * PIECE));
                assert_eq!(before, None, "no two secrets are alike");
                begins[usize::from(u16::from_be_bytes([piece[0], piece[1]]))] = true;
            }
        }
        Self { pieces, begins }
    }

    /// All pieces in `bytes`, which begin at `base`.
    pub fn in_bytes(&self, base: usize, bytes: &[u8], found: &mut Vec<Found>) {
        for (at, piece) in bytes.windows(PIECE).enumerate() {
            if self.begins[usize::from(u16::from_be_bytes([piece[0], piece[1]]))]
                && let Some((secret, piece)) = self.pieces.get(piece)
            {
                found.push(Found { secret: *secret, piece: *piece, at: base + at });
            }
        }
    }

    /// All pieces in what a process can write to, with the name of the mapping.
    pub fn in_process(&self, pid: u32) -> Vec<(Found, String)> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut all = Vec::new();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            let name = fields.nth(3).unwrap_or("anonymous");
            if !rights.starts_with("rw") || name == "[vvar]" {
                continue;
            }
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|n| usize::from_str_radix(n, 16).unwrap());
            let mut bytes = vec![0; end - start];
            memory.read_exact_at(&mut bytes, start as u64).unwrap();
            let mut found = Vec::new();
            self.in_bytes(start, &bytes, &mut found);
            all.extend(found.into_iter().map(|found| (found, name.to_owned())));
        }
        all
    }
}
