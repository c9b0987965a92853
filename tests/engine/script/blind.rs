//! Openings beside a host that knows addresses and ports, and guesses the numbers. Each runs twice, alone and beside it: what the
//! genuine segments lead to is the same.

use super::*;
use crate::harness::packet::{ENO, FIN, PSH, RST};
use crate::harness::rng::Rng;
use enotun::engine::FlowState;

struct Twins {
    calm: Pair,
    attacked: Pair,
    rng: Rng,
    last: Vec<Seg>,
    /// The server's kernel has answered.
    answered: bool,
}

impl Twins {
    fn new(seed: u64, policy: Policy) -> Self {
        let pair = || {
            let mut pair = Pair::new();
            pair.a = Host::with_policy(Config::default(), policy);
            pair.b = Host::with_policy(Config::default(), policy);
            pair
        };
        Self { calm: pair(), attacked: pair(), rng: Rng::new(seed), last: Vec::new(), answered: false }
    }

    /// Segments of anybody's to both hosts, if they know of the connection. `syns`: SYNs too, which a kernel that opens would take for
    /// the peer's.
    fn burst(&mut self, syns: [bool; 2]) {
        self.last.clear();
        for _ in 0..self.rng.pick(&[0, 2, 30]) {
            let rng = &mut self.rng;
            let h = if self.attacked.flow_b().is_none() { 0 } else { rng.below(2) as usize };
            let (isn, peer) = if h == 0 { (A_ISN, B_ISN) } else { (B_ISN, A_ISN) };
            let mut seg = if h == 0 { self.attacked.from_b() } else { self.attacked.from_a() };
            let all = [SYN, SYN | ACK, SYN | ACK, ACK, ACK, ACK | PSH, ACK | FIN, RST, RST | ACK, 0, FIN, SYN | RST];
            seg.flags = rng.pick(&all);
            if seg.flags & (SYN | ACK | RST) == SYN && !syns[h] {
                seg.flags = RST;
            }
            // One of the two may be right, not both; with nothing to compare with, neither.
            let guess = rng.range(200_000, 1 << 31) as u32;
            // An exact number before the SYN-ACK looks like one whose SYN-ACK took another way, 2^32 guesses for that.
            let exact = if h == 1 && !self.answered { 2 } else { rng.pick(&[0, 1, 2]) };
            seg.seq = if exact == 1 && seg.flags & (RST | SYN) == 0 {
                peer.wrapping_add(1)
            } else {
                peer.wrapping_add(guess)
            };
            seg.ack =
                if exact == 2 && seg.flags & (RST | SYN) == 0 { isn.wrapping_add(1) } else { isn.wrapping_sub(guess) };
            seg.win = rng.pick(&[0, 1, 0xffff]);
            if seg.flags & SYN != 0 {
                let eno =
                    rng.pick(&[&[][..], &[ENO, 4, 1, 0x23], &[ENO, 4, 0x23, 1], &[ENO, 2, 1, 1], &[ENO, 9, 1, 1]]);
                seg.options = [&syn_options(7)[..], eno].concat();
            } else {
                seg.options = rng.pick(&[&[][..], &[ENO, 2, 1, 1]]).to_vec();
                let any: Vec<u8> = (0..40).map(|_| rng.below(256) as u8).collect();
                seg.payload = rng.pick(&[&[][..], &tcpcrypt::constants::INIT1_MAGIC.to_be_bytes(), &any]).to_vec();
            }
            self.last.push(seg.clone());
            let host = if h == 0 { &mut self.attacked.a } else { &mut self.attacked.b };
            let sent = host.wire(&seg);
            for seen in sent.plain {
                assert!(seen.payload.is_empty(), "{seen:?} of {seg:?}");
                // A kernel that opens resets what acknowledges something else (RFC 9293, section 3.10.7.3).
                if seen.has(ACK) && !seen.has(RST) && seen.ack != isn.wrapping_add(1) {
                    let mut rst = Seg::new(seen.dst, seen.src);
                    (rst.seq, rst.flags) = (seen.ack, RST);
                    host.kernel(&rst);
                }
            }
        }
    }

    fn both(&mut self, what: &str, mut step: impl FnMut(&mut Pair) -> Sent) -> Sent {
        let (calm, attacked) = (step(&mut self.calm), step(&mut self.attacked));
        assert_eq!(calm.essence(), attacked.essence(), "{what} beside {:#?}", self.last);
        attacked
    }

    /// What is under way to the other side and back, until there is no more.
    fn settle(&mut self, what: &str, mut to_b: Vec<Seg>, mut to_a: Vec<Seg>) {
        for _ in 0..9 {
            let (now_b, now_a) = (std::mem::take(&mut to_b), std::mem::take(&mut to_a));
            for seg in now_b {
                to_a.extend(self.both(what, |pair| pair.b.wire(&seg)).wire);
                self.burst([true; 2]);
            }
            for seg in now_a {
                to_b.extend(self.both(what, |pair| pair.a.wire(&seg)).wire);
                self.burst([true; 2]);
            }
            to_a.extend(self.both(what, |pair| pair.b.wait(Duration::from_micros(10))).wire);
            to_b.extend(self.both(what, |pair| pair.a.wait(Duration::from_micros(10))).wire);
        }
    }
}

#[test]
fn openings_go_on_exactly_as_without_a_host_that_guesses() {
    for seed in 0..120 {
        let policy = [Policy::Opportunistic, Policy::Required][seed as usize % 2];
        let what = format!("seed {seed}");
        let mut t = Twins::new(seed, policy);
        let syn = t.both(&what, |pair| pair.a.kernel(&Pair::syn())).wire.remove(0);
        t.burst([false; 2]);
        t.both(&what, |pair| pair.b.wire(&syn));
        t.burst([false, true]);
        let syn_ack = t.both(&what, |pair| pair.b.kernel(&Pair::syn_ack())).wire.remove(0);
        t.answered = true;
        t.burst([false, true]);
        if seed % 3 == 0 {
            // The kernels send again.
            let again = t.both(&what, |pair| pair.a.kernel(&Pair::syn())).wire.remove(0);
            t.both(&what, |pair| pair.b.wire(&again));
            t.burst([false, true]);
            t.both(&what, |pair| pair.b.kernel(&Pair::syn_ack()));
        }
        t.both(&what, |pair| pair.a.wire(&syn_ack));
        t.burst([true; 2]);
        let from_a = t.both(&what, |pair| pair.a.kernel(&pair.from_a())).wire;
        t.burst([true; 2]);
        t.settle(&what, from_a, Vec::new());
        let sent = t.both(&what, |pair| {
            let seg = Seg { payload: b"hello".to_vec(), ..pair.from_a() };
            pair.a.kernel(&seg)
        });
        t.burst([true; 2]);
        let mut got = Vec::new();
        for seg in sent.wire {
            got.extend(t.both(&what, |pair| pair.b.wire(&seg)).delivered());
        }
        assert_eq!(got, b"hello", "{what}");
        for flow in [t.attacked.flow_a(), t.attacked.flow_b()] {
            assert_eq!(flow.map(|flow| (flow.state, flow.reason)), Some((FlowState::Encrypted, None)), "{what}");
        }
    }
}

/// On a gateway the hosts on the plain side have neighbours who guess, too.
#[test]
fn resets_of_anybodys_on_the_plain_side_end_no_opening() {
    let mut pair = Pair::new();
    let reset = |host: &mut Host, like: Seg| {
        for n in 1..50_u32 {
            let mut rst = like.clone();
            (rst.flags, rst.seq, rst.ack) =
                ([RST, RST | ACK][n as usize % 2], n.wrapping_mul(70_000_001), n.wrapping_mul(999_999_937));
            let sent = host.kernel(&rst);
            assert!(sent.plain.is_empty());
        }
    };
    let (like_a, like_b) = (pair.from_a(), pair.from_b());
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    reset(&mut pair.a, like_a.clone());
    pair.b.wire(&syn);
    reset(&mut pair.b, like_b.clone());
    let syn_ack = pair.b.kernel(&Pair::syn_ack()).wire.remove(0);
    reset(&mut pair.b, like_b);
    pair.a.wire(&syn_ack);
    reset(&mut pair.a, like_a);
    for seg in pair.a.kernel(&pair.from_a()).wire {
        for seg in pair.b.wire(&seg).wire {
            pair.a.wire(&seg);
        }
    }
    for seg in pair.b.wait(Duration::from_micros(10)).wire {
        pair.a.wire(&seg);
    }
    assert_eq!(pair.flow_a().map(|flow| flow.state), Some(FlowState::Encrypted));
    // A server's kernel that has no listener is believed.
    let mut pair = Pair::new();
    let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
    pair.b.wire(&syn);
    let mut refusal = pair.from_b();
    (refusal.flags, refusal.seq, refusal.ack) = (RST | ACK, 0, A_ISN.wrapping_add(1));
    assert!(pair.b.kernel(&refusal).wire[0].has(RST));
    assert!(pair.flow_b().is_none());
}
