//! Ends of connections.

use super::packet::FIN;
use super::*;

/// A keep-alive asks for an authentic answer (TC-35), which a peer that has sent its FINp frame cannot give.
#[test]
fn keep_alives_of_a_half_closed_connection_are_answered() {
    let mut pair = Pair::connected();
    let mut fin = pair.from_b();
    fin.flags |= FIN;
    for seg in pair.b.kernel(&fin).wire {
        pair.a.wire(&seg);
    }
    pair.b_next = pair.b_next.wrapping_add(1);
    for seg in pair.a.kernel(&pair.from_a()).wire {
        pair.b.wire(&seg);
    }
    let mut keep_alive = pair.from_a();
    keep_alive.seq = keep_alive.seq.wrapping_sub(1);
    let mut to_b = pair.a.kernel(&keep_alive).wire;
    let mut answered = false;
    while let Some(seg) = to_b.pop() {
        let sent = pair.b.wire(&seg);
        let mut to_a = sent.wire;
        if !sent.plain.is_empty() {
            to_a.extend(pair.b.kernel(&pair.from_b()).wire);
        }
        for seg in to_a {
            let sent = pair.a.wire(&seg);
            answered |= !sent.plain.is_empty();
            to_b.extend(sent.wire);
        }
    }
    assert!(answered, "the kernel takes silence for a dead peer");
}

/// A kernel that has missed the RST would later send plaintext of a connection that nobody knows any more.
#[test]
fn the_rst_of_an_aborted_connection_is_repeated_to_the_kernel() {
    let mut pair = Pair::connected();
    let mut rst = pair.from_b();
    // Where the next byte on the wire is expected.
    let at = pair.a.kernel(&pair.from_a()).wire[0].ack;
    (rst.seq, rst.flags) = (at, packet::RST);
    assert_eq!(pair.a.wire(&rst).plain.len(), 1, "the RST itself");
    let mut times = 0;
    for _ in 0..59 {
        // Behind each is a question, see forgotten.rs.
        for seg in pair.a.wait(Duration::from_secs(1)).plain.into_iter().filter(|seg| seg.flags & packet::RST != 0) {
            assert_eq!(seg.seq, pair.b_next);
            times += 1;
        }
    }
    assert_eq!(times, 3);
    assert_eq!(pair.a.wait(Duration::from_secs(2)).plain.len(), 0);
    assert!(pair.flow_a().is_none(), "after a minute it is forgotten");
}

#[test]
fn a_kernel_that_has_reset_the_connection_is_not_told_so() {
    let mut pair = Pair::connected();
    let mut rst = pair.from_a();
    rst.flags |= packet::RST;
    assert_eq!(pair.a.kernel(&rst).wire.len(), 1);
    assert!(pair.a.wait(Duration::from_secs(70)).plain.is_empty());
}

#[test]
fn a_socket_that_vanished_without_a_word_is_found_out() {
    let mut pair = Pair::connected();
    // The kernel that still has it answers, as to a keep-alive.
    let asked = pair.a.wait(Duration::from_secs(2 * 3600 + 1)).plain;
    let [probe] = &asked[..] else { panic!("{} segments", asked.len()) };
    assert_eq!((probe.seq.wrapping_add(1), probe.payload.len()), (pair.b_next, 0));
    let answer = pair.from_a();
    pair.a.kernel(&answer);
    assert!(pair.a.wait(Duration::from_secs(3600)).plain.is_empty());
    // The next time it has not.
    assert_eq!(pair.a.wait(Duration::from_secs(3601)).plain.len(), 1);
    let mut rst = pair.from_a();
    (rst.flags, rst.seq) = (packet::RST, rst.seq);
    let told = pair.a.kernel(&rst).wire;
    assert!(told.len() == 1 && told[0].flags & packet::RST != 0, "the peer is told");
    assert_eq!(pair.flow_a().map(|flow| flow.state), Some(enotun::engine::FlowState::Closed));
}

/// The kernel's last acknowledgement may get lost on the way to it. How late it then sends the same again, its earlier
/// repetitions show: with a timer that had grown beyond a minute it would do so when the connection is forgotten.
#[test]
fn a_kernel_that_repeats_itself_slowly_finds_the_connection_still_known_when_it_is_over() {
    let mut pair = Pair::connected();
    let mut last = pair.from_a();
    last.payload = b"the last words".to_vec();
    last.flags |= FIN;
    let mut sent = pair.a.kernel(&last).wire;
    // Lost on the wire, all but the last time.
    for pause in [1, 2, 4, 8, 16, 32, 64] {
        pair.a.wait(Duration::from_secs(pause));
        sent = pair.a.kernel(&last).wire;
    }
    pair.b.now = pair.a.now;
    assert!(!sent.is_empty());
    for seg in sent {
        pair.b.wire(&seg);
    }
    pair.a_next = pair.a_next.wrapping_add(15);
    let mut fin = pair.from_b();
    fin.flags |= FIN;
    for seg in pair.b.kernel(&fin).wire {
        pair.a.wire(&seg);
    }
    // The kernel has the peer's FIN, and not that its own is acknowledged.
    let mut ack = pair.from_a();
    ack.ack = pair.b_next.wrapping_add(1);
    pair.a.kernel(&ack);
    assert_eq!(pair.flow_a().map(|flow| flow.state), Some(enotun::engine::FlowState::Closed));
    pair.a.wait(Duration::from_secs(119));
    last.ack = ack.ack;
    let late = pair.a.kernel(&last);
    assert!(late.wire.iter().all(|seg| seg.payload.is_empty()), "plaintext of an encrypted connection");
    assert_eq!(late.plain.len(), 1, "it is told again");
    assert!(pair.a.wait(Duration::from_secs(10)).plain.is_empty());
    assert!(pair.flow_a().is_none(), "and then it is forgotten");
}
