//! The engine's configuration.

use std::time::Duration;

use tcpcrypt::{AeadId, NegotiationConfig, Tep};

use crate::store::{PathLimits, SessionLimits};

/// When the keys of a direction are replaced (TC-31), whichever comes first.
#[derive(Debug, Clone, Copy)]
pub struct RekeyLimits {
    /// Frames under one key.
    pub frames: u64,
    /// Bytes of frames under one key.
    pub bytes: u64,
    /// Age of a key, from the first frame under it; an idle connection rekeys with its next frame.
    pub time: Duration,
}

impl Default for RekeyLimits {
    /// Well within the limits of AES-GCM: RFC 8446, section 5.5, allows 2^24.5 full records of 2^14 bytes under one
    /// key (2^38.5 bytes) for a safety margin of 2^-57; RFC 9001, section B.1, 2^23 packets of 2^14 bytes. A frame
    /// has up to 2^16 bytes, hence a limit on bytes besides the one on frames. ChaCha20-Poly1305 allows more.
    fn default() -> Self {
        Self { frames: 1 << 23, bytes: 1 << 36, time: Duration::from_secs(3600) }
    }
}

/// Limits and timeouts of the engine; protocol settings are in `negotiation`.
#[derive(Debug, Clone)]
pub struct Config {
    /// How this host negotiates (ENO-7 to ENO-11).
    pub negotiation: NegotiationConfig,
    /// The AEADs to offer and accept, in order of increasing preference (TC-5).
    pub ciphers: Vec<AeadId>,
    /// When keys are replaced.
    pub rekey: RekeyLimits,
    /// The session cache. `negotiation.resume` says whether there is resumption at all.
    pub sessions: SessionLimits,
    /// What is remembered about paths that strip ENO options or drop SYNs that have one.
    pub paths: PathLimits,
    /// The largest packet that the network takes, in bytes, if known: a larger MSS announced by a peer is reduced to
    /// it. There is no other way to make the kernel leave room in its packets for what a frame adds.
    pub wire_mtu: Option<u16>,
    /// Maximum number of connections, open and remembered. Those that are over make room first.
    pub max_flows: usize,
    /// Maximum number of connections whose handshake is incomplete, of each kind: inward and outward, with ENO and
    /// without, and those whose keys are being made.
    pub max_half_open: usize,
    /// Maximum number of bytes held for all connections together (reassembly, plaintext awaiting the kernel).
    pub max_held_bytes: usize,
    /// SYNs sent with ENO before one is sent without (ENO-14), if policy allows plain TCP.
    pub syn_attempts: u8,
    /// A handshake that takes longer is abandoned; so is a key exchange, if this is longer than kernels retransmit.
    pub handshake_timeout: Duration,
    /// A plain connection that was silent for this long is forgotten (its packets are unknown then).
    pub plain_idle_timeout: Duration,
    /// How long a closed connection's last acknowledgement is repeated for stragglers.
    pub closed_linger: Duration,
    /// The keys of connections are passed to [`Env::export_keys`](super::Env::export_keys), to decrypt captures while
    /// debugging.
    pub export_keys: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // In order of increasing preference, which is decreasing cost. P-521 and Curve448 take ten times as long,
            // which anyone who can reach a service can make it spend, and their pure-Rust crates are unaudited
            // pre-releases: on request only.
            negotiation: NegotiationConfig { teps: vec![Tep::P256, Tep::Curve25519], ..NegotiationConfig::default() },
            ciphers: vec![AeadId::Chacha20Poly1305, AeadId::Aes256Gcm, AeadId::Aes128Gcm],
            rekey: RekeyLimits::default(),
            sessions: SessionLimits::default(),
            paths: PathLimits::default(),
            wire_mtu: None,
            max_flows: 200_000,
            // At 50,000 forged SYNs a second, a genuine one is remembered for longer than most round trips take.
            max_half_open: 65_536,
            max_held_bytes: 512 << 20,
            syn_attempts: 3,
            handshake_timeout: Duration::from_secs(60),
            plain_idle_timeout: Duration::from_secs(24 * 3600),
            closed_linger: Duration::from_secs(60),
            export_keys: false,
        }
    }
}
