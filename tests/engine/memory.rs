//! What connections cost in memory, counted by the allocator: an idle one little, and one that goes on nothing more
//! with every packet.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use enotun::engine::{Config, Engine, FlowState, Side};
use enotun::selector::Policy;
use enotun::time::Instant;
use enotun::wire::Offload;

use crate::harness::env::{Emitted, Generator, TestEnv, is_aside};
use crate::harness::host::{Host, everything};
use crate::harness::packet::{self, ACK, PSH, SYN, Seg};

/// The system's allocator, counting for each thread (tests run side by side).
struct Counting;

thread_local! {
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Whether allocations are counted now.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

fn note(bytes: i64) {
    LIVE_BYTES.set(LIVE_BYTES.get() + bytes);
    ALLOCATIONS.set(ALLOCATIONS.get() + u64::from(WATCHED.get() && !is_aside() && bytes > 0));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(-(layout.size() as i64));
        note(size as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(-(layout.size() as i64));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn host(seed: u64) -> Host {
    let mut config = Config::default();
    // The cache of sessions is bounded by itself.
    config.sessions.max = 0;
    let mut engine = Engine::new(config, enotun::crypto::provider());
    engine.set_policy(everything(Policy::Required));
    Host::with_engine(engine, TestEnv::new(Generator::new(seed)))
}

/// Gives a kernel's packet to the engine of host `at` and carries what comes of it until nothing moves. The payloads
/// that arrive at the other kernel.
fn carry_packet(hosts: &mut [Host; 2], now: Instant, at: usize, packet: Vec<u8>, offload: Offload) -> Vec<u8> {
    let mut arrived = Vec::new();
    let mut waiting = vec![(at, Side::Plain, packet, offload)];
    while let Some((host, side, mut bytes, offload)) = waiting.pop() {
        let Host { engine, env, .. } = &mut hosts[host];
        WATCHED.set(true);
        engine.handle_packet(now, side, offload, &mut bytes, env);
        while engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now, env);
        }
        WATCHED.set(false);
        for Emitted { side, bytes, offload, .. } in env.out.drain(..) {
            match side {
                Side::Plain if host != at => arrived.extend(Seg::parse(&bytes).expect("a segment").payload),
                Side::Plain => {}
                Side::Wire => waiting.insert(0, (1 - host, Side::Wire, bytes, offload)),
            }
        }
    }
    arrived
}

fn carry(hosts: &mut [Host; 2], now: Instant, at: usize, segment: &Seg) -> Vec<u8> {
    carry_packet(hosts, now, at, segment.build(), Offload::NONE)
}

fn segment(n: u32, by_client: bool, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Seg {
    let client = SocketAddr::from(([10, 0, (n >> 14) as u8, 1], 20_000 + (n & 0x3fff) as u16));
    let server = SocketAddr::from(([10, 9, 0, 2], 80));
    let (src, dst) = if by_client { (client, server) } else { (server, client) };
    Seg { seq, ack, flags, payload: payload.to_vec(), ..Seg::like_linux(src, dst, flags) }
}

/// Opens connection `n`, with a question and an answer, all acknowledged.
fn open(hosts: &mut [Host; 2], now: Instant, n: u32) {
    let (ci, si) = (n * 1000, n * 1000 + 500_000);
    carry(hosts, now, 0, &segment(n, true, ci, 0, SYN, b""));
    carry(hosts, now, 1, &segment(n, false, si, ci + 1, SYN | ACK, b""));
    carry(hosts, now, 0, &segment(n, true, ci + 1, si + 1, ACK, b""));
    assert_eq!(carry(hosts, now, 0, &segment(n, true, ci + 1, si + 1, ACK | PSH, b"ask")), b"ask");
    assert_eq!(carry(hosts, now, 1, &segment(n, false, si + 1, ci + 4, ACK | PSH, b"answer")), b"answer");
    carry(hosts, now, 0, &segment(n, true, ci + 4, si + 7, ACK, b""));
}

#[test]
fn an_idle_connection_costs_less_than_2_kib_at_each_end() {
    const CONNECTIONS: u32 = 2000;
    let mut hosts = [host(1), host(2)];
    let mut now = Instant::from_micros(1_000_000);
    let before = LIVE_BYTES.get();
    for n in 0..CONNECTIONS {
        open(&mut hosts, now, n);
    }
    let each = |before: i64| (LIVE_BYTES.get() - before) / i64::from(CONNECTIONS) / 2;
    let busy = each(before);
    // Past the handshake's time-outs, of which nothing is to be left either.
    for _ in 0..4 {
        now = now + Duration::from_secs(40);
        for host in &mut hosts {
            host.engine.handle_timeout(now, &mut host.env);
        }
    }
    let idle = each(before);
    println!("bytes for each connection at each end: {busy} busy, {idle} idle");
    for host in &hosts {
        let flows = host.engine.flows();
        assert!(flows.len() == CONNECTIONS as usize && flows.iter().all(|f| f.state == FlowState::Encrypted));
    }
    assert!(idle < 2048, "{idle} bytes");
    // The keys are made ready again when they are needed.
    let answer = carry(&mut hosts, now, 0, &segment(5, true, 5004, 505_007, ACK | PSH, b"still there?"));
    assert_eq!(answer, b"still there?");
    assert!(busy > idle + 500, "{busy} bytes busy: the test can see what is given back");
}

/// 44 segments of what the kernel takes for the MSS, and one that says whether they arrived.
const SUPER_PACKET: usize = 44 * 1428;

#[test]
fn a_connection_that_goes_on_allocates_nothing() {
    let mut hosts = [host(1), host(2)];
    let mut now = Instant::from_micros(1_000_000);
    open(&mut hosts, now, 1);
    let data: Vec<u8> = (0..SUPER_PACKET).map(|i| (i % 251) as u8).collect();
    let (mut seq, ack) = (1004_u32, 501_007_u32);
    let mut counted = Vec::new();
    for round in 0..200 {
        now = now + Duration::from_micros(100);
        if round == 20 {
            ALLOCATIONS.set(0);
        }
        // Two super-packets in flight, then small ones; each is acknowledged by the kernel that gets it.
        for payload in [&data[..], &data[..], b"small"] {
            let packet = segment(1, true, seq, ack, ACK | PSH, payload).build();
            let gso = (payload.len() > 1428).then_some(1428);
            assert!(carry_packet(&mut hosts, now, 0, packet, Offload::partial(20, 52, false, gso)) == payload);
            seq = seq.wrapping_add(payload.len() as u32);
            counted.push(ALLOCATIONS.get());
        }
        carry(&mut hosts, now, 1, &segment(1, false, ack, seq, ACK, b""));
        for host in &mut hosts {
            WATCHED.set(true);
            host.engine.handle_timeout(now, &mut host.env);
            WATCHED.set(false);
        }
    }
    assert_eq!(ALLOCATIONS.get(), 0, "allocations in 180 rounds after the first 20");
    assert!(counted.iter().any(|n| *n > 0), "the first rounds allocate, so the test can see it");
}

/// SYNs that nobody stands by: forged ones from the network, each from another address, with ENO and without. Returns bytes for each entry
/// and nanoseconds for each SYN beyond the bound.
fn flood(eno: bool) -> (i64, u128) {
    let mut host = host(1);
    host.engine.set_policy(everything(Policy::Opportunistic));
    let most = Config::default().max_half_open as u32;
    let before = LIVE_BYTES.get();
    let mut now = Instant::from_micros(1_000_000);
    let send = |host: &mut Host, now: &mut Instant, n: u32| {
        let mut syn = segment(0, true, n, 0, SYN, b"");
        syn.src = SocketAddr::from(([11, (n >> 16) as u8, (n >> 8) as u8, n as u8], 1024 + (n % 50_000) as u16));
        syn.options.truncate(4);
        if eno {
            syn.options.extend([packet::ENO, 6, 0x22, 0x24, 0x21, 0x23, 1, 1]);
        }
        let mut bytes = syn.build();
        *now = *now + Duration::from_micros(20);
        let start = std::time::Instant::now();
        host.engine.handle_packet(*now, Side::Wire, Offload::NONE, &mut bytes, &mut host.env);
        let took = start.elapsed();
        host.env.out.clear();
        took
    };
    for n in 0..most {
        send(&mut host, &mut now, n);
    }
    let each = (LIVE_BYTES.get() - before) / i64::from(most);
    let full = LIVE_BYTES.get();
    let took: Duration = (most..2 * most).map(|n| send(&mut host, &mut now, n)).sum();
    assert!(LIVE_BYTES.get() <= full + full / 8, "a table that is full does not grow");
    for _ in 0..3 {
        now = now + Duration::from_secs(61);
        host.engine.handle_timeout(now, &mut host.env);
        host.env.out.clear();
    }
    assert!(host.engine.is_empty());
    // What a flood has taken is given back.
    host.env.out.shrink_to_fit();
    let left = LIVE_BYTES.get() - before;
    assert!(left < 200_000, "{left} bytes are left");
    (each, took.as_nanos() / u128::from(most))
}

#[test]
fn an_opening_that_nobody_stands_by_costs_less_than_1500_bytes_and_is_given_back() {
    for eno in [true, false] {
        let (each, nanos) = flood(eno);
        println!("with ENO {eno}: {each} bytes for each opening, {nanos} ns for each SYN in a full table");
        assert!(each < 1500, "with ENO {eno}: {each} bytes");
    }
}
