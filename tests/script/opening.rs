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
    assert!(b.engine.session(b_addr(), a_addr()).is_ok());
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

/// The peer has a connection on the same ports that this host has forgotten: it answers the SYN with an acknowledgement, which
/// the kernel must see to reset that connection (RFC 9293, section 3.5.1; RFC 5961, section 4.2).
#[test]
fn a_connection_that_only_the_peer_remembers_makes_room_for_a_new_one() {
    let mut pair = Pair::connected();
    let mut again = Pair::syn();
    again.seq = 5_000_000;
    let syn = pair.a.kernel(&again).wire.remove(0);
    let [challenge] = &pair.b.wire(&syn).wire[..] else { panic!("RFC 5961, section 4.2") };
    let sent = pair.a.wire(challenge);
    let [seen] = &sent.plain[..] else { panic!("{:?}", sent.plain) };
    assert_eq!((seen.ack, seen.flags, seen.payload.len()), (challenge.ack, ACK, 0));
    let mut rst = again.clone();
    (rst.seq, rst.flags) = (seen.ack, RST);
    rst.options.clear();
    let rst = pair.a.kernel(&rst).wire.remove(0);
    assert!(pair.b.wire(&rst).plain.iter().any(|seg| seg.has(RST)), "the server's kernel forgets it too");
    let syn = pair.a.kernel(&again).wire.remove(0);
    assert!(pair.b.wire(&syn).plain.iter().any(|seg| seg.has(SYN)));
    let mut answer = Pair::syn_ack();
    (answer.seq, answer.ack) = (9, again.seq + 1);
    let answer = pair.b.kernel(&answer).wire.remove(0);
    assert_eq!(pair.a.wire(&answer).plain.len(), 1);
    let mut ack = pair.from_a();
    (ack.seq, ack.ack) = (again.seq + 1, 10);
    for seg in pair.a.kernel(&ack).wire {
        pair.b.wire(&seg);
    }
    assert!(pair.b.engine.session(b_addr(), a_addr()).is_ok());
}

/// Ciphertext of the forgotten connection is not the new one's.
#[test]
fn of_a_connection_that_only_the_peer_remembers_the_kernel_sees_no_data() {
    let mut pair = Pair::connected();
    let data = pair.b.kernel(&Seg { payload: b"old".to_vec(), ..pair.from_b() }).wire.remove(0);
    let mut again = Pair::syn();
    again.seq = 5_000_000;
    pair.a.kernel(&again);
    assert!(pair.a.wire(&data).delivered().is_empty());
}

#[test]
fn eno_12_a_syn_with_another_number_is_answered_with_eno() {
    let mut pair = Pair::new();
    let mut syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    pair.b.kernel(&Pair::syn_ack());
    syn.seq = 77;
    let [challenge] = &pair.b.wire(&syn).wire[..] else { panic!("RFC 5961, section 4.2") };
    assert!(challenge.option_list().expect("options").contains(&(packet::ENO, Vec::new())), "{challenge:?}");
}

/// A kernel that sends its SYN for longer than a handshake may take gets no new option on the way (ENO-14), and names no
/// second secret (TC-19).
#[test]
fn eno_14_the_option_stays_the_same_however_long_syns_are_repeated() {
    let mut a = Pair::connected().a;
    a.engine.set_policy(enotun::selector::PolicyTable::new([Rule::new(
        "0.0.0.0/0".parse().expect("a selector"),
        Policy::Required,
    )]));
    let mut syn = Pair::syn();
    syn.src.set_port(40_001);
    let first = a.kernel(&syn).wire.remove(0);
    for wait in [1, 2, 4, 8, 16, 32] {
        a.wait(Duration::from_secs(wait));
        assert_eq!(a.kernel(&syn).wire.remove(0).options, first.options);
    }
}
