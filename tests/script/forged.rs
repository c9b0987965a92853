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
