//! Peers that want too much.

use super::*;

#[test]
fn segments_in_crumbs_do_not_use_up_memory() {
    let mut pair = Pair::connected();
    let frame = pair.a_writes(&[1; 100]).wire.remove(0);
    // Every other byte of what may come: nothing of it can be opened.
    for i in 0..30_000 {
        let mut crumb = frame.clone();
        crumb.seq = frame.seq.wrapping_add(1 + 2 * i);
        crumb.payload = vec![9];
        pair.b.wire(&crumb);
    }
    assert!(pair.b.engine.held_bytes() < 1 << 20, "{} bytes", pair.b.engine.held_bytes());
    assert_eq!(pair.b.wire(&frame).delivered(), [1; 100], "what comes next is taken all the same");
}

/// What the client's host holds for the connection is the server's data, of which the first segment is lost.
#[test]
fn what_waits_behind_a_gap_is_bounded_for_all_connections_together() {
    let config = Config { max_held_bytes: 8 << 10, ..Config::default() };
    let mut pair = Pair::connected_with(config);
    let mut sent = Vec::new();
    for n in 0..40 {
        let mut seg = pair.from_b();
        seg.payload = vec![n; 1_000];
        pair.b_next = pair.b_next.wrapping_add(1_000);
        sent.extend(pair.b.kernel(&seg).wire);
    }
    for seg in &sent[1..] {
        assert!(pair.a.wire(seg).delivered().is_empty());
    }
    let held = pair.a.engine.held_bytes();
    assert!(held < 12 << 10, "{held} bytes");
    assert!(pair.a.engine.counters().evicted_held > 0);
    // What comes next is taken all the same.
    let mut got = Vec::new();
    for seg in &sent {
        got.extend(pair.a.wire(seg).delivered());
    }
    assert!(got == (0..40).flat_map(|n| [n; 1_000]).collect::<Vec<u8>>(), "{} bytes arrive", got.len());
}

#[test]
fn what_lies_beyond_the_edge_of_the_window_is_not_taken() {
    let mut pair = Pair::connected();
    let seg = pair.a_writes(b"data").wire.remove(0);
    let sent = pair.b.wire(&seg);
    assert_eq!(sent.delivered(), b"data");
    let mut ack = pair.from_b();
    ack.ack = pair.a_next;
    let told = pair.b.kernel(&ack).wire.pop().expect("an acknowledgement");
    let edge = told.ack.wrapping_add(u32::from(told.win));
    // Half of it within the window, and a gap before it.
    let mut across = seg.clone();
    (across.seq, across.payload) = (edge.wrapping_sub(50), vec![9; 100]);
    let answer = pair.b.wire(&across).wire.pop().expect("an answer");
    let sack = answer.option(5).expect("SACK");
    assert_eq!(sack, [edge.wrapping_sub(50).to_be_bytes(), edge.to_be_bytes()].concat());
}

/// The peer starts rekeys and acknowledges none of the answers (TC-32).
#[test]
fn answers_to_rekeys_do_not_pile_up() {
    let mut pair = Pair::connected();
    for _ in 0..3000 {
        let sent = pair.a.rekey(a_addr(), b_addr());
        for seg in sent.wire {
            let answers = pair.b.wire(&seg).wire;
            for mut seg in answers {
                // It takes the answer's frame, so that it can go on, and acknowledges nothing ever.
                pair.a.wire(&seg);
                seg.payload.clear();
            }
        }
    }
    assert!(pair.b.engine.held_bytes() < 1 << 20, "{} bytes", pair.b.engine.held_bytes());
}

/// Both kernels announce more than a packet can carry.
#[test]
fn segments_are_never_longer_than_ip_allows() {
    let mut pair = Pair::new();
    let (mut syn, mut syn_ack) = (Pair::syn(), Pair::syn_ack());
    for seg in [&mut syn, &mut syn_ack] {
        seg.options[2..4].copy_from_slice(&[0xff, 0xff]);
    }
    let syn = pair.a.kernel(&syn).wire.remove(0);
    pair.b.wire(&syn);
    let syn_ack = pair.b.kernel(&syn_ack).wire.remove(0);
    pair.a.wire(&syn_ack);
    let init1 = pair.a.kernel(&pair.from_a()).wire;
    assert!(init1.iter().any(|seg| !seg.payload.is_empty()));
    let init2: Vec<Seg> = init1.iter().flat_map(|seg| pair.b.wire(seg).wire).collect();
    for seg in init2 {
        pair.a.wire(&seg);
    }
    let sent = pair.a_writes(&[7; 1000]).wire;
    assert_eq!(sent.iter().flat_map(|seg| pair.b.wire(seg).delivered()).count(), 1000);
}

/// A peer that has sent its FINp frame answers no rekey any more (docs/readings.md, reading 11): keys are replaced all the same,
/// with frames that have data (TC-31, TC-33).
#[test]
fn tc_31_keys_are_replaced_on_a_half_closed_connection() {
    let mut config = Config::default();
    config.rekey.frames = 4;
    let mut pair = Pair::connected_with(config);
    let mut fin = pair.from_b();
    fin.flags |= packet::FIN;
    for seg in pair.b.kernel(&fin).wire {
        pair.a.wire(&seg);
    }
    pair.b_next = pair.b_next.wrapping_add(1);
    for seg in pair.a.kernel(&pair.from_a()).wire {
        pair.b.wire(&seg);
    }
    for n in 0..40 {
        for seg in pair.a_writes(&[n; 100]).wire {
            assert_eq!(pair.b.wire(&seg).delivered(), [n; 100]);
        }
        for seg in pair.b.kernel(&pair.from_b()).wire {
            pair.a.wire(&seg);
        }
    }
    let generations = |flow: Option<FlowInfo>| flow.map(|flow| (flow.generation_local, flow.generation_remote));
    let (a, b) = (generations(pair.flow_a()), generations(pair.flow_b()));
    assert!(a.is_some_and(|(local, _)| local >= Some(8)), "{a:?}");
    assert_eq!(a.map(|(local, remote)| (remote, local)), b);
    // Without data there is no more than one (TC-33).
    let local = generations(pair.flow_a()).and_then(|(local, _)| local);
    for _ in 0..3 {
        pair.a.rekey(a_addr(), b_addr());
    }
    assert_eq!(generations(pair.flow_a()).and_then(|(local, _)| local), local);
}

/// As Linux does with `tcp_mtu_probing` where nobody answers for packets that are too big for the path: it sends the same in
/// smaller segments (RFC 4821). The frame stays what it is (TC-27).
#[test]
fn what_the_kernel_sends_again_in_smaller_segments_gets_smaller_on_the_wire() {
    let mut pair = Pair::connected();
    let first = pair.from_a();
    let data: Vec<u8> = (0..1400_u32).map(|i| (i % 251) as u8).collect();
    let whole: Vec<u8> = pair.a_writes(&data).wire.into_iter().flat_map(|seg| seg.payload).collect();
    assert!(whole.len() > 1400);
    let mut again = first;
    again.payload = data[..700].to_vec();
    let sent = pair.a.kernel(&again).wire;
    assert!(
        sent.iter().all(|seg| seg.payload.len() < 750),
        "{:?}",
        sent.iter().map(|s| s.payload.len()).collect::<Vec<_>>()
    );
    assert_eq!(sent.into_iter().flat_map(|seg| seg.payload).collect::<Vec<_>>(), whole);
}
