//! What enotun sends on its own never gets in the way of the data: answers to rekeys beside a full window, and every bare
//! segment's number.

use std::collections::VecDeque;

use super::*;
use crate::harness::packet::{FIN, RST};

/// One kernel: what it has sent and taken, and the room that its application leaves.
struct Kernel {
    next: u32,
    acked: u32,
    edge: u32,
    expects: u32,
    room: u32,
    reads: bool,
    taken: u64,
    reset: bool,
    heard: usize,
    scale: u8,
}

impl Kernel {
    fn new(next: u32, expects: u32, scale: u8) -> Self {
        let room = u32::from(WINDOW);
        let (acked, edge, taken) = (next, next, 0);
        Self { next, acked, edge, expects, room, reads: true, taken, reset: false, heard: 0, scale }
    }

    fn window(&self) -> u16 {
        (self.room >> self.scale) as u16
    }
}

/// A pair whose kernels and network go on by themselves.
struct Line {
    pair: Pair,
    /// The client's, the server's.
    kernels: [Kernel; 2],
    wire: [VecDeque<Seg>; 2],
    /// By receiving host: the right edge of the window that it has announced, in C.
    edges: [Option<u32>; 2],
    scale: u8,
    /// Segments without data that were beyond it.
    beyond: Vec<Seg>,
}

const ENDS: [fn() -> SocketAddr; 2] = [a_addr, b_addr];

impl Line {
    fn new(scale: u8) -> Self {
        let mut pair = Pair::new();
        let (mut syn, mut syn_ack) = (Pair::syn(), Pair::syn_ack());
        syn.options = syn_options(scale);
        syn_ack.options = syn_options(scale);
        let syn = pair.a.kernel(&syn).wire.remove(0);
        pair.b.wire(&syn);
        let syn_ack = pair.b.kernel(&syn_ack).wire.remove(0);
        pair.a.wire(&syn_ack);
        let kernels = [Kernel::new(pair.a_next, pair.b_next, scale), Kernel::new(pair.b_next, pair.a_next, scale)];
        let mut line = Self { pair, kernels, wire: Default::default(), edges: [None; 2], scale, beyond: Vec::new() };
        line.acknowledge(0);
        line.settle();
        assert!(line.pair.have_keys());
        line
    }

    fn host(&mut self, h: usize) -> &mut Host {
        if h == 0 { &mut self.pair.a } else { &mut self.pair.b }
    }

    fn segment(&self, h: usize) -> Seg {
        let kernel = &self.kernels[h];
        let mut seg = Seg::new(ENDS[h](), ENDS[1 - h]());
        (seg.seq, seg.ack, seg.win) = (kernel.next, kernel.expects, kernel.window());
        seg
    }

    /// Takes in what host `h` has sent.
    fn take(&mut self, h: usize, sent: Sent) {
        for seg in sent.wire {
            if let Some(edge) = self.edges[1 - h]
                && seg.payload.is_empty()
                && seg.seq.wrapping_sub(edge).cast_signed() > 0
            {
                self.beyond.push(seg.clone());
            }
            let edge = seg.ack.wrapping_add(u32::from(seg.win) << self.scale);
            let edges = &mut self.edges[h];
            if !seg.has(RST) && edges.is_none_or(|before| edge.wrapping_sub(before).cast_signed() > 0) {
                *edges = Some(edge);
            }
            self.wire[1 - h].push_back(seg);
        }
        let mut answer = false;
        for seg in sent.plain {
            let kernel = &mut self.kernels[h];
            kernel.heard += 1;
            kernel.reset |= seg.has(RST);
            kernel.acked = seg.ack;
            kernel.edge = seg.ack.wrapping_add(u32::from(seg.win) << self.scale);
            if seg.seq == kernel.expects {
                let fits = (seg.payload.len() as u32).min(kernel.room);
                kernel.expects = kernel.expects.wrapping_add(fits);
                kernel.taken += u64::from(fits);
                if !kernel.reads {
                    kernel.room -= fits;
                }
            }
            answer |= !seg.payload.is_empty() || seg.seq != kernel.expects;
        }
        if answer {
            self.acknowledge(h);
        }
    }

    fn acknowledge(&mut self, h: usize) {
        let seg = self.segment(h);
        let sent = self.host(h).kernel(&seg);
        self.take(h, sent);
    }

    /// The network delivers until nothing is on the way.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let Some(h) = (0..2).find(|&h| !self.wire[h].is_empty()) else { return };
            let seg = self.wire[h].pop_front().expect("looked at");
            let sent = self.host(h).wire(&seg);
            self.take(h, sent);
        }
        panic!("it never comes to rest");
    }

    fn wait(&mut self, time: Duration) {
        for _ in 0..10 {
            for h in 0..2 {
                let sent = self.host(h).wait(time / 10);
                self.take(h, sent);
            }
            self.settle();
        }
    }

    /// The kernel sends `len` bytes if it may; whether it did.
    fn writes(&mut self, h: usize, len: usize) -> bool {
        let kernel = &mut self.kernels[h];
        if (kernel.edge.wrapping_sub(kernel.next).cast_signed()) < len as i32 {
            return false;
        }
        let mut seg = self.segment(h);
        seg.payload = vec![7; len];
        self.kernels[h].next = self.kernels[h].next.wrapping_add(len as u32);
        let sent = self.host(h).kernel(&seg);
        self.take(h, sent);
        self.settle();
        true
    }

    /// Writes until the peer's window is full.
    fn fill(&mut self, h: usize) {
        for len in [1_400, 100, 10, 1] {
            for _ in 0..1_000 {
                if !self.writes(h, len) {
                    break;
                }
            }
        }
    }

    /// A keep-alive or window probe of the kernel; whether its peer answers.
    fn keep_alive(&mut self, h: usize) -> bool {
        let before = self.kernels[h].heard;
        let mut seg = self.segment(h);
        seg.seq = seg.seq.wrapping_sub(1);
        let sent = self.host(h).kernel(&seg);
        self.take(h, sent);
        self.settle();
        self.kernels[h].heard > before
    }

    fn generations(&self, h: usize) -> (Option<u64>, Option<u64>) {
        let flow = if h == 0 { self.pair.flow_a() } else { self.pair.flow_b() }.expect("a connection");
        assert_eq!(flow.state, enotun::engine::FlowState::Encrypted, "{:?}", flow.reason);
        (flow.generation_local, flow.generation_remote)
    }
}

/// The server has filled the client's window. Keys are replaced again and again; the client sends all the same.
#[test]
fn tc_32_keys_are_replaced_while_the_peer_does_not_read_and_the_other_direction_goes_on() {
    for scale in [0, 7, 14] {
        let mut line = Line::new(scale);
        line.kernels[0].reads = false;
        line.fill(1);
        for n in 1..50 {
            line.pair.a.now = line.pair.b.now;
            let sent = line.pair.a.rekey(a_addr(), b_addr());
            line.take(0, sent);
            line.settle();
            assert_eq!(line.generations(0), (Some(n), Some(n)), "scale {scale}: the answer has come");
            line.wait(Duration::from_secs(1));
            let before = line.kernels[1].taken;
            for _ in 0..30 {
                assert!(line.writes(0, 1_400), "scale {scale}, rekey {n}: the window opens again");
            }
            assert_eq!(line.kernels[1].taken - before, 30 * 1_400);
        }
        assert!(line.beyond.is_empty(), "{:?}", line.beyond[0]);
        // And what the client has not read comes when it does.
        let waits = line.kernels[1].next.wrapping_sub(B_ISN.wrapping_add(1));
        line.kernels[0].reads = true;
        line.kernels[0].room = u32::from(WINDOW);
        line.acknowledge(0);
        line.settle();
        assert_eq!(line.kernels[0].taken, u64::from(waits));
    }
}

/// As many bytes wait for a kernel that does not read as it was allowed, however long and whatever the peer tries.
#[test]
fn room_for_an_answer_is_no_room_for_data() {
    for scale in [0, 3, 7, 14] {
        let mut line = Line::new(scale);
        line.kernels[0].reads = false;
        line.fill(1);
        let full = line.kernels[1].next;
        for _ in 0..500 {
            line.fill(1);
            line.keep_alive(1);
            line.keep_alive(0);
        }
        assert!(line.kernels[1].next.wrapping_sub(full) < 200, "scale {scale}: {full}, then {}", line.kernels[1].next);
        assert!(line.pair.a.engine.held_bytes() < 1 << 20);
    }
}

/// Case: a receiver with keep-alives whose application pauses, while the sender has filled its window.
#[test]
fn tc_35_keep_alives_of_a_host_that_does_not_read_are_answered() {
    for scale in [0, 7, 14] {
        let mut line = Line::new(scale);
        line.kernels[0].reads = false;
        line.fill(1);
        for n in 1..100 {
            assert!(line.keep_alive(0), "scale {scale}, keep-alive {n}");
            assert_eq!(line.generations(0).1, Some(n), "the answer is authentic");
            line.wait(Duration::from_secs(2));
        }
        assert!(!line.kernels[0].reset && !line.kernels[1].reset);
        assert!(line.beyond.is_empty(), "{:?}", line.beyond[0]);
    }
}

/// A peer that leaves no room in the window for its answer (it need not) is alive if its kernel says so.
#[test]
fn tc_35_where_no_answer_fits_the_kernels_probe_goes_as_it_is() {
    let mut line = Line::new(0);
    line.kernels[0].reads = false;
    line.fill(1);
    // Every answer is lost; acknowledgements are not.
    for n in 0..20 {
        let before = line.kernels[0].heard;
        let mut probe = line.segment(0);
        probe.seq = probe.seq.wrapping_sub(1);
        let sent = line.pair.a.kernel(&probe);
        line.take(0, sent);
        while let Some(h) = (0..2).find(|&h| !line.wire[h].is_empty()) {
            let mut seg = line.wire[h].pop_front().expect("looked at");
            if h == 0 {
                seg.payload.clear();
            }
            let sent = line.host(h).wire(&seg);
            line.take(h, sent);
        }
        assert!(n == 0 || line.kernels[0].heard > before, "keep-alive {n}");
        line.pair.a.wait(Duration::from_secs(2));
    }
}

/// A reset that a host sends beside a full window is believed at once.
#[test]
fn a_reset_beside_a_full_window_is_believed() {
    let mut line = Line::new(0);
    line.kernels[0].reads = false;
    line.fill(1);
    for _ in 0..3 {
        let sent = line.pair.a.rekey(a_addr(), b_addr());
        line.take(0, sent);
        line.settle();
    }
    let mut rst = line.segment(1);
    rst.flags = RST | ACK;
    let sent = line.pair.b.kernel(&rst);
    line.take(1, sent);
    line.settle();
    assert!(line.kernels[0].reset);
}

/// A FIN goes behind a full window, and what is behind it is acknowledged.
#[test]
fn tc_29_end_of_file_beside_a_full_window() {
    let mut line = Line::new(0);
    line.kernels[0].reads = false;
    line.fill(1);
    let mut fin = line.segment(1);
    fin.flags |= FIN;
    let sent = line.pair.b.kernel(&fin);
    line.take(1, sent);
    line.settle();
    line.kernels[1].next = line.kernels[1].next.wrapping_add(1);
    for _ in 0..50 {
        assert!(line.writes(0, 1_000));
    }
    assert_eq!(line.kernels[1].taken, 50_000);
}
