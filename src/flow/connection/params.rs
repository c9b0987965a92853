//! The parameters from both ends' SYNs.

use std::time::Duration;

/// What was agreed with the SYNs, as far as the streams depend on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandshakeParams {
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
