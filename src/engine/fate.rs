//! What becomes of a connection after a packet or a timeout.

use super::{Counters, Side};
use crate::flow::{
    AbortReason, Closed, Cx, Encrypted, Flow, FlowKey, Link, Next, OpenQuestion, Opened, Opening, PlainFlow, pass_on,
};
use crate::wire::{Offload, Packet};

/// What became of a connection while it handled a packet or timeout.
pub(super) enum Fate {
    Stay,
    Replace(Flow),
    Remove,
}

/// What an opening leaves to a plain connection.
pub(super) struct Left {
    isns: [Option<u32>; 2],
    expects: Option<(u32, u32)>,
    suspect: Option<Box<tcpcrypt::Record>>,
    question: OpenQuestion,
    insist: bool,
}

impl Left {
    pub(super) fn new(cx: &Cx<'_>, opening: &Opening, opened: &Opened) -> Self {
        let (isns, expects) = (opening.isns(), opening.kernel_expects());
        let Opened::Plain(why, _) = opened else {
            return Self { isns, expects, suspect: None, question: OpenQuestion::None, insist: false };
        };
        Self {
            isns,
            expects,
            suspect: opening.suspect(cx),
            question: opening.question(*why),
            insist: opening.insists(*why),
        }
    }
}

/// What follows from what an opening came to. The second value says whether the packet is to be passed on.
pub(super) fn after_opening(
    cx: &mut Cx<'_>,
    key: FlowKey,
    left: Left,
    opened: Opened,
    give: impl FnOnce(&mut Cx<'_>, &mut Encrypted, bool) -> Next,
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
                    left.expects,
                    cx.now,
                )))),
                true,
            )
        }
        Opened::Plain(why, pass) => {
            cx.counters.connections_plain += 1;
            let (idle, linger) = (cx.config.plain_idle_timeout, cx.config.closed_linger);
            let Left { isns, suspect, question: open, insist, .. } = left;
            let (last_seen, ended) = (cx.now, [false; 2]);
            let plain =
                PlainFlow { why, isns, last_seen, sent: 0, received: 0, idle, linger, ended, suspect, open, insist };
            (Fate::Replace(Flow::Plain(Box::new(plain))), pass)
        }
        Opened::Refused(why) => {
            cx.counters.connections_refused += 1;
            let until = cx.now + cx.config.closed_linger;
            let why = format!("refused: policy requires encryption, but {why}");
            (Fate::Replace(Flow::Closed(Box::new(Closed::refused(Link::new(key), why, until, None, cx.now)))), false)
        }
        Opened::Aborted(why) => (fail(cx, key, why, left.expects), false),
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
pub(super) fn fail(cx: &mut Cx<'_>, key: FlowKey, why: AbortReason, expects: Option<(u32, u32)>) -> Fate {
    count_abort(cx.counters, why);
    let until = cx.now + cx.config.closed_linger;
    Fate::Replace(Flow::Closed(Box::new(Closed::refused(Link::new(key), why.to_string(), until, expects, cx.now))))
}

pub(super) fn count_abort(counters: &mut Counters, why: AbortReason) {
    *(if why == AbortReason::Cloned { &mut counters.aborted_as_copies } else { &mut counters.connections_aborted }) +=
        1;
}

/// Passes a packet on unchanged if that is what it came to.
pub(super) fn pass<S>(
    cx: &mut Cx<'_>,
    from: Side,
    packet: &Packet<S>,
    offload: Offload,
    bytes: &[u8],
    (fate, pass): (Fate, bool),
) -> Fate {
    if pass {
        cx.counters.passed_through += 1;
        pass_on(cx.env, from, packet, offload, bytes);
    }
    fate
}

/// What follows from what an encrypted connection came to.
pub(super) fn settle(cx: &mut Cx<'_>, encrypted: &mut Encrypted, next: Next) -> Fate {
    let (now, linger) = (cx.now, cx.config.closed_linger);
    let closed = match next {
        Next::Stay => return Fate::Stay,
        Next::Done => encrypted.close(false, None, now, linger),
        Next::Reset => encrypted.close(true, Some("reset".to_owned()), now, linger),
        Next::Abort(why) => {
            count_abort(cx.counters, why);
            encrypted.abort(cx);
            // The two ends do not have the same keys, or someone has damaged all that came: not to be repeated.
            if why == AbortReason::BadFrame
                && let Some(chain) = encrypted.forget_session()
            {
                cx.sessions.remove(chain);
            }
            encrypted.close(true, Some(why.to_string()), now, linger)
        }
    };
    Fate::Replace(Flow::Closed(Box::new(closed)))
}
