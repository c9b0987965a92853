//! Segments that somebody else sent.

use super::*;

/// The frames that the peer has not acknowledged are all there is of them: whoever guesses ports and an acknowledgement
/// must not make them go away.
#[test]
fn an_acknowledgement_outside_of_the_window_is_not_believed() {
    let mut pair = Pair::connected();
    let lost = pair.a_writes(b"hello").wire.remove(0);
    let mut forged = Seg::new(b_addr(), a_addr());
    (forged.seq, forged.ack) = (B_ISN.wrapping_add(1 << 30), lost.seq.wrapping_add(lost.payload.len() as u32));
    let sent = pair.a.wire(&forged);
    assert!(sent.plain.is_empty(), "the kernel hears nothing of it");
    let mut again = pair.from_a();
    again.seq = again.seq.wrapping_sub(5);
    again.payload = b"hello".to_vec();
    let sent = pair.a.kernel(&again);
    assert_eq!(sent.wire[0].payload, lost.payload);
}

#[test]
fn bare_segments_that_are_not_believed_are_answered_now_and_then_only() {
    let mut pair = Pair::connected();
    let mut forged = Seg::new(b_addr(), a_addr());
    (forged.seq, forged.ack) = (B_ISN.wrapping_add(1 << 30), 0);
    let answers: usize = (0..100).map(|_| pair.a.wire(&forged).wire.len()).sum();
    assert_eq!(answers, 1);
    pair.a.wait(Duration::from_secs(1));
    assert_eq!(pair.a.wire(&forged).wire.len(), 1);
}

/// A SYN for a plain connection that goes on: without enotun the kernel would answer it and nothing else would come of it
/// (RFC 5961, section 4.2).
#[test]
fn a_forged_syn_does_not_make_a_plain_connection_stand_still() {
    let mut pair = Pair::new();
    pair.a.kernel(&Pair::syn());
    assert_eq!(pair.a.wire(&Pair::syn_ack()).plain.len(), 1, "plain, for the answer has no ENO");
    let mut seg = pair.from_a();
    seg.payload = b"hello".to_vec();
    assert_eq!(pair.a.kernel(&seg).wire.len(), 1);
    let mut syn = Pair::syn();
    (syn.src, syn.dst, syn.seq) = (b_addr(), a_addr(), 77);
    syn.options.extend([packet::ENO, 3, 0x23, 0]);
    assert_eq!(pair.a.wire(&syn).plain.len(), 1, "the kernel sees it");
    // It answers that it knows better, and goes on.
    assert_eq!(pair.a.kernel(&pair.from_a()).wire.len(), 1);
    assert_eq!(pair.a.kernel(&seg).wire.len(), 1);
    assert_eq!(pair.flow_a().map(|flow| flow.state), Some(enotun::engine::FlowState::Plain));
}

/// The same from a peer that has forgotten a plain connection, as has the kernel: the new one is encrypted.
#[test]
fn a_new_connection_in_the_place_of_a_forgotten_plain_one_is_encrypted() {
    let mut pair = Pair::new();
    let mut old = Pair::syn();
    old.seq = 77;
    assert_eq!(pair.b.wire(&old).plain.len(), 1, "a SYN without ENO");
    let mut answer = Pair::syn_ack();
    answer.ack = 78;
    assert_eq!(pair.b.kernel(&answer).wire.len(), 1);
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    assert_eq!(pair.b.kernel(&Pair::syn_ack()).wire.len(), 0, "it would be plain");
    pair.b.wire(&syn);
    let answer = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
    assert!(answer.options.windows(2).any(|at| at[0] == packet::ENO), "{answer:?}");
}

/// Whoever knows the ports answers the client's SYN with a wrong acknowledgement. The kernel sends a RST for that and waits on
/// (RFC 9293, section 3.10.7.3). Were the opening forgotten, the genuine answer would make the connection plain.
#[test]
fn a_forged_syn_ack_does_not_make_a_connection_plain() {
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    let mut forged = Pair::syn_ack();
    (forged.seq, forged.ack) = (77, 4711);
    assert_eq!(pair.a.wire(&forged).plain.len(), 1, "the kernel sees it");
    let mut rst = Pair::syn();
    (rst.seq, rst.flags) = (4711, packet::RST);
    rst.options.clear();
    let sent = pair.a.kernel(&rst).wire;
    assert!(sent.len() == 1 && (sent[0].seq, sent[0].flags) == (4711, packet::RST), "whoever sent it hears of it");
    pair.b.wire(&syn);
    let answer = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
    assert_eq!(pair.a.wire(&answer).plain.len(), 1);
    for seg in pair.a.kernel(&pair.from_a()).wire {
        for answer in pair.b.wire(&seg).wire {
            pair.a.wire(&answer);
        }
    }
    assert!(pair.have_keys());
}
