//! A life between two hosts: a connection with fresh keys, a rekey each way, its end; one that resumes the session, its end;
//! the cache is erased. The same seed gives the same life, so one run can say what another must not leave.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use enotun::engine::{Config, Engine, FlowState, RandomFor, Side};
use enotun::selector::Policy;
use enotun::wire::Offload;
use tcpcrypt::{AeadId, Provider, Tep};

use crate::harness::env::{Emitted, Generator, Source, TestEnv};
use crate::harness::host::{Host, everything};
use crate::harness::packet::{ACK, FIN, PSH, SYN, Seg};

/// What a life is like.
#[derive(Clone, Copy)]
pub struct Kind {
    pub provider: &'static dyn Provider,
    pub aead: AeadId,
    pub tep: Tep,
    /// The client's application resets the connections instead of closing them.
    pub reset: bool,
}

/// How far a life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The first connection has carried data both ways.
    Open,
    /// It has new keys, both ways, and has carried data with them.
    Rekeyed,
    /// It is over.
    Closed,
    /// The second connection has carried data with the keys of the resumed session.
    Resumed,
    /// It is over too.
    ClosedAgain,
    /// The cache was erased at both hosts.
    Erased,
}

impl Step {
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Rekeyed, Self::Closed, Self::Resumed, Self::ClosedAgain, Self::Erased];
}

/// What one run shows of its secrets.
#[derive(Debug, Default)]
pub struct Notes {
    /// What each host drew, in order, resumption nonces left out.
    pub drawn: [Vec<Vec<u8>>; 2],
    /// What each host has sent in the first connection, in C.
    pub streams: [Vec<u8>; 2],
    /// The transcripts of both connections.
    pub transcripts: Vec<Vec<u8>>,
}

/// A generator, and what was drawn from it if this run is to tell.
struct Noted {
    generator: Generator,
    drawn: Option<Vec<Vec<u8>>>,
}

impl Source for Noted {
    fn fill(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]) {
        self.generator.fill(wanted, out);
        if let Some(drawn) = &mut self.drawn
            && wanted.purpose != "resumption nonce"
        {
            drawn.push(out.to_vec());
        }
    }
}

/// A kernel's place in one connection.
struct Kernel {
    address: SocketAddr,
    peer: SocketAddr,
    next: u32,
    expects: u32,
    owes: bool,
    got: Vec<u8>,
}

struct World {
    hosts: [Host<Noted>; 2],
    kernels: [Kernel; 2],
    streams: Option<[Vec<u8>; 2]>,
}

const SERVER: ([u8; 4], u16) = ([10, 9, 0, 2], 80);

impl World {
    fn new(kind: Kind, tell: bool) -> Self {
        let host = |seed| {
            let mut config = Config { ciphers: vec![kind.aead], ..Config::default() };
            config.negotiation.teps = vec![kind.tep];
            let mut engine = Engine::new(config, kind.provider);
            engine.set_policy(everything(Policy::Required));
            let noted = Noted { generator: Generator::new(seed), drawn: tell.then(Vec::new) };
            Host::with_engine(engine, TestEnv::new(noted))
        };
        Self { hosts: [host(1), host(2)], kernels: Self::kernels(0), streams: tell.then(Default::default) }
    }

    fn kernels(n: u16) -> [Kernel; 2] {
        let (client, server) = (SocketAddr::from(([10, 0, 0, 1], 20_000 + n)), SocketAddr::from(SERVER));
        let kernel = |address, peer, next| Kernel { address, peer, next, expects: 0, owes: false, got: Vec::new() };
        [kernel(client, server, 1000), kernel(server, client, 500_000)]
    }

    fn segment(&mut self, at: usize, flags: u8, payload: &[u8]) -> Seg {
        let kernel = &mut self.kernels[at];
        let options = if flags & SYN != 0 {
            vec![2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]
        } else {
            vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]
        };
        let ack = if flags & ACK == 0 { 0 } else { kernel.expects };
        let seg = Seg {
            seq: kernel.next,
            ack,
            flags,
            options,
            payload: payload.to_vec(),
            ..Seg::new(kernel.address, kernel.peer)
        };
        kernel.next += payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        seg
    }

    /// A kernel sends; everything that comes of it is carried until nothing moves, kernels acknowledging what they get.
    fn send(&mut self, at: usize, flags: u8, payload: &[u8]) {
        self.hosts.iter_mut().for_each(|host| host.now = host.now + Duration::from_millis(10));
        let seg = self.segment(at, flags, payload);
        let mut waiting = VecDeque::from([(at, Side::Plain, seg.build(), Offload::NONE)]);
        loop {
            while let Some((host, side, mut bytes, offload)) = waiting.pop_front() {
                if let (Side::Plain, Some(streams)) = (side.other(), &mut self.streams) {
                    streams[1 - host].extend(Seg::parse(&bytes).unwrap().payload);
                }
                self.hosts[host].give(side, offload, &mut bytes);
                for Emitted { side, bytes, offload, .. } in self.hosts[host].env.out.drain(..) {
                    match side {
                        Side::Wire => waiting.push_back((1 - host, Side::Wire, bytes, offload)),
                        Side::Plain => self.kernels[host].hear(&Seg::parse(&bytes).unwrap()),
                    }
                }
            }
            let Some(at) = self.kernels.iter().position(|kernel| kernel.owes) else { return };
            self.kernels[at].owes = false;
            let ack = self.segment(at, ACK, b"");
            waiting.push_back((at, Side::Plain, ack.build(), Offload::NONE));
        }
    }

    fn say(&mut self, at: usize, data: &[u8]) {
        self.send(at, ACK | PSH, data);
        assert!(self.kernels[1 - at].got.ends_with(data), "data arrives");
    }

    fn open(&mut self, n: u16) {
        self.kernels = Self::kernels(n);
        self.send(0, SYN, b"");
        self.kernels[1].owes = false;
        self.send(1, SYN | ACK, b"");
        self.say(0, b"a question");
        self.say(1, b"an answer");
        self.say(0, b"thanks");
        for (host, kernel) in self.hosts.iter().zip(&self.kernels) {
            let flow = host.engine.flow(kernel.address, kernel.peer).unwrap();
            assert_eq!((flow.state, flow.resumed), (FlowState::Encrypted, n > 0), "{:?}", flow.reason);
        }
    }

    fn close(&mut self, reset: bool) {
        if reset {
            self.send(0, crate::harness::packet::RST | ACK, b"");
        } else {
            self.send(0, FIN | ACK, b"");
            self.send(1, FIN | ACK, b"");
        }
        for (host, kernel) in self.hosts.iter().zip(&self.kernels) {
            let flow = host.engine.flow(kernel.address, kernel.peer).unwrap();
            assert_eq!(flow.state, FlowState::Closed);
        }
    }
}

impl Kernel {
    fn hear(&mut self, seg: &Seg) {
        if seg.flags & SYN != 0 {
            self.expects = seg.seq.wrapping_add(1);
            self.owes = seg.flags & ACK != 0;
            return;
        }
        let len = seg.payload.len() as u32 + u32::from(seg.flags & FIN != 0);
        if len > 0 && seg.seq == self.expects {
            self.expects += len;
            self.got.extend_from_slice(&seg.payload);
            self.owes = true;
        }
    }
}

/// Lives a life, calling `at` at each step. `tell`: what was secret in it is returned.
pub fn live(kind: Kind, tell: bool, mut at: impl FnMut(Step)) -> Notes {
    let mut world = World::new(kind, tell);
    let mut transcripts = Vec::new();
    let mut note = |world: &World| {
        if tell {
            let kernel = &world.kernels[0];
            let session = world.hosts[0].engine.session(kernel.address, kernel.peer).unwrap();
            transcripts.push(hex::decode(session.transcript).unwrap());
        }
    };
    world.open(0);
    note(&world);
    at(Step::Open);

    let kernel = &world.kernels[0];
    let (local, remote) = (kernel.address, kernel.peer);
    let [a, b] = &mut world.hosts;
    a.engine.rekey(a.now, local, remote, &mut a.env).unwrap();
    for Emitted { side, mut bytes, offload, .. } in a.env.take() {
        assert_eq!(side, Side::Wire);
        b.engine.handle_packet(b.now, side, offload, &mut bytes, &mut b.env);
    }
    for Emitted { side, mut bytes, offload, .. } in b.env.take() {
        if side == Side::Wire {
            a.engine.handle_packet(a.now, side, offload, &mut bytes, &mut a.env);
        }
    }
    a.env.out.clear();
    world.say(0, b"with new keys");
    world.say(1, b"so they are");
    for (host, kernel) in world.hosts.iter().zip(&world.kernels) {
        let flow = host.engine.flow(kernel.address, kernel.peer).unwrap();
        assert_eq!((flow.generation_local, flow.generation_remote), (Some(1), Some(1)));
    }
    at(Step::Rekeyed);

    world.close(kind.reset);
    at(Step::Closed);
    let streams = world.streams.take().unwrap_or_default();

    world.open(1);
    note(&world);
    at(Step::Resumed);
    world.close(kind.reset);
    at(Step::ClosedAgain);

    for host in &mut world.hosts {
        assert_eq!(host.engine.flush_sessions(None), 1);
    }
    at(Step::Erased);
    let drawn = world.hosts.map(|host| host.env.source.drawn.unwrap_or_default());
    Notes { drawn, streams, transcripts }
}
