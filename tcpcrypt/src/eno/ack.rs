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
        self.received_ack |= segment.kind != SegmentKind::Syn;
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
mod tests {
    use super::*;

    use crate::eno::option::find_syn;

    const ENO: bool = true;

    fn area(eno: bool) -> SynArea<'static> {
        find_syn(if eno { &[69, 3, 0x23] } else { &[] })
    }

    fn syn(eno: bool) -> Acceptable {
        Acceptable::syn(&area(eno))
    }

    fn syn_ack(eno: bool) -> Acceptable {
        Acceptable::syn_ack(&area(eno))
    }

    fn non_syn(eno: bool) -> Acceptable {
        Acceptable::non_syn(eno)
    }

    #[test]
    fn eno_12_active_opener_carries_it_until_the_first_non_syn_segment() {
        let mut phase = AckPhase::new();
        assert!(phase.must_carry());
        phase.received(syn_ack(ENO));
        phase.sent_ack();
        assert!(phase.must_carry(), "the third segment and what follows it");
        phase.received(syn_ack(ENO));
        assert!(phase.must_carry(), "a repeated SYN-ACK is no non-SYN segment");
        phase.received(non_syn(ENO));
        assert!(!phase.must_carry());
        assert_eq!(phase.decision(), Decision::Encrypted);
    }

    #[test]
    fn eno_12_passive_opener_carries_it_in_syn_acks_only() {
        let mut phase = AckPhase::new();
        assert_eq!(phase.received(syn(ENO)), Decision::Pending);
        phase.sent_ack();
        assert!(phase.must_carry());
        assert_eq!(phase.received(non_syn(ENO)), Decision::Encrypted);
        assert!(!phase.must_carry());
    }

    #[test]
    fn eno_13_first_ack_without_the_option_is_plain_for_good() {
        let mut phase = AckPhase::new();
        phase.received(syn(ENO));
        phase.sent_ack();
        assert_eq!(phase.received(non_syn(!ENO)), Decision::Plain);
        assert_eq!(phase.received(non_syn(ENO)), Decision::Plain);
        assert!(!phase.must_carry());
    }

    #[test]
    fn eno_13_syn_without_the_option_is_plain() {
        let mut phase = AckPhase::new();
        assert_eq!(phase.received(syn_ack(!ENO)), Decision::Plain);
        phase.sent_ack();
        assert_eq!(phase.decision(), Decision::Plain);
    }

    #[test]
    fn eno_13_an_ill_formed_option_is_none() {
        for area in [&[69, 3, 0x80][..], &[69, 2, 69, 2], &[69, 3, 0x23, 2, 1]] {
            assert_eq!(AckPhase::new().received(Acceptable::syn(&find_syn(area))), Decision::Plain, "{area:?}");
        }
    }

    #[test]
    fn eno_13_segments_after_the_first_ack_may_go_without() {
        let mut phase = AckPhase::new();
        phase.received(syn_ack(ENO));
        assert_eq!(phase.received(non_syn(!ENO)), Decision::Pending);
        phase.sent_ack();
        assert_eq!(phase.decision(), Decision::Encrypted);
    }

    #[test]
    fn eno_13_failed_negotiation_is_plain() {
        let mut phase = AckPhase::new();
        phase.received(syn_ack(ENO));
        phase.disable();
        phase.sent_ack();
        assert_eq!(phase.decision(), Decision::Plain);
    }

    #[test]
    fn eno_15_nothing_turns_encryption_off_again() {
        let mut phase = AckPhase::new();
        phase.received(syn_ack(ENO));
        phase.sent_ack();
        phase.disable();
        assert_eq!(phase.received(non_syn(!ENO)), Decision::Encrypted);
    }

    #[test]
    fn eno_15_simultaneous_open_waits_for_the_peers_ack() {
        let mut phase = AckPhase::new();
        assert_eq!(phase.received(syn(ENO)), Decision::Pending);
        phase.sent_ack();
        assert_eq!(phase.decision(), Decision::Pending);
        assert_eq!(phase.received(syn_ack(ENO)), Decision::Encrypted);
    }
}
