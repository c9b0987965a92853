//! The same addresses and ports again: what is remembered of a connection has no say in the next one's SYN and what answers it.

use super::packet::{FIN, RST};
use super::*;
use enotun::engine::FlowState;

/// Who ends the connection, and how.
#[derive(Debug, Clone, Copy)]
enum End {
    /// A RST of that end's kernel, that the other gets.
    Reset { client: bool },
    /// The same, lost on the wire.
    ResetLost { client: bool },
    /// Both FINs, acknowledged.
    Orderly,
    /// Nothing is said: the client's host has started anew.
    Forgotten,
    /// The same, and the server's engine has forgotten the connection as well: only its kernel still has it.
    ForgottenByEngine,
}

const ENDS: [End; 7] = [
    End::Reset { client: true },
    End::Reset { client: false },
    End::ResetLost { client: true },
    End::ResetLost { client: false },
    End::Orderly,
    End::Forgotten,
    End::ForgottenByEngine,
];

/// Until when the connection lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Syn,
    SynAck,
    Ack,
    Encrypted,
}

/// Both kernels in few words: they know connections, and answer what they do not know.
struct Kernels {
    pair: Pair,
    /// Whether each has a connection, and the first numbers of it, its own first.
    open: [bool; 2],
    has: [[u32; 2]; 2],
    /// The numbers that they begin the next one with.
    isns: [u32; 2],
}

impl Kernels {
    /// Moves segments about until there are no more. Kernels without a connection answer with a RST.
    fn settle(&mut self, mut wire_a: Vec<Seg>, mut wire_b: Vec<Seg>) {
        for _ in 0..50 {
            let (to_a, to_b) = (std::mem::take(&mut wire_b), std::mem::take(&mut wire_a));
            if to_a.is_empty() && to_b.is_empty() {
                return;
            }
            for seg in to_a {
                let sent = self.pair.a.wire(&seg);
                wire_a.extend(sent.wire);
                for seg in sent.plain {
                    wire_a.extend(self.kernel(0, &seg));
                }
            }
            for seg in to_b {
                let sent = self.pair.b.wire(&seg);
                wire_b.extend(sent.wire);
                for seg in sent.plain {
                    wire_b.extend(self.kernel(1, &seg));
                }
            }
        }
        panic!("a storm");
    }

    /// What the kernel of `h` answers, as its engine lets it out.
    fn kernel(&mut self, h: usize, seg: &Seg) -> Vec<Seg> {
        let answer = |flags, seq, ack| {
            let mut answer = Seg::new(seg.dst, seg.src);
            (answer.flags, answer.seq, answer.ack, answer.win) = (flags, seq, ack, WINDOW);
            answer
        };
        if seg.has(RST) {
            self.open[h] = false;
            return Vec::new();
        }
        let host = if h == 0 { &mut self.pair.a } else { &mut self.pair.b };
        let [own, peer] = if self.open[h] { self.has[h] } else { [self.isns[h], self.isns[1 - h]] };
        if seg.has(SYN) && !seg.has(ACK) {
            let syn_ack = if self.open[h] && seg.seq != peer {
                // RFC 5961, section 4.2. In SYN-RECEIVED, the same SYN gets the same answer.
                answer(ACK, own.wrapping_add(1), peer.wrapping_add(1))
            } else {
                (self.open[h], self.has[h]) = (true, [own, seg.seq]);
                let mut syn_ack = answer(SYN | ACK, own, seg.seq.wrapping_add(1));
                syn_ack.options = syn_options(0);
                syn_ack
            };
            return host.kernel(&syn_ack).wire;
        }
        if seg.has(SYN) {
            let good = seg.ack == own.wrapping_add(1);
            let segment = if good { answer(ACK, seg.ack, seg.seq.wrapping_add(1)) } else { answer(RST, seg.ack, 0) };
            if good {
                (self.open[h], self.has[h]) = (true, [own, seg.seq]);
            }
            return host.kernel(&segment).wire;
        }
        let known = self.open[h] && seg.ack.wrapping_sub(own) < 1 << 20;
        if !known && seg.has(ACK) {
            return host.kernel(&answer(RST, seg.ack, 0)).wire;
        }
        Vec::new()
    }

    fn wait(&mut self, time: Duration) {
        let from = |sent: Sent, kernels: &mut Self, h| {
            let answers: Vec<Seg> = sent.plain.iter().flat_map(|seg| kernels.kernel(h, seg)).collect();
            sent.wire.into_iter().chain(answers).collect()
        };
        let sent = self.pair.a.wait(time);
        let wire_a = from(sent, self, 0);
        let sent = self.pair.b.wait(time);
        let wire_b = from(sent, self, 1);
        self.settle(wire_a, wire_b);
    }

    fn connect(&mut self, isns: [u32; 2]) {
        self.isns = isns;
        self.open[0] = false;
        let mut syn = Pair::syn();
        syn.seq = isns[0];
        let sent = self.pair.a.kernel(&syn);
        self.settle(sent.wire, Vec::new());
    }
}

fn began(until: Until) -> Kernels {
    let (pair, open) = match until {
        Until::Encrypted => (Pair::connected(), [true, true]),
        _ => {
            let mut pair = Pair::new();
            let syn = pair.a.kernel(&Pair::syn()).wire.remove(0);
            pair.b.wire(&syn);
            let syn_ack = (until != Until::Syn).then(|| pair.b.kernel(&Pair::syn_ack()).wire.remove(0));
            if until == Until::Ack {
                pair.a.wire(&syn_ack.expect("it was sent"));
                pair.a.kernel(&pair.from_a());
            }
            (pair, [until == Until::Ack, until != Until::Syn])
        }
    };
    Kernels { pair, open, has: [[A_ISN, B_ISN], [B_ISN, A_ISN]], isns: [A_ISN, B_ISN] }
}

fn end(kernels: &mut Kernels, end: End) {
    let pair = &mut kernels.pair;
    match end {
        End::Reset { client } | End::ResetLost { client } => {
            let mut rst = if client { pair.from_a() } else { pair.from_b() };
            rst.flags = RST | ACK;
            let host = if client { &mut pair.a } else { &mut pair.b };
            let sent = host.kernel(&rst).wire;
            kernels.open[usize::from(!client)] = false;
            if matches!(end, End::Reset { .. }) {
                let (from_a, from_b) = if client { (sent, Vec::new()) } else { (Vec::new(), sent) };
                kernels.settle(from_a, from_b);
            }
        }
        End::Orderly => {
            for side in [0, 1, 0] {
                let mut fin = if side == 0 { pair.from_a() } else { pair.from_b() };
                fin.flags = if kernels.open[side] { ACK | FIN } else { ACK };
                kernels.open[side] = false;
                let (host, other) = if side == 0 { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
                let sent = host.kernel(&fin).wire;
                for seg in sent {
                    other.wire(&seg);
                }
                *(if side == 0 { &mut pair.a_next } else { &mut pair.b_next }) += u32::from(fin.has(FIN));
            }
        }
        End::Forgotten => kernels.open[0] = false,
        End::ForgottenByEngine => {
            kernels.open[0] = false;
            let now = pair.b.now;
            pair.b = Host::new(Config::default());
            pair.b.now = now;
        }
    }
}

#[test]
fn the_next_connection_on_the_same_ports_is_encrypted_however_the_last_one_ended() {
    for until in [Until::Syn, Until::SynAck, Until::Ack, Until::Encrypted] {
        for how in ENDS {
            for pause in [0, 300, 2_000, 70_000] {
                let mut kernels = began(until);
                end(&mut kernels, how);
                kernels.wait(Duration::from_millis(pause));
                let isns = [5_000_000, 9_000_000];
                kernels.connect(isns);
                let have_keys = |kernels: &Kernels| {
                    [kernels.pair.flow_a(), kernels.pair.flow_b()].into_iter().flatten().all(|flow| flow.aead.is_some())
                        && kernels.pair.flow_a().is_some_and(|flow| flow.state != FlowState::Closed)
                };
                // If one end still has the old one, it takes the client's RST and its SYN again, as with plain TCP.
                if !have_keys(&kernels) {
                    kernels.wait(Duration::from_secs(1));
                    kernels.connect(isns);
                }
                let what = format!("{until:?}, {how:?}, {pause} ms");
                let mut data = Pair::new().from_a();
                (data.seq, data.ack, data.payload) = (isns[0] + 1, isns[1] + 1, b"again".to_vec());
                let sent = kernels.pair.a.kernel(&data).wire;
                let got: Vec<u8> = sent.iter().flat_map(|seg| kernels.pair.b.wire(seg).delivered()).collect();
                assert_eq!(got, b"again", "{what}");
                assert_eq!(kernels.pair.flow_b().map(|flow| flow.state), Some(FlowState::Encrypted), "{what}");
            }
        }
    }
}

/// A client that binds its port, against a server that resets: each of many connections works at once.
#[test]
fn a_port_that_is_used_again_and_again_is_encrypted_each_time() {
    let mut kernels = began(Until::Encrypted);
    for n in 1..50 {
        end(&mut kernels, End::Reset { client: n % 2 == 0 });
        let isns = [n * 100_000, n * 200_000];
        kernels.connect(isns);
        for flow in [kernels.pair.flow_a(), kernels.pair.flow_b()] {
            assert!(flow.is_some_and(|flow| flow.aead.is_some() && flow.state != FlowState::Closed), "number {n}");
        }
        (kernels.pair.a_next, kernels.pair.b_next) = (isns[0] + 1, isns[1] + 1);
    }
}
