//! docs/limits.md: each table is filled beyond its bound, and the counter says so.
#![allow(unreachable_pub, reason = "modules of a test crate have no outside")]
#![allow(missing_docs, reason = "a test crate has no readers but its authors")]

mod harness;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use enotun::engine::{Config, Engine, Finding, FlowInfo, FlowState, Side};
use enotun::selector::{Policy, PolicyTable, Rule};
use enotun::time::Instant;
use enotun::wire::Offload;
use harness::env::{Emitted, TestEnv};
use harness::packet::{self, ACK, ENO, FIN, RST, SYN, Seg};

/// So many, and the rest is too many.
const MOST: usize = 20;
const TRIED: u16 = 100;

struct Host {
    engine: Engine,
    env: TestEnv,
    now: Instant,
}

fn policy(policy: Policy) -> PolicyTable {
    PolicyTable::new([Rule::new("0.0.0.0/0".parse().expect("a selector"), policy)])
}

impl Host {
    fn new(key: &str, with: Policy) -> Self {
        let mut config = Config::default();
        match key {
            "max-half-open" => config.max_half_open = MOST,
            "max-flows" => config.max_flows = MOST,
            "max-paths" => config.paths.max = MOST,
            _ => {}
        }
        let mut engine = Engine::new(config, enotun::crypto::provider());
        engine.set_policy(policy(with));
        Self { engine, env: TestEnv::default(), now: Instant::from_micros(1_000_000) }
    }

    fn hear(&mut self, side: Side, seg: &Seg) -> Vec<(Side, Seg)> {
        self.now = self.now + Duration::from_micros(10);
        self.engine.handle_packet(self.now, side, Offload::NONE, &mut seg.build(), &mut self.env);
        while self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now, &mut self.env);
        }
        let segments = self.env.take().into_iter().flat_map(|Emitted { side, bytes, offload, built }| {
            packet::materialise(&bytes, offload, built).expect("a packet").into_iter().map(move |bytes| (side, bytes))
        });
        segments.map(|(side, bytes)| (side, Seg::parse(&bytes).expect("TCP"))).collect()
    }

    /// The segments towards the network that follow from one.
    fn to_wire(&mut self, side: Side, seg: &Seg) -> Vec<Seg> {
        self.hear(side, seg).into_iter().filter(|(side, _)| *side == Side::Wire).map(|(_, seg)| seg).collect()
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.engine.handle_timeout(self.now, &mut self.env);
        self.env.out.clear();
    }

    fn count(&self, state: FlowState, is: impl Fn(&FlowInfo) -> bool) -> usize {
        self.engine.flows().iter().filter(|flow| flow.state == state && is(flow)).count()
    }
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

/// The client's SYN; it is at host 1 and the server at host 2.
fn syn(port: u16, eno: bool) -> Seg {
    let mut syn = Seg::new(address(1, port), address(2, 80));
    (syn.seq, syn.flags, syn.win, syn.options) = (1000, SYN, 60_000, vec![2, 4, 5, 0xb4]);
    if eno {
        syn.options.extend([ENO, 3, 0x23, 1]);
    }
    syn
}

fn answer(to: &Seg, flags: u8, seq: u32) -> Seg {
    let mut answer = Seg::new(to.dst, to.src);
    (answer.seq, answer.ack, answer.flags, answer.win) = (seq, to.seq.wrapping_add(1), flags, 60_000);
    if flags & SYN != 0 {
        answer.options = vec![2, 4, 5, 0xb4];
    }
    answer
}

/// A whole handshake without ENO, opened by `host`'s kernel.
fn connect_plain(host: &mut Host, port: u16) -> Seg {
    let syn = syn(port, false);
    host.hear(Side::Plain, &syn);
    let syn_ack = answer(&syn, SYN | ACK, 5000);
    host.hear(Side::Wire, &syn_ack);
    let mut ack = answer(&syn_ack, ACK, 1001);
    ack.ack = 5001;
    host.hear(Side::Plain, &ack);
    ack
}

/// SYN and SYN-ACK with ENO and the acknowledgement; returns what `host` sent last, and the other host.
fn shake_hands(host: &mut Host, port: u16) -> (Vec<Seg>, Host) {
    let mut server = Host::new("", Policy::Opportunistic);
    let syn = syn(port, false);
    let sent = host.to_wire(Side::Plain, &syn);
    for seg in &sent {
        server.hear(Side::Wire, seg);
    }
    let syn_ack = answer(&syn, SYN | ACK, 5000);
    for seg in server.to_wire(Side::Plain, &syn_ack) {
        host.hear(Side::Wire, &seg);
    }
    let mut ack = answer(&syn_ack, ACK, 1001);
    ack.ack = 5001;
    (if sent.is_empty() { sent } else { host.to_wire(Side::Plain, &ack) }, server)
}

fn connect_encrypted(host: &mut Host, port: u16) {
    let (init1, mut server) = shake_hands(host, port);
    let init2: Vec<Seg> = init1.iter().flat_map(|seg| server.to_wire(Side::Wire, seg)).collect();
    for seg in init2 {
        host.hear(Side::Wire, &seg);
    }
    // The peer shows its keys.
    let mut data = Seg::new(address(2, 80), address(1, port));
    (data.seq, data.ack, data.flags, data.win, data.payload) = (5001, 1001, ACK, 60_000, b"x".to_vec());
    for seg in server.to_wire(Side::Plain, &data) {
        host.hear(Side::Wire, &seg);
    }
}

/// Fills `table` and returns how many entries of it there were at most.
fn fill(table: &str, host: &mut Host) -> usize {
    let mut most = 0;
    for port in 1000..1000 + TRIED {
        let any = |_: &FlowInfo| true;
        let count = match table {
            "inward" => {
                host.hear(Side::Wire, &syn(port, true));
                host.count(FlowState::Negotiating, any)
            }
            "outward" => {
                host.hear(Side::Plain, &syn(port, false));
                host.count(FlowState::Negotiating, any)
            }
            "plain-inward" => {
                host.hear(Side::Wire, &syn(port, false));
                host.count(FlowState::Negotiating, |flow| flow.reason.is_some())
            }
            "plain-outward" => {
                for _ in 0..4 {
                    host.hear(Side::Plain, &syn(port, false));
                }
                host.count(FlowState::Negotiating, |flow| flow.reason.is_some())
            }
            "handshakes" => {
                shake_hands(host, port);
                host.count(FlowState::Negotiating, any)
            }
            "refused" => {
                host.engine.set_policy(policy(Policy::Required));
                host.hear(Side::Wire, &syn(port, false));
                host.count(FlowState::Closed, any)
            }
            "closed" => {
                let mut rst = connect_plain(host, port);
                rst.flags = RST;
                host.hear(Side::Plain, &rst);
                host.count(FlowState::Closed, any)
            }
            "plain" => {
                connect_plain(host, port);
                host.count(FlowState::Plain, any)
            }
            "encrypted" => {
                connect_encrypted(host, port);
                host.count(FlowState::Encrypted, any)
            }
            "tombstones" => {
                // Reset by the peer, and the local kernel says nothing.
                let (init1, _) = shake_hands(host, port);
                let mut rst = Seg::new(address(2, 80), address(1, port));
                (rst.flags, rst.seq) = (RST, 5001);
                assert!(!init1.is_empty());
                host.hear(Side::Wire, &rst);
                host.engine.unheard().len() - host.count(FlowState::Closed, any)
            }
            "paths" => {
                host.engine.learn_path(host.now, address(2, port), Finding::NoEno);
                host.engine.paths(host.now).len()
            }
            _ => panic!("docs/limits.md has a table that nobody fills here: {table}"),
        };
        most = most.max(count);
    }
    most
}

/// Segments of unknown connections, more than are answered.
fn refuse(host: &mut Host) -> usize {
    host.engine.set_policy(policy(Policy::Required));
    let unknown = |port| {
        let mut seg = Seg::new(address(2, port), address(1, 80));
        (seg.flags, seg.seq, seg.ack) = (ACK | FIN, 1, 1);
        seg
    };
    (0..3000).map(|port| host.to_wire(Side::Wire, &unknown(port)).len()).sum()
}

fn rows() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string("docs/limits.md").expect("docs/limits.md");
    let table = text.lines().skip_while(|line| !line.starts_with("| table |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect()
}

#[test]
fn every_table_has_the_bound_and_the_counter_that_the_document_says() {
    let rows = rows();
    assert!(rows.len() >= 12, "{rows:?}");
    for row in rows {
        let [table, bound, _, _, counter] = &row[..] else { panic!("{row:?}") };
        let mut host = Host::new(bound, Policy::Opportunistic);
        let counters = |host: &Host| host.engine.counters().named().into_iter().collect::<BTreeMap<_, _>>();
        assert!(counters(&host).contains_key(counter.as_str()), "{table}: no counter {counter}");
        let (most, allowed) = match table.as_str() {
            // And those that came back in the time that it took.
            "refusals" => (refuse(&mut host), 1000 + 30),
            _ => (fill(table, &mut host), MOST),
        };
        assert!(most <= allowed, "{table}: {most} entries");
        assert!(most >= MOST, "{table}: {most} entries only, so it was not filled");
        host.wait(Duration::from_millis(1));
        assert!(counters(&host)[counter.as_str()] > 0, "{table}: {counter} did not count");
        assert_eq!(host.engine.timers().max(host.engine.len()), host.engine.len(), "{table}: a timer has no owner");
    }
}
