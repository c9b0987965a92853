//! The life cycle of a connection: after a packet, a timeout or a request it moves from one state to the next here
//! and nowhere else.

use std::time::Duration;

use super::connection::{AbortReason, Closed, Encrypted, End, Keys, Next};
use super::context::Context;
use super::env::Side;
use super::info::{FlowInfo, FlowSession, FlowState};
use super::link::Link;
use super::lost::LostOption;
use super::opening::{Begin, Change, Emit, Numbers, Opened, Opening, Resets};
use super::plain::{Learnt, PlainFlow};
use super::states::{self, Cause, State};
use crate::store::Finding;
use crate::time::Instant;
use crate::wire::{C, FlowKey, P, Segment};

/// The state of a connection.
pub(crate) enum Flow {
    Opening(Box<Opening>),
    Plain(Box<PlainFlow>),
    Encrypted(Box<Encrypted>),
    Closed(Box<Closed>),
}

impl Flow {
    /// The state of its keys.
    pub(crate) fn keys(&self) -> Keys {
        match self {
            Self::Encrypted(e) => e.keys(),
            Self::Opening(o) if o.resumes() => Keys::Possible,
            Self::Plain(p) if p.has_keys() => Keys::Possible,
            Self::Opening(_) | Self::Plain(_) | Self::Closed(_) => Keys::None,
        }
    }

    /// Bytes of memory held for what came from its ends and cannot go on yet.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Encrypted(e) => e.held(),
            _ => 0,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Opening(o) => Some(o.deadline()),
            Self::Plain(p) => Some(p.poll_timeout()),
            Self::Encrypted(e) => e.poll_timeout(),
            Self::Closed(c) => Some(c.poll_timeout()),
        }
    }

    /// Everything an application can ask about it, if it has a session ID (ENO-19).
    pub(crate) fn session(&self, key: &FlowKey) -> Option<FlowSession> {
        match self {
            Self::Opening(_) | Self::Plain(_) => None,
            Self::Encrypted(e) => e.session(key),
            Self::Closed(c) => c.session(key),
        }
    }

    pub(crate) fn info(&self, key: &FlowKey) -> FlowInfo {
        let mut info = FlowInfo::new(key.local(), key.remote(), FlowState::Negotiating);
        match self {
            Self::Opening(_) => {}
            Self::Plain(plain) => plain.describe(&mut info),
            Self::Encrypted(e) => e.describe(&mut info),
            Self::Closed(c) => {
                info.state = FlowState::Closed;
                c.describe(&mut info);
            }
        }
        info
    }
}

/// The next state of a connection.
#[must_use]
pub(crate) enum Transition {
    /// It stays in this state.
    Stay,
    /// It continues in this state, for this cause.
    To(Cause, Flow),
    /// It is forgotten, for this cause.
    Forget(Cause),
}

/// Whether a connection is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Presence {
    Stays,
    /// It is to be taken out of the table.
    Gone,
}

impl Flow {
    /// Where it is, in detail.
    pub(crate) fn state(&self) -> State {
        match self {
            Self::Opening(opening) => opening.state(),
            Self::Plain(plain) => plain.state(),
            Self::Encrypted(encrypted) => encrypted.state(),
            Self::Closed(_) => State::Closed,
        }
    }

    /// Carries out a transition from the state `before`. Nothing else replaces one part of a connection's life by another.
    pub(crate) fn change(&mut self, before: State, transition: Transition) -> Presence {
        match transition {
            Transition::Stay => {
                states::check(before, None, self.state());
                Presence::Stays
            }
            Transition::To(cause, next) => {
                states::check(before, Some(cause), next.state());
                *self = next;
                Presence::Stays
            }
            Transition::Forget(cause) => {
                states::check(before, Some(cause), State::Gone);
                Presence::Gone
            }
        }
    }

    /// Processes a segment from the local kernel.
    pub(crate) fn from_kernel(&mut self, cx: &mut Context<'_>, key: FlowKey, segment: &Segment<'_, P>) -> Transition {
        match self {
            Self::Opening(opening) => {
                let opened = opening.from_kernel(cx, segment);
                let (mut encrypted, begin) = match carry_out(cx, opening, opened, Side::Plain, segment) {
                    Step::Done(transition) => return transition,
                    Step::Encrypted(encrypted, begin) => (encrypted, begin),
                };
                let next = match begin {
                    Begin::WithSegment => encrypted.begin_with(cx, segment),
                    Begin::Crossed => encrypted.begin_crossed(cx),
                };
                begun(cx, encrypted, next)
            }
            Self::Plain(plain) => {
                plain.note(cx, Side::Plain, segment);
                if !plain.insist(cx, key, segment) {
                    Emit::Forward.send(cx, &Link::new(key), Side::Plain, segment);
                }
                Transition::Stay
            }
            Self::Encrypted(encrypted) => {
                encrypted.learn(Side::Plain, segment);
                let next = encrypted.from_kernel(cx, segment);
                settle(cx, encrypted, next)
            }
            Self::Closed(closed) => {
                closed.answer(cx, Side::Plain, segment);
                Transition::Stay
            }
        }
    }

    /// Processes a segment from the wire.
    pub(crate) fn from_wire(&mut self, cx: &mut Context<'_>, key: FlowKey, segment: &mut Segment<'_, C>) -> Transition {
        match self {
            Self::Opening(opening) => {
                let opened = opening.from_wire(cx, segment);
                let (mut encrypted, begin) = match carry_out(cx, opening, opened, Side::Wire, segment) {
                    Step::Done(transition) => return transition,
                    Step::Encrypted(encrypted, begin) => (encrypted, begin),
                };
                let next = match begin {
                    Begin::WithSegment => encrypted.from_wire(cx, segment),
                    Begin::Crossed => encrypted.begin_crossed(cx),
                };
                encrypted.note_path(cx, next, Some(segment));
                begun(cx, encrypted, next)
            }
            Self::Plain(plain) => plain_from_wire(cx, key, plain, segment),
            Self::Encrypted(encrypted) => {
                let next = encrypted.from_wire(cx, segment);
                encrypted.note_path(cx, next, Some(segment));
                settle(cx, encrypted, next)
            }
            Self::Closed(closed) => {
                closed.answer(cx, Side::Wire, segment);
                Transition::Stay
            }
        }
    }

    /// Handles what is due.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Transition {
        let over = match self {
            Self::Opening(opening) if opening.has_agreed() => {
                opening.resets().send(cx, opening.link());
                // An unconfirmed SYN leaves no state: late segments are refused as unknown.
                return match opening.kernel_expects() {
                    Some(expects) => fail(cx, opening.link().key, AbortReason::Timeout, Some(expects)),
                    None => Transition::Forget(Cause::Unacknowledged),
                };
            }
            Self::Opening(_) => true,
            Self::Plain(plain) => plain.handle_timeout(cx.now),
            Self::Encrypted(encrypted) => {
                let next = encrypted.handle_timeout(cx);
                encrypted.note_path(cx, next, None);
                return settle(cx, encrypted, next);
            }
            Self::Closed(closed) => closed.handle_timeout(cx),
        };
        if over { Transition::Forget(Cause::TimedOut) } else { Transition::Stay }
    }

    /// Aborts it on both sides if it is encrypted or becoming so, because this instance is shutting down.
    pub(crate) fn shut_down(&mut self, cx: &mut Context<'_>) -> Transition {
        match self {
            Self::Encrypted(encrypted) => settle(cx, encrypted, Next::Abort(AbortReason::Shutdown)),
            Self::Opening(opening) => {
                opening.resets().send(cx, opening.link());
                match opening.kernel_expects() {
                    Some(expects) => fail(cx, opening.link().key, AbortReason::Shutdown, Some(expects)),
                    None => Transition::Forget(Cause::ShutDown),
                }
            }
            Self::Plain(_) | Self::Closed(_) => Transition::Stay,
        }
    }

    /// Drops what it holds that nobody has proven, as memory is scarce. What is acknowledged would not be retransmitted: then it is aborted.
    pub(crate) fn shed(&mut self, cx: &mut Context<'_>) -> Transition {
        let Self::Encrypted(encrypted) = self else { return Transition::Stay };
        let next = if encrypted.shed() { Next::Stay } else { Next::Abort(AbortReason::Memory) };
        settle(cx, encrypted, next)
    }

    /// Aborts it because a copy of this machine has the same keys, or what they will be made of; `None` if it has
    /// none.
    pub(crate) fn abort_as_copy(&mut self, cx: &mut Context<'_>) -> Option<Transition> {
        match self {
            Self::Encrypted(encrypted) => Some(settle(cx, encrypted, Next::Abort(AbortReason::Cloned))),
            Self::Opening(opening) if opening.has_named_a_secret() => {
                opening.resets().send(cx, opening.link());
                Some(fail(cx, opening.link().key, AbortReason::Cloned, opening.kernel_expects()))
            }
            Self::Opening(_) | Self::Plain(_) | Self::Closed(_) => None,
        }
    }

    /// Tells the ends of an evicted connection, as far as they consider it open; returns how long the local kernel
    /// may continue with it nevertheless.
    pub(crate) fn evict(self, cx: &mut Context<'_>) -> Option<Duration> {
        states::check(self.state(), Some(Cause::Evicted), State::Gone);
        match self {
            Self::Opening(opening) => {
                opening.kernel_expects()?;
                opening.resets().send(cx, opening.link());
                Some(cx.config.plain_idle_timeout)
            }
            Self::Encrypted(mut encrypted) => {
                encrypted.abort(cx);
                Some(cx.config.plain_idle_timeout)
            }
            Self::Closed(closed) => closed.outlived_by(cx.config, cx.now),
            // Nobody is told: unknown plain traffic continues.
            Self::Plain(_) => None,
        }
    }
}

/// The result of a packet for an opening.
enum Step {
    Done(Transition),
    /// It is encrypted from here on, and begins like this.
    Encrypted(Box<Encrypted>, Begin),
}

/// Carries out what an opening has decided on `segment`, read on `from`.
fn carry_out<S>(
    cx: &mut Context<'_>,
    opening: &Opening,
    Opened { change, emit }: Opened,
    from: Side,
    segment: &Segment<'_, S>,
) -> Step {
    let link = opening.link();
    let key = link.key;
    let transition = match change {
        Change::Stay => Transition::Stay,
        Change::Encrypted(encrypted, begin) => {
            emit.send(cx, link, from, segment);
            return Step::Encrypted(encrypted, begin);
        }
        Change::Plain(left) => {
            let mut plain = PlainFlow::new(cx.config, cx.now, left);
            plain.note(cx, from, segment);
            Transition::To(Cause::FellBack, Flow::Plain(Box::new(plain)))
        }
        Change::Refused(why) => {
            cx.counters.connections_refused += 1;
            let why = format!("refused: policy requires encryption, but {why}");
            close(cx, key, Cause::Refused, why, None)
        }
        Change::Aborted(why, expects) => fail(cx, key, why, expects),
        Change::Reset => Transition::Forget(Cause::Reset),
        Change::ResetAfterAgreement(expects) => close(cx, key, Cause::ResetAfterAgreement, "reset".to_owned(), expects),
    };
    emit.send(cx, link, from, segment);
    Step::Done(transition)
}

/// What follows from what a connection came to that has just become encrypted.
fn begun(cx: &mut Context<'_>, mut encrypted: Box<Encrypted>, next: Next) -> Transition {
    match settle(cx, &mut encrypted, next) {
        Transition::Stay => Transition::To(Cause::Agreed, Flow::Encrypted(encrypted)),
        transition => transition,
    }
}

/// Passes a plain connection's segment on, unless it shows that the peer encrypts.
fn plain_from_wire(cx: &mut Context<'_>, key: FlowKey, plain: &mut PlainFlow, segment: &Segment<'_, C>) -> Transition {
    match plain.learn(segment) {
        None => {}
        Some(Learnt::NoEno) => cx.learn(key, true, Finding::NoEno),
        Some(Learnt::SynDropped { began }) => cx.doubt(key, Finding::SynDropped, began),
        Some(Learnt::OneSided(lost)) => {
            let finding = match lost {
                LostOption::Syn => Finding::StrippedHere,
                LostOption::Ack => Finding::NonSynStripped,
            };
            cx.learn(key, false, finding);
            let expects = Numbers::of(segment);
            let resets = Resets { to_kernel: Some(expects), to_peer: Some(expects.turned()), lost: Some(lost) };
            let transition = fail(cx, key, AbortReason::OneSided, Some(expects));
            resets.send(cx, &Link::new(key));
            return transition;
        }
    }
    plain.note(cx, Side::Wire, segment);
    Emit::Forward.send(cx, &Link::new(key), Side::Wire, segment);
    Transition::Stay
}

/// What remains of a connection that was aborted before it was encrypted. `expects`: the local kernel's position in
/// both streams, if it may consider the connection open.
fn fail(cx: &mut Context<'_>, key: FlowKey, why: AbortReason, expects: Option<Numbers>) -> Transition {
    count_abort(cx, why);
    close(cx, key, Cause::Aborted, why.to_string(), expects)
}

fn close(cx: &Context<'_>, key: FlowKey, cause: Cause, why: String, expects: Option<Numbers>) -> Transition {
    let until = cx.now + cx.config.closed_linger;
    let expects = expects.map(|Numbers { seq, ack }| (seq, ack));
    Transition::To(cause, Flow::Closed(Box::new(Closed::refused(Link::new(key), why, until, expects, cx.now))))
}

fn count_abort(cx: &mut Context<'_>, why: AbortReason) {
    let counters = &mut *cx.counters;
    counters.internal_errors += u64::from(why == AbortReason::Internal);
    *(if why == AbortReason::Cloned { &mut counters.aborted_as_copies } else { &mut counters.connections_aborted }) +=
        1;
}

/// What follows from what an encrypted connection came to.
pub(crate) fn settle(cx: &mut Context<'_>, encrypted: &mut Encrypted, next: Next) -> Transition {
    let (now, linger) = (cx.now, cx.config.closed_linger);
    let (cause, closed) = match next {
        Next::Stay => return Transition::Stay,
        Next::Done => (Cause::BothFinsAcked, encrypted.close(End::Done, now, linger)),
        Next::Reset(by) => (Cause::Reset, encrypted.close(End::Reset(by), now, linger)),
        Next::Abort(why) => {
            count_abort(cx, why);
            encrypted.abort(cx);
            // The two ends do not have the same keys, or someone has corrupted everything that arrived. Nothing is
            // erased because of what anybody can have sent; but a session that was never accepted is proposed less
            // and less.
            if why == AbortReason::BadFrame {
                encrypted.doubt_resumption(cx.sessions);
            }
            (Cause::Aborted, encrypted.close(End::Aborted(why.to_string()), now, linger))
        }
    };
    Transition::To(cause, Flow::Closed(Box::new(closed)))
}
