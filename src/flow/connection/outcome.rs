//! The outcome of a packet or timeout for a connection.

use std::fmt;

use crate::flow::env::Side;

/// How far a key exchange is that this host has all for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    None,
    /// The peer's Init message is whole: [`super::Encrypted::exchange_keys`] is to be called when there is time.
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
    Memory,
    /// A bug of our own.
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

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
            Self::Memory => {
                f.write_str("memory is scarce, and the peer does not finish a frame of which a part is acknowledged")
            }
            Self::Internal => f.write_str("enotun could not go on"),
        }
    }
}

/// The state of a connection after a packet or a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    /// It continues.
    Stay,
    /// Both directions are closed and acknowledged.
    Done,
    /// The end on that side has reset it; the other was told.
    Reset(Side),
    /// It must be aborted.
    Abort(AbortReason),
}

/// What handling a part of a packet comes to: the connection goes on, or why it does not.
pub(super) type Outcome<T = ()> = Result<T, AbortReason>;
