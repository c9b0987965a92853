//! Why a connection is plain TCP.

use std::fmt;

use tcpcrypt::PlainReason;

/// Why a connection is plain TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FallbackReason {
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
    /// ENO was stripped from segments on this path before.
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

impl fmt::Display for FallbackReason {
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
