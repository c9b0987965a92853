//! A peer whose window is full: frames of enotun's own wait for it, and get in nobody's way.

use super::*;

impl Bench {
    /// The peer acknowledges `ack` and has room up to `edge`.
    fn told(&mut self, edge: u32, ack: u32, flags: u8, at: u32, payload: &[u8]) -> Sent {
        let mut seg = self.peer_seg(at, ack, flags, payload);
        seg.win = u16::try_from(edge - ack).expect("a window");
        self.hear_bytes(Side::Wire, seg.build())
    }

    /// The kernel has filled the peer's window and a rekey was answered, so that only `room` bytes are left, in which no frame
    /// fits; one more rekey waits for its answer. Gives the window's edge and what is acknowledged.
    fn with_full_window(room: u32) -> (Self, u32, u32) {
        let mut b = Self::encrypted();
        let edge = b.engine_made + 0xffff;
        let (mut at, mut made) = (0, b.engine_made);
        let leave = room + OVERHEAD as u32;
        while made < edge - leave {
            let data = (edge - leave - made).saturating_sub(OVERHEAD as u32).min(1_000);
            let data = if edge - leave - made - data - (OVERHEAD as u32) < 100 && data == 1_000 { 500 } else { data };
            let seen = b.from_kernel(at, 0, PSH, &vec![7; data as usize]);
            at += data;
            made += seen.wire_bytes().len() as u32;
        }
        let mut sent = Sent::default();
        for _ in 0..2 {
            made += sent.wire_bytes().len() as u32;
            b.engine_made = made;
            let at = b.peer_made;
            b.told(edge, made, 0, at, &[]);
            assert!(b.record.as_mut().expect("keys").start_rekey());
            let (at, bytes) = b.frame(b"", false);
            sent = b.told(edge, made, PSH, at, &bytes);
            let answer = sent.wire_bytes();
            if answer.len() == OVERHEAD {
                b.open(made, &answer);
            }
        }
        let acked = made + sent.wire_bytes().len() as u32;
        assert_eq!(acked, edge, "what there is room for");
        b.engine_made = acked;
        (b, edge, acked)
    }
}

/// A peer whose window is closed, and who says so, is waited for, however long (RFC 9293, section 3.8.6.1): also with a frame
/// that the kernel knows nothing of.
#[test]
fn a_frame_of_our_own_waits_for_a_closed_window_as_long_as_the_peer_answers() {
    for room in [0, 13] {
        let (mut b, edge, mut acked) = Bench::with_full_window(room);
        let (mut probes, next) = (0, b.peer_made);
        for _ in 0..3600 {
            let seen = b.wait(Duration::from_secs(1));
            for _ in seen.wire {
                probes += 1;
                b.told(edge, acked, 0, next, &[]);
            }
        }
        assert!(probes > 10, "its update may have been lost: {probes}");
        let flow = b.engine.flow(b.kernel, b.peer).expect("a flow");
        assert_eq!((flow.state, flow.reason), (FlowState::Encrypted, None));
        let mut open = b.peer_seg(next, acked, 0, &[]);
        open.win = 1_000;
        let seen = b.hear_bytes(Side::Wire, open.build());
        acked += seen.wire_bytes().len() as u32;
        assert_eq!(acked, edge - room + OVERHEAD as u32, "the answer to the rekey");
    }
}

/// A frame that was sent as a probe beyond the peer's window moves no number that anything else carries: the peer discards what
/// lies there, and the acknowledgement in it (RFC 9293, section 3.10.7.4).
#[test]
fn what_is_sent_beside_a_full_window_has_a_number_that_the_peer_accepts() {
    for room in [0, 13] {
        let (mut b, edge, _) = Bench::with_full_window(room);
        let probe = b.wait(Duration::from_secs(10)).wire;
        assert!(probe.iter().any(|seg| !seg.payload.is_empty()), "{probe:?}");
        let number = KERNEL_ISN.wrapping_add(1).wrapping_add(edge);
        // The kernel's acknowledgement, one of enotun's own, the answer to a SYN, and a reset from either.
        let (at, bytes) = b.frame(b"hello", false);
        assert_eq!(b.told(edge, edge, PSH, at, &bytes).delivered(), b"hello");
        let mut seen = b.from_kernel(70_000, 5, 0, &[]).wire;
        let (at, _) = b.frame(b"lost", false);
        seen.extend(b.told(edge, edge, PSH, at + 10, b"behind a gap").wire);
        let mut syn = b.peer_seg(0, 0, 0, &[]);
        syn.flags = SYN;
        seen.extend(b.hear_bytes(Side::Wire, syn.build()).wire);
        assert_eq!(seen.len(), 3, "{seen:?}");
        seen.extend(b.from_kernel(70_000, 5, RST, &[]).wire);
        assert!(seen.iter().all(|seg| seg.seq == number && seg.payload.is_empty()), "not {number}: {seen:?}");
    }
    let (mut b, edge, _) = Bench::with_full_window(0);
    b.wait(Duration::from_secs(10));
    b.host.engine.abort_all(b.host.now, &mut b.host.env);
    let rst = b.take().wire;
    assert!(
        rst.len() == 1 && rst[0].has(RST) && rst[0].seq == KERNEL_ISN.wrapping_add(1).wrapping_add(edge),
        "{rst:?}"
    );
}

/// The same towards the kernel: one that takes back a window (Linux with `tcp_shrink_window`) goes on with what it sends.
#[test]
fn what_the_kernel_is_told_has_a_number_that_it_accepts() {
    let mut b = Bench::encrypted_with_window(10_000);
    for n in 0..8 {
        let (at, bytes) = b.frame(&[n; 1_000], false);
        b.from_peer(at, PSH, &bytes);
    }
    // It has taken half of it and shrinks its window.
    let mut shrunk = b.kernel_seg(0, 4_000, PSH, b"hello");
    shrunk.win = 1_000;
    let sent = b.hear_bytes(Side::Plain, shrunk.build()).wire_bytes().len() as u32;
    b.engine_made += sent;
    let at = b.peer_made;
    let told = b.from_peer(at, 0, &[]).plain;
    let last = told.last().expect("the kernel hears of the acknowledgement");
    assert_eq!(last.ack, KERNEL_ISN + 1 + 5);
    assert_eq!(last.seq, PEER_ISN.wrapping_add(1 + 5_000), "{told:?}");
}

/// What was a probe may be taken all the same, if the window has opened and that was lost.
#[test]
fn a_probe_beyond_the_window_can_be_acknowledged() {
    let (mut b, edge, _) = Bench::with_full_window(0);
    let probe = b.wait(Duration::from_secs(10)).wire;
    let taken = probe.iter().find(|seg| seg.payload.len() == OVERHEAD).expect("the frame");
    let end = taken.seq.wrapping_add(OVERHEAD as u32).wrapping_sub(KERNEL_ISN + 1);
    assert_eq!(end, edge + OVERHEAD as u32);
    let at = b.peer_made;
    let mut open = b.peer_seg(at, end, 0, &[]);
    open.win = 5_000;
    b.hear_bytes(Side::Wire, open.build());
    assert!(b.wait(Duration::from_secs(100)).wire.is_empty(), "it is not sent again");
    let seen = b.from_kernel(0, 0, 0, &[]);
    assert_eq!(seen.wire[0].seq, KERNEL_ISN.wrapping_add(1).wrapping_add(end));
}
