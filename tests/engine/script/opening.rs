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
    a.engine.set_policy(everything(Policy::Required));
    let mut syn = Pair::syn();
    syn.src.set_port(40_001);
    let first = a.kernel(&syn).wire.remove(0);
    for wait in [1, 2, 4, 8, 16, 32] {
        a.wait(Duration::from_secs(wait));
        assert_eq!(a.kernel(&syn).wire.remove(0).options, first.options);
    }
}

/// Another answer of the server's to `syn`, with `eno` in it.
fn another_answer(syn: &Seg, isn: u32, eno: &[u8]) -> Seg {
    let mut seg = Seg::new(syn.dst, syn.src);
    (seg.seq, seg.ack, seg.flags, seg.win) = (isn, syn.seq.wrapping_add(1), SYN | ACK, WINDOW);
    seg.options = [&syn_options(0)[..], eno].concat();
    seg.options.resize(seg.options.len().next_multiple_of(4), 1);
    seg
}

fn ack_of(syn_ack: &Seg) -> Seg {
    let mut ack = Seg::new(syn_ack.dst, syn_ack.src);
    (ack.seq, ack.ack, ack.win) = (syn_ack.ack, syn_ack.seq.wrapping_add(1), WINDOW);
    ack
}

/// A client and a server that have a session, the client's next SYN, and the server's answer that resumes it.
fn resumes() -> (Pair, Seg, Seg) {
    let mut pair = Pair::connected();
    confirm(&mut pair.a, &mut pair.b, a_addr(), Seg::clone);
    let mut syn = Pair::syn();
    syn.src.set_port(40_001);
    let syn = pair.a.kernel(&syn).wire.remove(0);
    pair.b.wire(&syn);
    let mut answer = Pair::syn_ack();
    answer.dst = syn.src;
    let answer = pair.b.kernel(&answer).wire.remove(0);
    assert!(answer.option(packet::ENO).is_some_and(|eno| eno.len() > 10), "it resumes");
    (pair, syn, answer)
}

const INIT1: [u8; 4] = tcpcrypt::constants::INIT1_MAGIC.to_be_bytes();
const FRESH: [u8; 4] = [packet::ENO, 4, 1, 0x23];

/// Nothing of an answer that the kernel has not taken stays, its session's keys neither.
#[test]
fn a_second_syn_ack_with_another_number_starts_anew_if_the_kernel_takes_it() {
    for takes_second in [false, true] {
        let (mut pair, syn, first) = resumes();
        let second = another_answer(&syn, 77_000, &FRESH);
        for answer in [&first, &second] {
            assert_eq!(pair.a.wire(answer).plain.len(), 1, "the kernel knows which one it takes");
        }
        let sent = pair.a.kernel(&ack_of(if takes_second { &second } else { &first }));
        assert_eq!(sent.wire[0].ack, if takes_second { 77_001 } else { first.seq.wrapping_add(1) });
        assert!(sent.wire[0].eno());
        assert_eq!(sent.wire[0].payload.starts_with(&INIT1), takes_second, "fresh keys");
        let flow = pair.a.engine.flow(syn.src, syn.dst).expect("a connection");
        assert_eq!(flow.resumed, !takes_second);
        assert_eq!(flow.session_id.is_some(), !takes_second, "{flow:?}");
    }
}

#[test]
fn a_second_syn_ack_that_resumes_nothing_starts_anew() {
    let (mut pair, syn, first) = resumes();
    pair.a.wire(&first);
    let sent = pair.a.wire(&another_answer(&syn, first.seq, &FRESH));
    assert_eq!(sent.plain[0].win, 0, "no keys, and no window");
    let sent = pair.a.kernel(&ack_of(&first));
    assert!(sent.wire[0].payload.starts_with(&INIT1));
    assert_eq!(pair.a.engine.flow(syn.src, syn.dst).map(|flow| flow.resumed), Some(false));
    assert_eq!(pair.a.engine.counters().resumptions_refused, 1);
    // The same without the option is none that counts (ENO-13).
    let (mut pair, syn, first) = resumes();
    pair.a.wire(&first);
    pair.a.wire(&another_answer(&syn, first.seq, &[]));
    assert!(!pair.a.kernel(&ack_of(&first)).wire[0].payload.starts_with(&INIT1));
    assert_eq!(pair.a.engine.flow(syn.src, syn.dst).map(|flow| flow.resumed), Some(true));
}

/// As with plain TCP: the genuine server resets what acknowledges what it has not sent, and the opener learns of it at once.
#[test]
fn an_opener_that_has_taken_a_forged_syn_ack_is_reset_at_once() {
    for genuine_first in [false, true] {
        let mut a = Host::new(Config::default());
        let syn = a.kernel(&Pair::syn()).wire.remove(0);
        let (forged, genuine) = (another_answer(&syn, 5_000, &FRESH), another_answer(&syn, 90_000, &FRESH));
        a.wire(&forged);
        let ack = if genuine_first {
            assert!(a.wire(&genuine).plain[0].has(SYN), "it is for the kernel to judge");
            a.kernel(&ack_of(&forged)).wire.remove(0)
        } else {
            let ack = a.kernel(&ack_of(&forged)).wire.remove(0);
            let sent = a.wire(&genuine);
            assert!(sent.plain.is_empty() && sent.wire.iter().all(|seg| seg.ack == 5_001), "RFC 5961, section 4.2");
            ack
        };
        assert_eq!(ack.ack, 5_001);
        let mut rst = Seg::new(b_addr(), a_addr());
        (rst.seq, rst.flags) = (ack.ack, RST);
        assert!(a.wire(&rst).plain.iter().any(|seg| seg.has(RST) && seg.seq == 5_001), "genuine first {genuine_first}");
    }
}

/// Somebody who knows the ports only, and opens against an opener.
#[test]
fn an_opener_whose_kernel_has_taken_a_blind_syn_is_reset_at_once() {
    for eno in [&FRESH[..], &[packet::ENO, 3, 0x23, 1], &[]] {
        let mut a = Host::new(Config::default());
        let syn = a.kernel(&Pair::syn()).wire.remove(0);
        let mut blind = another_answer(&syn, 5_000, eno);
        (blind.flags, blind.ack) = (SYN, 0);
        assert!(a.wire(&blind).plain[0].has(SYN));
        // As kernels answer in SYN-RECEIVED, and the server does to what it cannot have sent.
        let mut answer = Pair::syn();
        (answer.flags, answer.ack) = (SYN | ACK, 5_001);
        assert_eq!(a.kernel(&answer).wire[0].ack, 5_001);
        let sent = a.wire(&another_answer(&syn, 90_000, &FRESH));
        let told = sent.wire.iter().any(|seg| seg.ack == 5_001) || sent.plain.iter().any(|seg| seg.seq == 90_000);
        assert!(told, "the server, or the kernel, learns of it: {eno:?}");
        let mut rst = Seg::new(b_addr(), a_addr());
        (rst.seq, rst.flags) = (5_001, RST);
        assert!(a.wire(&rst).plain.iter().any(|seg| seg.has(RST)), "{eno:?}");
    }
}

/// Asymmetric routes through a gateway: the packets of one direction pass, and nothing can be encrypted.
#[test]
fn an_opening_of_which_one_direction_passes_is_let_go_or_refused() {
    for (policy, plain) in [(Policy::Opportunistic, true), (Policy::Required, false)] {
        // The answer takes another way.
        let mut gateway = Host::with_policy(Config::default(), policy);
        let syn = gateway.kernel(&Pair::syn()).wire.remove(0);
        let unseen = another_answer(&syn, 90_000, &FRESH);
        let mut ack = ack_of(&unseen);
        let sent = gateway.kernel(&ack);
        let flow = gateway.engine.flow(a_addr(), b_addr()).expect("a connection");
        if plain {
            assert_eq!((sent.wire[0].flags, sent.wire[0].ack, sent.wire[0].eno()), (ACK, 90_001, false));
            assert_eq!(flow.reason.as_deref(), Some("one-direction"));
            ack.payload = b"data".to_vec();
            assert_eq!(gateway.kernel(&ack).wire[0].payload, b"data");
        } else {
            assert!(sent.wire[0].has(RST) && sent.wire[0].seq == A_ISN + 1);
            assert!(sent.plain[0].has(RST) && sent.plain[0].seq == 90_001, "the kernel believes it");
            assert!(flow.reason.is_some_and(|why| why.contains("one-direction")));
        }
        let learnt = gateway.engine.path(gateway.now, b_addr()).map(|path| (path.finding, path.avoided_seconds));
        assert_eq!(learnt, Some((enotun::engine::Finding::OneDirection, None)));

        // The SYN passes and what answers it does not.
        let mut gateway = Host::with_policy(Config::default(), policy);
        gateway.wire(&Seg { options: [&syn_options(0)[..], &[packet::ENO, 3, 0x23, 1]].concat(), ..Pair::syn() });
        let mut ack = Seg::new(a_addr(), b_addr());
        (ack.seq, ack.ack, ack.payload) = (A_ISN + 1, 90_001, b"data".to_vec());
        let sent = gateway.wire(&ack);
        if plain {
            assert_eq!(sent.plain[0].payload, b"data");
        } else {
            assert!(sent.delivered().is_empty() && sent.wire[0].has(RST) && sent.wire[0].seq == 90_001);
        }
    }
}

/// Another one sends a SYN with the client's addresses before the kernel has answered.
#[test]
fn a_blind_syn_before_the_kernels_answer_does_no_harm() {
    for eno in [&[packet::ENO, 3, 0x24, 1][..], &[]] {
        let mut pair = Pair::new();
        let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
        pair.b.wire(&syn);
        let blind = Seg { seq: 77, options: [&syn_options(0)[..], eno].concat(), ..syn.clone() };
        pair.b.wire(&blind);
        let answer = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
        assert_eq!(answer.option(packet::ENO), Some(vec![1, 0x23]), "the answer to the one that the kernel took");
        pair.a.wire(&answer);
        for seg in pair.a.kernel(&pair.from_a()).wire {
            pair.b.wire(&seg);
        }
        assert!(pair.b.engine.session(b_addr(), a_addr()).is_ok(), "{eno:?}");
    }
}

/// Reading 9.
#[test]
fn eno_13_once_a_syn_came_without_the_option_no_syn_ack_has_it_again() {
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    assert!(pair.b.kernel(&Pair::syn_ack()).wire[0].eno());
    for again in [Pair::syn(), syn.clone(), syn] {
        assert_eq!(pair.b.wire(&again).plain.len(), 1);
        assert!(!pair.b.kernel(&Pair::syn_ack()).wire[0].eno());
    }
    assert_eq!(pair.flow_b().and_then(|flow| flow.reason).as_deref(), Some("peer-no-eno"));
    // A peer that has taken the first answer all the same is told.
    let mut ack = pair.from_a();
    ack.options = vec![packet::ENO, 2, 1, 1];
    let sent = pair.b.wire(&ack);
    assert!(sent.wire[0].has(RST) && sent.plain.iter().all(|seg| seg.has(RST)));
}

/// What is not acceptable does not count as received, and is answered as plain TCP would.
#[test]
fn eno_13_segments_that_are_not_acceptable_do_not_end_the_negotiation() {
    let (mut b, from_a) = answered();
    let forged = |seq: u32, ack: u32| {
        let mut seg = Seg::new(a_addr(), b_addr());
        (seg.seq, seg.ack, seg.flags, seg.win) = (seq, ack, ACK, WINDOW);
        seg
    };
    let sent = b.wire(&forged(A_ISN.wrapping_sub(5), B_ISN.wrapping_add(1)));
    assert_eq!((sent.wire[0].ack, sent.wire[0].win, sent.wire[0].eno()), (A_ISN + 1, WINDOW, true), "ENO-12");
    assert!(b.wire(&forged(A_ISN.wrapping_add(90_000), 5)).wire.is_empty(), "now and then");
    let sent = b.wire(&forged(A_ISN + 1, 4_711));
    assert!(sent.wire[0].has(RST) && sent.wire[0].seq == 4_711, "RFC 9293, section 3.10.7.4");
    for seg in &from_a {
        b.wire(seg);
    }
    assert!(b.engine.session(b_addr(), a_addr()).is_ok());
}

/// A host behind a gateway that has ENO itself.
#[test]
fn a_syn_that_has_eno_already_is_left_alone_unless_encryption_is_required_here() {
    let mut syn = Pair::syn();
    syn.options.extend([packet::ENO, 3, 0x21, 1]);
    let mut gateway = Host::new(Config::default());
    assert_eq!(gateway.kernel(&syn).wire[0].options, syn.options);
    assert_eq!(gateway.engine.flow(a_addr(), b_addr()).and_then(|f| f.reason).as_deref(), Some("local-eno"));
    let mut gateway = Host::with_policy(Config::default(), Policy::Required);
    assert_ne!(gateway.kernel(&syn).wire[0].option(packet::ENO), Some(vec![0x21]));
}
