//! Where a connection can be in its life, and what leads from one state to another: the table that docs/states.md shows. Every change
//! is checked against it where assertions are on: in all tests of engines and in the simulation.

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The local kernel's first SYN is at hand.
    New,
    SynSent,
    Answered,
    Crossed,
    CrossedAndAcked,
    CrossedSynAckSent,
    SynReceived,
    SynAckSent,
    PlainOpening,
    PlainOpen,
    PlainOver,
    AwaitInit1,
    AwaitInit2,
    Ready,
    Failed,
    Closed,
    /// It is not in the table any more.
    Gone,
}

/// What leads from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Offered,
    KernelSyn,
    KernelSynAck,
    PeerSyn,
    PeerSynAck,
    Agreed,
    FellBack,
    Refused,
    Aborted,
    Reset,
    ResetAfterAgreement,
    Unacknowledged,
    TimedOut,
    ShutDown,
    KeysMade,
    KeysFailed,
    BothSynsAcked,
    BothFinsAcked,
    Evicted,
    Replaced,
}

use Cause as By;
use State as S;

const OPENING: &[State] = &[
    S::New,
    S::SynSent,
    S::Answered,
    S::Crossed,
    S::CrossedAndAcked,
    S::CrossedSynAckSent,
    S::SynReceived,
    S::SynAckSent,
];
const PLAIN: &[State] = &[S::PlainOpening, S::PlainOpen, S::PlainOver];
const ENCRYPTED: &[State] = &[S::AwaitInit1, S::AwaitInit2, S::Ready, S::Failed];

/// All changes: from any of these states, for this cause, to one of these.
const TABLE: &[(&[State], Cause, &[State])] = &[
    // The local kernel opens.
    (&[S::New], By::Offered, &[S::SynSent]),
    (&[S::SynSent], By::PeerSynAck, &[S::Answered]),
    (&[S::Answered, S::CrossedAndAcked], By::Agreed, &[S::AwaitInit1, S::AwaitInit2, S::Ready]),
    // SYNs cross.
    (&[S::SynSent], By::PeerSyn, &[S::Crossed]),
    (&[S::Crossed], By::PeerSynAck, &[S::CrossedAndAcked]),
    (&[S::Crossed, S::CrossedAndAcked], By::KernelSyn, &[S::SynSent]),
    (&[S::SynSent, S::Crossed], By::KernelSynAck, &[S::CrossedSynAckSent]),
    (&[S::CrossedSynAckSent], By::Agreed, &[S::AwaitInit1, S::AwaitInit2, S::Ready]),
    // The peer opens.
    (&[S::SynReceived], By::KernelSynAck, &[S::SynAckSent]),
    (&[S::SynAckSent], By::Agreed, &[S::AwaitInit1, S::Ready]),
    // An opening ends.
    (OPENING, By::FellBack, &[S::PlainOpening, S::PlainOpen]),
    (OPENING, By::Refused, &[S::Closed]),
    (OPENING, By::Aborted, &[S::Closed]),
    (OPENING, By::ResetAfterAgreement, &[S::Closed]),
    (OPENING, By::Reset, &[S::Gone]),
    (OPENING, By::Unacknowledged, &[S::Gone]),
    (OPENING, By::TimedOut, &[S::Gone]),
    (OPENING, By::ShutDown, &[S::Gone]),
    // Plain TCP.
    (&[S::PlainOpening], By::BothSynsAcked, &[S::PlainOpen]),
    (&[S::PlainOpen], By::BothFinsAcked, &[S::PlainOver]),
    (&[S::PlainOpening, S::PlainOpen], By::Reset, &[S::PlainOver]),
    (PLAIN, By::Aborted, &[S::Closed]),
    (PLAIN, By::TimedOut, &[S::Gone]),
    // Encrypted.
    (&[S::AwaitInit1, S::AwaitInit2], By::KeysMade, &[S::Ready]),
    (&[S::AwaitInit1, S::AwaitInit2], By::KeysFailed, &[S::Failed]),
    (ENCRYPTED, By::BothFinsAcked, &[S::Closed]),
    (ENCRYPTED, By::Reset, &[S::Closed]),
    (ENCRYPTED, By::Aborted, &[S::Closed]),
    // Over.
    (&[S::Closed], By::TimedOut, &[S::Gone]),
    (&[S::Closed], By::Replaced, &[S::Gone]),
    (OPENING, By::Replaced, &[S::Gone]),
    (PLAIN, By::Replaced, &[S::Gone]),
    (ENCRYPTED, By::Replaced, &[S::Gone]),
    (OPENING, By::Evicted, &[S::Gone]),
    (PLAIN, By::Evicted, &[S::Gone]),
    (ENCRYPTED, By::Evicted, &[S::Gone]),
    (&[S::Closed], By::Evicted, &[S::Gone]),
];

/// Whether the table has a change from one state to another, for `cause` if that is known.
fn allows(from: State, cause: Option<Cause>, to: State) -> bool {
    let fits = |by: Cause| cause.is_none_or(|cause| cause == by);
    TABLE.iter().any(|(froms, by, tos)| froms.contains(&from) && fits(*by) && tos.contains(&to))
}

/// Asserts that a connection may go from one state to another, for `cause` if that is known.
pub(super) fn check(from: State, cause: Option<Cause>, to: State) {
    debug_assert!(
        (cause.is_none() && from == to) || allows(from, cause, to),
        "no connection goes from {from:?} to {to:?} by {cause:?}"
    );
}

#[cfg(test)]
mod tests;
