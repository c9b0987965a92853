//! The timers of an encrypted connection.

/// What a connection waits for. Each deadline is where what it depends on is; [`super::Encrypted::deadline`] is the table of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// The key exchange is given up.
    KeyExchange,
    /// A connection without packets gives back memory.
    Idle,
    /// The local kernel is asked whether it still knows the connection.
    KernelLiveness,
    /// What the local kernel cannot send again is sent again (RFC 6298).
    OwnFrames,
    /// The beginning of an incomplete frame is acknowledged.
    PartialFrame,
    /// What waits, unproven, is let go.
    Held,
    /// The local kernel is given again what it has not acknowledged.
    Redeliver,
}

impl Timer {
    /// All, in the order in which those are handled that are due at once.
    pub(super) const ALL: [Self; 7] = [
        Self::KeyExchange,
        Self::Idle,
        Self::KernelLiveness,
        Self::OwnFrames,
        Self::PartialFrame,
        Self::Held,
        Self::Redeliver,
    ];
}
