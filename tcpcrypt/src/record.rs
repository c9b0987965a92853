//! The record layer of one connection (RFC 8548, sections 3.6 to 3.8; TC-23 to TC-34): seals and opens frames and
//! tracks the key generations of both directions.
//!
//! Offsets count from the first byte after the SYN in the sender's TCP stream, Init messages included (TC-26).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use crate::aead::{AeadId, AeadKey};
use crate::constants::{AEAD_NONCE_LEN, TAG_LEN};
use crate::error::{Error, Misuse, PeerViolation};
use crate::frame::{HEADER_LEN, Header, MAX_FRAME, Opened, Plaintext, read_plaintext};
use crate::kex::Provider;
use crate::resume::Session;
use crate::schedule::{MasterKey, TrafficKey};
use crate::tep::Role;

/// Why a frame was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// It does not authenticate: damaged or forged. If none of its bytes were acknowledged, it may be dropped to wait
    /// for a clean retransmission; otherwise abort (TC-28). The record is unchanged; the frame's buffer is not.
    NotAuthentic,
    /// It is authentic and violates the protocol: abort.
    Violation(PeerViolation),
    /// The caller's mistake; nothing has changed.
    Misuse(Misuse),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAuthentic => f.write_str("frame does not authenticate"),
            Self::Violation(why) => write!(f, "the peer violated the protocol: {why}"),
            Self::Misuse(why) => write!(f, "misuse: {why}"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<Misuse> for OpenError {
    fn from(why: Misuse) -> Self {
        Self::Misuse(why)
    }
}

impl From<PeerViolation> for OpenError {
    fn from(why: PeerViolation) -> Self {
        Self::Violation(why)
    }
}

/// The keys of one direction in one generation. The master key of this generation is already gone: it is not needed
/// again, and cannot be derived from the next one (TC-34).
struct Direction {
    /// Original role of the host that encrypts with these keys (TC-15).
    sender: Role,
    generation: u64,
    key: TrafficKey,
    /// `key` expanded by the provider; rebuilt when needed.
    ready: Option<Box<dyn AeadKey>>,
    next_master: MasterKey,
    /// The earliest offset at which the next frame can start.
    next_offset: u64,
}

impl Direction {
    fn new(sender: Role, generation: u64, aead: AeadId, master: &MasterKey, next_offset: u64) -> Self {
        Self {
            sender,
            generation,
            key: master.traffic_key(sender, aead),
            ready: None,
            next_master: master.next(),
            next_offset,
        }
    }

    /// The same direction in the next generation.
    fn next_generation(&self, aead: AeadId) -> Self {
        Self::new(self.sender, self.generation + 1, aead, &self.next_master, self.next_offset)
    }

    fn ready(&mut self, provider: &dyn Provider, aead: AeadId) -> Result<&dyn AeadKey, Error> {
        match &mut self.ready {
            Some(ready) => Ok(&**ready),
            none => Ok(&**none.insert(provider.aead(aead, self.key.key())?)),
        }
    }

    fn nonce(&self, offset: u64) -> [u8; AEAD_NONCE_LEN] {
        self.key.nonce(offset)
    }
}

/// What one key has protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// Frames.
    pub frames: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
}

impl KeyUse {
    /// No key protects more than this, whatever the caller does: twice what RFC 8446, section 5.5, allows AES-GCM for
    /// a safety margin of 2^-57, in bytes; a frame can be far shorter than its records. Callers rekey long before.
    pub const MOST: Self = Self { frames: 1 << 25, bytes: 1 << 39 };
}

/// The record layer of one connection, both directions.
pub struct Record {
    provider: &'static dyn Provider,
    aead: AeadId,
    send: Direction,
    receive: Direction,
    /// What the current sealing key has protected.
    sealed: KeyUse,
    /// The next frame to be sealed starts a new generation.
    rekey_requested: bool,
    fin_sealed: bool,
    fin_opened: bool,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("aead", &self.aead)
            .field("local_generation", &self.send.generation)
            .field("remote_generation", &self.receive.generation)
            .finish_non_exhaustive()
    }
}

impl Record {
    /// The record layer for a session, at generation 0 both ways (TC-31).
    #[must_use]
    pub fn new(provider: &'static dyn Provider, session: &Session) -> Self {
        let aead = session.aead();
        let role = session.original_role();
        let master = session.secret().master_key(session.nonce());
        Self {
            provider,
            aead,
            send: Direction::new(role, 0, aead, &master, 0),
            receive: Direction::new(role.other(), 0, aead, &master, 0),
            sealed: KeyUse::default(),
            rekey_requested: false,
            fin_sealed: false,
            fin_opened: false,
        }
    }

    /// Seals one frame that starts at `offset` of this host's stream into the front of `out`, and returns its length
    /// ([`Plaintext::frame_len`]). It is the first frame of a new generation, with its rekey bit set, if a rekey was
    /// started or the peer's must be answered.
    ///
    /// Nothing may be sealed twice: to retransmit, keep the frame (TC-27).
    ///
    /// # Errors
    /// Only [`Misuse`]; nothing has changed then.
    pub fn seal(&mut self, offset: u64, plaintext: &Plaintext<'_>, out: &mut [u8]) -> Result<usize, Error> {
        let frame_len = self.check(offset, plaintext)?;
        let frame = out.get_mut(..frame_len).ok_or(Misuse::BufferTooSmall)?;
        plaintext.write(frame.get_mut(HEADER_LEN..).unwrap_or(&mut [])).ok_or(Misuse::BufferTooSmall)?;
        self.protect(offset, plaintext.fin, frame)?;
        Ok(frame_len)
    }

    /// [`Self::seal`], with the frame appended to `out`: for many frames in a row this avoids clearing the memory
    /// first.
    ///
    /// # Errors
    /// As for [`Self::seal`].
    pub fn seal_onto(&mut self, offset: u64, plaintext: &Plaintext<'_>, out: &mut Vec<u8>) -> Result<usize, Error> {
        let frame_len = self.check(offset, plaintext)?;
        let at = out.len();
        out.reserve(frame_len);
        out.extend_from_slice(&[0; HEADER_LEN]);
        plaintext.append(out);
        out.extend_from_slice(&[0; TAG_LEN]);
        let done = self.protect(offset, plaintext.fin, out.get_mut(at..).unwrap_or(&mut []));
        if done.is_err() {
            out.truncate(at);
        }
        done.map(|()| frame_len)
    }

    /// Whether a frame with `plaintext` can be sealed at `offset`; its length.
    fn check(&self, offset: u64, plaintext: &Plaintext<'_>) -> Result<usize, Error> {
        let frame_len = plaintext.frame_len();
        if self.fin_sealed {
            return Err(Misuse::SealAfterFin.into());
        }
        if frame_len > MAX_FRAME {
            return Err(Misuse::TooMuchData.into());
        }
        if offset < self.send.next_offset {
            return Err(Misuse::OffsetReused.into());
        }
        let KeyUse { frames, bytes } = self.sealed;
        if !self.rekey_due() && (frames >= KeyUse::MOST.frames || bytes >= KeyUse::MOST.bytes) {
            return Err(Misuse::KeyUsedUp.into());
        }
        Ok(frame_len)
    }

    /// Encrypts the plaintext that is already in place in `frame`, and writes header and tag around it.
    fn protect(&mut self, offset: u64, fin: bool, frame: &mut [u8]) -> Result<(), Error> {
        let frame_len = frame.len();
        let (head, rest) = frame.split_first_chunk_mut::<HEADER_LEN>().ok_or(Misuse::BufferTooSmall)?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(Misuse::BufferTooSmall)?;
        let rekey = self.rekey_due();
        if rekey {
            // TC-31: one generation per frame with the bit, so that the peer stays in step. TC-34: the old keys are
            // erased here, since what they sealed is kept as ciphertext.
            self.send = self.send.next_generation(self.aead);
            self.rekey_requested = false;
            self.sealed = KeyUse::default();
        }
        let nonce = self.send.nonce(offset);
        let header = Header::new(rekey, (frame_len - HEADER_LEN) as u16).to_bytes();
        *tag = self.send.ready(self.provider, self.aead)?.seal(&nonce, &header, body);
        *head = header;
        self.send.next_offset = offset.saturating_add(frame_len as u64);
        self.sealed.frames += 1;
        self.sealed.bytes += frame_len as u64;
        self.fin_sealed = fin;
        Ok(())
    }

    /// Opens the frame that starts at `offset` of the peer's stream, in place. Frames are opened in order, each once.
    /// After the one with FINp, frames without data are accepted and otherwise ignored.
    ///
    /// # Errors
    /// See [`OpenError`]. The record is unchanged unless it is an [`OpenError::Violation`], after which the
    /// connection is aborted.
    pub fn open(&mut self, offset: u64, frame: &mut [u8]) -> Result<Opened, OpenError> {
        let frame_len = frame.len();
        let header =
            Header::parse(frame).filter(|header| header.frame_len() == frame_len).ok_or(Misuse::NotOneFrame)?;
        if offset < self.receive.next_offset {
            return Err(Misuse::OffsetReused.into());
        }
        let (aad, rest) = frame.split_first_chunk_mut::<HEADER_LEN>().ok_or(OpenError::NotAuthentic)?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(OpenError::NotAuthentic)?;

        if header.rekey() {
            // TC-32. Anyone can set the bit: the new keys take effect only once the frame is authentic.
            let mut next = self.receive.next_generation(self.aead);
            open_body(&mut next, self.provider, self.aead, offset, aad, body, tag)?;
            // TC-34: every frame of the old generation came before this one.
            self.receive = next;
        } else {
            open_body(&mut self.receive, self.provider, self.aead, offset, aad, body, tag)?;
        }
        let (mut fin, mut urgent, data) = read_plaintext(body)?;
        if self.fin_opened {
            // TC-29: the stream has ended. A peer may still answer a rekey (docs/readings.md, reading 11).
            if !data.is_empty() {
                return Err(PeerViolation::FrameAfterFin.into());
            }
            (fin, urgent) = (false, None);
        }
        self.receive.next_offset = offset.saturating_add(frame_len as u64);
        self.fin_opened |= fin;
        Ok(Opened { data: data.start + HEADER_LEN..data.end + HEADER_LEN, fin, urgent, rekeyed: header.rekey() })
    }

    /// Makes the next frame start a new generation. Returns `false` without effect if an earlier rekey is unanswered
    /// (TC-33), if one is due anyway, or after FINp was sealed.
    pub fn start_rekey(&mut self) -> bool {
        let started = !self.fin_sealed && !self.rekey_requested && self.send.generation == self.receive.generation;
        self.rekey_requested |= started;
        started
    }

    /// [`Self::start_rekey`] for a frame with data, to which TC-33 does not apply: it does not wait for the answer to
    /// an earlier rekey. Otherwise, whoever can suppress that answer could have everything sealed under one key.
    pub fn start_rekey_with_data(&mut self) -> bool {
        let started = !self.fin_sealed && !self.rekey_requested && !self.rekey_answer_due();
        self.rekey_requested |= started;
        started
    }

    /// Whether a frame must be sealed at once, empty if there is no data, because the peer's generation is ahead
    /// (TC-32). Never after FINp was sealed (docs/readings.md, reading 11). Check again after each frame: the peer
    /// may be ahead by more than one.
    #[must_use]
    pub fn rekey_answer_due(&self) -> bool {
        !self.fin_sealed && self.receive.generation > self.send.generation
    }

    /// Whether the next frame is the first of a new generation.
    fn rekey_due(&self) -> bool {
        self.rekey_requested || self.receive.generation > self.send.generation
    }

    /// What the current sealing key has protected so far.
    #[must_use]
    pub fn sealed(&self) -> KeyUse {
        self.sealed
    }

    /// Whether a rekey that this host started is still to be sealed, or unanswered by the peer (TC-33, TC-35).
    #[must_use]
    pub fn rekey_outstanding(&self) -> bool {
        self.rekey_requested || self.send.generation > self.receive.generation
    }

    /// The generation of the last frame sealed (TC-31).
    #[must_use]
    pub fn local_generation(&self) -> u64 {
        self.send.generation
    }

    /// The highest generation seen from the peer (TC-31).
    #[must_use]
    pub fn remote_generation(&self) -> u64 {
        self.receive.generation
    }

    /// Whether FINp was sealed: nothing can be sealed any more.
    #[must_use]
    pub fn fin_sealed(&self) -> bool {
        self.fin_sealed
    }

    /// The cipher.
    #[must_use]
    pub fn aead(&self) -> AeadId {
        self.aead
    }

    /// Releases the memory of the expanded keys while the connection is idle. The next frame expands them again,
    /// which takes less time than a packet's path through the kernel.
    pub fn rest(&mut self) {
        self.send.ready = None;
        self.receive.ready = None;
    }
}

fn open_body(
    direction: &mut Direction,
    provider: &dyn Provider,
    aead: AeadId,
    offset: u64,
    aad: &[u8],
    body: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> Result<(), OpenError> {
    let nonce = direction.nonce(offset);
    let key = direction.ready(provider, aead).map_err(|_| Misuse::KeyLength)?;
    key.open(&nonce, aad, body, tag).map_err(|_| OpenError::NotAuthentic)
}

#[cfg(test)]
mod tests;
