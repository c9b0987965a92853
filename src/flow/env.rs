//! The interface between the engine and its surroundings.

use std::net::SocketAddr;

use tcpcrypt::schedule::MasterKey;
use tcpcrypt::{AeadId, Role, SessionId};

use crate::wire::{Offload, Outgoing};

/// The two sides of enotun. A packet that comes in on one leaves on the other, or is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The local kernel (at a gateway: the hosts behind it). P sequence numbers, plaintext.
    Plain,
    /// The network. C sequence numbers, ciphertext.
    Wire,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Plain => Self::Wire,
            Self::Wire => Self::Plain,
        }
    }
}

/// The purpose of random bytes. It is mixed into them (TC-14), so that a repeated generator state alone does not
/// repeat them.
#[derive(Debug, Clone, Copy)]
pub struct RandomFor<'a> {
    /// Their use, e.g. `"ephemeral key"`.
    pub purpose: &'static str,
    /// The connection they are for.
    pub local: SocketAddr,
    /// The connection they are for.
    pub remote: SocketAddr,
    /// Anything else that distinguishes this connection from others: initial sequence numbers, options, timestamps.
    pub context: &'a [u8],
}

/// What decrypts a capture of one connection, and of no other: exporting it gives up that connection's
/// confidentiality.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionKeys<'a> {
    /// Address and port on the plain side.
    pub local: SocketAddr,
    /// Address and port on the wire side.
    pub remote: SocketAddr,
    /// The local kernel's initial sequence number, which is also the one on the wire: it identifies the connection
    /// where addresses are translated or reused.
    pub local_isn: u32,
    /// The peer's.
    pub remote_isn: u32,
    /// This host's role in this connection (ENO-7).
    pub role: Role,
    /// This host's role in the session with `ss[0]`: whether it encrypts with `k_ab` or `k_ba` (TC-15).
    pub original_role: Role,
    /// The cipher.
    pub aead: AeadId,
    /// Whether the session was resumed.
    pub resumed: bool,
    /// The session ID (TC-10).
    pub session_id: SessionId,
    /// `mk[0]` (TC-8).
    pub master_key: &'a MasterKey,
}

/// The engine's surroundings: where packets go, where randomness comes from. The real ones write to devices, those of
/// tests to a simulated network.
pub trait Env {
    /// Sends a packet that the engine built on `side`.
    fn emit(&mut self, side: Side, packet: &Outgoing<'_>);

    /// Sends a packet on `side` as it was read on the other.
    fn forward(&mut self, side: Side, offload: Offload, bytes: &[u8]);

    /// Fills `out` with bytes fit for keys.
    fn random(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]);

    /// Receives the keys of a connection that became encrypted, if
    /// [`Config::export_keys`](super::Config::export_keys) is set. They must not go to non-volatile storage (TC-21).
    fn export_keys(&mut self, keys: &ConnectionKeys<'_>) {
        let _ = keys;
    }

    /// Whether the random source is adequately seeded; before that no ENO option is sent (ENO-18).
    fn random_is_ready(&self) -> bool;
}
