//! A connection that goes on in plain TCP: its packets pass unchanged, and what they tell of it is noted.

use std::fmt;
use std::time::Duration;

use tcpcrypt::{PlainReason, Record};

use super::link::{Cx, FlowKey, Link};
use super::syn::{Opening, begins_frame, begins_init1};
use crate::engine::{Config, FlowInfo, FlowState, Side};
use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::options::{self, OptionBuf, SegmentOptions, SynOptions, kind};
use crate::wire::{C, Flags, P, Segment};

/// Why a connection is plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    /// The negotiation ended that way.
    Eno(PlainReason),
    /// The peer sent no ENO option.
    PeerNoEno,
    /// The peer's first acknowledgement had no ENO option (ENO-13).
    AckWithoutEno,
    /// This host could not agree to anything the peer offered.
    NotNegotiated,
    /// The options of the SYN leave no room for ENO.
    OptionSpace,
    /// Multipath TCP is left alone.
    Mptcp,
    /// The segments are signed (MD5, AO), which no rewriter can keep right.
    Signed,
    /// The random source is not ready (ENO-18).
    NoEntropy,
    /// SYNs with ENO were not answered.
    SynLost,
    /// SYNs with ENO were not answered on this path before.
    PathDropsEno,
    /// ENO was taken out of segments on this path before.
    PathStripsEno,
    /// It was opened to see what plain TCP does.
    Probe,
    /// It was open before it was selected.
    PreExisting,
    /// Packets of one direction do not pass here.
    OneDirection,
    /// The stack that opens it, or one before it, negotiates ENO itself.
    LocalEno,
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eno(why) => return why.fmt(f),
            Self::PeerNoEno => "peer-no-eno",
            Self::AckWithoutEno => "ack-without-eno",
            Self::NotNegotiated => "not-negotiated",
            Self::OptionSpace => "option-space",
            Self::Mptcp => "mptcp",
            Self::Signed => "signed-segments",
            Self::NoEntropy => "no-entropy",
            Self::SynLost => "syn-lost",
            Self::PathDropsEno => "path-drops-eno",
            Self::PathStripsEno => "path-strips-eno",
            Self::Probe => "probe",
            Self::PreExisting => "pre-existing",
            Self::OneDirection => "one-direction",
            Self::LocalEno => "local-eno",
        })
    }
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
}

/// Whether `a` is not behind `b`.
fn reaches(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}

impl Stream {
    fn new(isn: Option<u32>) -> Self {
        Self { isn, sent: isn.map(|isn| isn.wrapping_add(1)), acked: None, fin: None }
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
    fn send<S>(&mut self, packet: &Segment<'_, S>, believed: bool) {
        let syn = packet.flags.any(Flags::SYN);
        #[expect(clippy::cast_possible_truncation, reason = "a packet's payload is shorter than 2^16")]
        let len = packet.payload_len() as u32;
        let fin = packet.flags.any(Flags::FIN);
        let end = packet.seq.0.wrapping_add(len + u32::from(syn) + u32::from(fin));
        if syn {
            if self.acked.is_none() {
                (self.isn, self.sent) = (Some(packet.seq.0), Some(end));
            }
            return;
        }
        if self.sent.is_none() && !believed {
            return;
        }
        let follows = self.sent.is_none_or(|sent| reaches(sent, packet.seq.0));
        if follows && self.sent.is_none_or(|sent| reaches(end, sent)) {
            self.sent = Some(end);
        }
        // One behind a gap is one if the other end acknowledges it.
        if fin && (follows || self.fin.is_none()) {
            self.fin = Some(end);
        }
    }

    /// Takes in an acknowledgement of the other end's. `believed`: it is not one that somebody else can have forged.
    fn acknowledge(&mut self, ack: u32, stage: Stage, believed: bool) {
        if stage == Stage::Opening && self.isn.is_none() {
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

/// How far a plain connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not both SYNs were acknowledged.
    Opening,
    Open,
    /// Both FINs were acknowledged, or a RST was seen that the receiver believes.
    Over,
}

/// A plain connection: its packets pass unchanged.
#[derive(Debug)]
pub(crate) struct PlainFlow {
    pub(crate) why: Plain,
    /// What both ends have sent, the local kernel first.
    streams: [Stream; 2],
    stage: Stage,
    /// Whether the local kernel opened it.
    active: bool,
    last_seen: Instant,
    sent: u64,
    received: u64,
    /// How long it is remembered without a packet: open, opening, over.
    patience: Patience,
    /// The keys of a session that this host has agreed to resume.
    pub(super) suspect: Option<Suspect>,
    /// What the peer's next segment can tell about the path.
    open: OpenQuestion,
    /// A probe whose segments carry ENO although the peer's SYN-ACK did not.
    insist: bool,
}

/// How long a plain connection is remembered that is silent.
#[derive(Debug, Clone, Copy)]
struct Patience {
    opening: Duration,
    open: Duration,
    over: Duration,
}

impl Patience {
    fn new(config: &Config) -> Self {
        Self { opening: config.handshake_timeout, open: config.plain_idle_timeout, over: config.closed_linger }
    }
}

/// What an opening leaves to a plain connection.
#[derive(Debug)]
pub(crate) struct Left {
    /// The first sequence numbers of both ends, the local kernel's first.
    pub(crate) isns: [Option<u32>; 2],
    pub(crate) active: bool,
    /// Whether the local kernel has acknowledged the peer's SYN.
    pub(crate) answered: bool,
    pub(crate) suspect: Option<Suspect>,
    pub(crate) question: OpenQuestion,
    pub(crate) insist: bool,
}

/// Keys that tell a frame from plaintext where a peer may have taken for encrypted what became plain here. They are kept until
/// the peer's first data has been looked at, and not longer than a handshake may take: no plain connection keeps keys.
#[derive(Debug)]
pub(crate) struct Suspect {
    pub(crate) record: Box<Record>,
    pub(crate) until: Instant,
}

impl Suspect {
    /// What is kept of an opening that became plain for the reason `why`.
    pub(crate) fn of(cx: &Cx<'_>, opening: &Opening, why: Plain) -> Option<Self> {
        let record = opening.suspect(cx).filter(|_| why == Plain::AckWithoutEno)?;
        Some(Self { record, until: cx.now + cx.config.handshake_timeout })
    }
}

/// What the peer's next segment on a plain connection can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenQuestion {
    /// Nothing any more.
    None,
    /// Whether a SYN without ENO is answered where those with it were not.
    Answer {
        /// The timestamp that it had.
        sent: Option<u32>,
        /// When the first of the others was sent.
        began: Instant,
    },
    /// Whether the peer's acknowledgement has ENO although its SYN had none.
    FirstAck,
}

/// What a plain connection's segment has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learnt {
    /// A SYN with ENO was answered without.
    NoEno,
    /// A SYN without ENO was answered; those with it, the first of which was sent then, were not.
    SynDropped { began: Instant },
    /// The peer has sent ENO in its SYN, which has lost it.
    StrippedHere,
}

impl PlainFlow {
    /// What became of an opening.
    pub(crate) fn new(config: &Config, now: Instant, why: Plain, left: Left) -> Self {
        let Left { isns, active, answered, suspect, question: open, insist } = left;
        let mut streams = isns.map(Stream::new);
        let [_, peer] = &mut streams;
        peer.acked = peer.sent.filter(|_| answered);
        Self {
            why,
            streams,
            stage: Stage::Opening,
            active,
            last_seen: now,
            sent: 0,
            received: 0,
            patience: Patience::new(config),
            suspect,
            open,
            insist,
        }
    }

    /// One that was open before it was selected.
    pub(crate) fn pre_existing(config: &Config, now: Instant) -> Self {
        let (question, suspect) = (OpenQuestion::None, None);
        let left = Left { isns: [None; 2], active: true, answered: false, suspect, question, insist: false };
        Self { stage: Stage::Open, ..Self::new(config, now, Plain::PreExisting, left) }
    }

    /// Takes in what a segment from `side` says of where the connection is; whether it is open now and was not before.
    pub(crate) fn note<S>(&mut self, now: Instant, side: Side, packet: &Segment<'_, S>) -> bool {
        self.last_seen = now;
        let [local, peer] = &mut self.streams;
        let (own, other, bytes) = match side {
            Side::Plain => (local, peer, &mut self.sent),
            Side::Wire => (peer, local, &mut self.received),
        };
        *bytes += packet.payload_len() as u64;
        let ack = packet.flags.any(Flags::ACK).then_some(packet.ack.0);
        if packet.flags.any(Flags::RST) {
            // Where the receiver is, or the sender was (RFC 5961, section 3.2); on a SYN, what acknowledges it (RFC 9293, section
            // 3.10.7.3).
            let exact = [own.acked, own.sent].contains(&Some(packet.seq.0));
            let refuses = own.isn.is_none() && ack.is_some() && ack == other.sent && !other.is_acked();
            if exact || refuses {
                self.stage = Stage::Over;
            }
            return false;
        }
        // The peer's numbers are known to the local kernel, and to nobody who guesses.
        let believed = side == Side::Plain;
        own.send(packet, believed);
        if let Some(ack) = ack {
            other.acknowledge(ack, self.stage, believed);
        }
        match self.stage {
            Stage::Opening if own.is_acked() && other.is_acked() => {
                self.stage = Stage::Open;
                true
            }
            Stage::Open if own.is_finished() && other.is_finished() => {
                self.stage = Stage::Over;
                false
            }
            _ => false,
        }
    }

    /// Whether its handshake is complete, and it is not over.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the local kernel opened it.
    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// The first sequence numbers of both ends, the local kernel's first, to tell the retransmission of a SYN from a new
    /// connection.
    pub(crate) fn isns(&self) -> [Option<u32>; 2] {
        self.streams.map(|stream| stream.isn)
    }

    pub(crate) fn describe(&self, info: &mut FlowInfo) {
        info.state = match self.stage {
            Stage::Opening => FlowState::Negotiating,
            Stage::Open => FlowState::Plain,
            Stage::Over => FlowState::Closed,
        };
        info.reason = Some(self.why.to_string());
        (info.bytes_sent, info.bytes_received) = (self.sent, self.received);
    }

    /// Sends a segment of the local kernel's on with an ENO option, if this is a probe that insists and there is room; whether
    /// it did.
    pub(crate) fn insist(&self, cx: &mut Cx<'_>, key: FlowKey, packet: &Segment<'_, P>) -> bool {
        if !self.insist || packet.flags.any(Flags::SYN.with(Flags::RST)) || !packet.payload.is_empty() {
            return false;
        }
        let mut options = OptionBuf::default();
        let fits = options::walk(packet.options()).all(|(_, option)| options.push(option));
        if !fits || !options.push(&tcpcrypt::eno::option::NON_SYN_OPTION) {
            return false;
        }
        let mut link = Link::new(key);
        link.learn(Side::Plain, packet);
        let tcp = TcpFields {
            seq: packet.seq.0,
            ack: packet.ack.0,
            flags: packet.flags,
            window: packet.window,
            urgent: packet.urgent,
            options: options.padded(),
        };
        link.emit(cx.env, Side::Wire, &tcp, &[], None);
        true
    }

    /// Takes in a segment of the peer's: what it tells about the path, if it does.
    pub(crate) fn note_path(&mut self, packet: &Segment<'_, C>) -> Option<Learnt> {
        let area = packet.options();
        let (syn, ack) = (packet.flags.any(Flags::SYN), packet.flags.any(Flags::ACK));
        let [local, peer] = self.isns().map(|isn| isn.map(|isn| isn.wrapping_add(1)));
        match self.open {
            OpenQuestion::None => None,
            OpenQuestion::Answer { sent, began } if syn && ack && Some(packet.ack.0) == local => {
                self.open = OpenQuestion::None;
                // With the option it is late, and nothing was lost. So it is if it answers an earlier SYN, which had it.
                if options::walk(area).any(|(k, _)| k == kind::ENO) {
                    return None;
                }
                let echo = SynOptions::parse(area).timestamps.map(|ts| ts.echo);
                let earlier = sent.zip(echo).is_some_and(|(sent, echo)| sent.wrapping_sub(echo).cast_signed() > 0);
                Some(if earlier { Learnt::NoEno } else { Learnt::SynDropped { began } })
            }
            OpenQuestion::FirstAck if !syn && ack && Some(packet.seq.0) == peer => {
                self.open = OpenQuestion::None;
                let carries = SegmentOptions::parse(area).eno;
                carries.then_some(Learnt::StrippedHere)
            }
            OpenQuestion::Answer { .. } | OpenQuestion::FirstAck => None,
        }
    }

    /// Whether it is over, as both ends know.
    pub(crate) fn has_ended(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether the local kernel's `packet` is the answer to another SYN than the one this connection began with.
    pub(crate) fn is_answered_anew<S>(&self, packet: &Segment<'_, S>) -> bool {
        let [_, peer] = self.isns();
        packet.flags.any(Flags::SYN)
            && packet.flags.any(Flags::ACK)
            && peer.is_some_and(|isn| isn.wrapping_add(1) != packet.ack.0)
    }

    fn until(&self) -> Instant {
        // Anybody can send a FIN somewhere: one counts behind what was sent before it.
        let closing = self.streams.iter().all(|stream| stream.fin.is_some() && stream.fin == stream.sent);
        self.last_seen
            + match self.stage {
                Stage::Opening => self.patience.opening,
                // The last acknowledgement may have been lost, and who waits for it gives up in silence.
                Stage::Open if !closing => self.patience.open,
                Stage::Open | Stage::Over => self.patience.over,
            }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.suspect.as_ref().map_or(self.until(), |suspect| suspect.until.min(self.until()))
    }

    /// Erases keys that were kept long enough; whether the connection can be forgotten.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.suspect.take_if(|suspect| suspect.until <= now);
        self.until() <= now
    }

    /// Whether a segment of the peer's is the beginning of an Init1 or of a frame: the peer took for encrypted what
    /// ENO-13 made plain here.
    pub(crate) fn is_one_sided(&mut self, seq: u32, payload: &[u8]) -> bool {
        let [_, peer] = self.isns();
        let first = self.why == Plain::AckWithoutEno && peer.is_some_and(|isn| seq == isn.wrapping_add(1));
        if !first || payload.is_empty() {
            return false;
        }
        let suspect = self.suspect.take();
        begins_init1(payload) || suspect.is_some_and(|mut suspect| begins_frame(&mut suspect.record, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpcrypt::schedule::SessionSecret;
    use tcpcrypt::{AeadId, Negotiated, Plaintext, Role, Session, Tep};

    fn record(role: Role) -> Box<Record> {
        let negotiated = Negotiated { role, tep: Tep::Curve25519, tep_byte: 0xa3, transcript: Vec::new() };
        let session = Session::fresh(&negotiated, AeadId::Aes128Gcm, SessionSecret::from_bytes(&[7; 32]));
        Box::new(Record::new(crate::crypto::provider(), &session))
    }

    fn suspected() -> PlainFlow {
        let suspect = Some(Suspect { record: record(Role::B), until: Instant::ZERO + Duration::from_secs(60) });
        let (isns, question) = ([Some(1), Some(999)], OpenQuestion::None);
        let left = Left { isns, active: false, answered: true, suspect, question, insist: false };
        let mut plain = PlainFlow::new(&Config::default(), Instant::ZERO, Plain::AckWithoutEno, left);
        plain.stage = Stage::Open;
        plain
    }

    #[test]
    fn a_plain_connection_keeps_keys_until_the_peers_first_data_and_not_longer_than_a_handshake() {
        let mut plain = suspected();
        assert!(!plain.is_one_sided(1000, b""), "an acknowledgement says nothing");
        assert!(!plain.is_one_sided(1005, b"not the first"));
        assert!(plain.suspect.is_some());
        assert!(!plain.is_one_sided(1000, b"GET / HTTP/1.1"));
        assert!(plain.suspect.is_none(), "plaintext has come");

        let mut frame = [0; 64];
        let len = record(Role::A).seal(0, &Plaintext { data: b"hello", ..Plaintext::default() }, &mut frame).unwrap();
        let mut plain = suspected();
        assert!(plain.is_one_sided(1000, &frame[..len]), "a frame has come");
        assert!(plain.suspect.is_none());

        let mut plain = suspected();
        let minute = plain.poll_timeout();
        assert_eq!(minute, Instant::ZERO + Duration::from_secs(60));
        assert!(!plain.handle_timeout(minute), "the connection goes on");
        assert!(plain.suspect.is_none());
        assert_eq!(plain.poll_timeout(), Instant::ZERO + Duration::from_secs(86_400));
        assert!(plain.handle_timeout(plain.poll_timeout()));
    }
}
