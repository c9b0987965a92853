//! Openings that are disturbed.

use super::packet::{FIN, RST};
use super::*;

/// The server's engine after its SYN-ACK, and the client's first acknowledgement with Init1.
fn answered() -> (Host, Vec<Seg>) {
    let mut pair = Pair::new();
    let sent = pair.until_ack();
    (pair.b, sent.wire)
}

#[test]
fn a_forged_rst_in_the_handshake_does_not_uncover_the_connection() {
    let (mut b, from_a) = answered();
    let mut rst = Seg::new(a_addr(), b_addr());
    (rst.seq, rst.flags) = (A_ISN + 77, RST);
    assert!(b.wire(&rst).plain.is_empty());
    for seg in &from_a {
        let sent = b.wire(seg);
        assert!(sent.delivered().is_empty(), "Init1 is not the application's");
    }
    assert_eq!(b.engine.flow(b_addr(), a_addr()).map(|f| f.state), Some(enotun::engine::FlowState::Encrypted));
}

#[test]
fn nothing_raw_is_delivered_after_a_rst_that_is_believed() {
    let (mut b, from_a) = answered();
    let mut rst = Seg::new(a_addr(), b_addr());
    (rst.seq, rst.flags) = (A_ISN + 1, RST);
    assert_eq!(b.wire(&rst).plain.len(), 1, "the kernel hears of it");
    for seg in &from_a {
        let sent = b.wire(seg);
        assert!(sent.plain.is_empty(), "a SYN cookie would make a connection of it");
        assert!(sent.wire.iter().all(|s| s.has(RST)));
    }
}

#[test]
fn nothing_raw_is_delivered_after_the_handshake_took_too_long() {
    let (mut b, from_a) = answered();
    b.wait(Duration::from_secs(61));
    for seg in &from_a {
        assert!(b.wire(seg).plain.is_empty());
    }
}

#[test]
fn a_plain_connection_that_has_ended_is_soon_forgotten() {
    let mut a = Host::new(Config::default());
    a.kernel(&Pair::syn());
    a.wire(&Pair::syn_ack());
    assert_eq!(a.engine.len(), 1);
    let mut fin = Seg::new(a_addr(), b_addr());
    (fin.seq, fin.ack, fin.flags) = (A_ISN + 1, B_ISN.wrapping_add(1), ACK | FIN);
    a.kernel(&fin);
    a.wait(Duration::from_secs(600));
    assert_eq!(a.engine.len(), 1, "half-closed is not closed");
    let mut fin = Seg::new(b_addr(), a_addr());
    (fin.seq, fin.ack, fin.flags) = (B_ISN.wrapping_add(1), A_ISN + 2, ACK | FIN);
    a.wire(&fin);
    a.wait(Duration::from_secs(600));
    assert_eq!(a.engine.len(), 0);
}
