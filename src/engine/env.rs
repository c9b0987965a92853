//! What the engine is given by its surroundings, and the words they share.

use std::net::SocketAddr;

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

/// What random bytes are wanted for. It is mixed into them (TC-14), so that a repeated generator state
/// alone does not repeat them.
#[derive(Debug, Clone, Copy)]
pub struct RandomFor<'a> {
    /// What they become, e.g. `"ephemeral key"`.
    pub purpose: &'static str,
    /// The connection they are for.
    pub local: SocketAddr,
    /// The connection they are for.
    pub remote: SocketAddr,
    /// Whatever else tells this connection from others: initial sequence numbers, options, timestamps.
    pub context: &'a [u8],
}

/// The engine's surroundings: where packets go, where randomness comes from. The real one writes to devices,
/// the tests' one to a simulated network.
pub trait Env {
    /// Sends a packet that the engine built out on `side`.
    fn emit(&mut self, side: Side, packet: &Outgoing<'_>);

    /// Sends a packet out on `side` as it came in on the other.
    fn forward(&mut self, side: Side, offload: Offload, bytes: &[u8]);

    /// Fills `out` with bytes fit for keys.
    fn random(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]);

    /// Whether the random source is adequately seeded; before that no ENO option is sent (ENO-18).
    fn random_is_ready(&self) -> bool;
}
