//! Where both streams of a plain connection are, as far as its segments show.

use crate::flow::Side;
use crate::wire::{Flags, Segment};

/// How far a plain connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Not both SYNs were acknowledged.
    Opening,
    Open,
    /// Both FINs were acknowledged, or a RST was seen that the receiver believes.
    Over,
}

/// What one end of a plain connection has sent, as far as it was seen here.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    /// The number of its SYN.
    isn: Option<u32>,
    /// Behind the last byte that followed on what was sent before, SYN and FIN included.
    sent: Option<u32>,
    /// What the other end has acknowledged of it.
    acked: Option<u32>,
    /// Behind its FIN.
    fin: Option<u32>,
    /// Bytes of payload that were seen.
    bytes: u64,
}

/// Whether `a` is not behind `b`.
fn reaches(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}

impl Stream {
    fn new(isn: Option<u32>) -> Self {
        Self { isn, sent: isn.map(|isn| isn.wrapping_add(1)), ..Self::default() }
    }

    /// Its SYN was acknowledged, or it began before anybody looked.
    fn is_acked(&self) -> bool {
        self.acked.is_some()
    }

    fn is_finished(&self) -> bool {
        self.fin.is_some() && self.fin == self.acked
    }

    /// Takes in a segment that its end has sent. `believed`: nobody else can have forged it. Where it began before anybody looked,
    /// only that says where it is.
    fn send<S>(&mut self, segment: &Segment<'_, S>, believed: bool) {
        let syn = segment.flags.any(Flags::SYN);
        #[expect(clippy::cast_possible_truncation, reason = "a packet's payload is shorter than 2^16")]
        let len = segment.payload_len() as u32;
        let fin = segment.flags.any(Flags::FIN);
        let end = segment.seq.0.wrapping_add(len + u32::from(syn) + u32::from(fin));
        if syn {
            if self.acked.is_none() {
                (self.isn, self.sent) = (Some(segment.seq.0), Some(end));
            }
            return;
        }
        if self.sent.is_none() && !believed {
            return;
        }
        let follows = self.sent.is_none_or(|sent| reaches(sent, segment.seq.0));
        if follows && self.sent.is_none_or(|sent| reaches(end, sent)) {
            self.sent = Some(end);
        }
        // One behind a gap is one if the other end acknowledges it.
        if fin && (follows || self.fin.is_none()) {
            self.fin = Some(end);
        }
    }

    /// Takes in an acknowledgement of the other end's. `believed`: it is not one that somebody else can have forged.
    fn acknowledge(&mut self, ack: u32, progress: Progress, believed: bool) {
        if progress == Progress::Opening && self.isn.is_none() {
            return;
        }
        let sent = match self.sent {
            Some(sent) if believed && reaches(ack, sent) => {
                // What was between was not seen.
                self.sent = Some(ack);
                ack
            }
            Some(sent) => sent,
            None if believed => *self.sent.insert(ack),
            None => return,
        };
        let first = self.isn.map(|isn| isn.wrapping_add(1));
        let from = self.acked.or(first);
        if reaches(sent, ack) && from.is_none_or(|from| reaches(ack, from)) {
            self.acked = Some(ack);
        }
    }
}

/// Both streams, and how far the connection is.
#[derive(Debug)]
pub(super) struct Streams {
    local: Stream,
    peer: Stream,
    progress: Progress,
}

impl Streams {
    /// Those of a connection that is being opened. `isns`: the first numbers of both ends, the local kernel's first; `answered`: whether
    /// the local kernel has acknowledged the peer's SYN.
    pub(super) fn opening(isns: [Option<u32>; 2], answered: bool) -> Self {
        let [local, mut peer] = isns.map(Stream::new);
        peer.acked = peer.sent.filter(|_| answered);
        Self { local, peer, progress: Progress::Opening }
    }

    /// Those of a connection that nobody has looked at before.
    pub(super) fn under_way() -> Self {
        Self { local: Stream::default(), peer: Stream::default(), progress: Progress::Open }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// The first sequence numbers of both ends, the local kernel's first.
    pub(super) fn isns(&self) -> [Option<u32>; 2] {
        [self.local.isn, self.peer.isn]
    }

    /// Bytes of payload that were seen of both ends, the local kernel's first.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.local.bytes, self.peer.bytes)
    }

    /// Whether both ends have sent their FIN. Anybody can send one somewhere: one counts behind what was sent before it.
    pub(super) fn are_closing(&self) -> bool {
        [&self.local, &self.peer].iter().all(|stream| stream.fin.is_some() && stream.fin == stream.sent)
    }

    /// Takes in what a segment from `side` says of where the connection is.
    pub(super) fn note<S>(&mut self, side: Side, segment: &Segment<'_, S>) {
        let (own, other) = match side {
            Side::Plain => (&mut self.local, &mut self.peer),
            Side::Wire => (&mut self.peer, &mut self.local),
        };
        own.bytes += segment.payload_len() as u64;
        let ack = segment.flags.any(Flags::ACK).then_some(segment.ack.0);
        if segment.flags.any(Flags::RST) {
            // Where the receiver is, or the sender was (RFC 5961, section 3.2); on a SYN, what acknowledges it (RFC 9293, section
            // 3.10.7.3).
            let exact = [own.acked, own.sent].contains(&Some(segment.seq.0));
            let refuses = own.isn.is_none() && ack.is_some() && ack == other.sent && !other.is_acked();
            if exact || refuses {
                self.progress = Progress::Over;
            }
            return;
        }
        // The peer's numbers are known to the local kernel, and to nobody who guesses.
        let believed = side == Side::Plain;
        own.send(segment, believed);
        if let Some(ack) = ack {
            other.acknowledge(ack, self.progress, believed);
        }
        match self.progress {
            Progress::Opening if own.is_acked() && other.is_acked() => self.progress = Progress::Open,
            Progress::Open if own.is_finished() && other.is_finished() => self.progress = Progress::Over,
            Progress::Opening | Progress::Open | Progress::Over => {}
        }
    }
}
