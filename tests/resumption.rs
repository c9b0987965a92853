//! Cloned and rolled-back machines (TC-13, TC-14, TC-19): the complete state of an engine is copied in mid-life, with
//! its cache of sessions, its counters and the state of its random source, and all copies go on. No (key, nonce) pair
//! may seal two frames and no session ID may occur twice.
//!
//! A copy is made by feeding a second engine all that the first one was fed: an engine is a function of packets, time
//! and randomness, and that it comes out the same is checked. The random source here is the worst case: nothing but a
//! generator whose state is copied as well, so that all that can still differ is what a nonce is asked to be mixed
//! with. The same runs without that mixing show that the test can fail.
#![allow(unreachable_pub, dead_code, reason = "modules of a test crate have no outside, and are shared")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

#[path = "sim/packet.rs"]
mod packet;

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use enotun::engine::{Config, Engine, Env, FlowState, RandomFor, Side};
use enotun::selector::{Policy, PolicyTable, Rule};
use enotun::time::Instant;
use enotun::wire::{Offload, Outgoing};
use packet::{ACK, PSH, RST, SYN, Seg};
use tcpcrypt::aead::{AeadKey, NotAuthentic};
use tcpcrypt::kex::PrivateKey;
use tcpcrypt::{AeadId, Error, Provider, Tep};

/// What was sealed in this run.
#[derive(Default)]
struct Seals {
    /// What a copy does while it is made was done by its original.
    paused: bool,
    seen: HashSet<(Vec<u8>, [u8; 12])>,
    repeated: usize,
}

thread_local! {
    static SEALS: RefCell<Seals> = RefCell::default();
}

/// A provider that notes every (key, nonce) pair that seals a frame.
struct Recording;
static RECORDING: Recording = Recording;

struct RecordedKey {
    key: Vec<u8>,
    inner: Box<dyn AeadKey>,
}

impl Provider for Recording {
    fn name(&self) -> &'static str {
        "recording"
    }
    fn aead(&self, id: AeadId, key: &[u8]) -> Result<Box<dyn AeadKey>, Error> {
        let inner = enotun::crypto::provider().aead(id, key)?;
        Ok(Box::new(RecordedKey { key: key.to_vec(), inner }))
    }
    fn private_key(&self, tep: Tep, bytes: &[u8]) -> Result<Option<Box<dyn PrivateKey>>, Error> {
        enotun::crypto::provider().private_key(tep, bytes)
    }
}

impl AeadKey for RecordedKey {
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
        SEALS.with_borrow_mut(|seals| {
            if !seals.paused && !seals.seen.insert((self.key.clone(), *nonce)) {
                seals.repeated += 1;
            }
        });
        self.inner.seal(nonce, aad, buffer)
    }
    fn open(&self, nonce: &[u8; 12], aad: &[u8], buffer: &mut [u8], tag: &[u8; 16]) -> Result<(), NotAuthentic> {
        self.inner.open(nonce, aad, buffer, tag)
    }
}

/// A random source that is a generator and nothing else.
struct Source {
    seed: u64,
    count: u64,
    /// Whether what the bytes are wanted for goes into them.
    mixing: bool,
}

struct Surroundings {
    source: Source,
    out: Vec<(Side, Vec<u8>, Offload)>,
}

impl Env for Surroundings {
    fn emit(&mut self, side: Side, packet: &Outgoing<'_>) {
        self.out.push((side, packet.to_vec(), packet.offload));
    }
    fn forward(&mut self, side: Side, offload: Offload, bytes: &[u8]) {
        self.out.push((side, bytes.to_vec(), offload));
    }
    fn random(&mut self, wanted: &RandomFor<'_>, out: &mut [u8]) {
        let source = &mut self.source;
        source.count += 1;
        for (block, bytes) in out.chunks_mut(8).enumerate() {
            let mut hasher = DefaultHasher::new();
            (source.seed, source.count, block).hash(&mut hasher);
            if source.mixing {
                (wanted.purpose, wanted.local, wanted.remote, wanted.context).hash(&mut hasher);
            }
            bytes.copy_from_slice(&hasher.finish().to_be_bytes()[..bytes.len()]);
        }
    }
    fn random_is_ready(&self) -> bool {
        true
    }
}

type Packets = Vec<(Side, Vec<u8>, Offload)>;

/// A host with its engine, and all that the engine was fed.
struct Machine {
    engine: Engine,
    env: Surroundings,
    fed: Packets,
    gave: u64,
    make: (u64, bool, usize),
}

/// Time stands still: a clock that differs would help.
const NOW: Instant = Instant::from_micros(1_000_000);

impl Machine {
    fn new(seed: u64, mixing: bool, nonce_len: usize) -> Self {
        let mut config = Config::default();
        config.negotiation.nonce_len = nonce_len;
        let mut engine = Engine::new(config, &RECORDING);
        engine.set_policy(PolicyTable::new([Rule::new("0.0.0.0/0".parse().unwrap(), Policy::Required)]));
        let env = Surroundings { source: Source { seed, count: 0, mixing }, out: Vec::new() };
        Self { engine, env, fed: Vec::new(), gave: 0, make: (seed, mixing, nonce_len) }
    }

    fn feed(&mut self, side: Side, bytes: Vec<u8>, offload: Offload) -> Packets {
        let mut changed = bytes.clone();
        self.fed.push((side, bytes, offload));
        self.engine.handle_packet(NOW, side, offload, &mut changed, &mut self.env);
        let out = std::mem::take(&mut self.env.out);
        let mut hasher = DefaultHasher::new();
        self.gave.hash(&mut hasher);
        out.iter().for_each(|(side, bytes, _)| (side, bytes).hash(&mut hasher));
        self.gave = hasher.finish();
        out
    }

    /// Another one in the same state.
    fn copy(&self) -> Self {
        SEALS.with_borrow_mut(|seals| seals.paused = true);
        let (seed, mixing, nonce_len) = self.make;
        let mut copy = Self::new(seed, mixing, nonce_len);
        for (side, bytes, offload) in &self.fed {
            copy.feed(*side, bytes.clone(), *offload);
        }
        SEALS.with_borrow_mut(|seals| seals.paused = false);
        assert_eq!((copy.gave, copy.env.source.count), (self.gave, self.env.source.count), "it is not a copy");
        assert_eq!(copy.engine.sessions(NOW), self.engine.sessions(NOW));
        copy
    }
}

/// Gives a packet to `from` and carries what comes of it between the two until nothing moves; what their kernels get.
fn carry(from: &mut Machine, to: &mut Machine, segment: &Seg) -> [Packets; 2] {
    let mut kernels = [Vec::new(), Vec::new()];
    let mut waiting = vec![(0, Side::Plain, segment.build(), Offload::NONE)];
    for _ in 0..100 {
        let Some((at, side, bytes, offload)) = waiting.pop() else { return kernels };
        let machine = if at == 0 { &mut *from } else { &mut *to };
        for (side, bytes, offload) in machine.feed(side, bytes, offload) {
            match side {
                Side::Plain => kernels[at].push((side, bytes, offload)),
                Side::Wire => waiting.insert(0, (1 - at, Side::Wire, bytes, offload)),
            }
        }
    }
    panic!("a storm");
}

/// What tells one connection from another.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    client: SocketAddr,
    server: SocketAddr,
    client_isn: u32,
    server_isn: u32,
}

fn segment(numbers: &Numbers, by_client: bool, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Seg {
    let (src, dst) = if by_client { (numbers.client, numbers.server) } else { (numbers.server, numbers.client) };
    let mut options = Vec::new();
    if flags & SYN != 0 {
        options.extend_from_slice(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
    } else {
        options.extend_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    }
    Seg { seq, ack, flags, options, payload: payload.to_vec(), ..Seg::new(src, dst) }
}

/// What came of a connection.
struct Came {
    session_id: String,
    resumed: bool,
}

/// A whole connection with data both ways, the client's in its first segment after the SYN-ACK if that can be. `data`
/// is what the two write.
fn connect(client: &mut Machine, server: &mut Machine, numbers: &Numbers, data: [&[u8]; 2]) -> Came {
    let (ci, si) = (numbers.client_isn, numbers.server_isn);
    let seg = |by_client, seq, ack, flags, payload: &[u8]| segment(numbers, by_client, seq, ack, flags, payload);
    let [_, syn] = carry(client, server, &seg(true, ci, 0, SYN, b""));
    assert_eq!(syn.len(), 1, "the SYN arrives");
    let [_, answer] = carry(server, client, &seg(false, si, ci + 1, SYN | ACK, b""));
    let window = Seg::parse(&answer[0].1).unwrap().win;
    if window == 0 {
        carry(client, server, &seg(true, ci + 1, si + 1, ACK, b""));
    }
    // With a window there are keys: the third segment carries data.
    let [_, got] = carry(client, server, &seg(true, ci + 1, si + 1, ACK | PSH, data[0]));
    let delivered =
        |packets: &Packets, data: &[u8]| packets.iter().any(|(_, p, _)| Seg::parse(p).unwrap().payload == data);
    assert!(delivered(&got, data[0]), "the client's data arrives at once");
    let client_end = ci + 1 + data[0].len() as u32;
    let [_, got] = carry(server, client, &seg(false, si + 1, client_end, ACK | PSH, data[1]));
    assert!(delivered(&got, data[1]), "the server's data arrives");
    let at_client = client.engine.flow(numbers.client, numbers.server).unwrap();
    let at_server = server.engine.flow(numbers.server, numbers.client).unwrap();
    assert_eq!((at_client.state, at_client.resumed), (FlowState::Encrypted, at_server.resumed));
    assert_eq!(at_client.session_id, at_server.session_id);
    assert_eq!(at_client.resumed, window > 0);
    carry(client, server, &seg(true, client_end, si + 1, RST | ACK, b""));
    Came { session_id: at_client.session_id.unwrap(), resumed: at_client.resumed }
}

/// Who is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cloned {
    Client,
    Server,
    /// Both: a host and its peer are rolled back together. Each copy of the one meets one copy of the other.
    Both,
}

/// What came of all connections of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    repeated_seals: usize,
    repeated_ids: usize,
    resumed: usize,
    fresh: usize,
}

fn numbers(seed: u64, swapped: bool, n: u32) -> Numbers {
    let mut hasher = DefaultHasher::new();
    (seed, n).hash(&mut hasher);
    let h = hasher.finish();
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (client, server) = if swapped { (b, a) } else { (a, b) };
    Numbers {
        client: SocketAddr::from((client, 40_000 + (n % 10_000) as u16)),
        server: SocketAddr::from((server, 80)),
        client_isn: (h >> 34) as u32,
        server_isn: (h as u32) >> 2,
    }
}

/// One run: a session (or several) between two hosts, one or both copied, all copies resume. `swapped`: whoever resumes
/// was the server before. `second_first`: the copy goes before the original.
fn run(seed: u64, cloned: Cloned, swapped: bool, second_first: bool, mixing: bool, nonces: [usize; 2]) -> Tally {
    SEALS.with_borrow_mut(|seals| *seals = Seals::default());
    let mut ids = HashSet::new();
    let mut tally = Tally::default();
    let mut note = |came: Came, tally: &mut Tally| {
        tally.repeated_ids += usize::from(!ids.insert(came.session_id));
        *(if came.resumed { &mut tally.resumed } else { &mut tally.fresh }) += 1;
    };
    let [mut one, mut other] = [0, 1].map(|i| Machine::new(seed * 2 + i as u64, mixing, nonces[i]));
    for n in 0..1 + (seed % 3) as u32 {
        let numbers = numbers(seed, false, n);
        let came = connect(&mut one, &mut other, &numbers, [b"the first question", b"the first answer"]);
        note(came, &mut tally);
    }
    let (client, server) = if swapped { (other, one) } else { (one, other) };
    let mut clients = vec![client];
    let mut servers = vec![server];
    if cloned != Cloned::Server {
        clients.push(clients[0].copy());
    }
    if cloned != Cloned::Client {
        servers.push(servers[0].copy());
    }
    let mut order = [0, 1];
    if second_first {
        order.reverse();
    }
    for round in 0..3 {
        for (turn, copy) in order.into_iter().enumerate() {
            let client = &mut clients[if cloned == Cloned::Server { 0 } else { copy }];
            let server = &mut servers[if cloned == Cloned::Client { 0 } else { copy }];
            // A cloned kernel may choose the same port and sequence number; the one that was not cloned goes on. With
            // both rolled back something must have changed: here it is one sequence number, by one.
            let mut of = numbers(seed, swapped, 100 + round);
            match cloned {
                Cloned::Client => of.server_isn += 1000 * turn as u32,
                Cloned::Server => of.client_isn += 1000 * turn as u32,
                Cloned::Both if seed.is_multiple_of(2) => of.client_isn += copy as u32,
                Cloned::Both => of.server_isn += copy as u32,
            }
            if cloned == Cloned::Server {
                of.client.set_port(of.client.port() + 1000 * turn as u16);
            }
            let data = [format!("question {round} by {copy}"), format!("answer {round} by {copy}")];
            let came = connect(client, server, &of, [data[0].as_bytes(), data[1].as_bytes()]);
            note(came, &mut tally);
        }
    }
    tally.repeated_seals = SEALS.with_borrow(|seals| seals.repeated);
    tally
}

const SEEDS: u64 = 40;

/// All runs of a kind: seeds, both directions, both orders.
fn runs(cloned: Cloned, mixing: bool, nonces: impl Fn(u64, bool) -> [usize; 2]) -> Tally {
    let mut sum = Tally::default();
    for seed in 0..SEEDS {
        for (swapped, second_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let tally = run(seed, cloned, swapped, second_first, mixing, nonces(seed, swapped));
            if mixing {
                let what = format!("seed {seed}, {cloned:?}, swapped {swapped}, second first {second_first}");
                assert_eq!((tally.repeated_seals, tally.repeated_ids), (0, 0), "{what}");
            }
            sum.repeated_seals += tally.repeated_seals;
            sum.repeated_ids += tally.repeated_ids;
            sum.resumed += tally.resumed;
            sum.fresh += tally.fresh;
        }
    }
    sum
}

#[test]
fn tc_19_copies_of_a_client_share_no_key_and_no_session_id() {
    let sum = runs(Cloned::Client, true, |seed, _| [[8, 8], [0, 8], [8, 0]][(seed % 3) as usize]);
    assert!(sum.resumed > 0 && sum.fresh > 0, "{sum:?}");
}

#[test]
fn tc_19_copies_of_a_server_share_no_key_and_no_session_id() {
    let sum = runs(Cloned::Server, true, |seed, _| [[8, 8], [0, 8], [8, 0]][(seed % 3) as usize]);
    assert!(sum.resumed > 0, "{sum:?}");
}

#[test]
fn tc_14_two_hosts_rolled_back_together_share_no_key_if_one_sequence_number_differs() {
    let sum = runs(Cloned::Both, true, |_, _| [8, 8]);
    // Every connection after the copying resumes: nothing refuses a secret that was used in the other copy.
    assert_eq!(sum.resumed, (SEEDS * 4 * 6) as usize + repeated_before(), "{sum:?}");
}

/// Connections before the copying that resumed the one before them.
fn repeated_before() -> usize {
    (0..SEEDS).map(|seed| 4 * (seed % 3) as usize).sum()
}

#[test]
fn tc_14_without_mixing_the_same_runs_repeat_keys() {
    let sum = runs(Cloned::Both, false, |_, _| [8, 8]);
    assert!(sum.repeated_seals > 0 && sum.repeated_ids > 0, "the test cannot fail: {sum:?}");
}
