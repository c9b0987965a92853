//! A packet on its way out of the engine.

use super::packet::{Checksum, Gso, Offload};

/// Space for the headers of a packet that the engine builds: IP with options or a few extension headers, and TCP.
pub const HEADER_ROOM: usize = 160;

/// Headers under construction, without allocation.
#[derive(Debug, Clone)]
pub struct HeaderBuf {
    bytes: [u8; HEADER_ROOM],
    len: usize,
}

impl Default for HeaderBuf {
    fn default() -> Self {
        Self { bytes: [0; HEADER_ROOM], len: 0 }
    }
}

impl HeaderBuf {
    /// Appends `bytes`; false, without effect, if there is no room.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.bytes.get_mut(self.len..self.len + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        true
    }
    /// Its contents.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
    /// Its contents, to be patched.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or(&mut [])
    }
}

/// A packet that the engine built: headers, and a payload in pieces that stay where they are (the store of frames in
/// flight, the plaintext awaiting the kernel's acknowledgement). It is written with a single gathering write; nothing
/// is copied.
///
/// The TCP checksum is always [`Checksum::Partial`]: the field holds the pseudo-header's sum.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// IP and TCP header.
    pub header: &'a [u8],
    /// The payload, in order.
    pub payload: &'a [&'a [u8]],
    /// Offload metadata for the device.
    pub offload: Offload,
}

impl Outgoing<'_> {
    /// The whole packet's length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.iter().map(|p| p.len()).sum::<usize>()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Headers and payload in contiguous memory (for tests and devices without gathering writes).
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        all.extend_from_slice(self.header);
        for piece in self.payload {
            all.extend_from_slice(piece);
        }
        all
    }
}

impl Offload {
    /// The offload of a packet built by the engine: the TCP header starts at `tcp_at`, its checksum is partial;
    /// `gso_size` is given if it contains more than one segment.
    #[must_use]
    pub fn partial(tcp_at: usize, header_len: usize, v6: bool, gso_size: Option<u16>) -> Self {
        let narrow = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Self {
            checksum: Checksum::Partial { start: narrow(tcp_at), offset: 16 },
            gso: gso_size.map(|size| Gso { kind: if v6 { 4 } else { 1 }, size, header_len: narrow(header_len) }),
        }
    }
}
