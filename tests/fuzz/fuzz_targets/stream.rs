//! Two engines with a small TCP behind each, and a network between them that the input drives: it says who writes, closes,
//! resets or rekeys, and which packets are lost, doubled, reordered, cut or damaged. What arrives is what was sent, in
//! order, to its end only if the peer closed; no plaintext is on the wire; the same place has the same bytes (TC-27).
#![no_main]

#[path = "../../harness/env.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "shared with the other tests")]
mod env;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use enotun::engine::{Config, Engine, Side};
use enotun::selector::{Policy, PolicyTable, Rule};
use enotun::time::Instant;
use enotun::wire::split::segments_of_bytes;
use enotun::wire::{Checksum, Flags, Gso, Offload, Packet};
use env::{Generator, TestEnv};
use libfuzzer_sys::fuzz_target;

/// A segment with nothing else said of it: its checksum counts as right.
const WHOLE: Offload = Offload { checksum: Checksum::Verified, gso: None };
const MSS: usize = 1460;
const SCALE: u8 = 7;
const WINDOW: u16 = 1000;
/// No more than so much is written.
const STREAM_MAX: usize = 1 << 18;
const TEXT: &[u8; 16] = b"PLAINTEXT-ON-TCP";

/// What the application of `host` writes at `at`.
fn written(host: usize, at: usize) -> u8 {
    TEXT[at % TEXT.len()] ^ if host == 0 { 0 } else { 0x20 }
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1 + host as u8).into(), if host == 0 { 40_000 } else { 80 })
}

struct Host {
    number: usize,
    engine: Engine,
    env: TestEnv,
    /// Offsets in the own stream; the SYN is before 0, the FIN one more at its end.
    isn: u32,
    una: usize,
    nxt: usize,
    most: usize,
    fin: Option<usize>,
    /// Of the peer's stream.
    peer_isn: Option<u32>,
    received: usize,
    peer_fin: bool,
    edge: usize,
    established: bool,
    reset: bool,
    /// What was sent at which place.
    wire: Vec<Option<u8>>,
}

impl Host {
    fn new(number: usize) -> Self {
        let mut engine = Engine::new(Config::default(), &tcpcrypt::rust_crypto::PROVIDER);
        let selector = "0.0.0.0/0".parse().expect("a selector");
        engine.set_policy(PolicyTable::new([Rule::new(selector, Policy::Opportunistic)]));
        Self {
            number,
            engine,
            env: TestEnv::new(Generator::new(number as u64)),
            isn: if number == 0 { u32::MAX - 5_000 } else { 77_000 },
            una: 0,
            nxt: 0,
            most: 0,
            fin: None,
            peer_isn: None,
            received: 0,
            peer_fin: false,
            edge: 0,
            established: false,
            reset: false,
            wire: Vec::new(),
        }
    }

    /// A segment of the kernel's: into the engine.
    fn send(&mut self, now: Instant, at: Option<usize>, flags: Flags, payload: &[u8]) {
        let (from, to) = (address(self.number), address(1 - self.number));
        let options: &[u8] = if flags.any(Flags::SYN) { &[2, 4, 5, 0xb4, 1, 3, 3, SCALE] } else { &[] };
        let len = 40 + options.len() + payload.len();
        let mut bytes = vec![0x45, 0];
        bytes.extend((len as u16).to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        for end in [from, to] {
            let std::net::IpAddr::V4(ip) = end.ip() else { return };
            bytes.extend(ip.octets());
        }
        bytes.extend(from.port().to_be_bytes());
        bytes.extend(to.port().to_be_bytes());
        let seq = at.map_or(self.isn, |at| self.isn.wrapping_add(1).wrapping_add(at as u32));
        bytes.extend(seq.to_be_bytes());
        let ack = self.peer_isn.map_or(0, |isn| {
            isn.wrapping_add(1).wrapping_add(self.received as u32).wrapping_add(u32::from(self.peer_fin))
        });
        bytes.extend(ack.to_be_bytes());
        bytes.extend([((20 + options.len()) / 4 * 16) as u8, flags.low()]);
        bytes.extend(WINDOW.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(options);
        bytes.extend(payload);
        let mut offload = WHOLE;
        if payload.len() > MSS {
            offload.checksum = Checksum::Partial { start: 20, offset: 16 };
            offload.gso = Some(Gso { kind: 1, size: MSS as u16, header_len: 40 });
        }
        self.engine.handle_packet(now, Side::Plain, offload, &mut bytes, &mut self.env);
    }

    fn acknowledge(&mut self, now: Instant) {
        let at = self.nxt + usize::from(self.fin.is_some());
        self.send(now, Some(at), Flags::ACK, &[]);
    }

    /// Sends what lies from `at` on, and the FIN if it is reached.
    fn send_from(&mut self, now: Instant, at: usize, len: usize) {
        let end = (at + len).min(self.most).min(self.edge.max(at));
        let payload: Vec<u8> = (at..end).map(|i| written(self.number, i)).collect();
        let mut flags = Flags::ACK.with(Flags::PSH);
        if self.fin == Some(end) {
            flags = flags.with(Flags::FIN);
        }
        self.nxt = self.nxt.max(end);
        self.send(now, Some(at), flags, &payload);
    }

    /// A segment for the kernel.
    fn take(&mut self, now: Instant, bytes: &[u8], peer: (usize, Option<usize>)) {
        let packet = Packet::<()>::parse(bytes).expect("an engine gives whole segments");
        let payload = bytes.get(packet.payload.clone()).unwrap_or(&[]);
        if self.reset {
            return;
        }
        if packet.flags.any(Flags::RST) {
            self.reset = true;
            return;
        }
        if packet.flags.any(Flags::SYN) {
            self.peer_isn = Some(packet.seq.0);
            if packet.flags.any(Flags::ACK) {
                self.established = true;
                self.edge = self.edge.max(usize::from(packet.window));
                self.acknowledge(now);
            } else {
                self.send(now, None, Flags::SYN.with(Flags::ACK), &[]);
            }
            return;
        }
        let Some(peer_isn) = self.peer_isn else { return };
        if packet.flags.any(Flags::ACK) {
            let acked = packet.ack.0.wrapping_sub(self.isn).wrapping_sub(1) as i32;
            let last = self.nxt + usize::from(self.fin.is_some());
            assert!(acked >= 0 && acked as usize <= last, "host {}: {acked} of {last} acknowledged", self.number);
            self.established = true;
            self.una = self.una.max(acked as usize);
            self.edge = self.edge.max(acked as usize + (usize::from(packet.window) << SCALE));
        }
        let at = packet.seq.0.wrapping_sub(peer_isn).wrapping_sub(1) as i32;
        let fin = packet.flags.any(Flags::FIN);
        if payload.is_empty() && !fin {
            return;
        }
        // A kernel takes what follows on what it has.
        let (known, end) = (self.received as i64, i64::from(at) + payload.len() as i64);
        if i64::from(at) <= known && !self.peer_fin {
            for (i, byte) in payload.iter().enumerate().skip((known - i64::from(at)) as usize) {
                let place = at as usize + i;
                assert_eq!(*byte, written(1 - self.number, place), "host {}: byte {place}", self.number);
                assert!(place < peer.0, "host {}: byte {place} was never written", self.number);
            }
            self.received = self.received.max(end as usize);
            if fin {
                assert_eq!(peer.1, Some(end as usize), "host {}: end of file", self.number);
                self.peer_fin = true;
            }
        }
        self.acknowledge(now);
    }
}

/// A segment on its way, and to whom.
type Flying = VecDeque<Vec<u8>>;

struct World {
    now: Instant,
    hosts: [Host; 2],
    /// By sending host.
    net: [Flying; 2],
    damaged: bool,
}

impl World {
    /// Moves what the engines put out, until they are quiet.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut quiet = true;
            for h in 0..2 {
                let sent = self.hosts[h].env.take().into_iter().flat_map(|sent| {
                    let cut = segments_of_bytes(&sent.bytes, sent.offload).expect("what is sent can be cut");
                    cut.into_iter().map(move |bytes| (sent.side, bytes))
                });
                for (side, bytes) in sent {
                    quiet = false;
                    if side == Side::Plain {
                        let peer = (self.hosts[1 - h].most, self.hosts[1 - h].fin);
                        self.hosts[h].take(self.now, &bytes, peer);
                    } else {
                        self.watch(h, &bytes);
                        self.net[h].push_back(bytes);
                    }
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the engines answer each other for ever");
    }

    fn watch(&mut self, h: usize, bytes: &[u8]) {
        let packet = Packet::<()>::parse(bytes).expect("an engine gives whole segments");
        let payload = &bytes[packet.payload.clone()];
        let host = &mut self.hosts[h];
        let encrypted = host.engine.flow(address(h), address(1 - h)).is_some_and(|flow| flow.session_id.is_some());
        if encrypted {
            let text: Vec<u8> = (0..TEXT.len()).map(|i| written(h, i)).collect();
            assert!(!payload.windows(text.len()).any(|window| window == text), "plaintext on the wire");
        }
        if packet.flags.any(Flags::SYN.with(Flags::RST)) {
            return;
        }
        let at = packet.seq.0.wrapping_sub(host.isn).wrapping_sub(1) as usize;
        let end = at.saturating_add(payload.len());
        if end > 1 << 20 {
            return;
        }
        host.wire.resize(host.wire.len().max(end), None);
        for (place, byte) in host.wire[at..end].iter_mut().zip(payload) {
            assert!(place.is_none_or(|old| old == *byte), "host {h}: other bytes at the same place, near {at}");
            *place = Some(*byte);
        }
    }

    fn deliver(&mut self, from: usize, mut bytes: Vec<u8>) {
        let host = &mut self.hosts[1 - from];
        host.engine.handle_packet(self.now, Side::Wire, WHOLE, &mut bytes, &mut host.env);
        self.settle();
    }

    fn pass_time(&mut self, by: Duration) {
        self.now = self.now + by;
        for h in 0..2 {
            let host = &mut self.hosts[h];
            for _ in 0..100 {
                match host.engine.poll_timeout() {
                    Some(due) if due <= self.now => host.engine.handle_timeout(self.now, &mut host.env),
                    _ => break,
                }
            }
        }
        self.settle();
    }

    fn deliver_all(&mut self) {
        for _ in 0..200 {
            let Some(from) = (0..2).find(|h| !self.net[*h].is_empty()) else { return };
            if let Some(bytes) = self.net[from].pop_front() {
                self.deliver(from, bytes);
            }
        }
    }

    fn act(&mut self, op: u8, arg: u8) {
        let h = usize::from(op >> 7);
        let now = self.now;
        match op & 0x0f {
            0 | 1 => {
                let host = &mut self.hosts[h];
                if host.established && host.fin.is_none() && !host.reset {
                    let len = if op & 0x10 == 0 { usize::from(arg) } else { usize::from(arg) * 250 };
                    host.most = (host.most + len).min(STREAM_MAX);
                    host.send_from(now, host.nxt, len);
                }
            }
            2 | 3 => {
                if let Some(bytes) = self.net[h].pop_front() {
                    self.deliver(h, bytes);
                }
            }
            4 => drop(self.net[h].pop_front()),
            5 => {
                if let Some(mut bytes) = self.net[h].pop_front() {
                    // Payload only: who may change headers can do worse than this watch allows for.
                    let len = Packet::<()>::parse(&bytes).map_or(0, |packet| packet.payload_len());
                    let at = bytes.len() - len + usize::from(arg) * len / 256;
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << (op >> 4 & 7);
                        self.damaged = true;
                    }
                    self.deliver(h, bytes);
                }
            }
            6 => {
                if let Some(bytes) = self.net[h].front().cloned() {
                    self.deliver(h, bytes);
                }
            }
            7 => {
                if let Some(bytes) = self.net[h].pop_front() {
                    self.net[h].push_back(bytes);
                }
            }
            8 => self.pass_time(Duration::from_millis(1 << (arg & 15))),
            9 => {
                let host = &mut self.hosts[h];
                if host.established && !host.reset && (host.una < host.most || host.fin.is_some()) {
                    host.send_from(now, host.una.min(host.most), usize::from(arg) * 50);
                }
            }
            10 => {
                let host = &mut self.hosts[h];
                if host.established && host.fin.is_none() && host.nxt == host.most && !host.reset {
                    host.fin = Some(host.most);
                    host.send_from(now, host.nxt, 0);
                }
            }
            11 => {
                let (local, remote) = (address(h), address(1 - h));
                let host = &mut self.hosts[h];
                let _ = host.engine.rekey(now, local, remote, &mut host.env);
            }
            12 => {
                // Cut in two, the second part first if the argument is odd.
                if let Some(bytes) = self.net[h].pop_front() {
                    let Ok(packet) = Packet::<()>::parse(&bytes) else { return };
                    let at = packet.payload.start + packet.payload_len() * usize::from(arg) / 256;
                    if at == packet.payload.start || packet.flags.any(Flags::SYN) {
                        return self.deliver(h, bytes);
                    }
                    let mut first = bytes[..at].to_vec();
                    let mut second = bytes[..packet.payload.start].to_vec();
                    second.extend(&bytes[at..]);
                    let seq = packet.seq.0.wrapping_add((at - packet.payload.start) as u32);
                    second[packet.tcp.start + 4..packet.tcp.start + 8].copy_from_slice(&seq.to_be_bytes());
                    first[packet.tcp.start + 13] &= !Flags::FIN.low();
                    for part in [&mut first, &mut second] {
                        let len = part.len() as u16;
                        part[2..4].copy_from_slice(&len.to_be_bytes());
                    }
                    let parts = if arg & 1 == 0 { [first, second] } else { [second, first] };
                    parts.into_iter().for_each(|part| self.deliver(h, part));
                }
            }
            13 => {
                let host = &mut self.hosts[h];
                if op & 0x70 == 0x70 && host.established && !host.reset {
                    host.reset = true;
                    host.send(now, Some(host.nxt), Flags::RST.with(Flags::ACK), &[]);
                }
            }
            _ => self.deliver_all(),
        }
        self.settle();
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, acts)) = input.split_first() else { return };
    let mut world = World {
        now: Instant::from_micros(1_000_000),
        hosts: [Host::new(0), Host::new(1)],
        net: Default::default(),
        damaged: false,
    };
    let now = world.now;
    world.hosts[0].send(now, None, Flags::SYN, &[]);
    world.settle();
    // The handshake and the key exchange go well, unless the input wants to begin earlier.
    for _ in 0..first & 15 {
        world.act(2, 0);
        world.act(0x82, 0);
    }
    for pair in acts.chunks_exact(2).take(400) {
        world.act(pair[0], pair[1]);
    }
    // If no byte was changed, nothing that was written is lost once the network is good again.
    if !world.damaged && world.hosts.iter().all(|host| host.established && !host.reset) {
        for _ in 0..200 {
            world.deliver_all();
            world.pass_time(Duration::from_millis(300));
            for h in 0..2 {
                let host = &mut world.hosts[h];
                if !host.reset && host.una < host.most + usize::from(host.fin.is_some()) {
                    host.send_from(world.now, host.una.min(host.most), 4 * MSS);
                }
            }
            world.settle();
        }
        let [a, b] = &world.hosts;
        for (host, peer) in [(a, b), (b, a)] {
            if !a.reset && !b.reset {
                assert_eq!(host.received, peer.most, "host {}", host.number);
                assert_eq!(host.peer_fin, peer.fin.is_some(), "host {}", host.number);
            }
        }
    }
    for host in &mut world.hosts {
        host.engine.abort_all(world.now, &mut host.env);
        let mut now = world.now;
        for _ in 0..2_000 {
            let Some(due) = host.engine.poll_timeout() else { break };
            now = now.max(due);
            host.engine.handle_timeout(now, &mut host.env);
        }
        assert!(host.engine.is_empty(), "{:?}", host.engine.flows());
        assert_eq!(host.engine.held_bytes(), 0);
    }
});
