//! Forgers beside a genuine transfer. Each script runs twice: once alone, and once with bursts of forgeries between its segments.
//! What the genuine segments lead to must be the same, whatever a host says that knows the ports and guesses the rest.

use super::*;
use crate::harness::rng::Rng;

/// What a forger of numbers gets right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// A place outside of the window, the right acknowledgement.
    Place,
    /// A place in the window, an acknowledgement that is not acceptable.
    Acknowledgement,
    /// All right but the timestamp, which is old.
    Clock,
    /// A RST in the window that is not exactly at the next byte.
    Reset,
    /// A SYN, or no acknowledgement at all.
    Flags,
}

struct Twins {
    calm: Bench,
    attacked: Bench,
    rng: Rng,
    wrong: Vec<Wrong>,
    /// Ways in which the forgeries were wrong, and what they led to.
    last: Vec<String>,
}

impl Twins {
    fn new(seed: u64, clocks: bool, window: u16) -> Self {
        let bench = || {
            let mut b = Bench::new();
            b.kernel_window = window;
            b.clocks = clocks.then_some((0xffff_f000, 5_000));
            b.exchange_keys()
        };
        let mut wrong = vec![Wrong::Place, Wrong::Acknowledgement, Wrong::Reset, Wrong::Flags];
        if clocks {
            wrong.push(Wrong::Clock);
        }
        Self { calm: bench(), attacked: bench(), rng: Rng::new(seed), wrong, last: Vec::new() }
    }

    /// A forged segment. The acceptable places are `0..65_535` bytes from what was acknowledged at most.
    fn forge(&mut self) -> Seg {
        let rng = &mut self.rng;
        let wrong = rng.pick(&self.wrong);
        let b = &self.attacked;
        let next = b.peer_made;
        let len = rng.pick(&[0, 0, 0, 1, 21, 600, 1_448]);
        let payload: Vec<u8> = match rng.below(3) {
            0 => vec![0; len],
            1 => vec![0xff; len],
            _ => (0..len).map(|_| rng.below(256) as u8).collect(),
        };
        let flags = rng.pick(&[0, PSH, FIN, FIN | PSH, packet::URG | PSH]);
        let mut seg = b.peer_seg(next, b.engine_made, flags, &payload);
        let (behind, far) = (rng.range(70_000, (1 << 31) - 200_000) as u32, rng.range(140_000, 1 << 30) as u32);
        let near = rng.range(1, 60_000) as u32;
        match wrong {
            // Just behind is what was acknowledged: repeated, and answered.
            Wrong::Place if rng.chance(0.3) => {
                seg.flags &= !FIN;
                let back = (near + len as u32).max(70_000 * u32::from(rng.chance(0.1)));
                seg.seq = seg.seq.wrapping_sub(back.max(200 + len as u32 + b.peer_made));
            }
            Wrong::Place if rng.chance(0.5) => seg.seq = seg.seq.wrapping_sub(behind),
            Wrong::Place => seg.seq = seg.seq.wrapping_add(far),
            Wrong::Acknowledgement => {
                seg.seq = seg.seq.wrapping_add(rng.pick(&[0, near, near]));
                seg.ack = if rng.chance(0.5) { seg.ack.wrapping_sub(behind) } else { seg.ack.wrapping_add(far) };
            }
            Wrong::Clock => {
                let old = b.clocks.expect("clocks").0.wrapping_sub(rng.range(1, 1 << 30) as u32);
                seg.set_options(&[(8, [old.to_be_bytes(), 5_000_u32.to_be_bytes()].concat())]);
                seg.seq = seg.seq.wrapping_add(rng.pick(&[0, near]));
            }
            Wrong::Reset => {
                seg.flags = RST | rng.pick(&[0, ACK]);
                seg.seq = seg.seq.wrapping_add(rng.pick(&[near, far, behind]));
            }
            Wrong::Flags => {
                seg.flags = rng.pick(&[SYN, SYN | ACK, 0, PSH, FIN, SYN | FIN, packet::URG]);
                seg.seq = seg.seq.wrapping_add(rng.pick(&[0, near, far]));
            }
        }
        // Anything else may be anything.
        seg.win = rng.pick(&[0, 1, 500, 0xffff]);
        if wrong != Wrong::Clock && self.attacked.clocks.is_some() {
            match self.rng.below(4) {
                0 => seg.set_options(&[]),
                1 => {
                    let any = [self.rng.next().to_be_bytes()].concat();
                    if wrong == Wrong::Place || wrong == Wrong::Flags || wrong == Wrong::Reset {
                        seg.set_options(&[(8, any)]);
                    }
                }
                _ => {}
            }
        }
        self.last.push(format!("{wrong:?} {seg:?}"));
        seg
    }

    /// A burst of forgeries to one of the two. Nothing in it is given to the kernel.
    fn burst(&mut self, genuine: &[u8]) {
        self.last.clear();
        let count = self.rng.pick(&[0, 3, 100]);
        let mut answers = 0;
        for _ in 0..count {
            let seg = self.forge();
            let seen = self.attacked.hear_bytes(Side::Wire, seg.build());
            for given in &seen.plain {
                assert!(!given.has(RST), "{given:?} after {:?}", self.last.last());
                let at = given.seq.wrapping_sub(PEER_ISN.wrapping_add(1)) as usize;
                let known =
                    given.payload.is_empty() || genuine.get(at..at + given.payload.len()) == Some(&given.payload);
                assert!(known, "{given:?} after {:?}", self.last.last());
            }
            answers += seen.wire.len();
        }
        assert!(answers <= 110, "{answers} answers to {count} forgeries");
    }

    /// The same to both; what it leads to has to be the same.
    fn both(&mut self, what: &str, mut step: impl FnMut(&mut Bench) -> Sent) -> Sent {
        let (calm, attacked) = (step(&mut self.calm), step(&mut self.attacked));
        assert_eq!(calm.essence(), attacked.essence(), "{what} after {:#?}", self.last);
        attacked
    }
}

/// A transfer in both directions with a rekey now and then, and the end of both streams.
fn transfer(seed: u64, clocks: bool, window: u16) {
    let mut t = Twins::new(seed, clocks, window);
    let (mut genuine, mut sent, mut unread) = (Vec::new(), 0_u32, false);
    for step in 0..40 {
        t.burst(&genuine);
        t.calm.clocks = t.calm.clocks.map(|(peer, kernel)| (peer.wrapping_add(100), kernel.wrapping_add(100)));
        t.attacked.clocks = t.calm.clocks;
        let what = format!("seed {seed}, step {step}");
        match t.rng.below(6) {
            // The peer sends a frame, whole or in two segments in either order, and the kernel acknowledges it.
            0..=2 => {
                let data: Vec<u8> = (0..t.rng.pick(&[1, 100, 1_000, 20_000])).map(|n| (n + step) as u8).collect();
                let rekey = t.rng.chance(0.2);
                let before = (t.calm.peer_made, genuine.len());
                if before.1 + data.len() > usize::from(window) && unread {
                    continue;
                }
                genuine.extend(&data);
                let mut frames = Vec::new();
                for b in [&mut t.calm, &mut t.attacked] {
                    if rekey {
                        b.record.as_mut().expect("keys").start_rekey();
                    }
                    frames.push(b.frame(&data, false));
                }
                assert_eq!(frames[0], frames[1]);
                let (at, bytes) = frames.remove(0);
                let cuts = if t.rng.chance(0.5) { bytes.len().div_ceil(1_448).max(2) } else { 1 };
                let size = bytes.len().div_ceil(cuts);
                let mut parts: Vec<(u32, &[u8])> =
                    bytes.chunks(size).enumerate().map(|(n, part)| (at + (n * size) as u32, part)).collect();
                if t.rng.chance(0.5) {
                    parts.reverse();
                }
                for (at, part) in parts {
                    let seen = t.both(&what, |b| b.from_peer(at, PSH, part));
                    for seg in seen.wire.iter().filter(|seg| !seg.payload.is_empty()) {
                        // The answer to the rekey.
                        let made = t.calm.engine_made;
                        t.calm.open(made, &seg.payload);
                        t.attacked.open(made, &seg.payload);
                        t.calm.engine_made += seg.payload.len() as u32;
                        t.attacked.engine_made = t.calm.engine_made;
                    }
                    t.burst(&genuine);
                }
                unread = t.rng.chance(0.2);
                if !unread {
                    let read = genuine.len() as u32;
                    t.both(&what, |b| b.from_kernel(sent, read, 0, &[]));
                }
            }
            // The kernel sends, and the peer acknowledges, or not yet.
            3 | 4 => {
                let data = vec![step as u8; t.rng.pick(&[1, 500, 1_000])];
                let read = if unread { 0 } else { genuine.len() as u32 };
                if unread {
                    continue;
                }
                let seen = t.both(&what, |b| b.from_kernel(sent, read, PSH, &data));
                sent += data.len() as u32;
                let bytes = seen.wire_bytes();
                t.burst(&genuine);
                let made = t.calm.engine_made;
                t.calm.open(made, &bytes);
                t.attacked.open(made, &bytes);
                t.calm.engine_made += bytes.len() as u32;
                t.attacked.engine_made = t.calm.engine_made;
                let next = t.calm.peer_made;
                t.both(&what, |b| b.from_peer(next, 0, &[]));
            }
            _ => {
                let time = Duration::from_millis(t.rng.pick(&[1, 20, 600]));
                t.calm.wait(time);
                t.attacked.wait(time);
            }
        }
    }
    let read = genuine.len() as u32;
    t.both("all read", |b| b.from_kernel(sent, read, 0, &[]));
    // The peer ends its stream, then the kernel.
    let frames = [t.calm.frame(b"", true), t.attacked.frame(b"", true)];
    let (at, bytes) = &frames[0];
    t.burst(&genuine);
    let seen = t.both("FINp", |b| b.from_peer(*at, PSH, bytes));
    assert!(seen.plain.iter().any(|seg| seg.has(FIN)), "{seen:?}");
    t.burst(&genuine);
    t.both("the FIN acknowledged", |b| b.from_kernel(sent, read + 1, 0, &[]));
    t.burst(&genuine);
    let next = t.calm.peer_made;
    t.both("FIN", |b| b.from_peer(next, FIN, &[]));
    t.calm.peer_made += 1;
    t.attacked.peer_made += 1;
    t.burst(&genuine);
    let seen = t.both("the kernel's FIN", |b| b.from_kernel(sent, read + 1, FIN, &[]));
    let bytes = seen.wire_bytes();
    assert!(t.calm.open(t.calm.engine_made, &bytes).1.fin);
    t.burst(&genuine);
    t.calm.engine_made += bytes.len() as u32 + 1;
    t.attacked.engine_made = t.calm.engine_made;
    let next = t.calm.peer_made;
    t.both("all acknowledged", |b| b.from_peer(next, 0, &[]));
    for b in [&t.calm, &t.attacked] {
        let flow = b.engine.flow(b.kernel, b.peer).expect("lingers");
        assert_eq!((flow.state, flow.reason), (FlowState::Closed, None));
    }
}

#[test]
fn a_transfer_goes_on_exactly_as_without_a_forger_who_guesses() {
    for seed in 0..8 {
        transfer(seed, seed % 2 == 0, [0xffff, 30_000][seed as usize / 2 % 2]);
    }
}

/// A closed window, a rekey that is not answered yet, and a long frame of which a part is acknowledged.
#[test]
fn what_waits_goes_on_exactly_as_without_a_forger_who_guesses() {
    for seed in 0..12 {
        let mut t = Twins::new(seed, seed % 2 == 0, 0xffff);
        let tick = |t: &mut Twins| {
            t.calm.clocks = t.calm.clocks.map(|(peer, kernel)| (peer.wrapping_add(100), kernel.wrapping_add(100)));
            t.attacked.clocks = t.calm.clocks;
        };
        let told = |b: &mut Bench, window: u16| {
            let mut seg = b.peer_seg(b.peer_made, b.engine_made, 0, &[]);
            seg.win = window;
            b.hear_bytes(Side::Wire, seg.build())
        };
        t.both("it closes", |b| told(b, 0));
        t.burst(&[]);
        let seen = t.both("data", |b| b.from_kernel(0, 0, PSH, &[1; 1_000]));
        assert!(seen.wire_bytes().is_empty(), "{seen:?}");
        for _ in 0..5 {
            t.burst(&[]);
            t.both("time", |b| b.wait(Duration::from_millis(900)));
            tick(&mut t);
            t.both("still closed", |b| told(b, 0));
        }
        t.burst(&[]);
        let seen = t.both("it opens", |b| told(b, 0xffff));
        let bytes = seen.wire_bytes();
        assert_eq!(t.calm.open(t.calm.engine_made, &bytes).0, [1; 1_000]);
        t.attacked.open(t.attacked.engine_made, &bytes);
        for b in [&mut t.calm, &mut t.attacked] {
            b.engine_made += bytes.len() as u32;
        }
        t.both("it is acknowledged", |b| told(b, 0xffff));
        // Of its own: a rekey whose answer is late.
        let seen = t.both("a rekey", |b| b.host.rekey(b.kernel, b.peer));
        let bytes = seen.wire_bytes();
        for _ in 0..3 {
            t.burst(&[]);
            t.both("it is sent again", |b| b.wait(Duration::from_millis(700)));
        }
        tick(&mut t);
        for b in [&mut t.calm, &mut t.attacked] {
            b.open(b.engine_made, &bytes);
            b.engine_made += bytes.len() as u32;
        }
        let frames = [t.calm.frame(b"", false), t.attacked.frame(b"", false)];
        assert_eq!(frames[0], frames[1]);
        let (at, answer) = frames[0].clone();
        t.both("its answer", |b| b.from_peer(at, PSH, &answer));
        // A frame longer than what a peer may have in flight.
        let frames = [t.calm.frame(&[3; 40_000], false), t.attacked.frame(&[3; 40_000], false)];
        let (at, bytes) = frames[0].clone();
        let parts: Vec<(u32, &[u8])> =
            bytes.chunks(1_448).enumerate().map(|(n, part)| (at + 1_448 * n as u32, part)).collect();
        let (first, rest) = parts.split_at(20);
        for (at, part) in first {
            t.both("a part", |b| b.from_peer(*at, 0, part));
        }
        t.burst(&[]);
        let seen = t.both("it is acknowledged in part", |b| b.wait(Duration::from_millis(400)));
        assert!(!seen.wire.is_empty());
        let mut delivered = Vec::new();
        for (at, part) in rest {
            t.burst(&[]);
            delivered.extend(t.both("the rest", |b| b.from_peer(*at, PSH, part)).delivered());
        }
        assert_eq!(delivered, [3; 40_000]);
    }
}

/// Who sees the numbers and has no keys, and cannot keep anything from arriving: nothing of it reaches the kernel, and what the
/// peer sends (again, if need be) comes through.
fn beside_an_injector(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xabc);
    let mut b = Bench::encrypted();
    let (mut genuine, mut delivered) = (Vec::<u8>::new(), Vec::<u8>::new());
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let take = |seen: Sent, delivered: &mut Vec<u8>, genuine: &[u8], what: &str| {
        for seg in seen.plain {
            assert!(!seg.has(RST), "{what}");
            let at = seg.seq.wrapping_sub(PEER_ISN.wrapping_add(1)) as usize;
            assert!(
                seg.payload.is_empty() || genuine.get(at..at + seg.payload.len()) == Some(&seg.payload[..]),
                "{what}"
            );
            if at == delivered.len() {
                delivered.extend(&seg.payload);
            }
        }
    };
    for step in 0..30 {
        let data: Vec<u8> = (0..rng.pick(&[1, 100, 1_400, 5_000, 40_000])).map(|n| (n * 7 + step) as u8).collect();
        let start = genuine.len();
        genuine.extend(&data);
        let (at, bytes) = b.frame(&data, false);
        frames.push(bytes.clone());
        let what = format!("seed {seed}, step {step}");
        let mut rounds = 0;
        while delivered.len() < genuine.len() {
            rounds += 1;
            assert!(rounds < 8, "{what}: the peer's frame does not come through");
            for _ in 0..rng.pick(&[0, 2, 40]) {
                // What is injected: anything, damaged or cut copies of what is under way, old frames; anywhere near.
                let mut payload = match rng.below(5) {
                    0 => (0..rng.range(1, 3_000)).map(|_| rng.below(256) as u8).collect(),
                    1 => vec![0; rng.pick(&[1, 5, 21, 1_000])],
                    2 => {
                        let mut copy = bytes.clone();
                        let n = rng.below(copy.len() as u64) as usize;
                        copy[n] ^= 1 << rng.below(8);
                        copy
                    }
                    3 => rng.pick(&[&frames[0], &frames[frames.len() - 1]]).clone(),
                    _ => Vec::new(),
                };
                let offset = match rng.below(4) {
                    0 => 0,
                    1 => rng.below(bytes.len() as u64) as usize,
                    2 => bytes.len(),
                    _ => rng.below(60_000) as usize,
                };
                if offset < payload.len() && rng.chance(0.4) {
                    payload.drain(..offset);
                }
                payload.truncate(rng.pick(&[1, 1_448, 64_000]));
                let place = at + offset as u32 - rng.pick(&[0, 0, 1, 700]).min(at);
                // What lies behind all that the peer has sent, plain TCP does not survive either: its receiver acknowledges it.
                payload.truncate(b.peer_made.saturating_sub(place) as usize);
                let flags = rng.pick(&[0, PSH, PSH, packet::URG | PSH, 0x40, packet::CWR]);
                let mut seg = b.peer_seg(place, b.engine_made, flags, &payload);
                seg.urgent = rng.below(3_000) as u16;
                let seen = b.hear_bytes(Side::Wire, seg.build());
                take(seen, &mut delivered, &genuine, &what);
                assert!(b.engine.held_bytes() < 1 << 20, "{what}: {} bytes held", b.engine.held_bytes());
            }
            // The genuine one, as much as is not acknowledged, in segments.
            for (n, part) in bytes.chunks(1_448).enumerate() {
                let seen = b.from_peer(at + 1_448 * n as u32, PSH, part);
                take(seen, &mut delivered, &genuine, &what);
            }
            let seen = b.wait(Duration::from_millis(250));
            take(seen, &mut delivered, &genuine, &what);
        }
        assert!(start < delivered.len());
        let read = delivered.len() as u32;
        b.from_kernel(0, read, 0, &[]);
    }
    assert_eq!(delivered, genuine);
    let flow = b.engine.flow(b.kernel, b.peer).expect("a flow");
    assert_eq!((flow.state, flow.reason), (FlowState::Encrypted, None));
}

#[test]
fn nothing_of_an_injector_without_keys_reaches_the_kernel_and_the_peers_frames_come_through() {
    for seed in 0..15 {
        beside_an_injector(seed);
    }
}

/// Who waits for the acknowledgement of its FIN gets it, whatever else is answered.
#[test]
fn a_fin_that_comes_again_is_acknowledged_beside_a_flood_of_resets() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(b"bye", true);
    b.from_peer(at, PSH, &bytes);
    b.from_kernel(0, 4, 0, &[]);
    let next = b.peer_made;
    b.from_peer(next, FIN, &[]);
    for _ in 0..5 {
        b.wait(Duration::from_millis(600));
        for offset in [5_000_u32, 6_000] {
            let seg = b.peer_seg(next + offset, b.engine_made, 0, &[]);
            let mut seg = Seg { flags: RST, ..seg };
            b.hear_bytes(Side::Wire, seg.build());
            seg.flags = SYN;
            b.hear_bytes(Side::Wire, seg.build());
        }
        let seen = b.from_peer(next, FIN, &[]);
        assert_eq!(seen.wire.len(), 1, "{seen:?}");
    }
}

/// A kernel that drops what was within its window has no memory for it, and says so: that is waited for, as the peer would.
#[test]
fn a_kernel_that_takes_its_window_back_is_waited_for() {
    let mut b = Bench::encrypted();
    let (at, bytes) = b.frame(&[5; 1_000], false);
    let seen = b.from_peer(at, PSH, &bytes);
    assert_eq!(seen.delivered().len(), 1_000);
    b.kernel_window = 0;
    b.from_kernel(0, 0, 0, &[]);
    for second in 0..3_600 {
        for seg in b.wait(Duration::from_secs(1)).plain {
            assert!(!seg.has(RST), "after {second} seconds");
            b.from_kernel(0, 0, 0, &[]);
        }
    }
    b.kernel_window = 0xffff;
    let seen = b.from_kernel(0, 0, 0, &[]);
    assert_eq!(seen.delivered(), vec![5; 1_000]);
}

impl Bench {
    /// A connection that both ends have closed in order. The kernel may not have seen the last acknowledgement.
    fn closed_in_order() -> Self {
        let mut b = Self::encrypted();
        let (at, bytes) = b.frame(b"", true);
        b.from_peer(at, PSH, &bytes);
        b.from_kernel(0, 1, 0, &[]);
        b.from_peer(b.peer_made, FIN, &[]);
        b.peer_made += 1;
        let sent = b.from_kernel(0, 1, FIN, b"the last words").wire_bytes().len() as u32;
        // It sends them again after ever longer times.
        for n in 0..7 {
            b.wait(Duration::from_millis(200 << n));
            b.from_kernel(0, 1, FIN, b"the last words");
        }
        b.engine_made += sent + 1;
        b.from_peer(b.peer_made, 0, &[]);
        assert_eq!(b.engine.flow(b.kernel, b.peer).map(|flow| flow.state), Some(FlowState::Closed));
        b
    }
}

/// A SYN of anybody's on the same ports, a RST behind it: what the kernel sends of the old connection is not let out for that.
#[test]
fn a_forged_syn_after_an_orderly_end_lets_no_plaintext_out() {
    for with_rst in [false, true] {
        let mut b = Bench::closed_in_order();
        let mut syn = b.peer_seg(0, 0, 0, &[]);
        (syn.seq, syn.ack, syn.flags) = (77_777, 0, SYN);
        b.hear_bytes(Side::Wire, syn.build());
        if with_rst {
            let mut rst = syn.clone();
            (rst.seq, rst.flags) = (77_778, RST);
            b.hear_bytes(Side::Wire, rst.build());
        }
        for _ in 0..5 {
            let seen = b.from_kernel(0, 1, FIN, b"the last words");
            assert!(seen.wire.iter().all(|seg| seg.payload.is_empty()), "with a RST {with_rst}: {seen:?}");
            b.wait(Duration::from_secs(12));
        }
    }
}
