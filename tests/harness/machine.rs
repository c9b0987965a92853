//! Machines that can be copied, for tests of cloned and rolled-back hosts.
//!
//! A copy is made by giving a second engine all that the first one was given: an engine is a function of packets, time
//! and randomness, and that it comes out the same is checked. The random source is the worst case: nothing but a
//! generator whose state is copied as well, so that all that can still differ is what bytes are asked to be mixed with.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use enotun::engine::{Config, Disrupted, Disruption, Engine, FlowState, Side};
use enotun::selector::Policy;
use enotun::time::Instant;
use enotun::wire::Offload;
use serde::{Deserialize, Serialize};

use super::env::{Generator, Source, TestEnv};
use super::host::{Host, START, everything};
use super::packet::{ACK, PSH, RST, SYN, Seg};
use super::seals;

pub type Packets = Vec<(Side, Vec<u8>, Offload)>;

/// What an engine was given.
#[derive(Clone)]
enum Fed {
    Packet(Side, Vec<u8>, Offload),
    Sign(Disruption),
}

/// How a machine is made.
#[derive(Debug, Clone, Copy)]
pub struct Make {
    pub seed: u64,
    /// Whether its random source mixes in what bytes are wanted for.
    pub mixing: bool,
    /// Whether it resumes sessions.
    pub resume: bool,
    pub nonce_len: usize,
}

/// A host with its engine, and all that the engine was given.
pub struct Machine<S = Generator> {
    host: Host<S>,
    fed: Vec<Fed>,
    gave: u64,
    make: Make,
}

/// Time stands still: a clock that differs would help.
pub const NOW: Instant = START;

impl Machine {
    pub fn new(make: Make) -> Self {
        let source = if make.mixing { Generator::new(make.seed) } else { Generator::without_mixing(make.seed) };
        Self::with_source(make, source)
    }

    /// Another one in the same state.
    pub fn copy(&self) -> Self {
        seals::pause(true);
        let mut copy = Self::new(self.make);
        for fed in &self.fed {
            copy.feed(fed.clone());
        }
        seals::pause(false);
        assert_eq!(
            (copy.gave, copy.host.env.source.count),
            (self.gave, self.host.env.source.count),
            "it is not a copy"
        );
        assert_eq!(copy.engine.sessions(NOW), self.engine.sessions(NOW));
        assert_eq!(copy.engine.len(), self.engine.len());
        copy
    }
}

impl<S: Source> Machine<S> {
    /// One with another random source.
    pub fn with_source(make: Make, source: S) -> Self {
        let mut config = Config::default();
        config.negotiation.nonce_len = make.nonce_len;
        config.negotiation.resume = make.resume;
        let mut engine = Engine::new(config, seals::provider());
        engine.set_policy(everything(Policy::Required));
        Self { host: Host::with_engine(engine, TestEnv::new(source)), fed: Vec::new(), gave: 0, make }
    }

    fn feed(&mut self, fed: Fed) -> (Packets, Option<Disrupted>) {
        self.fed.push(fed.clone());
        let done = match fed {
            Fed::Packet(side, mut bytes, offload) => {
                self.host.give(side, offload, &mut bytes);
                None
            }
            Fed::Sign(sign) => Some(self.host.engine.handle_disruption(NOW, sign, &mut self.host.env)),
        };
        let out: Packets = self.host.env.take().into_iter().map(|sent| (sent.side, sent.bytes, sent.offload)).collect();
        let mut hasher = DefaultHasher::new();
        self.gave.hash(&mut hasher);
        out.iter().for_each(|(side, bytes, _)| (side, bytes).hash(&mut hasher));
        self.gave = hasher.finish();
        (out, done)
    }

    /// Gives the engine a sign; what it does, and the packets it sends.
    pub fn disrupt(&mut self, sign: Disruption) -> (Disrupted, Packets) {
        let (out, done) = self.feed(Fed::Sign(sign));
        (done.unwrap(), out)
    }
}

impl<S> Deref for Machine<S> {
    type Target = Host<S>;

    fn deref(&self) -> &Host<S> {
        &self.host
    }
}

impl<S> DerefMut for Machine<S> {
    fn deref_mut(&mut self) -> &mut Host<S> {
        &mut self.host
    }
}

/// What takes packets: a machine, or the way to one in another process.
pub trait Node {
    /// Gives the engine a packet; what it sends.
    fn take(&mut self, side: Side, bytes: Vec<u8>, offload: Offload) -> Packets;

    /// What the engine says of a connection: whether it is encrypted and whether resumed, its session ID and its hash of
    /// the keys.
    fn session(&self, local: SocketAddr, remote: SocketAddr) -> Session;
}

/// See [`Node::session`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub encrypted: bool,
    pub resumed: bool,
    pub id: String,
    pub key: String,
}

impl<S: Source> Node for Machine<S> {
    fn take(&mut self, side: Side, bytes: Vec<u8>, offload: Offload) -> Packets {
        self.feed(Fed::Packet(side, bytes, offload)).0
    }

    fn session(&self, local: SocketAddr, remote: SocketAddr) -> Session {
        let flow = self.engine.flow(local, remote).unwrap();
        let session = self.engine.session(local, remote).unwrap();
        Session {
            encrypted: flow.state == FlowState::Encrypted,
            resumed: flow.resumed,
            id: session.session_id,
            key: session.key_fingerprint,
        }
    }
}

/// Gives a packet to `from` and carries what comes of it between the two until nothing moves; what their kernels get.
pub fn carry(from: &mut dyn Node, to: &mut dyn Node, segment: &Seg) -> [Packets; 2] {
    carry_on(from, to, vec![(0, Side::Plain, segment.build(), Offload::NONE)])
}

/// Carries what `from` has sent.
pub fn deliver(from: &mut dyn Node, to: &mut dyn Node, sent: Packets) -> [Packets; 2] {
    let on_wire = sent.into_iter().filter(|(side, ..)| *side == Side::Wire);
    carry_on(from, to, on_wire.map(|(side, bytes, offload)| (1, side, bytes, offload)).rev().collect())
}

fn carry_on(from: &mut dyn Node, to: &mut dyn Node, mut waiting: Vec<(usize, Side, Vec<u8>, Offload)>) -> [Packets; 2] {
    let mut kernels = [Vec::new(), Vec::new()];
    for _ in 0..100 {
        let Some((at, side, bytes, offload)) = waiting.pop() else { return kernels };
        let node: &mut dyn Node = if at == 0 { from } else { to };
        for (side, bytes, offload) in node.take(side, bytes, offload) {
            match side {
                Side::Plain => kernels[at].push((side, bytes, offload)),
                Side::Wire => waiting.insert(0, (1 - at, Side::Wire, bytes, offload)),
            }
        }
    }
    panic!("a storm");
}

/// Whether a kernel got `data` in one of these.
pub fn has_data(packets: &Packets, data: &[u8]) -> bool {
    packets.iter().any(|(_, packet, _)| Seg::parse(packet).unwrap().payload == data)
}

/// What tells one connection from another.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub client_isn: u32,
    pub server_isn: u32,
}

impl Numbers {
    /// Those of connection `n` of a run; the second host opens it if `swapped`.
    pub fn new(seed: u64, swapped: bool, n: u32) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, n).hash(&mut hasher);
        let h = hasher.finish();
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let (client, server) = if swapped { (b, a) } else { (a, b) };
        Self {
            client: SocketAddr::from((client, 40_000 + (n % 10_000) as u16)),
            server: SocketAddr::from((server, 80)),
            client_isn: (h >> 34) as u32,
            server_isn: (h as u32) >> 2,
        }
    }
}

/// A connection, as both kernels see it.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    pub numbers: Numbers,
    /// What the client and the server send next.
    pub next: [u32; 2],
}

impl Connection {
    /// The connection before its SYN.
    pub fn closed(numbers: Numbers) -> Self {
        Self { numbers, next: [numbers.client_isn, numbers.server_isn] }
    }

    pub fn segment(&self, by_client: bool, flags: u8, payload: &[u8]) -> Seg {
        let [client, server] = self.next;
        let n = &self.numbers;
        let (src, dst, seq, ack) =
            if by_client { (n.client, n.server, client, server) } else { (n.server, n.client, server, client) };
        let mut options = Vec::new();
        if flags & SYN != 0 {
            options.extend_from_slice(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
        } else {
            options.extend_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
        }
        let ack = if flags & ACK == 0 { 0 } else { ack };
        Seg { seq, ack, flags, options, payload: payload.to_vec(), ..Seg::new(src, dst) }
    }

    /// The client's SYN; what arrives at the server's kernel and what goes on before it answers.
    pub fn syn(&mut self, client: &mut dyn Node, server: &mut dyn Node) -> [Packets; 2] {
        let segment = self.segment(true, SYN, b"");
        self.next[0] = self.numbers.client_isn.wrapping_add(1);
        carry(client, server, &segment)
    }

    /// The server's SYN-ACK; whether the client's kernel was given a window, which means that there are keys.
    pub fn syn_ack(&mut self, client: &mut dyn Node, server: &mut dyn Node) -> bool {
        let segment = self.segment(false, SYN | ACK, b"");
        self.next[1] = self.numbers.server_isn.wrapping_add(1);
        let [_, answer] = carry(server, client, &segment);
        Seg::parse(&answer[0].1).unwrap().win > 0
    }

    /// The whole opening, with the client's first data in its first segment after the SYN-ACK if that can be.
    pub fn open(client: &mut dyn Node, server: &mut dyn Node, numbers: Numbers, first: &[u8]) -> (Self, Session) {
        let mut it = Self::closed(numbers);
        let [_, syn] = it.syn(client, server);
        assert_eq!(syn.len(), 1, "the SYN arrives");
        let resumed = it.syn_ack(client, server);
        if !resumed {
            carry(client, server, &it.segment(true, ACK, b""));
        }
        assert!(it.say(client, server, true, first), "the client's data arrives at once");
        let came = client.session(numbers.client, numbers.server);
        assert_eq!(came, server.session(numbers.server, numbers.client));
        assert_eq!((came.encrypted, came.resumed), (true, resumed));
        (it, came)
    }

    /// One of the two sends data; whether the other's kernel gets it.
    pub fn say(&mut self, client: &mut dyn Node, server: &mut dyn Node, by_client: bool, data: &[u8]) -> bool {
        let segment = self.segment(by_client, ACK | PSH, data);
        let [_, got] = if by_client { carry(client, server, &segment) } else { carry(server, client, &segment) };
        self.next[usize::from(!by_client)] += data.len() as u32;
        has_data(&got, data)
    }

    /// The client resets it.
    pub fn reset(&self, client: &mut dyn Node, server: &mut dyn Node) {
        carry(client, server, &self.segment(true, RST | ACK, b""));
    }

    /// The whole life of a connection with data both ways.
    pub fn whole(client: &mut dyn Node, server: &mut dyn Node, numbers: Numbers, data: [&[u8]; 2]) -> Session {
        let (mut it, came) = Self::open(client, server, numbers, data[0]);
        assert!(it.say(client, server, false, data[1]), "the server's data arrives");
        it.reset(client, server);
        came
    }
}
