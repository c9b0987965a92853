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
