//! The effect of a packet on an opening, as a value: first the new state of the connection is decided, then segments
//! are sent.

use super::syn_rewrite::without_accurate_ecn;
use crate::flow::connection::{AbortReason, Encrypted};
use crate::flow::plain::FallbackReason;
use crate::flow::plain::Left;
use crate::flow::rules::hop_id;
use crate::flow::{Context, Link, LostOption, Side, pass_on};
use crate::wire::build::TcpFields;
use crate::wire::options::OptionBuf;
use crate::wire::{Flags, Segment};

/// Sequence and acknowledgement number of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
}

impl Numbers {
    /// Those of `segment`.
    pub(crate) fn of<S>(segment: &Segment<'_, S>) -> Self {
        Self { seq: segment.seq.0, ack: segment.ack.0 }
    }

    /// Those of a segment the other way that follows exactly.
    pub(crate) fn turned(self) -> Self {
        Self { seq: self.ack, ack: self.seq }
    }
}

/// What a packet comes to.
#[must_use]
pub(crate) struct Opened {
    pub(crate) change: Change,
    /// What is sent, once that is decided.
    pub(crate) emit: Emit,
}

/// The new state of an opening.
pub(crate) enum Change {
    /// It goes on.
    Stay,
    /// It is encrypted from here on.
    Encrypted(Box<Encrypted>, Begin),
    /// It is plain TCP.
    Plain(Left),
    /// It is refused because policy requires encryption; both ends are told.
    Refused(FallbackReason),
    /// It is aborted. Where the local kernel is in both streams, if it may take the connection for open.
    Aborted(AbortReason, Option<Numbers>),
    /// A RST has ended it.
    Reset,
    /// A RST has ended it, and the peer may believe that it is encrypted. The numbers are those of [`Self::Aborted`].
    ResetAfterAgreement(Option<Numbers>),
}

/// How an encrypted connection begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Begin {
    /// With the segment at hand.
    WithSegment,
    /// The SYNs have crossed: each end is told that its SYN has arrived.
    Crossed,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Emit {
    Nothing,
    /// The segment at hand, as it is.
    Forward,
    /// The SYN, SYN-ACK or RST at hand with these options and this window, without data (ENO-16).
    Rewritten {
        options: OptionBuf,
        window: u16,
    },
    /// The SYN at hand with these options, and copies of it for so many routers to quote.
    Traced {
        options: OptionBuf,
        hops: u8,
    },
    /// An acknowledgement of this host's own.
    Acknowledge {
        side: Side,
        numbers: Numbers,
        window: u16,
        options: OptionBuf,
    },
    /// RSTs.
    Reset(Resets),
}

/// RSTs to the ends that know of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resets {
    pub(crate) to_kernel: Option<Numbers>,
    pub(crate) to_peer: Option<Numbers>,
    /// What the one to the peer says.
    pub(crate) lost: Option<LostOption>,
}

impl Opened {
    /// The opening goes on, and nothing is sent.
    pub(super) fn stay() -> Self {
        Self::send(Emit::Nothing)
    }

    /// The opening goes on, and this is sent.
    pub(super) fn send(emit: Emit) -> Self {
        Self { change: Change::Stay, emit }
    }
}

impl Emit {
    /// A bare acknowledgement without a window.
    pub(super) fn acknowledge(side: Side, numbers: Numbers) -> Self {
        Self::Acknowledge { side, numbers, window: 0, options: OptionBuf::default() }
    }

    /// Sends it; `segment` was read on `from`.
    pub(crate) fn send<S>(self, cx: &mut Context<'_>, link: &Link, from: Side, segment: &Segment<'_, S>) {
        match self {
            Self::Nothing => {}
            Self::Forward => {
                cx.counters.passed_through += 1;
                pass_on(cx.env, from, segment);
            }
            Self::Rewritten { options, window } => rewritten(cx, link, from, segment, &options, window),
            Self::Traced { options, hops } => {
                rewritten(cx, link, from, segment, &options, segment.window);
                for hop in 1..=hops {
                    rewritten(cx, &link.limited(hop, hop_id(hop)), from, segment, &options, segment.window);
                }
            }
            Self::Acknowledge { side, numbers: Numbers { seq, ack }, window, options } => {
                let options = options.padded();
                link.emit(
                    cx.env,
                    side,
                    &TcpFields { seq, ack, flags: Flags::ACK, window, urgent: 0, options },
                    &[],
                    None,
                );
            }
            Self::Reset(resets) => resets.send(cx, link),
        }
    }
}

fn rewritten<S>(
    cx: &mut Context<'_>,
    link: &Link,
    from: Side,
    segment: &Segment<'_, S>,
    options: &OptionBuf,
    window: u16,
) {
    let flags = if from == Side::Wire { without_accurate_ecn(segment.flags) } else { segment.flags };
    let Numbers { seq, ack } = Numbers::of(segment);
    let tcp = TcpFields { seq, ack, flags, window, urgent: segment.urgent, options: options.padded() };
    link.emit(cx.env, from.other(), &tcp, &[], None);
}

impl Resets {
    /// To whoever has sent a SYN with one of these numbers, the local kernel's first.
    pub(super) fn after_syns(isns: [Option<u32>; 2]) -> Self {
        let [local, peer] = isns.map(|isn| isn.map(|isn| isn.wrapping_add(1)));
        // In SYN-SENT the acknowledgement is what makes it believable (RFC 9293, section 3.10.7.3).
        let numbers = |own: Option<u32>, other: Option<u32>| own.map(|ack| Numbers { seq: other.unwrap_or(0), ack });
        Self { to_kernel: numbers(local, peer), to_peer: numbers(peer, local), lost: None }
    }

    /// To both ends of a connection that goes on with `segment`, read on `from`.
    pub(super) fn both<S>(from: Side, segment: &Segment<'_, S>) -> Self {
        let (back, on) = (Some(Numbers::of(segment).turned()), Some(Numbers::of(segment)));
        match from {
            Side::Plain => Self { to_kernel: back, to_peer: on, lost: None },
            Side::Wire => Self { to_kernel: on, to_peer: back, lost: None },
        }
    }

    pub(crate) fn send(self, cx: &mut Context<'_>, link: &Link) {
        if let Some(Numbers { seq, ack }) = self.to_kernel {
            link.reset(cx.env, Side::Plain, seq, ack);
        }
        match (self.to_peer, self.lost) {
            (Some(Numbers { seq, ack }), None) => link.reset(cx.env, Side::Wire, seq, ack),
            (Some(Numbers { seq, ack }), Some(lost)) => link.reset_saying(cx.env, lost, seq, ack),
            (None, _) => {}
        }
    }
}
