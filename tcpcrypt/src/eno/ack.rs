//! The ENO handshake after the SYNs (RFC 8547, section 4.6; ENO-12 to ENO-15): which segments carry the option, and
//! when the choice between encryption and plain TCP is final.

use super::option::SynArea;

/// An acceptable segment from the peer (RFC 9293, section 3.10.7), as far as ENO is concerned. It is constructed
/// where a segment was checked: anybody can send an unacceptable one, which does not count as received (ENO-12,
/// ENO-13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acceptable {
    kind: SegmentKind,
    eno: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SegmentKind {
    Syn,
    SynAck,
    NonSyn,
}

impl Acceptable {
    /// A SYN with this option area. Only a well-formed option counts.
    #[must_use]
    pub fn syn(area: &SynArea<'_>) -> Self {
        Self { kind: SegmentKind::Syn, eno: matches!(area, SynArea::Option(_)) }
    }

    /// The same for a SYN-ACK.
    #[must_use]
    pub fn syn_ack(area: &SynArea<'_>) -> Self {
        Self { kind: SegmentKind::SynAck, ..Self::syn(area) }
    }

    /// A segment with ACK and without SYN; whether it has one or more ENO options (ENO-1, ENO-20).
    #[must_use]
    pub fn non_syn(eno: bool) -> Self {
        Self { kind: SegmentKind::NonSyn, eno }
    }

    /// Whether it has ACK: the first one that does is the last that counts (ENO-13).
    #[must_use]
    pub fn has_ack(&self) -> bool {
        self.kind != SegmentKind::Syn
    }
}

/// The state of the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Open: encryption may still be disabled. Neither plaintext nor frames may pass yet.
    Pending,
    /// Encryption is on for good (ENO-15): no plaintext is sent, nothing raw is delivered.
    Encrypted,
    /// Plain TCP for good (ENO-13).
    Plain,
}

/// Tracks the segments of one connection from the first SYN with ENO that this host sends. RST segments are not
/// passed to it: they need no option (docs/readings.md, reading 8).
#[derive(Debug, Clone, Copy, Default)]
pub struct AckPhase {
    sent_ack: bool,
    received_ack: bool,
    received_non_syn: bool,
    plain: bool,
}

impl AckPhase {
    /// Nothing was sent or received yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A segment with the ACK bit and the option was sent.
    pub fn sent_ack(&mut self) {
        self.sent_ack = true;
    }

    /// A segment was received, possibly a retransmission. Returns the decision.
    pub fn received(&mut self, segment: Acceptable) -> Decision {
        // ENO-13: every segment counts up to and including the first one with ACK, none after it.
        if !self.received_ack && !segment.eno {
            self.disable();
        }
        self.received_ack |= segment.has_ack();
        self.received_non_syn |= segment.kind == SegmentKind::NonSyn;
        self.decision()
    }

    /// Encryption is off: the negotiation ended in plain TCP. No effect once encryption is on for good.
    pub fn disable(&mut self) {
        if self.decision() == Decision::Pending {
            self.plain = true;
        }
    }

    /// Whether the next segment carries the option (ENO-12).
    #[must_use]
    pub fn must_carry(&self) -> bool {
        !self.plain && !self.received_non_syn
    }

    /// The decision so far.
    #[must_use]
    pub fn decision(&self) -> Decision {
        match (self.plain, self.sent_ack && self.received_ack) {
            (true, _) => Decision::Plain,
            (false, true) => Decision::Encrypted,
            (false, false) => Decision::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
