//! A connection whose handshake negotiated encryption: from then on nothing but frames is on the wire.
//!
//! `out` is the direction from the local kernel to the wire (see `egress`), `inn` the other one (see
//! `ingress`). Each knows its stream in both spaces: what the kernel thinks (P) and what is on the wire (C).

use std::time::Duration;

use tcpcrypt::frame::OVERHEAD;
use tcpcrypt::handshake::Initiator;
use tcpcrypt::resume::CachedSecret;
use tcpcrypt::schedule::KeyFingerprint;
use tcpcrypt::{AckPhase, AeadId, Negotiated, Record, Role, Session, SessionId};

use super::context::Context;
use super::env::{ConnectionKeys, Side};
use super::inbound::{Eof, In, Waits};
use super::link::{Clocks, Link};
use super::lost::LostOption;
use super::outbound::Out;
use crate::store::{ChainId, Finding, Sessions};
use crate::time::Instant;
use crate::wire::build::TcpFields;
use crate::wire::options::OptionBuf;
use crate::wire::{C, Flags, Offset, P, Segment};

/// After this long without packets the local kernel is asked whether it still knows the connection (as long as Linux waits
/// for its own keep-alives).
const ASK_AFTER: Duration = Duration::from_secs(2 * 3600);

/// How long Linux sends data again before it gives up (`tcp_retries2` = 15). The connection is open at both ends already, and a
/// key exchange is their first data.
const KERNEL_PATIENCE: Duration = Duration::from_secs(925);

/// A connection without packets for this long is idle: soon, so that of many that are opened few are ever large.
const REST_AFTER: Duration = Duration::from_millis(250);

/// How far the keys of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// There are none, or only what they will be made of.
    None,
    /// Those of a session that may be resumed, or whose frames may come although it is not.
    Possible,
    /// The generations to send and to receive with (TC-31).
    Generations(u64, u64),
}

/// How far the keys are.
pub(crate) enum Stage {
    /// A has sent Init1 and waits for Init2 (TC-3).
    WaitInit2(Box<Initiator>),
    /// B waits for Init1.
    WaitInit1(Negotiated),
    /// Frames can be sealed and opened.
    Ready(Box<Record>),
    /// Keys are being made right now, or that failed and the connection is about to be aborted.
    Failed,
}

/// What was agreed on, for whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) role: Role,
    pub(crate) negotiated: Negotiated,
    pub(crate) aead: Option<AeadId>,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) key_fingerprint: Option<KeyFingerprint>,
    pub(crate) resumed: bool,
    /// The peer has shown that it has the keys: a frame of its has opened.
    pub(crate) peer_confirmed: bool,
    /// Where the session it used came from, and where those to come are cached.
    pub(crate) chain: Option<ChainId>,
}

/// What follows once the peer has shown that it has the keys. Before that the SYN may be a copy of an old one, sent again by
/// whoever held it back.
enum Claim {
    /// Nothing any more, or there are no keys.
    None,
    /// New keys: what follows them is cached, unless the cache was flushed since.
    Fresh { next: Box<CachedSecret>, flushes: u64 },
    /// New keys, of which nothing is cached.
    Uncached,
    /// Keys resumed from a chain, which the peer has then.
    Resumed(ChainId),
}

/// How far a key exchange is that this host has all for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    None,
    /// The peer's Init message is whole: [`Encrypted::exchange`] is to be called when there is time.
    Due,
    /// It is in the engine's queue.
    Queued,
}

/// Why a connection was aborted (TC-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AbortReason {
    KeyExchange(tcpcrypt::Error),
    Violation,
    BadFrame,
    FinWithoutFinp,
    OneSided,
    Timeout,
    Shutdown,
    Cloned,
    KeyUsedUp,
    Internal,
}

impl From<tcpcrypt::Error> for AbortReason {
    /// Why a frame could not be sealed.
    fn from(why: tcpcrypt::Error) -> Self {
        match why {
            tcpcrypt::Error::Misuse(tcpcrypt::Misuse::KeyUsedUp) => Self::KeyUsedUp,
            _ => Self::Internal,
        }
    }
}

impl std::fmt::Display for AbortReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeyExchange(why) => write!(f, "key exchange failed: {why}"),
            Self::Violation => f.write_str("the peer broke the protocol inside an authentic frame"),
            Self::BadFrame => f.write_str("a frame does not authenticate, however often the peer sends it"),
            Self::FinWithoutFinp => f.write_str("the peer's FIN is not authenticated by a FINp frame"),
            Self::OneSided => f.write_str("the peer encrypts, but its ENO option was removed on the way"),
            Self::Timeout => f.write_str("the peer does not answer"),
            Self::Shutdown => f.write_str("enotun is going down"),
            Self::Cloned => f.write_str("this machine was cloned or rolled back, and a copy of it has the same keys"),
            Self::KeyUsedUp => f.write_str("the keys have protected all that they may and could not be replaced"),
            Self::Internal => f.write_str("enotun could not go on"),
        }
    }
}

/// What becomes of a connection after a packet or a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    /// It goes on.
    Stay,
    /// Both directions are closed and acknowledged.
    Done,
    /// One end has reset it; the other was told.
    Reset,
    /// It has to be aborted.
    Abort(AbortReason),
}

/// Which number a segment without data carries on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// One that the peer accepts.
    Next,
    /// One from before what it has acknowledged, so that it answers (RFC 9293, section 3.8.4).
    Probe,
}

/// Into segments of what size something is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// What the kernel's super-packets show that the path takes.
    Path,
    /// So many bytes of payload, if the peer's MSS allows.
    At(usize),
}

/// What the SYNs said of both ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// The local kernel's initial sequence number, the same in P and C.
    pub(crate) local_isn: u32,
    /// The peer's, the same in P and C.
    pub(crate) peer_isn: u32,
    /// Scale of the windows that the local kernel announces.
    pub(crate) local_scale: u8,
    /// Scale of the windows that the peer announces.
    pub(crate) peer_scale: u8,
    /// MSS that the local kernel announced.
    pub(crate) local_mss: u16,
    /// MSS that the peer announced, or that the local kernel did if that is less.
    pub(crate) peer_mss: u16,
    /// Both sent timestamps.
    pub(crate) timestamps: bool,
    /// Both permitted SACK.
    pub(crate) sack: bool,
    /// The right edge the local kernel's SYN or SYN-ACK announced, unscaled.
    pub(crate) local_window: u16,
    /// The right edge the peer's SYN or SYN-ACK announced, unscaled.
    pub(crate) peer_window: u16,
    /// Round-trip time measured with the SYNs.
    pub(crate) rtt: Option<Duration>,
}

pub(crate) struct Encrypted {
    pub(super) link: Link,
    pub(super) facts: Facts,
    pub(super) stage: Stage,
    pub(super) phase: AckPhase,
    pub(super) out: Out,
    pub(super) inn: In,
    pub(super) clocks: Option<Clocks>,
    pub(super) sack: bool,
    /// This host opened the connection.
    pub(super) active: bool,
    /// The session is cached for others to resume (TC-22).
    pub(super) cache: bool,
    /// What this connection shows about the path was remembered.
    path_known: bool,
    claim: Claim,
    pub(crate) exchange: Exchange,
    /// When the SYNs had been exchanged.
    began: Instant,
    /// When the key exchange is given up.
    pub(super) deadline: Option<Instant>,
    /// The kernel wants to know whether the peer is alive (TC-35). Until the peer's answer is authentic, the kernel is
    /// shown nothing that it would take for one.
    pub(super) liveness_asked: bool,
    /// When it last took in a packet.
    used: Instant,
    /// When it is looked at whether it is idle.
    rest_at: Option<Instant>,
    /// The local kernel has reset it.
    pub(super) kernel_gone: bool,
    /// Set when something went to the wire; cleared before each packet.
    pub(super) wire_told: bool,
    /// Set when something went to the kernel; cleared before each packet.
    pub(super) kernel_told: bool,
}

impl Encrypted {
    pub(crate) fn new(
        cx: &Context<'_>,
        link: Link,
        ends: &Ends,
        negotiated: Negotiated,
        phase: AckPhase,
        clocks: Clocks,
        (active, cache): (bool, bool),
    ) -> Self {
        let stage = Stage::WaitInit1(negotiated.clone());
        Self {
            facts: Facts {
                role: negotiated.role,
                negotiated,
                aead: None,
                session_id: None,
                key_fingerprint: None,
                resumed: false,
                peer_confirmed: false,
                chain: None,
            },
            stage,
            phase,
            active,
            cache: cache && cx.config.negotiation.resume,
            path_known: false,
            claim: Claim::None,
            exchange: Exchange::None,
            began: cx.now,
            out: Out::new(ends),
            inn: In::new(ends),
            clocks: ends.timestamps.then_some(clocks),
            sack: ends.sack,
            deadline: Some(cx.now + cx.config.handshake_timeout.max(KERNEL_PATIENCE)),
            liveness_asked: false,
            used: cx.now,
            rest_at: None,
            kernel_gone: false,
            wire_told: false,
            kernel_told: false,
            link,
        }
    }

    fn export_keys(&self, cx: &mut Context<'_>, session: &Session, resumed: bool) {
        cx.env.export_keys(&ConnectionKeys {
            local: self.link.key.local(),
            remote: self.link.key.remote(),
            local_isn: self.out.isn,
            remote_isn: self.inn.isn,
            role: self.facts.role,
            original_role: session.original_role(),
            aead: session.aead(),
            resumed,
            session_id: session.id(),
            master_key: &session.master_key(),
        });
    }

    /// Takes the session that the key exchange ended with, or the one resumed and the chain it is from. `ss[i]` is
    /// erased here (TC-19).
    pub(super) fn ready(&mut self, cx: &mut Context<'_>, session: Session, resumed: Option<ChainId>) {
        self.facts.aead = Some(session.aead());
        self.facts.session_id = Some(session.id());
        self.facts.key_fingerprint = Some(session.key_fingerprint());
        if cx.config.export_keys {
            self.export_keys(cx, &session, resumed.is_some());
        }
        self.stage = Stage::Ready(Box::new(Record::new(cx.provider, &session)));
        self.claim = match resumed {
            Some(chain) => Claim::Resumed(chain),
            None if self.cache => Claim::Fresh { next: Box::new(session.into_next()), flushes: cx.sessions.flushes() },
            None => Claim::Uncached,
        };
        // The answer to a SYN of this host's own cannot be a copy of an old one.
        self.facts.resumed = self.active && resumed.is_some();
        self.deadline = None;
        if resumed.is_some() {
            // As the SYN-ACK has told the kernel.
            self.out.raise_told_edge();
        }
    }

    /// The peer has the keys, for a frame of its has opened: from here on the connection is encrypted for whoever asks, a
    /// resumption counts, and the sessions to come are cached under the peer's address (TC-19, TC-22).
    pub(super) fn confirm_peer(&mut self, cx: &mut Context<'_>) {
        let peer = self.link.key.remote();
        let resumed = matches!(self.claim, Claim::Resumed(_));
        match std::mem::replace(&mut self.claim, Claim::None) {
            Claim::None => return,
            Claim::Uncached => {}
            Claim::Resumed(chain) if self.cache => {
                cx.sessions.confirm(cx.now, chain, peer);
                self.facts.chain = Some(chain);
            }
            Claim::Resumed(chain) => {
                cx.sessions.remove(chain);
            }
            Claim::Fresh { next, flushes } => {
                if self.cache && flushes == cx.sessions.flushes() {
                    self.facts.chain = cx.sessions.insert(cx.now, peer, self.active, *next);
                }
            }
        }
        (self.facts.peer_confirmed, self.facts.resumed) = (true, resumed);
        cx.counters.connections_encrypted += 1;
        cx.counters.connections_resumed += u64::from(resumed);
        cx.counters.sessions_cached += u64::from(!resumed && self.facts.chain.is_some());
        let erased = cx.sessions.take_erased();
        cx.counters.sessions_evicted += erased.evicted;
        cx.counters.sessions_expired += erased.expired;
    }

    /// Erases what this connection has used of the cache or put there, or would; nothing is put there from here on (TC-22).
    /// Whether there was something.
    pub(crate) fn forget_session(&mut self, sessions: &mut Sessions) -> bool {
        self.cache = false;
        let chain = match std::mem::replace(&mut self.claim, Claim::None) {
            Claim::Resumed(chain) => {
                // Still to be confirmed as resumed.
                self.claim = Claim::Resumed(chain);
                Some(chain)
            }
            Claim::Fresh { .. } => {
                self.claim = Claim::Uncached;
                return true;
            }
            claim => {
                self.claim = claim;
                self.facts.chain.take()
            }
        };
        chain.is_some_and(|chain| sessions.remove(chain))
    }

    /// It has ended without a frame of the peer's having opened, though some came: whatever keys the peer has, those
    /// that were resumed are not.
    pub(crate) fn doubt_resumption(&self, sessions: &mut Sessions) {
        if let Claim::Resumed(chain) = &self.claim {
            sessions.refused(*chain);
        }
    }

    /// Remembers what a packet of the peer's, or its absence, has shown about the path. That the path lets ENO through is
    /// shown by what can only come from a peer that has the keys, or makes them with this host.
    pub(crate) fn note_path(&mut self, cx: &mut Context<'_>, next: Next, packet: Option<&Segment<'_, C>>) {
        if self.path_known {
            return;
        }
        let reset = packet.filter(|packet| packet.flags.any(Flags::RST));
        let said = reset.and_then(|packet| LostOption::said(packet.payload()));
        let finding = match (next, said) {
            (Next::Reset, Some(LostOption::Ack)) => Finding::NonSynStripped,
            _ if self.facts.peer_confirmed => Finding::Encrypted,
            // Nothing was needed of the peer's but the SYN-ACK or Init2: this may be an application that only reads.
            (Next::Reset, _) if self.is_ready() => return,
            (Next::Abort(_), _) if self.is_ready() && self.inn.has_begun() => return,
            (Next::Reset, _) => Finding::Unfinished,
            (Next::Abort(AbortReason::KeyExchange(_) | AbortReason::FinWithoutFinp | AbortReason::Timeout), _) => {
                Finding::Unfinished
            }
            _ => return,
        };
        self.path_known = true;
        // Whatever a client does not finish is no reason to deny others encryption.
        match finding {
            Finding::Encrypted => cx.learn(self.link.key, self.active, finding),
            _ if self.active => cx.doubt(self.link.key, finding, self.began),
            _ => {}
        }
    }

    pub(super) fn keys(&self) -> Keys {
        match &self.stage {
            Stage::Ready(record) => Keys::Generations(record.local_generation(), record.remote_generation()),
            Stage::WaitInit1(_) | Stage::WaitInit2(_) | Stage::Failed => Keys::None,
        }
    }

    /// Whether this host opened the connection.
    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    /// What the keys are exchanged with.
    pub(crate) fn tep(&self) -> tcpcrypt::Tep {
        self.facts.negotiated.tep
    }

    /// Whether frames can be sealed and opened.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    /// The options of a segment to the wire: ENO where it must be (ENO-12), timestamps, and on segments without data
    /// what was received beyond a gap.
    pub(super) fn wire_options(&self, with_sack: bool) -> OptionBuf {
        let mut options = OptionBuf::default();
        let mut fits = true;
        if let Some(clocks) = self.clocks {
            fits &= options.push_timestamps(clocks.to_wire());
        }
        if self.phase.must_carry() {
            fits &= options.push(&tcpcrypt::eno::option::NON_SYN_OPTION);
        }
        debug_assert!(fits, "timestamps and an empty ENO option are 14 bytes");
        if with_sack && self.sack {
            let isn = self.inn.isn;
            let mut blocks = [(0, 0); 4];
            let mut n = 0;
            for (block, range) in blocks.iter_mut().zip(self.inn.sack()) {
                *block = (range.start.seq(isn).0, range.end.seq(isn).0);
                n += 1;
            }
            options.push_sack(blocks.get(..n).unwrap_or(&[]));
        }
        options
    }

    /// The options of a segment to the local kernel, `sack` blocks in its own numbers.
    fn plain_options(&self, sack: &[(u32, u32)]) -> OptionBuf {
        let mut options = OptionBuf::default();
        if let Some(clocks) = self.clocks {
            let fits = options.push_timestamps(clocks.to_plain());
            debug_assert!(fits, "timestamps are 12 bytes");
        }
        if self.sack {
            options.push_sack(sack);
        }
        options
    }

    /// Sends a segment without data to the wire.
    pub(super) fn emit_wire_bare(&mut self, cx: &mut Context<'_>, bare: Bare, flags: Flags) {
        let options = self.wire_options(!flags.any(Flags::RST));
        self.inn.duplicate = None;
        let (ack, window) = self.inn.announce();
        let seq = match bare {
            Bare::Next => self.out.acceptable_seq(),
            Bare::Probe => (self.out.acked - 1_i64).seq(self.out.isn),
        };
        let tcp =
            TcpFields { seq: seq.0, ack, flags: flags.with(Flags::ACK), window, urgent: 0, options: options.padded() };
        self.link.emit(cx.env, Side::Wire, &tcp, &[], None);
        self.phase.sent_ack();
        // A probe is answered, and nothing else in it believed.
        self.wire_told |= bare == Bare::Next;
    }

    /// Acknowledges on the wire on enotun's own account.
    pub(super) fn emit_own_ack(&mut self, cx: &mut Context<'_>) {
        cx.counters.own_segments += 1;
        self.emit_wire_bare(cx, Bare::Next, Flags::default());
    }

    /// Sends a segment without data to the local kernel at `seq`.
    pub(super) fn emit_plain_bare(&mut self, cx: &mut Context<'_>, seq: Offset<P>, flags: Flags, sack: &[(u32, u32)]) {
        let options = self.plain_options(sack);
        let (ack, window) = self.kernel_fields();
        let tcp = TcpFields {
            seq: self.inn.acceptable_seq(seq).0,
            ack,
            flags: flags.with(Flags::ACK),
            window,
            urgent: 0,
            options: options.padded(),
        };
        self.link.emit(cx.env, Side::Plain, &tcp, &[], None);
        self.kernel_told = true;
    }

    /// Tells the local kernel that its SYN has arrived.
    pub(super) fn acknowledge_opening(&mut self, cx: &mut Context<'_>) {
        let seq = self.inn.delivered;
        self.emit_plain_bare(cx, seq, Flags::default(), &[]);
    }

    /// Acknowledgement and window fields of a segment to the local kernel.
    pub(super) fn kernel_fields(&mut self) -> (u32, u16) {
        if self.is_ready() {
            self.out.raise_told_edge();
        }
        self.out.tell()
    }

    /// Sends plaintext `delivered..until` and, if it is due, the FIN to the local kernel.
    pub(super) fn deliver(&mut self, cx: &mut Context<'_>, flags: Flags) {
        let from = self.inn.delivered;
        let to = self.inn.deliverable();
        if to > from {
            if std::mem::take(&mut self.inn.congested) {
                // The mark may have come with another segment of the same frames, or with one that had to wait.
                self.link.mark_congested();
            }
            self.emit_plaintext(cx, from, to, flags);
            self.inn.delivered = to;
            self.inn.last_delivery = cx.now;
        }
    }

    /// Sends stored plaintext to the local kernel, the FIN if the range has it.
    pub(super) fn emit_plaintext(&mut self, cx: &mut Context<'_>, from: Offset<P>, to: Offset<P>, flags: Flags) {
        let data_end = self.inn.data_end();
        let (ack, window) = self.kernel_fields();
        let options = self.plain_options(&[]);
        let max = self.link.max_payload(options.padded().len());
        let mut at = from;
        while at < to {
            let mut pieces = [&[][..]; super::frames::MAX_PIECES];
            let urgent = self.inn.urgent_pointer(at);
            // A super-packet has one urgent pointer, which is wrong in all of its segments but the first.
            let most = if urgent.is_some() { max.min(usize::from(self.inn.segment)) } else { max };
            let stop = to.min(data_end).min(at + most);
            let (n, end) = self.inn.held.gather(at, stop, &mut pieces);
            let fin = self.inn.eof != Eof::Open && end == data_end && to > data_end;
            if end == at && !fin {
                debug_assert!(false, "what is to be delivered is held");
                break;
            }
            let mut f = flags.with(Flags::ACK);
            if end >= data_end.min(to) && end > at {
                f = f.with(Flags::PSH);
            }
            if fin {
                f = f.with(Flags::FIN);
            }
            if urgent.is_some() {
                f = f.with(Flags::URG);
            }
            let tcp = TcpFields {
                seq: at.seq(self.inn.isn).0,
                ack,
                flags: f,
                window,
                urgent: urgent.unwrap_or(0),
                options: options.padded(),
            };
            self.link.emit(cx.env, Side::Plain, &tcp, pieces.get(..n).unwrap_or(&[]), Some(self.inn.segment));
            at = if fin { end + 1_i64 } else { end };
        }
        self.kernel_told = true;
    }

    /// Sends the stored bytes `from..to`, and the FIN if the range has it, to the wire.
    pub(super) fn transmit(&mut self, cx: &mut Context<'_>, from: Offset<C>, to: Offset<C>, cut: Cut, flags: Flags) {
        let data_end = self.out.data_end();
        let (ack, window) = self.inn.announce();
        let options = self.wire_options(false);
        let options = options.padded();
        let max = self.link.max_payload(options.len());
        // Both ends may announce a larger MSS than a packet can have.
        let segment = match cut {
            Cut::Path => self.out.segment(options.len()),
            Cut::At(size) => self.out.most(options.len()).min(size),
        };
        let segment = segment.min(max);
        let max = max / segment * segment;
        let mut at = from;
        while at < to {
            let mut pieces = [&[][..]; super::frames::MAX_PIECES];
            // TC-4: the segment with the last byte of an Init message has PSH, however it is cut. So it ends there.
            let init_end = self.out.init_end;
            let cut = if at < init_end { init_end } else { to };
            let stop = to.min(data_end).min(at + max).min(cut);
            let (n, end) = self.out.store.gather(at, stop, &mut pieces);
            let fin = self.out.fin_sealed() && end == data_end && to > data_end;
            if end == at && !fin {
                debug_assert!(false, "what is to be sent is stored");
                break;
            }
            let mut f = flags.with(Flags::ACK);
            if end == init_end {
                f = f.with(Flags::PSH);
            } else if end < to.min(data_end) {
                f = f.without(Flags::PSH);
            }
            if at > from {
                f = f.without(Flags::CWR);
            }
            if fin {
                f = f.with(Flags::FIN);
            }
            let tcp = TcpFields { seq: at.seq(self.out.isn).0, ack, flags: f, window, urgent: 0, options };
            let gso = u16::try_from(segment).ok();
            self.link.emit(cx.env, Side::Wire, &tcp, pieces.get(..n).unwrap_or(&[]), gso);
            at = if fin { end + 1_i64 } else { end };
        }
        self.phase.sent_ack();
        self.wire_told = true;
    }

    /// Tells both ends that it is over (TC-6).
    pub(crate) fn abort(&mut self, cx: &mut Context<'_>) {
        self.emit_wire_bare(cx, Bare::Next, Flags::RST);
        let seq = self.inn.delivered;
        self.emit_plain_bare(cx, seq, Flags::RST, &[]);
    }

    /// What it holds that nobody has proven.
    pub(crate) fn waits(&self) -> Option<Waits> {
        self.inn.waits()
    }

    /// Lets go of that.
    pub(crate) fn shed(&mut self) {
        self.inn.shed();
    }

    /// Bytes of memory held for this connection beyond its fixed size.
    pub(crate) fn held(&self) -> usize {
        self.out.held() + self.inn.held_bytes()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.deadline, self.rest_at, self.out.timer(), self.inn.timer()].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Next {
        if self.deadline.is_some_and(|d| d <= cx.now) {
            return Next::Abort(AbortReason::Timeout);
        }
        if self.rest_at.is_some_and(|d| d <= cx.now) {
            self.rest(cx);
        }
        if self.out.timer().is_some_and(|d| d <= cx.now) {
            let next = self.handle_own_timeout(cx);
            if next != Next::Stay {
                return next;
            }
        }
        if self.inn.timer().is_some_and(|d| d <= cx.now) {
            return self.handle_delivery_timeout(cx);
        }
        Next::Stay
    }

    /// Notes that a packet has come.
    pub(super) fn note_use(&mut self, now: Instant) {
        self.used = now;
        self.out.forget_limit(now);
        let at = now + REST_AFTER;
        self.rest_at = Some(self.rest_at.map_or(at, |before| before.min(at)));
    }

    /// Gives back the memory that only a busy connection needs, if it is idle: most of many connections are. Sockets can
    /// vanish without a word: if it is idle for long, the kernel is asked, and answers with a RST if it has none.
    fn rest(&mut self, cx: &mut Context<'_>) {
        let idle = cx.now.since(self.used);
        self.rest_at = Some(self.used + if idle < REST_AFTER { REST_AFTER } else { ASK_AFTER });
        if idle >= REST_AFTER {
            if let Stage::Ready(record) = &mut self.stage {
                record.rest();
            }
            self.out.shrink();
            self.inn.shrink();
        }
        if idle >= ASK_AFTER {
            self.rest_at = Some(cx.now + ASK_AFTER);
            cx.counters.own_segments += 1;
            // What a keep-alive looks like: before what the kernel expects.
            let seq = self.inn.delivered - 1_i64;
            self.emit_plain_bare(cx, seq, Flags::default(), &[]);
        }
    }

    /// Whether both directions are closed and everyone knows.
    pub(super) fn next(&self) -> Next {
        if self.out.all_acked_with_fin() && self.inn.all_acked_with_fin() { Next::Done } else { Next::Stay }
    }
}

/// Data in one frame so that the frame fits `segment` bytes.
pub(super) fn piece(segment: usize) -> usize {
    segment.saturating_sub(OVERHEAD).max(1)
}
