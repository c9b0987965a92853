//! What the engines of two hosts take for a connection, without kernels: a client's and a server's in one process, whose kernels
//! are scripts. It measures as the load of scripts/bench does, a byte there and back and the server's end of file first, and says less
//! of a host than of what a change to the engine costs: the noise is that of one thread.
//!
//!     engines resumed|fresh|bytes NUMBER [ROUNDS]
//!
//! Prints the processor time in nanoseconds that each of NUMBER connections takes at both hosts together (`bytes`: each byte there and
//! back on one connection), the scripts' included, one line a round; the first round is not measured. The hosts' time goes on by 200 us
//! with each connection.

#![allow(dead_code, reason = "a part of the tests' packets is used here")]
#![allow(missing_docs, unreachable_pub, reason = "a program for measuring")]

#[path = "../../tests/harness/packet.rs"]
mod packet;

use std::net::SocketAddr;
use std::time::Duration;

use enotun::engine::{Config, Engine, Env, RandomFor, Side};
use enotun::io::env::HostEnv;
use enotun::io::{Device, Format};
use enotun::selector::{Policy, PolicyTable, Rule};
use enotun::time::Instant;
use enotun::wire::{Offload, Outgoing};
use packet::{ACK, FIN, PSH, SYN, Seg};

/// Surroundings that keep what comes out, with the randomness of a host.
struct Kept {
    out: Vec<(Side, Vec<u8>, Offload)>,
    host: HostEnv,
}

impl Env for Kept {
    fn emit(&mut self, side: Side, packet: &Outgoing<'_>) {
        self.out.push((side, packet.to_vec(), packet.offload));
    }
    fn forward(&mut self, side: Side, offload: Offload, bytes: &[u8]) {
        self.out.push((side, bytes.to_vec(), offload));
    }
    fn random(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]) {
        self.host.random(wanted, out);
    }
    fn random_is_ready(&self) -> bool {
        true
    }
}

struct Host {
    engine: Engine,
    env: Kept,
}

impl Host {
    fn new(resume: bool) -> Self {
        let mut engine = Engine::new(Config::default(), enotun::crypto::provider());
        let mut rule = Rule::new("0.0.0.0/0".parse().unwrap(), Policy::Required);
        rule.options.no_resume = !resume;
        engine.set_policy(PolicyTable::new([rule]));
        let [plain, wire] =
            [(); 2].map(|()| Device::new(std::fs::File::open("/dev/null").unwrap().into(), Format::Packets));
        Self { engine, env: Kept { out: Vec::new(), host: HostEnv::new(plain, wire, None) } }
    }
}

/// Both hosts.
struct Pair {
    hosts: [Host; 2],
    now: Instant,
    waiting: Vec<(usize, Side, Vec<u8>, Offload)>,
}

impl Pair {
    /// Gives a kernel's packet to its engine and carries what comes of it until nothing moves. How many payload bytes arrive at the
    /// other kernel.
    fn carry(&mut self, at: usize, segment: &Seg) -> usize {
        let mut arrived = 0;
        self.waiting.push((at, Side::Plain, segment.build(), Offload::NONE));
        while !self.waiting.is_empty() {
            let (host, side, mut bytes, offload) = self.waiting.remove(0);
            let Host { engine, env } = &mut self.hosts[host];
            engine.handle_packet(self.now, side, offload, &mut bytes, env);
            while engine.poll_timeout().is_some_and(|due| due <= self.now) {
                engine.handle_timeout(self.now, env);
            }
            for (side, bytes, offload) in env.out.drain(..) {
                match side {
                    Side::Plain if host != at => arrived += Seg::parse(&bytes).map_or(0, |seg| seg.payload.len()),
                    Side::Plain => {}
                    Side::Wire => self.waiting.push((1 - host, Side::Wire, bytes, offload)),
                }
            }
        }
        arrived
    }

    fn open(&mut self, n: u32) {
        let (ci, si) = isns(n);
        self.carry(0, &segment(n, true, ci, 0, SYN, b""));
        self.carry(1, &segment(n, false, si, ci.wrapping_add(1), SYN | ACK, b""));
        self.carry(0, &segment(n, true, ci.wrapping_add(1), si.wrapping_add(1), ACK, b""));
    }

    /// The `i`th byte there and back.
    fn ask(&mut self, n: u32, i: u32) {
        let (ci, si) = isns(n);
        let (c, s) = (ci.wrapping_add(1 + i), si.wrapping_add(1 + i));
        let there = self.carry(0, &segment(n, true, c, s, ACK | PSH, b"x"));
        let back = self.carry(1, &segment(n, false, s, c.wrapping_add(1), ACK | PSH, b"y"));
        assert_eq!((there, back), (1, 1), "connection {n}");
    }

    /// The server's end of file, the client's acknowledgement of what came, its end of file, and the last acknowledgement.
    fn close(&mut self, n: u32) {
        let (ci, si) = isns(n);
        let (c, s) = (ci.wrapping_add(2), si.wrapping_add(2));
        self.carry(1, &segment(n, false, s, c, ACK | FIN, b""));
        self.carry(0, &segment(n, true, c, s, ACK, b""));
        self.carry(0, &segment(n, true, c, s.wrapping_add(1), ACK | FIN, b""));
        self.carry(1, &segment(n, false, s.wrapping_add(1), c.wrapping_add(1), ACK, b""));
    }
}

fn isns(n: u32) -> (u32, u32) {
    (n.wrapping_mul(1000), n.wrapping_mul(1000).wrapping_add(500_000))
}

fn segment(n: u32, by_client: bool, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Seg {
    // As a client's kernel does that has 32,768 ports: one that it used takes its turn again.
    let client = SocketAddr::from(([10, 0, 0, 1], 20_000 + (n & 0x7fff) as u16));
    let server = SocketAddr::from(([10, 9, 0, 2], 80));
    let (src, dst) = if by_client { (client, server) } else { (server, client) };
    Seg { seq, ack, flags, payload: payload.to_vec(), ..Seg::like_linux(src, dst, flags) }
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let kind = arguments.first().map_or("", String::as_str);
    let number: u32 = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let rounds: u32 = arguments.get(2).and_then(|n| n.parse().ok()).unwrap_or(3);
    if !["resumed", "fresh", "bytes"].contains(&kind) {
        eprintln!("usage: engines resumed|fresh|bytes NUMBER [ROUNDS]");
        std::process::exit(2);
    }
    let hosts = [(); 2].map(|()| Host::new(kind != "fresh"));
    let mut pair = Pair { hosts, now: Instant::from_micros(1_000_000), waiting: Vec::new() };
    if kind == "bytes" {
        pair.open(0);
    }
    for round in 0..=rounds {
        let begin = processor_time();
        for n in round * number..(round + 1) * number {
            pair.now = pair.now + Duration::from_micros(200);
            if kind == "bytes" {
                pair.ask(0, n);
            } else {
                pair.open(n);
                pair.ask(n, 0);
                pair.close(n);
            }
        }
        if round > 0 {
            println!("{}", (processor_time() - begin).as_nanos() / u128::from(number));
        }
    }
    let counters = pair.hosts[0].engine.counters();
    let expected = u64::from(if kind == "bytes" { 1 } else { (rounds + 1) * number });
    assert_eq!(counters.connections_encrypted, expected);
    if kind == "resumed" {
        assert!(counters.connections_resumed > expected * 9 / 10, "{}", counters.connections_resumed);
    }
}
