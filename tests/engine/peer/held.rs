//! Bytes that nobody has proven: bounded, and let go before anything else; what comes twice is reported.

use super::*;

#[test]
fn an_incomplete_frame_has_a_deadline_and_can_come_again() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(&[9; 3_000], false);
    b.from_peer(at, 0, &bytes[..1_000]);
    b.from_peer(at + 2_000, 0, &bytes[2_000..]);
    assert!(b.engine.held_bytes() > 2_000);
    b.wait(Duration::from_secs(61));
    assert_eq!(b.engine.held_bytes(), 0);
    assert_eq!(b.engine.counters().held_expired, 1);
    assert_eq!(b.from_peer(at, PSH, &bytes).delivered(), [9; 3_000]);
}

#[test]
fn where_too_much_is_held_what_is_unproven_goes_and_the_connection_goes_on() {
    let mut b = Bench::with(Config { max_held_bytes: 20_000, ..Config::default() }).exchange_keys();
    let (at, bytes) = b.frame(b"the beginning", false);
    for n in 0..30 {
        b.from_peer(at + 5_000 + 1_400 * n, 0, &[n as u8; 1_400]);
        assert!(b.engine.held_bytes() < 20_000 + 3_000);
    }
    assert!(b.engine.counters().evicted_held >= 1);
    assert_eq!(b.from_peer(at, PSH, &bytes).delivered(), b"the beginning");
}

/// Where so much of a frame is here that its sender may not be able to send more, that is acknowledged, and does not come again. Then
/// the connection goes: memory for others is not its to keep.
#[test]
fn where_too_much_is_held_a_frame_that_is_not_finished_ends_its_connection() {
    let mut b = Bench::with(Config { max_held_bytes: 50_000, ..Config::default() }).exchange_keys();
    let (at, bytes) = b.frame(&[9; 65_000], false);
    let mut wire = Vec::new();
    for (n, piece) in bytes.chunks(1_400).take(45).enumerate() {
        wire.extend(b.from_peer(at + 1_400 * n as u32, 0, piece).wire);
        wire.extend(b.wait(Duration::from_millis(50)).wire);
        assert!(b.engine.held_bytes() < 50_000 + 3_000);
    }
    assert!(wire.iter().any(|seg| seg.ack > PEER_ISN.wrapping_add(at + 14_000)), "a part of it is acknowledged");
    assert!(wire.iter().any(|seg| seg.has(RST)));
    assert!(b.engine.held_bytes() < 3_000, "{}", b.engine.held_bytes());
    assert_eq!(b.engine.counters().evicted_held, 1);
}

/// The deadline of what waits does not take what is acknowledged; that can still go where too much is held, however long ago it came.
#[test]
fn what_is_acknowledged_of_a_frame_that_is_not_finished_can_go_after_its_deadline_too() {
    let mut b = Bench::with(Config { max_held_bytes: 50_000, ..Config::default() }).exchange_keys();
    let (at, bytes) = b.frame(&[9; 65_000], false);
    for (n, piece) in bytes.chunks(1_400).take(20).enumerate() {
        b.from_peer(at + 1_400 * n as u32, 0, piece);
        b.wait(Duration::from_millis(50));
    }
    for _ in 0..3 {
        b.wait(Duration::from_secs(61));
    }
    assert!(b.engine.held_bytes() > 20_000, "{}", b.engine.held_bytes());
    assert_eq!(b.engine.counters().held_expired, 0, "all of it is acknowledged");
    let mut wire = Vec::new();
    for n in 0..30 {
        wire.extend(b.from_peer(at + 30_000 + 1_400 * n, 0, &[7; 1_400]).wire);
    }
    assert!(wire.iter().any(|seg| seg.has(RST)), "{} bytes are held", b.engine.held_bytes());
}

/// What the peer does not acknowledge is no reason to let go of anything: that would give nothing of it back.
#[test]
fn frames_in_flight_take_no_room_from_what_waits() {
    let mut b = Bench::with(Config { max_held_bytes: 20_000, ..Config::default() }).exchange_keys();
    let (at, bytes) = b.frame(&[9; 3_000], false);
    b.from_peer(at + 1_000, 0, &bytes[1_000..]);
    let mut sent = 0;
    for n in 0..30 {
        sent += b.from_kernel(1_000 * n, 0, PSH, &[7; 1_000]).wire.iter().map(|seg| seg.payload.len()).sum::<usize>();
    }
    assert!(sent > 20_000, "{sent} bytes in flight");
    assert_eq!((b.engine.counters().evicted_held, b.engine.counters().limit_memory), (0, 0));
    assert_eq!(b.from_peer(at, 0, &bytes[..1_000]).delivered(), [9; 3_000]);
}

/// 4,000 one-byte segments in falling order made each further one cost 850 microseconds.
#[test]
fn crumbs_beyond_a_gap_are_bounded_and_answered_now_and_then() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(b"the beginning", false);
    let mut answers = 0;
    for n in (0..20_000).rev() {
        answers += b.from_peer(at + 100 + 2 * n, 0, b"x").wire.len();
    }
    assert!(b.engine.held_bytes() < 64 << 10, "{}", b.engine.held_bytes());
    assert!(b.engine.counters().limit_pieces == 0, "the nearest are kept");
    let before = answers;
    for n in 0..5_000 {
        answers += b.from_peer(at + 40_200 + 2 * n, 0, b"x").wire.len();
    }
    assert!(answers - before <= 100, "{}", answers - before);
    assert_eq!(b.from_peer(at, PSH, &bytes).delivered(), b"the beginning");
}

fn blocks(seg: &Seg) -> Vec<(u32, u32)> {
    let option = seg.option(5).unwrap_or_default();
    let at =
        |edge: &[u8]| u32::from_be_bytes(edge.try_into().expect("four bytes")).wrapping_sub(PEER_ISN.wrapping_add(1));
    option.chunks_exact(8).map(|block| (at(&block[..4]), at(&block[4..]))).collect()
}

/// RFC 2883: what has come twice is the first block.
#[test]
fn a_segment_that_comes_twice_is_reported() {
    let mut b = Bench::encrypted();
    let (first_at, first) = b.frame(&[1; 100], false);
    b.from_peer(first_at, PSH, &first);
    b.from_kernel(0, 100, 0, &[]);
    let end = b.peer_made;
    let seen = b.from_peer(first_at, PSH, &first);
    assert_eq!(blocks(&seen.wire[0]), [(first_at, end)], "acknowledged already");
    // Beyond a gap: with the block that it is part of.
    b.frame(&[2; 100], false);
    let (third_at, third) = b.frame(&[3; 100], false);
    let (fourth_at, fourth) = b.frame(&[4; 100], false);
    b.from_peer(third_at, PSH, &third);
    b.from_peer(fourth_at, PSH, &fourth);
    let seen = b.from_peer(fourth_at, PSH, &fourth);
    assert_eq!(blocks(&seen.wire[0]), [(fourth_at, b.peer_made), (third_at, b.peer_made)]);
    let seen = b.from_peer(fourth_at + 500, 0, &[]);
    assert!(seen.wire.iter().all(|seg| blocks(seg).len() < 2), "once: {seen:?}");
}

/// A SACK block of nothing is none.
#[test]
fn a_fin_of_long_ago_is_answered_without_a_block() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(&[1; 100], false);
    b.from_peer(at, PSH, &bytes);
    b.from_kernel(0, 100, 0, &[]);
    let seen = b.from_peer(at + 10, FIN, &[]);
    assert_eq!(seen.wire.len(), 1);
    assert_eq!(blocks(&seen.wire[0]), []);
}

/// A kernel delays its acknowledgements; what it has been given is acknowledged for it then, as its own TCP would.
#[test]
fn what_comes_twice_is_reported_before_the_kernel_has_acknowledged_it() {
    let mut b = Bench::encrypted();
    let (first_at, first) = b.frame(&[1; 100], false);
    b.from_peer(first_at, PSH, &first);
    let end = b.peer_made;
    let seen = b.from_peer(first_at, PSH, &first);
    assert_eq!(seen.wire.len(), 1);
    assert_eq!(blocks(&seen.wire[0]), [(first_at, end)]);
    assert_eq!(seen.wire[0].ack, PEER_ISN.wrapping_add(1 + end));
    // With something new behind it.
    let (_, second) = b.frame(&[2; 100], false);
    let both = [first, second].concat();
    let seen = b.from_peer(first_at, PSH, &both);
    assert_eq!(seen.delivered(), [2; 100]);
    assert_eq!(blocks(&seen.wire[0]), [(first_at, end)]);
}
