//! What is believed of a segment from the wire, and what is not: a host somewhere on the Internet knows the ports and guesses
//! the rest, and plain TCP survives all of this (RFC 9293, section 3.10.7.4; RFC 5961; RFC 7323, section 5).

use super::*;

/// An acknowledgement of the half of all numbers that lies behind: what older stacks took.
const OLD: u32 = 1 << 29;

impl Bench {
    /// A segment of somebody who guesses `seq` and has no idea of the acknowledgement.
    fn forged(&self, seq: u32, flags: u8, payload: &[u8]) -> Seg {
        self.peer_seg(seq, self.engine_made.wrapping_sub(OLD), flags, payload)
    }

    /// Data goes through in both directions.
    fn assert_alive(&mut self) {
        let (at, bytes) = self.frame(b"from the peer", false);
        assert_eq!(self.from_peer(at, PSH, &bytes).delivered(), b"from the peer");
        let flow = self.engine.flow(self.kernel, self.peer).expect("a flow");
        assert_eq!((flow.state, flow.reason), (FlowState::Encrypted, None));
    }

    fn count(&self, name: &str) -> u64 {
        let counters = self.engine.counters().named();
        counters.into_iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }
}

fn timestamps_of(seg: &Seg) -> (u32, u32) {
    let option = seg.option(8).expect("timestamps");
    let at = |n: usize| u32::from_be_bytes(option[n..n + 4].try_into().expect("four bytes"));
    (at(0), at(4))
}

#[test]
fn forged_acknowledgements_behind_the_window_move_no_clock() {
    let mut b = Bench::encrypted_with_clocks();
    for n in 0..40_u32 {
        b.clocks = Some((n.wrapping_mul(2_654_435_761), n.wrapping_mul(40_503)));
        let seg = b.peer_seg(b.peer_made.wrapping_sub(30_000), b.engine_made, 0, &[]);
        b.hear_bytes(Side::Wire, seg.build());
        // Where the acknowledgement is wrong, the place may be right.
        let seg = b.forged(b.peer_made, 0, &[]);
        b.hear_bytes(Side::Wire, seg.build());
    }
    b.clocks = Some((1_000_001, 5_001));
    let (at, bytes) = b.frame(b"hello", false);
    let seen = b.from_peer(at, PSH, &bytes);
    assert_eq!(seen.delivered(), b"hello");
    assert_eq!(timestamps_of(&seen.plain[0]).0, 1_000_001, "what the kernel sees of the peer's clock");
    let seen = b.from_kernel(0, 5, 0, &[]);
    assert_eq!(timestamps_of(&seen.wire[0]), (5_001, 1_000_001), "and what is echoed");
}

/// Within the window, but ahead: in plain TCP this moves no clock either (RFC 7323, section 4.3).
#[test]
fn a_timestamp_ahead_of_the_next_byte_moves_no_clock() {
    let mut b = Bench::encrypted_with_clocks();
    b.clocks = Some((1_000_000 + (1 << 30), 5_000));
    let seg = b.peer_seg(b.peer_made + 20_000, b.engine_made, PSH, &[0xff; 100]);
    b.hear_bytes(Side::Wire, seg.build());
    b.clocks = Some((1_000_001, 5_000));
    let (at, bytes) = b.frame(b"hello", false);
    let seen = b.from_peer(at, PSH, &bytes);
    assert_eq!(seen.delivered(), b"hello");
    assert_eq!(timestamps_of(&seen.plain[0]).0, 1_000_001);
}

#[test]
fn a_segment_with_an_old_timestamp_is_dropped_unless_the_connection_slept_for_24_days() {
    let mut b = Bench::encrypted_with_clocks();
    let (at, bytes) = b.frame(b"hello", false);
    b.clocks = Some((999_999, 5_000));
    let seen = b.from_peer(at, PSH, &bytes);
    assert!(seen.delivered().is_empty() && !seen.wire.is_empty(), "{seen:?}");
    assert_eq!(b.count("old_timestamps"), 1);
    b.clocks = Some((1_000_000, 5_000));
    assert_eq!(b.from_peer(at, PSH, &bytes).delivered(), b"hello");
    b.from_kernel(0, 5, 0, &[]);
    // 25 days of milliseconds are more than half of all values.
    b.wait(Duration::from_secs(25 * 24 * 3600));
    let days = 25 * 24 * 3600 * 1000_u32;
    b.clocks = Some((1_000_000_u32.wrapping_add(days), 5_000_u32.wrapping_add(days)));
    let seen = b.from_kernel(0, 5, PSH, b"awake");
    assert_eq!(timestamps_of(&seen.wire[0]).0, 5_000_u32.wrapping_add(days), "the kernel's clock went on as well");
    b.engine_made += seen.wire_bytes().len() as u32;
    b.assert_alive();
}

/// The sender's kernel would send into the closed window, and back off.
#[test]
fn a_forged_window_opens_no_closed_one() {
    let mut b = Bench::encrypted();
    let told = |b: &mut Bench, seq: u32, ack: u32, window: u16| {
        let mut seg = b.peer_seg(seq, ack, 0, &[]);
        seg.win = window;
        b.hear_bytes(Side::Wire, seg.build())
    };
    let made = b.engine_made;
    let mut acked = made;
    // As much as the kernel was allowed.
    for n in 0..46 {
        let sent = b.from_kernel(n * 1_400, 0, PSH, &[7; 1_400]).wire_bytes().len() as u32;
        acked += sent;
    }
    let next = b.peer_made;
    told(&mut b, next, acked, 0);
    for forged in [next.wrapping_sub(30_000), next.wrapping_sub(2), next + (1 << 30)] {
        let seen = told(&mut b, forged, acked, 0xffff);
        assert!(seen.plain.iter().all(|s| s.win == 0 || s.seq != PEER_ISN.wrapping_add(1)), "{forged}: {seen:?}");
    }
    let seen = told(&mut b, next, acked.wrapping_sub(OLD), 0xffff);
    assert!(seen.plain.is_empty(), "{seen:?}");
    let seen = told(&mut b, next, acked, 9_000);
    assert!(seen.plain.iter().any(|s| s.win > 0), "the peer's own: {seen:?}");
}

/// The newest segment says what the window is, also if that is less than before. What the kernel was told is not taken back.
#[test]
fn a_window_that_shrinks_holds_frames_back_and_takes_nothing_back_from_the_kernel() {
    let mut b = Bench::encrypted();
    let made = b.engine_made;
    let mut seg = b.peer_seg(b.peer_made, made, 0, &[]);
    seg.win = 20_000;
    b.hear_bytes(Side::Wire, seg.build());
    seg.win = 500;
    let seen = b.hear_bytes(Side::Wire, seg.build());
    let edge = |s: &Seg| s.ack.wrapping_add(u32::from(s.win));
    assert!(seen.plain.iter().all(|s| edge(s) >= KERNEL_ISN + 1 + 0xff00 - 2_000), "{seen:?}");
    let sent = b.from_kernel(0, 0, PSH, &[1; 1_400]).wire_bytes().len();
    assert!(sent <= 500, "{sent} bytes into a window of 500");
    seg.win = 20_000;
    let sent = sent + b.hear_bytes(Side::Wire, seg.build()).wire_bytes().len();
    assert!(sent >= 1_400, "{sent}");
}

/// Case 43, first part.
#[test]
fn bytes_of_anybodys_do_not_make_a_place_exact_for_a_reset() {
    let mut b = Bench::encrypted();
    let made = b.peer_made;
    // With a wrong acknowledgement, and with a right one.
    let forged = b.forged(made.wrapping_sub(700), PSH, &[0xff; 1_448]);
    b.hear_bytes(Side::Wire, forged.build());
    b.from_peer(made.wrapping_sub(10), PSH, &[0xff; 1_448]);
    for at in [made + 748, made + 1_438] {
        let seen = b.from_peer(at, RST, &[]);
        assert!(seen.plain.is_empty(), "{seen:?}");
    }
    b.assert_alive();
}

/// Case 43, second and third part.
#[test]
fn zeros_and_bare_fins_with_a_wrong_acknowledgement_are_nobodys() {
    let mut b = Bench::encrypted();
    for _ in 0..5 {
        for (seq, flags, bytes) in [(b.peer_made.wrapping_sub(700), PSH, &[0; 1_448][..]), (b.peer_made, FIN, &[])] {
            let forged = b.forged(seq, flags, bytes);
            let seen = b.hear(Side::Wire, &forged);
            assert!(seen.plain.is_empty(), "{seen:?}");
            b.wait(Duration::from_millis(600));
        }
    }
    assert_eq!(b.count("bad_acknowledgements"), 10);
    b.assert_alive();
}

/// A peer that sends the same damage again and again is broken (TC-28); whoever does so ahead of the next byte is not it.
#[test]
fn damage_ahead_of_the_next_byte_never_ends_a_connection() {
    let mut b = Bench::encrypted();
    for _ in 0..10 {
        b.from_peer(b.peer_made + 5_000, PSH, &[0; 1_000]);
        b.from_peer(b.peer_made + 6_000, FIN, &[]);
        b.wait(Duration::from_millis(600));
    }
    b.assert_alive();
}

/// Of a frame that is acknowledged in part, what is not acknowledged can come again.
#[test]
fn a_forged_tail_of_a_long_frame_does_no_harm() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(&vec![3; 30_000], false);
    let (head, tail) = bytes.split_at(20 * 1_460);
    let mut acked = at;
    for (n, part) in head.chunks(1_460).enumerate() {
        b.from_peer(at + 1_460 * n as u32, 0, part);
    }
    for seg in b.wait(Duration::from_millis(400)).wire {
        acked = acked.max(seg.ack.wrapping_sub(PEER_ISN.wrapping_add(1)));
    }
    assert!(acked > at + 14_000, "a part is acknowledged, or a frame larger than the peer's window could not come");
    let tail_at = at + head.len() as u32;
    let seen = b.from_peer(tail_at, PSH, &vec![0xff; tail.len()]);
    assert!(seen.plain.is_empty(), "{seen:?}");
    // The peer sends again what was not acknowledged.
    let mut delivered = Vec::new();
    for (n, part) in bytes[(acked - at) as usize..].chunks(1_460).enumerate() {
        delivered.extend(b.from_peer(acked + 1_460 * n as u32, PSH, part).delivered());
    }
    assert_eq!(delivered, vec![3; 30_000]);
    b.from_kernel(0, 30_000, 0, &[]);
    b.assert_alive();
}

#[test]
fn a_retransmitted_super_packet_brings_what_is_new_in_it() {
    let mut b = Bench::encrypted();
    let (at, first) = b.frame(&[1; 1_000], false);
    b.from_peer(at, PSH, &first);
    b.from_kernel(0, 1_000, 0, &[]);
    let (_, second) = b.frame(&[2; 1_000], false);
    let seen = b.from_peer(at, PSH, &[first.clone(), second].concat());
    assert_eq!(seen.delivered(), vec![2; 1_000]);
    b.from_kernel(0, 2_000, 0, &[]);
    // What is all old is acknowledged, and nothing in it counts.
    let mut old = b.peer_seg(at, b.engine_made, PSH, &first);
    old.win = 1;
    let seen = b.hear_bytes(Side::Wire, old.build());
    assert!(seen.plain.is_empty(), "{seen:?}");
    assert_eq!(seen.wire[0].ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made));
    assert_eq!(b.count("segments_repeated"), 1);
}

#[test]
fn packets_to_the_kernel_look_like_acceptable_ones() {
    let mut b = Bench::encrypted();
    let mut forged = b.forged(b.peer_made, 0, &[]);
    (forged.ttl, forged.traffic_class) = (3, 0x48);
    b.hear_bytes(Side::Wire, forged.build());
    // A gap in what the kernel sends is answered by the engine.
    let seen = b.from_kernel(5, 0, PSH, b"later");
    assert_eq!(seen.plain.iter().map(|s| (s.ttl, s.traffic_class)).collect::<Vec<_>>(), [(65, 0)]);
}

impl Bench {
    /// A frame behind the one with FINp.
    fn frame_behind(&mut self, rekey: bool, data: &[u8]) -> (u32, Vec<u8>) {
        let twin = self.twin.as_mut().expect("keys");
        assert!(!rekey || twin.start_rekey());
        let plaintext = Plaintext { fin: false, urgent: None, data };
        let mut bytes = vec![0; plaintext.frame_len()];
        let at = self.peer_made;
        twin.seal(u64::from(at), &plaintext, &mut bytes).expect("sealed");
        self.peer_made += bytes.len() as u32;
        (at, bytes)
    }
}

/// A peer that answers a rekey between its FINp frame and its FIN (reading 11): the application must not wait for ever.
#[test]
fn tc_29_an_empty_frame_behind_finp_is_acknowledged_and_ignored() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(b"bye", true);
    let seen = b.from_peer(at, PSH, &bytes);
    assert!(seen.plain.last().is_some_and(|s| s.has(FIN)));
    b.from_kernel(0, 4, 0, &[]);
    let (at, bytes) = b.frame_behind(true, b"");
    let seen = b.from_peer(at, PSH, &bytes);
    assert!(seen.delivered().is_empty());
    assert_eq!(seen.wire.last().map(|s| s.ack), Some(PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made)));
    let seen = b.from_peer(b.peer_made, FIN, &[]);
    assert_eq!(seen.wire[0].ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made + 1));
    assert!(seen.plain.is_empty(), "{seen:?}");
}

#[test]
fn tc_29_all_of_it_in_one_segment_is_the_same() {
    let mut b = Bench::encrypted();
    let (at, mut bytes) = b.frame(b"bye", true);
    bytes.extend(b.frame_behind(true, b"").1);
    let seen = b.from_peer(at, FIN, &bytes);
    assert_eq!(seen.delivered(), b"bye");
    assert_eq!(seen.plain.iter().filter(|s| s.has(FIN)).count(), 1);
    let seen = b.from_kernel(0, 4, 0, &[]);
    assert_eq!(seen.wire.last().map(|s| s.ack), Some(PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made + 1)));
}

#[test]
fn tc_29_data_behind_finp_is_the_peers_violation() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(b"bye", true);
    b.from_peer(at, PSH, &bytes);
    let (at, bytes) = b.frame_behind(false, b"more");
    let seen = b.from_peer(at, PSH, &bytes);
    assert!(seen.delivered().is_empty() && seen.plain.iter().any(|s| s.has(RST)), "{seen:?}");
    assert_eq!(b.engine.flow(b.kernel, b.peer).expect("lingers").state, FlowState::Closed);
}

#[test]
fn tc_29_bytes_of_anybodys_behind_finp_change_nothing() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(b"bye", true);
    assert!(b.from_peer(at, PSH, &bytes).plain.iter().any(|s| s.has(FIN)));
    b.from_kernel(0, 4, 0, &[]);
    // Bytes of anybody's: never an end, however often.
    for _ in 0..5 {
        let seen = b.from_peer(b.peer_made, PSH, &[0; 60]);
        assert!(seen.plain.is_empty(), "{seen:?}");
        b.wait(Duration::from_millis(700));
    }
    let flow = b.engine.flow(b.kernel, b.peer).expect("a flow");
    assert_eq!((flow.state, flow.reason), (FlowState::Encrypted, None));
    // And the FIN is acknowledged all the same.
    let seen = b.from_peer(b.peer_made, FIN, &[]);
    assert_eq!(seen.wire[0].ack, PEER_ISN.wrapping_add(1).wrapping_add(b.peer_made + 1));
}

/// On a gateway the local end is another host, and whoever is near it knows ports and guesses numbers just as well.
#[test]
fn what_is_forged_on_the_plain_side_moves_no_clock_and_no_window_and_resets_nothing() {
    for clocks in [false, true] {
        let mut b = if clocks { Bench::encrypted_with_clocks() } else { Bench::encrypted() };
        let sent = b.from_kernel(0, 0, PSH, b"from the kernel").wire_bytes();
        b.engine_made += sent.len() as u32;
        let right = b.clocks;
        for n in 0..200_u32 {
            b.clocks = right.map(|_| (n.wrapping_mul(77_777_777), n.wrapping_mul(2_654_435_761)));
            let far = 20_000_000 + n * 20_000_000;
            let (seq, ack) = [(far, 0), (15, far), (far, far), (15, OLD)][n as usize % 4];
            let flags = [RST, PSH, 0, FIN, RST][n as usize % 5];
            let seq = if flags == RST && seq == 15 { 16 } else { seq };
            let mut forged = b.kernel_seg(seq, ack, flags, if flags == PSH { b"forged" } else { b"" });
            forged.traffic_class = 0;
            let seen = b.hear_bytes(Side::Plain, forged.build());
            assert!(seen.wire.is_empty(), "{forged:?} leads to {seen:?}");
        }
        b.clocks = right.map(|(peer, kernel)| (peer + 1, kernel + 1));
        let seen = b.from_kernel(15, 0, PSH, b" and more");
        assert_eq!(b.open(b.engine_made, &seen.wire_bytes()).0, b" and more");
        if clocks {
            assert_eq!(timestamps_of(&seen.wire[0]).0, 5_001);
        }
        b.engine_made += seen.wire_bytes().len() as u32;
        b.assert_alive();
        // A host that has no such connection any more: what it is asked then is exact.
        b.wait(Duration::from_secs(1));
        let seen = b.from_kernel(5, 0, RST, b"");
        assert!(seen.wire.is_empty() && seen.plain.len() == 1, "{seen:?}");
        let exact = seen.plain[0].ack.wrapping_sub(KERNEL_ISN + 1);
        assert!(b.from_kernel(exact, 0, RST, b"").wire.iter().any(|seg| seg.has(RST)));
    }
}

/// The kernel may have missed that its connection is over. Who forges its RST does not make that heard.
#[test]
fn a_reset_of_anybodys_on_the_plain_side_does_not_say_that_the_kernel_knows() {
    let mut b = Bench::encrypted();
    let sent = b.from_kernel(0, 0, PSH, b"from the kernel").wire_bytes();
    b.engine_made += sent.len() as u32;
    b.from_peer(b.peer_made, 0, &[]);
    assert!(b.from_peer(b.peer_made, RST, &[]).plain.iter().any(|seg| seg.has(RST)));
    assert_eq!(b.engine.reset_unconfirmed().len(), 1);
    for seq in [0, 14, 16, 1 << 30] {
        b.from_kernel(seq, 0, RST, &[]);
        assert_eq!(b.engine.reset_unconfirmed().len(), 1, "{seq}");
    }
    let asked = b.wait(Duration::from_secs(2)).plain;
    let asked = asked.iter().find(|seg| !seg.has(RST)).expect("an acknowledgement that is answered");
    b.from_kernel(asked.ack.wrapping_sub(KERNEL_ISN + 1), 0, RST, &[]);
    assert_eq!(b.engine.reset_unconfirmed().len(), 0);
}
