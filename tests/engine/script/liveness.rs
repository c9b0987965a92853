//! Keep-alives (RFC 8548, section 3.9): the kernel's question becomes a rekey, and only an authentic answer is one.

use super::*;

/// The client's kernel asks whether the server is alive.
fn keep_alive(pair: &mut Pair) -> Sent {
    let mut probe = pair.from_a();
    probe.seq = probe.seq.wrapping_sub(1);
    pair.a.kernel(&probe)
}

#[test]
fn tc_35_a_keep_alive_becomes_a_rekey_and_its_answer_reaches_the_kernel() {
    let mut pair = Pair::connected();
    let sent = keep_alive(&mut pair);
    assert!(sent.plain.is_empty(), "no answer yet");
    let [asked] = &sent.wire[..] else { panic!("{} segments", sent.wire.len()) };
    assert_eq!(asked.payload.first(), Some(&1), "the first frame of a generation");
    let sent = pair.b.wire(asked);
    let [answer] = &sent.wire[..] else { panic!("{} segments", sent.wire.len()) };
    assert_eq!(answer.payload.first(), Some(&1), "TC-32");
    let sent = pair.a.wire(answer);
    let [told] = &sent.plain[..] else { panic!("{} segments", sent.plain.len()) };
    assert_eq!((told.seq, told.ack, told.payload.len()), (pair.b_next, pair.a_next, 0));
    let flow = pair.flow_a().expect("a connection");
    assert_eq!((flow.generation_local, flow.generation_remote), (Some(1), Some(1)));
}

#[test]
fn tc_35_a_forged_answer_does_not_keep_a_dead_peers_connection_open() {
    let mut pair = Pair::connected();
    let sent = keep_alive(&mut pair);
    let [asked] = &sent.wire[..] else { panic!("{} segments", sent.wire.len()) };
    // The peer is dead; somebody who sees the wire acknowledges in its name.
    let mut forged = Seg::new(b_addr(), a_addr());
    (forged.seq, forged.ack, forged.win) = (asked.ack, asked.seq.wrapping_add(asked.payload.len() as u32), WINDOW);
    // As often as Linux asks before it gives up (tcp_keepalive_probes).
    for n in 0..9 {
        let mut with_data = forged.clone();
        with_data.payload = [&[1, 0, 17][..], &[n; 17]].concat();
        assert!(pair.a.wire(&forged).plain.is_empty(), "an acknowledgement alone is no answer");
        assert!(pair.a.wire(&with_data).plain.is_empty(), "nor is a frame that does not authenticate");
        assert!(pair.a.wait(Duration::from_secs(75)).plain.is_empty());
        assert!(keep_alive(&mut pair).plain.is_empty());
    }
}

#[test]
fn tc_35_data_of_the_peers_is_an_answer_as_well() {
    let mut pair = Pair::connected();
    let asked = keep_alive(&mut pair).wire;
    let mut seg = pair.from_b();
    seg.payload = b"still here".to_vec();
    let sent = pair.b.kernel(&seg);
    assert_eq!(pair.a.wire(&sent.wire[0]).delivered(), b"still here");
    // The rekey goes on all the same.
    let sent = pair.b.wire(&asked[0]);
    assert_eq!(sent.wire.iter().filter(|seg| seg.payload.first() == Some(&1)).count(), 1);
}

/// Some kernels' keep-alives have a byte of garbage (RFC 9293, section 3.8.4); at a gateway they are seen.
#[test]
fn tc_35_a_keep_alive_with_a_byte_of_garbage_becomes_a_rekey_too() {
    let mut pair = Pair::connected();
    let mut probe = pair.from_a();
    (probe.seq, probe.payload) = (probe.seq.wrapping_sub(1), vec![0]);
    let sent = pair.a.kernel(&probe);
    assert!(sent.plain.is_empty(), "no answer yet");
    let [asked] = &sent.wire[..] else { panic!("{} segments", sent.wire.len()) };
    assert_eq!(asked.payload.first(), Some(&1), "the first frame of a generation");
    let answer = pair.b.wire(asked).wire.remove(0);
    let mut forged = answer.clone();
    forged.payload.clear();
    assert!(pair.a.wire(&forged).plain.is_empty(), "an acknowledgement alone is no answer");
    let sent = pair.a.wire(&answer);
    let [told] = &sent.plain[..] else { panic!("{} segments", sent.plain.len()) };
    assert_eq!((told.seq, told.ack, told.payload.len()), (pair.b_next, pair.a_next, 0));
}
