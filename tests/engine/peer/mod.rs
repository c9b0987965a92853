//! One engine, every packet by hand: the test is the local kernel and the peer at once ([`Bench`]).

mod duplicates;
mod forgers;
mod full_window;
mod gate;
mod held;
mod proof;

use std::time::Duration;

use enotun::engine::{Config, FlowState, Side};
use enotun::wire::Offload;
use tcpcrypt::Plaintext;
use tcpcrypt::frame::OVERHEAD;

use crate::harness::env::Emitted;
use crate::harness::host::Sent;
use crate::harness::packet::{self, ACK, ENO, FIN, PSH, RST, SYN, Seg};
use crate::harness::peer::{Bench, KERNEL_ISN, PEER_ISN};

#[test]
fn the_kernel_sees_a_syn_without_eno_and_an_mss_that_leaves_room_for_a_frame() {
    let (kernel_syn, syn_ack) = Bench::new().handshake();
    assert!(!kernel_syn.eno());
    assert_eq!(kernel_syn.mss(), Some(1460 - OVERHEAD as u16));
    assert_eq!(syn_ack.option(ENO), Some(vec![0x01, 0x23]), "ENO-7: b = 1; ENO-10: one TEP");
    assert_eq!(syn_ack.mss(), Some(1460));
}

#[test]
fn packets_of_connections_that_were_open_before_pass_unchanged() {
    let mut b = Bench::new();
    let from_peer = b.peer_seg(5, 7, PSH, b"data").build();
    b.host.engine.handle_packet(b.host.now, Side::Wire, Offload::NONE, &mut from_peer.clone(), &mut b.host.env);
    let from_kernel = b.kernel_seg(7, 5, FIN, b"data").build();
    b.host.engine.handle_packet(b.host.now, Side::Plain, Offload::NONE, &mut from_kernel.clone(), &mut b.host.env);
    let out: Vec<_> = b.env.take().into_iter().map(|sent| (sent.side, sent.bytes)).collect();
    assert_eq!(out, [(Side::Plain, from_peer), (Side::Wire, from_kernel)]);
}

#[test]
fn a_udp_packet_passes_unchanged() {
    let mut b = Bench::new();
    let mut bytes = b.peer_seg(0, 0, 0, b"").build();
    bytes[9] = 17;
    b.host.engine.handle_packet(b.host.now, Side::Plain, Offload::NONE, &mut bytes.clone(), &mut b.host.env);
    let passed = Emitted { side: Side::Wire, bytes, offload: Offload::NONE, built: false };
    assert_eq!(b.env.out, [passed]);
}

#[test]
fn tc_27_what_the_kernel_sends_again_is_answered_with_the_same_ciphertext() {
    let mut b = Bench::encrypted();
    let made = b.engine_made;
    let first = b.from_kernel(0, 0, PSH, b"hello, world");
    let bytes = first.wire_bytes();
    assert_eq!(bytes.len(), 12 + OVERHEAD);
    assert_eq!(first.wire[0].seq, KERNEL_ISN + 1 + made);
    assert_eq!(b.open(made, &bytes).0, b"hello, world");
    // The whole, a part of it, and another part, in other boundaries than before.
    for (from, data) in [(0, &b"hello, world"[..]), (3, b"lo"), (7, b"world")] {
        let again = b.from_kernel(from, 0, PSH, data);
        assert_eq!(again.wire_bytes(), bytes, "from {from}");
        assert_eq!(again.wire[0].seq, first.wire[0].seq);
    }
    // Old and new bytes in one segment: the old frame and a new one, never one frame over both.
    let more = b.from_kernel(7, 0, PSH, b"world and more");
    assert_eq!(more.wire_bytes()[..bytes.len()], bytes);
    assert_eq!(b.open(made + bytes.len() as u32, &more.wire_bytes()[bytes.len()..]).0, b" and more");
}

#[test]
fn an_acknowledgement_inside_a_frame_is_not_one_for_the_kernel() {
    let mut b = Bench::encrypted();
    let made = b.engine_made;
    b.from_kernel(0, 0, PSH, b"0123456789");
    b.from_kernel(10, 0, PSH, b"abcdefghij");
    let frame = 10 + OVERHEAD as u32;
    for (acked, told) in
        [(made + 5, 0), (made + frame - 1, 0), (made + frame, 10), (made + 2 * frame - 1, 10), (made + 2 * frame, 20)]
    {
        let seg = b.peer_seg(b.peer_made, acked, 0, &[]);
        let seen = b.hear_bytes(Side::Wire, seg.build());
        let last = seen.plain.last().unwrap_or_else(|| panic!("nothing told of {acked}"));
        assert_eq!(last.ack, KERNEL_ISN + 1 + told, "acknowledged {acked}");
    }
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_not_believed() {
    let mut b = Bench::encrypted();
    b.from_kernel(0, 0, PSH, b"0123456789");
    let seg = b.peer_seg(b.peer_made, b.engine_made + 10 + OVERHEAD as u32 + 1, 0, &[]);
    let seen = b.hear_bytes(Side::Wire, seg.build());
    assert!(seen.plain.is_empty(), "{seen:?}");
}

#[test]
fn frames_that_arrive_in_the_wrong_order_are_delivered_in_the_right_one() {
    let mut b = Bench::encrypted();
    let (first_at, first) = b.frame(b"one ", false);
    let (second_at, second) = b.frame(b"two", false);
    let seen = b.from_peer(second_at, PSH, &second);
    assert!(seen.delivered().is_empty());
    let [ack] = &seen.wire[..] else { panic!("{seen:?}") };
    assert_eq!(ack.ack, PEER_ISN.wrapping_add(1).wrapping_add(first_at));
    let edge = |n: u32| PEER_ISN.wrapping_add(1).wrapping_add(n).to_be_bytes();
    assert_eq!(ack.option(5), Some([edge(second_at), edge(second_at + second.len() as u32)].concat()));
    let seen = b.from_peer(first_at, PSH, &first);
    assert_eq!(seen.delivered(), b"one two");
    assert_eq!(seen.plain[0].seq, PEER_ISN.wrapping_add(1));
    // The wire hears of it when the kernel has it.
    let seen = b.from_kernel(0, 7, 0, &[]);
    assert_eq!(seen.wire[0].ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made));
}

#[test]
fn a_frame_cut_anywhere_is_delivered_whole() {
    for cut in 1..10 + OVERHEAD {
        let mut b = Bench::encrypted();
        let (at, bytes) = b.frame(b"0123456789", false);
        let seen = b.from_peer(at, 0, &bytes[..cut]);
        assert!(seen.delivered().is_empty());
        let seen = b.from_peer(at + cut as u32, PSH, &bytes[cut..]);
        assert_eq!(seen.delivered(), b"0123456789", "cut at {cut}");
    }
}

#[test]
fn tc_28_a_forged_segment_does_no_harm_if_the_genuine_one_follows() {
    for forged in [vec![0; 40], vec![0xff; 40], vec![0, 0, 17], b"plain text, not a frame".to_vec()] {
        let mut b = Bench::encrypted();
        let (at, bytes) = b.frame(b"genuine", false);
        let seen = b.from_peer(at, PSH, &forged);
        assert!(seen.delivered().is_empty());
        assert!(seen.wire.iter().all(|s| s.ack == PEER_ISN.wrapping_add(1).wrapping_add(at)), "{seen:?}");
        let seen = b.from_peer(at, PSH, &bytes);
        assert_eq!(seen.delivered(), b"genuine", "after {forged:02x?}");
    }
}

#[test]
fn a_segment_with_a_wrong_checksum_is_not_looked_at() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(b"genuine", false);
    let mut damaged = b.peer_seg(at, b.engine_made, PSH, &bytes).build();
    *damaged.last_mut().expect("payload") ^= 1;
    let seen = b.hear_bytes(Side::Wire, damaged);
    assert!(seen.plain.is_empty() && seen.wire.is_empty(), "{seen:?}");
    assert_eq!(b.engine.counters().bad_checksum, 1);
    assert_eq!(b.from_peer(at, PSH, &bytes).delivered(), b"genuine");
}

#[test]
fn a_reset_counts_only_at_the_very_next_byte() {
    let mut b = Bench::encrypted();
    for wrong in [1u32, 1000, 60_000, 1u32.wrapping_neg()] {
        let seen = b.from_peer(b.peer_made.wrapping_add(wrong), RST, &[]);
        assert!(seen.plain.is_empty(), "{wrong} off: {seen:?}");
    }
    assert_eq!(b.engine.counters().resets_ignored, 4);
    let seen = b.from_peer(b.peer_made, RST, &[]);
    let [reset] = &seen.plain[..] else { panic!("{seen:?}") };
    assert!(reset.has(RST));
    assert_eq!(reset.seq, PEER_ISN.wrapping_add(1), "in the kernel's numbers: nothing was delivered yet");
}

#[test]
fn a_reset_of_the_kernels_reaches_the_peer_in_its_numbers() {
    let mut b = Bench::encrypted();
    b.from_kernel(0, 0, PSH, b"0123456789");
    let seen = b.from_kernel(10, 0, RST, &[]);
    let [reset] = &seen.wire[..] else { panic!("{seen:?}") };
    assert!(reset.has(RST));
    assert_eq!(reset.seq, KERNEL_ISN + 1 + b.engine_made + 10 + OVERHEAD as u32);
}

#[test]
fn tc_29_end_of_file_is_what_finp_says_and_the_fin_is_acknowledged_when_it_comes() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(b"bye", true);
    let seen = b.from_peer(at, PSH, &bytes);
    assert_eq!(seen.delivered(), b"bye");
    assert!(seen.plain.last().is_some_and(|s| s.has(FIN)), "the segment's FIN says nothing more: {seen:?}");
    let seen = b.from_kernel(0, 4, 0, &[]);
    assert_eq!(seen.wire[0].ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made), "what has come");
    let seen = b.from_peer(b.peer_made, FIN, &[]);
    assert!(seen.plain.iter().all(|s| !s.has(FIN)), "once: {seen:?}");
    let [ack] = &seen.wire[..] else { panic!("{seen:?}") };
    assert_eq!(ack.ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made + 1));
    // The kernel closes as well.
    let seen = b.from_kernel(0, 4, FIN, &[]);
    let [fin] = &seen.wire[..] else { panic!("{seen:?}") };
    assert!(fin.has(FIN));
    assert_eq!(fin.ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made + 1));
    let (data, opened) = b.open(b.engine_made, &fin.payload.clone());
    assert!(opened.fin && data.is_empty());
    b.engine_made += fin.payload.len() as u32 + 1;
    let seen = b.from_peer(b.peer_made + 1, 0, &[]);
    assert_eq!(seen.plain[0].ack, KERNEL_ISN + 2);
    assert_eq!(b.engine.held_bytes(), 0);
    assert_eq!(b.engine.flow(b.kernel, b.peer).expect("lingers").state, FlowState::Closed);
    b.wait(Duration::from_secs(120));
    assert!(b.engine.is_empty());
}

#[test]
fn tc_29_a_fin_that_no_finp_announced_is_not_end_of_file() {
    let mut b = Bench::encrypted();
    let mut resets = 0;
    for _ in 0..6 {
        let seen = b.from_peer(b.peer_made, FIN, &[]);
        assert!(!seen.plain.iter().any(|s| s.has(FIN)), "{seen:?}");
        resets += seen.plain.iter().filter(|s| s.has(RST)).count();
        b.wait(Duration::from_secs(1));
    }
    assert_eq!(resets, 1, "once it is clear that nothing better will come, the application is told by a reset");
}

#[test]
fn tc_32_a_rekey_is_answered_at_once() {
    let mut b = Bench::encrypted();
    assert!(b.record.as_mut().expect("keys").start_rekey());
    let (at, bytes) = b.frame(b"", false);
    assert_eq!(bytes[0] & 1, 1);
    let seen = b.from_peer(at, PSH, &bytes);
    let answer = seen.wire_bytes();
    assert_eq!(answer[0] & 1, 1, "TC-31: the first frame of the new generation has the bit");
    let (data, _) = b.open(b.engine_made, &answer);
    assert!(data.is_empty());
    let flow = b.engine.flow(b.kernel, b.peer).expect("a flow");
    assert_eq!((flow.generation_local, flow.generation_remote), (Some(1), Some(1)));
    // Nobody but the engine can send it again.
    let again = b.wait(Duration::from_secs(2));
    assert_eq!(again.wire[0].payload, answer);
}

#[test]
fn the_largest_frame_comes_through_a_sender_that_waits_for_acknowledgements() {
    let mut b = Bench::encrypted();
    let data: Vec<u8> = (0..60_000u32).map(|i| (i % 251) as u8).collect();
    let (at, bytes) = b.frame(&data, false);
    let mut delivered = Vec::new();
    // A sender with a window of twelve segments and a retransmission timer of 300 ms.
    let (mut acked, mut sent, mut rounds) = (0usize, 0usize, 0);
    while delivered.len() < data.len() {
        rounds += 1;
        assert!(rounds < 200, "stuck with {acked} of {} acknowledged", bytes.len());
        let mut answers = Vec::new();
        while sent < bytes.len() && sent < acked + 12 * 1460 {
            let end = (sent + 1460).min(bytes.len());
            let seen = b.from_peer(at + sent as u32, 0, &bytes[sent..end]);
            delivered.extend(seen.delivered());
            answers.extend(seen.wire);
            sent = end;
        }
        answers.extend(b.wait(Duration::from_millis(300)).wire);
        let before = acked;
        for seg in answers {
            let ack = seg.ack.wrapping_sub(PEER_ISN.wrapping_add(1).wrapping_add(at)) as usize;
            assert!(ack <= bytes.len(), "{seg:?}");
            acked = acked.max(ack);
        }
        if acked == before {
            sent = acked;
        }
    }
    assert_eq!(delivered, data);
}

#[test]
fn plaintext_waits_for_the_kernels_window() {
    let mut b = Bench::encrypted_with_window(1_000);
    let mut delivered = Vec::new();
    for i in 0..10 {
        let (at, bytes) = b.frame(&[i; 500], false);
        delivered.extend(b.from_peer(at, PSH, &bytes).delivered());
    }
    assert_eq!(delivered.len(), 1_000, "no more than the kernel announced");
    // What waits here is acknowledged: the peer's kernel would give up on it otherwise, however long the reader pauses.
    let seen = b.from_kernel(0, 1_000, 0, &[]);
    assert_eq!(seen.wire[0].ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made));
    assert_eq!(seen.delivered().len(), 1_000, "as much as its window takes now");
    let mut open = b.kernel_seg(0, 2_000, 0, &[]);
    open.win = 10_000;
    delivered.extend(seen.delivered());
    delivered.extend(b.hear_bytes(Side::Plain, open.build()).delivered());
    assert_eq!(delivered, (0..10).flat_map(|i| [i; 500]).collect::<Vec<u8>>());
}

#[test]
fn a_closed_window_of_the_kernels_is_probed_until_it_opens() {
    let mut b = Bench::encrypted_with_window(1_000);
    let (at, bytes) = b.frame(&[0; 1_000], false);
    assert_eq!(b.from_peer(at, PSH, &bytes).delivered().len(), 1_000);
    let mut full = b.kernel_seg(0, 1_000, 0, &[]);
    full.win = 0;
    b.hear_bytes(Side::Plain, full.build());
    let (at, bytes) = b.frame(b"waits", false);
    assert!(b.from_peer(at, PSH, &bytes).delivered().is_empty());
    let seen = b.wait(Duration::from_secs(3));
    let probe = seen.plain.first().expect("a probe: the kernel's update may have been lost");
    assert!(probe.payload.is_empty() && probe.seq == PEER_ISN.wrapping_add(1_000), "{seen:?}");
    let mut open = b.kernel_seg(0, 1_000, 0, &[]);
    open.win = 100;
    assert_eq!(b.hear_bytes(Side::Plain, open.build()).delivered(), b"waits");
}

#[test]
fn a_keep_alive_of_the_peers_is_the_kernels_to_answer() {
    let mut b = Bench::encrypted();
    let seen = b.from_peer(b.peer_made - 1, 0, &[]);
    let [probe] = &seen.plain[..] else { panic!("{seen:?}") };
    assert_eq!(probe.seq, PEER_ISN, "the byte before the next");
    let seen = b.from_kernel(0, 0, 0, &[]);
    let [answer] = &seen.wire[..] else { panic!("{seen:?}") };
    assert_eq!(answer.ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made));
}

#[test]
fn a_gap_in_what_the_kernel_sends_is_not_framed_over() {
    let mut b = Bench::encrypted();
    let made = b.engine_made;
    let seen = b.from_kernel(5, 0, PSH, b"later");
    assert!(seen.wire_bytes().is_empty());
    let [ack] = &seen.plain[..] else { panic!("{seen:?}") };
    assert_eq!(ack.ack, KERNEL_ISN + 1, "a duplicate acknowledgement");
    let seen = b.from_kernel(0, 0, PSH, b"first");
    let bytes = seen.wire_bytes();
    let mut at = 0;
    let mut plaintext = Vec::new();
    while at < bytes.len() {
        let len = 3 + usize::from(u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]));
        plaintext.extend(b.open(made + at as u32, &bytes[at..at + len]).0);
        at += len;
    }
    assert!(plaintext == b"firstlater" || plaintext == b"first", "{plaintext:?}");
}

#[test]
fn a_forged_syn_does_not_disturb_an_encrypted_connection() {
    let mut b = Bench::encrypted();
    let mut syn = b.peer_seg(0, 0, 0, &[]);
    (syn.seq, syn.ack, syn.flags) = (PEER_ISN.wrapping_add(5000), 0, SYN);
    syn.set_options(&[(2, vec![5, 180])]);
    let seen = b.hear_bytes(Side::Wire, syn.build());
    assert!(seen.plain.is_empty(), "{seen:?}");
    let [challenge] = &seen.wire[..] else { panic!("RFC 5961, section 4.2: {seen:?}") };
    assert_eq!(challenge.flags, ACK);
    let (at, bytes) = b.frame(b"still here", false);
    assert_eq!(b.from_peer(at, PSH, &bytes).delivered(), b"still here");
}

/// A congestion mark is for the kernel to echo (RFC 3168, section 6.1.3), also where the segment that has it does not end a frame.
#[test]
fn a_congestion_mark_in_the_middle_of_a_frame_reaches_the_kernel() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(&[5; 1_000], false);
    let mut first = b.peer_seg(at, b.engine_made, 0, &bytes[..600]);
    first.traffic_class = 3;
    assert!(b.hear_bytes(Side::Wire, first.build()).delivered().is_empty());
    let mut second = b.peer_seg(at + 600, b.engine_made, PSH, &bytes[600..]);
    second.traffic_class = 2;
    let seen = b.hear_bytes(Side::Wire, second.build());
    assert_eq!(seen.delivered().len(), 1_000);
    assert_eq!(seen.plain[0].traffic_class & 3, 3);
    let (at, bytes) = b.frame(&[5; 100], false);
    let mut third = b.peer_seg(at, b.engine_made, PSH, &bytes);
    third.traffic_class = 2;
    assert_eq!(b.hear_bytes(Side::Wire, third.build()).plain[0].traffic_class & 3, 2, "once");
}
