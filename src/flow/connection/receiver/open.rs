//! Opening the peer's frames, or its Init message.

use tcpcrypt::frame::{HEADER_LEN, Header};
use tcpcrypt::messages::{PREFIX_LEN as INIT_PREFIX_LEN, message_len};
use tcpcrypt::{OpenError, Record, Role};

use super::suspicion::{Damage, Suspicion, tag_of};
use super::{Eof, Receiver};
use crate::flow::connection::outcome::{AbortReason, Outcome};
use crate::flow::connection::portion::stream_offset;
use crate::flow::context::Context;
use crate::flow::frames::Boundary;
use crate::flow::reassembly::Prefer;
use crate::wire::{C, Offset};

/// What the peer's bytes are, as far as the keys are.
pub(in super::super) enum Opener<'a> {
    /// Nothing that can be taken in any more.
    Nothing,
    /// The Init message of that role.
    Init(Role),
    /// Frames.
    Frames(&'a mut Record),
}

/// The result of opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Progress {
    /// As far as there were whole frames.
    Fine,
    /// A frame or message was dropped that did not authenticate.
    Dropped,
    /// The segment was not taken in, or cannot be judged yet.
    Waits,
    /// The peer's Init message is whole.
    InitIsWhole,
}

/// What there is of the peer's Init message.
enum Init {
    Incomplete,
    /// So many bytes, in this version.
    Whole(Prefer, usize),
    /// It is wrong within so many bytes.
    Bad(tcpcrypt::Error, usize),
}

/// What became of the frame at the beginning of what waits.
enum First {
    Opened,
    /// It is not here, or not whole.
    Incomplete,
    /// It has `len` bytes and is wrong. `maybe`: there is another version of it that is not whole.
    Wrong {
        why: OpenError,
        damage: Damage,
        len: usize,
        maybe: bool,
    },
}

impl Receiver {
    /// Opens the frames in `bytes`, which begin at `next`, in place; what is left of an incomplete one waits.
    pub(super) fn open_run(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut Record,
        bytes: &mut [u8],
    ) -> Outcome<Progress> {
        let mut plaintext = cx.pool.take(bytes.len());
        let from = self.data_end();
        let mut rest = bytes;
        let mut progress = Ok(Progress::Fine);
        while let Some(header) = Header::parse(rest).filter(|h| h.frame_len() <= rest.len()) {
            let (frame, behind) = rest.split_at_mut(header.frame_len());
            let tag = tag_of(frame);
            match self.open_frame(cx, record, frame, &mut plaintext) {
                Ok(()) => rest = behind,
                Err(why) => {
                    let len = frame.len();
                    progress = self.reject(cx, why, len, Damage::of(self.next.c, len, tag));
                    // Where the next frame starts is not known for sure; if it is there, it need not be sent again.
                    self.waiting.insert(self.next.c + len, behind);
                    rest = &mut [];
                }
            }
        }
        if !rest.is_empty() {
            self.waiting.insert(self.next.c, rest);
        }
        self.push_plaintext(from, plaintext, cx.pool);
        progress
    }

    /// Opens the frame at `next` in place and appends its data to `plaintext`.
    fn open_frame(
        &mut self,
        cx: &mut Context<'_>,
        record: &mut Record,
        frame: &mut [u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let opened = record.open(stream_offset(self.next.c), frame)?;
        cx.counters.frames_opened += 1;
        // Of the frame just opened.
        plaintext.extend_from_slice(&frame[opened.data.clone()]);
        self.note_opened(frame.len(), &opened);
        Ok(())
    }

    /// Opens what can be opened of what waits.
    pub(in super::super) fn open_waiting(&mut self, cx: &mut Context<'_>, opener: Opener<'_>) -> Outcome<Progress> {
        match opener {
            Opener::Nothing => Ok(Progress::Waits),
            Opener::Init(sender) => match self.find_init(sender) {
                Init::Incomplete => Ok(Progress::Fine),
                Init::Whole(..) => Ok(Progress::InitIsWhole),
                Init::Bad(why, len) => self.reject_init(cx, why, len),
            },
            Opener::Frames(record) => self.open_frames(cx, record),
        }
    }

    /// Opens the frames that wait. An incomplete one is not looked at but for its length.
    fn open_frames(&mut self, cx: &mut Context<'_>, record: &mut Record) -> Outcome<Progress> {
        let from = self.data_end();
        let mut plaintext = Vec::new();
        let mut progress = Ok(Progress::Fine);
        while !self.waiting.is_empty() {
            match self.open_first(cx, record, &mut plaintext) {
                First::Opened => continue,
                First::Incomplete => {}
                First::Wrong { why, damage, len, maybe } => {
                    // What was acknowledged does not come again, so both versions of it stay; of the rest, a clean copy does.
                    let at = self.next.c;
                    let unacknowledged = self.expected().max(at)..at + len;
                    if !unacknowledged.is_empty() || !maybe {
                        progress = self.reject(cx, why, len, damage);
                        self.waiting.remove(unacknowledged);
                    }
                }
            }
            break;
        }
        self.push_plaintext(from, plaintext, cx.pool);
        progress
    }

    /// Opens the first of the frames that wait, in whichever version authenticates.
    fn open_first(&mut self, cx: &mut Context<'_>, record: &mut Record, plaintext: &mut Vec<u8>) -> First {
        let at = self.next.c;
        let here = self.waiting.contiguous_end(at);
        let mut found = First::Incomplete;
        let mut incomplete = false;
        for prefer in [Prefer::First, Prefer::Last] {
            if prefer == Prefer::Last && !self.waiting.has_conflicts() {
                break;
            }
            let mut header = [0; HEADER_LEN];
            if !self.waiting.copy(prefer, at, &mut header) {
                return First::Incomplete;
            }
            let len = Header::parse(&header).map_or(0, Header::frame_len);
            if at + len > here {
                incomplete = true;
                continue;
            }
            let mut frame = std::mem::take(cx.scratch);
            frame.clear();
            frame.resize(len, 0);
            if self.waiting.copy(prefer, at, &mut frame) {
                let tag = tag_of(&frame);
                match self.open_frame(cx, record, &mut frame, plaintext) {
                    Ok(()) => found = First::Opened,
                    Err(why) => found = First::Wrong { why, damage: Damage::of(at, len, tag), len, maybe: false },
                }
            }
            *cx.scratch = frame;
            if let First::Opened = found {
                self.waiting.remove_before(self.next.c);
                return found;
            }
        }
        match found {
            First::Wrong { why, damage, len, .. } => First::Wrong { why, damage, len, maybe: incomplete },
            other => other,
        }
    }

    /// What follows from a frame of `len` bytes at `next` that could not be opened (TC-28). It may be forged, as long as the peer
    /// can send any of it again.
    fn reject(&mut self, cx: &mut Context<'_>, why: OpenError, len: usize, damage: Damage) -> Outcome<Progress> {
        cx.counters.frames_rejected += 1;
        match why {
            OpenError::NotAuthentic if self.eof != Eof::Open => Ok(Progress::Dropped),
            OpenError::NotAuthentic => {
                let acknowledged = self.expected() >= self.next.c + len;
                if acknowledged || self.suspect(cx, damage) {
                    return Err(AbortReason::BadFrame);
                }
                Ok(Progress::Dropped)
            }
            OpenError::Violation(_) => Err(AbortReason::Violation),
            OpenError::Misuse(_) => Err(AbortReason::Internal),
        }
    }

    /// Records an error; returns true if it can no longer be accidental.
    pub(super) fn suspect(&mut self, cx: &Context<'_>, damage: Damage) -> bool {
        Suspicion::note(&mut self.suspicion, cx.now, damage)
    }

    /// Looks for the peer's Init message at the beginning of its stream.
    fn find_init(&self, sender: Role) -> Init {
        let waiting = &self.waiting;
        let here = waiting.contiguous_end(Offset::START).ahead_of(Offset::START);
        let mut found = Init::Incomplete;
        for prefer in [Prefer::First, Prefer::Last] {
            if prefer == Prefer::Last && !waiting.has_conflicts() {
                break;
            }
            let mut prefix = [0; INIT_PREFIX_LEN];
            let prefix = &mut prefix[..here.min(INIT_PREFIX_LEN)];
            if !waiting.copy(prefer, Offset::START, prefix) {
                continue;
            }
            match message_len(sender, prefix) {
                Ok(Some(len)) if len <= here => return Init::Whole(prefer, len),
                Ok(_) => return Init::Incomplete,
                Err(why) => found = Init::Bad(why, prefix.len()),
            }
        }
        found
    }

    /// The peer's Init message, if it is whole.
    pub(in super::super) fn init_message(&self, sender: Role) -> Option<Vec<u8>> {
        let Init::Whole(prefer, len) = self.find_init(sender) else { return None };
        let mut message = vec![0; len];
        self.waiting.copy(prefer, Offset::START, &mut message).then_some(message)
    }

    /// The peer's Init message of `len` bytes was taken in: frames follow.
    pub(in super::super) fn note_init(&mut self, len: usize) {
        self.next = Boundary { c: Offset::START + len, p: self.next.p };
        self.frames.push(self.next);
        self.waiting.remove_before(self.next.c);
        self.incomplete = None;
    }

    /// What follows from an Init message that is wrong in its first `len` bytes. As long as the peer can send them again,
    /// they may be somebody else's (TC-5, as TC-28 has it for frames).
    pub(in super::super) fn reject_init(
        &mut self,
        cx: &mut Context<'_>,
        why: tcpcrypt::Error,
        len: usize,
    ) -> Outcome<Progress> {
        cx.counters.frames_rejected += 1;
        let start: Offset<C> = Offset::START;
        let end = start + len;
        let mut bytes = vec![0; len];
        if !self.waiting.copy(Prefer::First, start, &mut bytes) {
            debug_assert!(false, "what was found wrong is there");
            return Err(AbortReason::Internal);
        }
        if self.expected() >= end || self.suspect(cx, Damage::of(start, len, tag_of(&bytes))) {
            return Err(AbortReason::KeyExchange(why));
        }
        let from = self.expected();
        let all = self.waiting.contiguous_end(from);
        self.waiting.remove(from..all.max(end));
        Ok(Progress::Dropped)
    }
}
