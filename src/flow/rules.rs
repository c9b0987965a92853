//! Per-connection options.

use crate::selector::{Policy, RuleOptions};

/// The options of this connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) options: RuleOptions,
    /// It is a probe.
    pub(crate) probe: Option<ProbeMode>,
}

/// How a probe is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeMode {
    /// Without ENO: how path and peer treat ordinary TCP.
    Bare,
    /// With ENO in every SYN, whatever is remembered, and no resumption.
    Offer,
    /// The same; and if the answer has no ENO, the acknowledgement and the FIN carry it all the same. A peer that has
    /// agreed to encrypt, whose option was lost, then takes the connection for encrypted, and can be told by that: it must not
    /// take a FIN for an end that no FINp frame announced (TC-29). Copies of the SYN go out with a TTL of 1 to `hops`, for the
    /// routers to quote.
    Insist {
        /// Routers to ask, at most.
        hops: u8,
    },
}

/// The IPv4 identification or IPv6 flow label of a SYN that `hop` routers may see: it comes back in the quote.
pub(crate) fn hop_id(hop: u8) -> u16 {
    0xe400 | u16::from(hop)
}

/// Which router that was.
pub(crate) fn hop_of(id: u16) -> Option<u8> {
    let [high, hop] = id.to_be_bytes();
    (high == 0xe4 && hop > 0).then_some(hop)
}
