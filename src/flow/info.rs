//! What the engine reports about its connections and itself.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

/// One connection, as `enotun flows` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct FlowInfo {
    /// Address and port on the plain side.
    pub local: SocketAddr,
    /// Address and port on the wire side.
    pub remote: SocketAddr,
    /// The state of its life cycle.
    pub state: FlowState,
    /// Why it is plain or how it ended, if there is anything to say.
    pub reason: Option<String>,
    /// `A` or `B` (ENO-7).
    pub role: Option<char>,
    /// The negotiated TEP, e.g. `ECDHE-Curve25519`.
    pub tep: Option<&'static str>,
    /// The AEAD in use, e.g. `AEAD_AES_128_GCM`.
    pub aead: Option<&'static str>,
    /// This host's global suboption: bit 0 is b, bit 1 is a (ENO-4, ENO-8).
    pub self_gopt: Option<u8>,
    /// The peer's.
    pub peer_gopt: Option<u8>,
    /// Whether the session was resumed.
    pub resumed: bool,
    /// The session ID in hexadecimal (TC-10).
    pub session_id: Option<String>,
    /// The key generation it sends with (TC-31).
    pub generation_local: Option<u64>,
    /// The key generation the peer sends with.
    pub generation_remote: Option<u64>,
    /// Payload bytes from the plain side that were sent.
    pub bytes_sent: u64,
    /// Payload bytes delivered to the plain side.
    pub bytes_received: u64,
    /// Whether the peer has proven that it has the keys: one of its frames was authenticated.
    pub peer_confirmed: bool,
    /// Whether the peer is authenticated. Encryption without authentication protects against eavesdroppers only.
    pub authenticated: bool,
}

impl FlowInfo {
    /// A connection about which nothing more is known.
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr, state: FlowState) -> Self {
        Self {
            local,
            remote,
            state,
            reason: None,
            role: None,
            tep: None,
            aead: None,
            self_gopt: None,
            peer_gopt: None,
            resumed: false,
            session_id: None,
            generation_local: None,
            generation_remote: None,
            bytes_sent: 0,
            bytes_received: 0,
            peer_confirmed: false,
            authenticated: false,
        }
    }
}

/// Everything an application can ask about its encrypted connection (ENO-19), in the terms of the TCPINC working
/// group's API draft; byte strings in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowSession {
    /// Address and port on the plain side.
    pub local: SocketAddr,
    /// Address and port on the wire side.
    pub remote: SocketAddr,
    /// The session ID (TC-10).
    pub session_id: String,
    /// A hash of the keys it began with, in hexadecimal: it distinguishes keys and reveals nothing about them.
    pub key_fingerprint: String,
    /// `A` or `B` (ENO-7).
    pub role: char,
    /// What this host signs: its role in one byte, 0 for A and 1 for B, and the session ID. The peer's is different,
    /// so that a signature cannot be reflected to its author.
    pub self_name: String,
    /// What the peer signs.
    pub peer_name: String,
    /// The negotiated TEP, e.g. `ECDHE-Curve25519`.
    pub tep: &'static str,
    /// The byte that B sent for it, v bit included.
    pub tep_byte: u8,
    /// The AEAD in use.
    pub aead: Option<&'static str>,
    /// This host's global suboption: bit 0 is b, bit 1 is a (ENO-4, ENO-8).
    pub self_gopt: u8,
    /// The peer's global suboption.
    pub peer_gopt: u8,
    /// Whether this host's application knows of the encryption (a = 1), as far as this host was told.
    pub self_aware: bool,
    /// Whether the peer's application does.
    pub peer_aware: bool,
    /// The negotiation transcript: A's option, then B's (ENO-17).
    pub transcript: String,
    /// Whether the session was resumed.
    pub resumed: bool,
    /// Whether the peer has proven that it has the keys: one of its frames was authenticated.
    pub peer_confirmed: bool,
    /// Whether the peer is authenticated. Encryption without authentication protects against eavesdroppers only.
    pub authenticated: bool,
}

/// The state of a connection's life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// SYNs or keys are being exchanged; or the peer, which opened the connection, has not proven yet that it has the
    /// keys: what is sent is encrypted already.
    Negotiating,
    /// All data is encrypted.
    Encrypted,
    /// Plain TCP.
    Plain,
    /// Over; remembered for a while to answer late segments.
    Closed,
}

impl fmt::Display for FlowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Negotiating => "negotiating",
            Self::Encrypted => "encrypted",
            Self::Plain => "plain",
            Self::Closed => "closed",
        })
    }
}

/// Declares [`Counters`] once: fields, documentation, and names for output.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the daemon came up.
        #[derive(Debug, Clone, Default, Serialize)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }
        impl Counters {
            /// Names and values, in order of declaration.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> { vec![$((stringify!($name), self.$name),)*] }
            /// Adds `other`'s counts to these.
            pub fn add(&mut self, other: &Self) { $(self.$name = self.$name.wrapping_add(other.$name);)* }
        }
    };
}

counters! {
    /// Packets read from the plain side.
    packets_plain,
    /// Packets read from the wire side.
    packets_wire,
    /// Connections that became encrypted: a frame from the peer was authenticated.
    connections_encrypted,
    /// Of those, connections that resumed a session.
    connections_resumed,
    /// SYNs that proposed to resume a session.
    resumptions_proposed,
    /// Of those, proposals that the peer answered with a fresh key exchange.
    resumptions_refused,
    /// SYN-ACKs that accepted a peer's proposal.
    resumptions_accepted,
    /// Peers' proposals that named no session known here.
    resumptions_unknown,
    /// Sessions cached.
    sessions_cached,
    /// Sessions erased because they were unused for too long.
    sessions_expired,
    /// Sessions evicted to make room.
    sessions_evicted,
    /// Connections that became plain TCP.
    connections_plain,
    /// Of those, connections without ENO because of what is remembered about the path.
    paths_avoided,
    /// Connections that retried ENO on such a path.
    paths_retried,
    /// Paths evicted to make room.
    paths_evicted,
    /// Connections refused because policy requires encryption.
    connections_refused,
    /// Connections that enotun aborted (TC-6).
    connections_aborted,
    /// Of those, connections aborted because of a bug in enotun.
    internal_errors,
    /// Connections aborted because this virtual machine was cloned or rolled back: a copy has their keys.
    aborted_as_copies,
    /// Signs that this machine was cloned, rolled back, suspended or stopped.
    disruptions,
    /// Packets passed through unchanged: other protocols, plain and unknown connections.
    passed_through,
    /// Frames sealed.
    frames_sealed,
    /// Frames opened.
    frames_opened,
    /// Frames that failed authentication and were dropped.
    frames_rejected,
    /// Frames retransmitted from the store.
    frames_resent,
    /// Segments whose bytes differ from those held for the same position.
    conflicting_segments,
    /// Segments that enotun originates: Init messages, rekeys, acknowledgements.
    own_segments,
    /// Retransmissions by enotun's own timer.
    own_timeouts,
    /// Packets with a wrong checksum, dropped.
    bad_checksum,
    /// Packets dropped because their headers cannot be parsed, or because they claim to be TCP and cannot be.
    malformed,
    /// Fragments of TCP, or of what may be TCP, dropped.
    fragments,
    /// Segments outside the window, dropped.
    out_of_window,
    /// Segments before the window, whose data was here already.
    segments_repeated,
    /// RST segments that were ignored (RFC 5961).
    resets_ignored,
    /// SYN segments on encrypted connections, ignored (RFC 5961).
    syns_ignored,
    /// Segments with a timestamp older than an accepted one, dropped (RFC 7323).
    old_timestamps,
    /// Segments that acknowledge what was never sent or was acknowledged long ago, dropped (RFC 5961).
    bad_acknowledgements,
    /// ICMP errors about encrypted connections that were translated.
    icmp_translated,
    /// ICMP errors about segments that were not in flight (RFC 5927), or with an impossible MTU, dropped.
    icmp_dropped,
    /// Packets refused because their connection dates from an earlier, crashed instance, or is over here and not for
    /// the kernel.
    orphans_refused,
    /// Connections that are over here and perhaps not for the kernel, evicted to make room.
    orphans_forgotten,
    /// Segments of unknown connections, refused: policy `required`, or one that began with ENO.
    unknown_refused,
    /// Segments of unknown connections passed on with policy `opportunistic`.
    unknown_passed,
    /// Refusals without a RST, because there were too many.
    resets_withheld,
    /// SYNs dropped because the table was full of encrypted connections, and connections that ended for the same reason.
    limit_flows,
    /// Openings by SYNs with ENO from the wire, unanswered, evicted for later ones.
    evicted_inward,
    /// Openings by the local kernel, unanswered, evicted for later ones.
    evicted_outward,
    /// Plain connections with an incomplete handshake, evicted for later ones.
    evicted_unconfirmed,
    /// Connections without keys yet, evicted for later ones.
    evicted_handshakes,
    /// Plain connections evicted for later ones; they continue as unknown ones.
    evicted_plain,
    /// Closed connections forgotten early to make room.
    evicted_closed,
    /// Connections that dropped unproven bytes beyond a gap, because no frame was authenticated for a minute.
    held_expired,
    /// Connections that dropped unproven bytes beyond a gap, because the memory for held bytes was used up.
    evicted_held,
    /// Segments dropped because the memory for held bytes was used up.
    limit_memory,
    /// Key exchanges deferred until the peer retransmits its message, because too many are waiting.
    limit_exchanges,
    /// Segments dropped because a connection's data beyond gaps is in too many pieces.
    limit_pieces,
}
