//! Congestion feedback: AccECN (RFC 9768) goes on where connections are plain, and is not agreed on where they are encrypted.

use super::*;
use crate::harness::packet::CWR;

const ECE: u8 = 0x40;

fn accurate(mut syn: Seg) -> Seg {
    syn.ae = true;
    syn.flags |= CWR | ECE;
    syn
}

#[test]
fn a_plain_peer_is_asked_for_accurate_ecn_and_its_answer_reaches_the_kernel() {
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&accurate(Pair::syn())).wire.remove(0);
    assert!(syn.eno() && syn.ae && syn.has(CWR) && syn.has(ECE));
    // It grants it, and has no ENO.
    let mut answer = Pair::syn_ack();
    answer.flags |= CWR;
    let told = pair.a.wire(&answer).plain.remove(0);
    assert_eq!((told.flags, told.ae), (answer.flags, false));
    let mut seg = pair.from_a();
    (seg.ae, seg.payload) = (true, b"hello".to_vec());
    let sent = pair.a.kernel(&seg).wire.remove(0);
    assert!(sent.ae && sent.payload == b"hello");
}

#[test]
fn an_encrypted_connection_has_ecn_as_in_rfc_3168() {
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&accurate(Pair::syn())).wire.remove(0);
    let asked = pair.b.wire(&syn).plain.remove(0);
    assert!(!asked.ae && asked.has(CWR) && asked.has(ECE), "RFC 3168, section 6.1.1: {asked:?}");
    let mut answer = Pair::syn_ack();
    answer.flags |= ECE;
    let answer = pair.b.kernel(&answer).wire.remove(0);
    let told = pair.a.wire(&answer).plain.remove(0);
    assert!(!told.ae && told.has(ECE) && !told.has(CWR), "{told:?}");
}

/// A peer with another tcpcrypt may grant it together with ENO: then there is no ECN at all.
#[test]
fn accurate_ecn_granted_with_encryption_is_not_taken() {
    for (ae, flags) in [(false, CWR), (false, CWR | ECE), (true, 0), (true, CWR)] {
        let mut pair = Pair::new();
        let syn = pair.a.kernel(&accurate(Pair::syn())).wire.remove(0);
        pair.b.wire(&syn);
        let mut answer = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
        answer.ae = ae;
        answer.flags |= flags;
        let told = pair.a.wire(&answer).plain.remove(0);
        assert!(!told.ae && !told.has(ECE | CWR), "{told:?}");
    }
}
