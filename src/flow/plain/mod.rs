//! A connection that continues as plain TCP: its packets pass unchanged, and their information is recorded.

mod path;
mod reason;
mod stream;

use std::time::Duration;

pub(crate) use path::{Learnt, OpenQuestion, SuspectKeys, begins_frame, begins_init1};
pub(crate) use reason::FallbackReason;
pub(crate) use stream::Progress;

use stream::Streams;

use super::config::Config;
use super::context::Context;
use super::env::Side;
use super::info::{FlowInfo, FlowState};
use super::link::Link;
use super::states::State;
use crate::time::Instant;
use crate::wire::FlowKey;
use crate::wire::build::TcpFields;
use crate::wire::options::{self, OptionBuf};
use crate::wire::{C, Flags, P, Segment};

/// A plain connection: its packets pass unchanged.
#[derive(Debug)]
pub(crate) struct PlainFlow {
    why: FallbackReason,
    streams: Streams,
    /// Which end opened it.
    opened_on: Side,
    last_seen: Instant,
    patience: Patience,
    question: OpenQuestion,
    /// A probe whose segments carry ENO although the peer's SYN-ACK did not.
    insists: bool,
}

/// How long a silent plain connection is remembered.
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

/// What an opening passes on to a plain connection.
#[derive(Debug)]
pub(crate) struct Left {
    /// Why it became plain.
    pub(crate) why: FallbackReason,
    /// The first sequence numbers of both ends, the local kernel's first.
    pub(crate) isns: [Option<u32>; 2],
    /// Which end opened it.
    pub(crate) opened_on: Side,
    /// Whether the local kernel has acknowledged the peer's SYN.
    pub(crate) answered: bool,
    pub(crate) question: OpenQuestion,
    /// See [`PlainFlow::insist`].
    pub(crate) insists: bool,
}

impl PlainFlow {
    /// What became of an opening.
    pub(crate) fn new(config: &Config, now: Instant, left: Left) -> Self {
        let Left { why, isns, opened_on, answered, question, insists } = left;
        let streams = Streams::opening(isns, answered);
        Self { why, streams, opened_on, last_seen: now, patience: Patience::new(config), question, insists }
    }

    /// One that was open before it was selected.
    pub(crate) fn pre_existing(config: &Config, now: Instant) -> Self {
        Self {
            why: FallbackReason::PreExisting,
            streams: Streams::under_way(),
            opened_on: Side::Plain,
            last_seen: now,
            patience: Patience::new(config),
            question: OpenQuestion::None,
            insists: false,
        }
    }

    /// Records what a segment from `side` shows about the state of the connection.
    pub(crate) fn note<S>(&mut self, cx: &mut Context<'_>, side: Side, segment: &Segment<'_, S>) {
        self.last_seen = cx.now;
        let before = self.progress();
        self.streams.note(side, segment);
        if (before, self.progress()) == (Progress::Opening, Progress::Open) {
            cx.counters.connections_plain += 1;
        }
    }

    /// Records a segment from the peer; returns what it shows about the path and the peer, if anything.
    pub(crate) fn learn(&mut self, segment: &Segment<'_, C>) -> Option<Learnt> {
        self.question.answer(self.isns(), segment)
    }

    /// Sends a segment of the local kernel with an ENO option, if this is a probe that insists and there is room;
    /// returns whether it did.
    pub(crate) fn insist(&self, cx: &mut Context<'_>, key: FlowKey, segment: &Segment<'_, P>) -> bool {
        if !self.insists || segment.flags.any(Flags::SYN.with(Flags::RST)) || !segment.payload.is_empty() {
            return false;
        }
        let mut options = OptionBuf::default();
        let fits = options::walk(segment.options()).all(|(_, option)| options.push(option));
        if !fits || !options.push(&tcpcrypt::eno::option::NON_SYN_OPTION) {
            return false;
        }
        let mut link = Link::new(key);
        link.learn(Side::Plain, segment);
        let tcp = TcpFields {
            seq: segment.seq.0,
            ack: segment.ack.0,
            flags: segment.flags,
            window: segment.window,
            urgent: segment.urgent,
            options: options.padded(),
        };
        link.emit(cx.env, Side::Wire, &tcp, &[], None);
        true
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        self.streams.progress()
    }

    /// The same among all states of connections.
    pub(crate) fn state(&self) -> State {
        match self.progress() {
            Progress::Opening => State::PlainOpening,
            Progress::Open => State::PlainOpen,
            Progress::Over => State::PlainOver,
        }
    }

    /// Whether its handshake is complete, and it is not over.
    pub(crate) fn is_open(&self) -> bool {
        self.progress() == Progress::Open
    }

    /// Whether it is over, as both ends know.
    pub(crate) fn has_ended(&self) -> bool {
        self.progress() == Progress::Over
    }

    /// Whether the local kernel opened it.
    pub(crate) fn is_active(&self) -> bool {
        self.opened_on == Side::Plain
    }

    /// Whether it keeps keys.
    pub(super) fn has_keys(&self) -> bool {
        self.question.keys().is_some()
    }

    /// The first sequence numbers of both ends, the local kernel's first, to tell the retransmission of a SYN from a new
    /// connection.
    pub(crate) fn isns(&self) -> [Option<u32>; 2] {
        self.streams.isns()
    }

    /// Whether the local kernel's `segment` is the answer to another SYN than the one this connection began with.
    pub(crate) fn is_answered_anew<S>(&self, segment: &Segment<'_, S>) -> bool {
        let [_, peer] = self.isns();
        segment.flags.any(Flags::SYN)
            && segment.flags.any(Flags::ACK)
            && peer.is_some_and(|isn| isn.wrapping_add(1) != segment.ack.0)
    }

    pub(crate) fn describe(&self, info: &mut FlowInfo) {
        info.state = match self.progress() {
            Progress::Opening => FlowState::Negotiating,
            Progress::Open => FlowState::Plain,
            Progress::Over => FlowState::Closed,
        };
        info.reason = Some(self.why.to_string());
        (info.bytes_sent, info.bytes_received) = self.streams.totals();
    }

    /// When it is forgotten.
    fn until(&self) -> Instant {
        self.last_seen
            + match self.progress() {
                Progress::Opening => self.patience.opening,
                // The last acknowledgement may have been lost, and an end that waits for it gives up silently.
                Progress::Open if !self.streams.are_closing() => self.patience.open,
                Progress::Open | Progress::Over => self.patience.over,
            }
    }

    /// When [`Self::handle_timeout`] should be called.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.question.keys().map_or(self.until(), |keys| keys.until.min(self.until()))
    }

    /// Erases keys that were kept long enough; whether the connection can be forgotten.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.question.expire(now);
        self.until() <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcpcrypt::schedule::SessionSecret;
    use tcpcrypt::{AeadId, Negotiated, Plaintext, Record, Role, Session, Tep};

    use crate::flow::LostOption;
    use crate::wire::Offload;

    fn record(role: Role) -> Box<Record> {
        let negotiated = Negotiated { role, tep: Tep::Curve25519, tep_byte: 0xa3, transcript: Vec::new() };
        let session = Session::fresh(&negotiated, AeadId::Aes128Gcm, SessionSecret::from_bytes(&[7; 32]));
        Box::new(Record::new(crate::crypto::provider(), &session))
    }

    fn suspected() -> PlainFlow {
        let keys = SuspectKeys { record: record(Role::B), until: Instant::ZERO + Duration::from_secs(60) };
        let left = Left {
            why: FallbackReason::AckWithoutEno,
            isns: [Some(1), Some(999)],
            opened_on: Side::Wire,
            answered: true,
            question: OpenQuestion::FirstData { keys: Some(keys) },
            insists: false,
        };
        let mut plain = PlainFlow::new(&Config::default(), Instant::ZERO, left);
        plain.take(Side::Plain, 2, 1000, b"");
        assert!(plain.take(Side::Wire, 1000, 2, b"").is_none(), "an acknowledgement says nothing");
        plain
    }

    impl PlainFlow {
        /// Takes in a segment of either end.
        fn take(&mut self, side: Side, seq: u32, ack: u32, payload: &[u8]) -> Option<Learnt> {
            let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2];
            bytes.extend(
                [&seq.to_be_bytes()[..], &ack.to_be_bytes(), &[0x50, 0x10, 0, 1, 0, 0, 0, 0], payload].concat(),
            );
            bytes[3] = bytes.len() as u8;
            let segment = Segment::<C>::parse(Offload::NONE, &mut bytes).expect("a segment");
            let learnt = if side == Side::Wire { self.learn(&segment) } else { None };
            self.streams.note(side, &segment);
            learnt
        }
    }

    #[test]
    fn a_plain_connection_keeps_keys_until_the_peers_first_data_and_not_longer_than_a_handshake() {
        let mut plain = suspected();
        assert!(plain.take(Side::Wire, 1005, 2, b"not the first").is_none());
        assert!(plain.has_keys());
        assert!(plain.take(Side::Wire, 1000, 2, b"GET / HTTP/1.1").is_none());
        assert!(!plain.has_keys(), "plaintext has come");

        let mut frame = [0; 64];
        let len = record(Role::A).seal(0, &Plaintext { data: b"hello", ..Plaintext::default() }, &mut frame).unwrap();
        let mut plain = suspected();
        let learnt = plain.take(Side::Wire, 1000, 2, &frame[..len]);
        assert_eq!(learnt, Some(Learnt::OneSided(LostOption::Ack)), "a frame has come");
        assert!(!plain.has_keys());

        let mut plain = suspected();
        let minute = plain.poll_timeout();
        assert_eq!(minute, Instant::ZERO + Duration::from_secs(60));
        assert!(!plain.handle_timeout(minute), "the connection goes on");
        assert!(!plain.has_keys());
        assert_eq!(plain.poll_timeout(), Instant::ZERO + Duration::from_secs(86_400));
        assert!(plain.handle_timeout(plain.poll_timeout()));
    }
}
