//! What becomes of a connection after a packet or a timeout.

use std::time::Duration;

use crate::flow::{
    AbortReason, Closed, Context, Counters, Encrypted, End, Flow, Link, Next, Opened, Opening, PlainFlow, Side, pass_on,
};
use crate::wire::{FlowKey, Segment};

/// What became of a connection while it handled a packet or timeout.
pub(super) enum Fate {
    Stay,
    Replace(Flow),
    Remove,
}

/// What follows from what an opening came to. The second value says whether the packet is to be passed on.
pub(super) fn after_opening(
    cx: &mut Context<'_>,
    key: FlowKey,
    opening: &Opening,
    opened: Opened,
    give: impl FnOnce(&mut Context<'_>, &mut Encrypted, bool) -> Next,
) -> (Fate, bool) {
    match opened {
        Opened::Still => (Fate::Stay, false),
        Opened::Over(false) => (Fate::Remove, true),
        Opened::Over(true) => {
            let until = cx.now + cx.config.closed_linger;
            (
                Fate::Replace(Flow::Closed(Box::new(Closed::refused(
                    Link::new(key),
                    "reset".to_owned(),
                    until,
                    opening.kernel_expects(),
                    cx.now,
                )))),
                true,
            )
        }
        Opened::Plain(why, pass) => {
            let plain = PlainFlow::new(cx.config, cx.now, opening.leave(cx, why));
            (Fate::Replace(Flow::Plain(Box::new(plain))), pass)
        }
        Opened::Refused(why) => {
            cx.counters.connections_refused += 1;
            let until = cx.now + cx.config.closed_linger;
            let why = format!("refused: policy requires encryption, but {why}");
            (Fate::Replace(Flow::Closed(Box::new(Closed::refused(Link::new(key), why, until, None, cx.now)))), false)
        }
        Opened::Aborted(why) => (fail(cx, key, why, opening.kernel_expects()), false),
        Opened::Encrypted(mut encrypted, dealt_with) => {
            let next = give(cx, &mut encrypted, dealt_with);
            match settle(cx, &mut encrypted, next) {
                Fate::Stay => (Fate::Replace(Flow::Encrypted(encrypted)), false),
                fate => (fate, false),
            }
        }
    }
}

/// What is left of a connection that was aborted before it was encrypted. `expects`: where the local kernel is in both streams,
/// if it may take the connection for open.
pub(super) fn fail(cx: &mut Context<'_>, key: FlowKey, why: AbortReason, expects: Option<(u32, u32)>) -> Fate {
    count_abort(cx.counters, why);
    let until = cx.now + cx.config.closed_linger;
    Fate::Replace(Flow::Closed(Box::new(Closed::refused(Link::new(key), why.to_string(), until, expects, cx.now))))
}

pub(super) fn count_abort(counters: &mut Counters, why: AbortReason) {
    counters.internal_errors += u64::from(why == AbortReason::Internal);
    *(if why == AbortReason::Cloned { &mut counters.aborted_as_copies } else { &mut counters.connections_aborted }) +=
        1;
}

/// Passes a packet of an opening on unchanged if that is what it came to.
pub(super) fn pass<S>(
    cx: &mut Context<'_>,
    from: Side,
    packet: &Segment<'_, S>,
    (mut fate, pass): (Fate, bool),
) -> Fate {
    if let Fate::Replace(Flow::Plain(plain)) = &mut fate {
        plain.note(cx, from, packet);
    }
    if pass {
        cx.counters.passed_through += 1;
        pass_on(cx.env, from, packet);
    }
    fate
}

/// What follows from what an encrypted connection came to.
pub(super) fn settle(cx: &mut Context<'_>, encrypted: &mut Encrypted, next: Next) -> Fate {
    let (now, linger) = (cx.now, cx.config.closed_linger);
    let closed = match next {
        Next::Stay => return Fate::Stay,
        Next::Done => encrypted.close(End::Done, now, linger),
        Next::Reset(by) => encrypted.close(End::Reset(by), now, linger),
        Next::Abort(why) => {
            count_abort(cx.counters, why);
            encrypted.abort(cx);
            // The two ends do not have the same keys, or someone has damaged all that came. Nothing is erased for what anybody
            // can have sent; but what was never accepted is proposed less and less.
            if why == AbortReason::BadFrame {
                encrypted.doubt_resumption(cx.sessions);
            }
            encrypted.close(End::Aborted(why.to_string()), now, linger)
        }
    };
    Fate::Replace(Flow::Closed(Box::new(closed)))
}

/// Tells the ends of a connection that has to go for others, as far as they take it for open; returns how long the local kernel may
/// go on with it all the same.
pub(super) fn evict(cx: &mut Context<'_>, flow: &mut Flow) -> Option<Duration> {
    match flow {
        Flow::Opening(opening) => {
            opening.kernel_expects()?;
            opening.refuse(cx);
            Some(cx.config.plain_idle_timeout)
        }
        Flow::Encrypted(encrypted) => {
            encrypted.abort(cx);
            Some(cx.config.plain_idle_timeout)
        }
        Flow::Closed(closed) => closed.outlived_by(cx.config, cx.now),
        // Nobody hears of it: what is unknown and plain goes on.
        Flow::Plain(_) => None,
    }
}
