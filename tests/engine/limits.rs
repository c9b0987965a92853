//! docs/limits.md: each table is filled beyond its bound, and the counter says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use enotun::engine::{Config, Finding, FlowInfo, FlowState, Side};
use enotun::selector::Policy;

use crate::harness::host::{Host, Sent, everything};
use crate::harness::packet::{ACK, ENO, FIN, RST, SYN, Seg};

/// So many, and the rest is too many.
const MOST: usize = 20;
const TRIED: u16 = 100;

/// A host with the bound `key` small.
fn host(key: &str, policy: Policy) -> Host {
    let mut config = Config::default();
    match key {
        "max-half-open" => config.max_half_open = MOST,
        "max-flows" => config.max_flows = MOST,
        "max-paths" => config.paths.max = MOST,
        _ => {}
    }
    Host::with_policy(config, policy)
}

/// What follows from one segment, a little later than from the one before.
fn next(host: &mut Host, side: Side, seg: &Seg) -> Sent {
    host.now = host.now + Duration::from_micros(10);
    host.hear(side, seg)
}

fn count(host: &Host, state: FlowState, is: impl Fn(&FlowInfo) -> bool) -> usize {
    host.engine.flows().iter().filter(|flow| flow.state == state && is(flow)).count()
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
    next(host, Side::Plain, &syn);
    let syn_ack = answer(&syn, SYN | ACK, 5000);
    next(host, Side::Wire, &syn_ack);
    let mut ack = answer(&syn_ack, ACK, 1001);
    ack.ack = 5001;
    next(host, Side::Plain, &ack);
    ack
}

/// SYN and SYN-ACK with ENO and the acknowledgement; returns what `host` sent last, and the other host.
fn shake_hands(host: &mut Host, port: u16) -> (Vec<Seg>, Host) {
    let mut server = self::host("", Policy::Opportunistic);
    let syn = syn(port, false);
    let sent = next(host, Side::Plain, &syn).wire;
    for seg in &sent {
        next(&mut server, Side::Wire, seg);
    }
    let syn_ack = answer(&syn, SYN | ACK, 5000);
    for seg in next(&mut server, Side::Plain, &syn_ack).wire {
        next(host, Side::Wire, &seg);
    }
    let mut ack = answer(&syn_ack, ACK, 1001);
    ack.ack = 5001;
    (if sent.is_empty() { sent } else { next(host, Side::Plain, &ack).wire }, server)
}

fn connect_encrypted(host: &mut Host, port: u16) {
    let (init1, mut server) = shake_hands(host, port);
    let init2: Vec<Seg> = init1.iter().flat_map(|seg| next(&mut server, Side::Wire, seg).wire).collect();
    for seg in init2 {
        next(host, Side::Wire, &seg);
    }
    // The peer shows its keys.
    let mut data = Seg::new(address(2, 80), address(1, port));
    (data.seq, data.ack, data.flags, data.win, data.payload) = (5001, 1001, ACK, 60_000, b"x".to_vec());
    for seg in next(&mut server, Side::Plain, &data).wire {
        next(host, Side::Wire, &seg);
    }
}

/// Fills `table` and returns how many entries of it there were at most.
fn fill(table: &str, host: &mut Host) -> usize {
    let mut most = 0;
    for port in 1000..1000 + TRIED {
        let any = |_: &FlowInfo| true;
        let count = match table {
            "inward" => {
                next(host, Side::Wire, &syn(port, true));
                count(host, FlowState::Negotiating, any)
            }
            "outward" => {
                next(host, Side::Plain, &syn(port, false));
                count(host, FlowState::Negotiating, any)
            }
            "plain-inward" => {
                next(host, Side::Wire, &syn(port, false));
                count(host, FlowState::Negotiating, |flow| flow.reason.is_some())
            }
            "plain-outward" => {
                for _ in 0..4 {
                    next(host, Side::Plain, &syn(port, false));
                }
                count(host, FlowState::Negotiating, |flow| flow.reason.is_some())
            }
            "handshakes" => {
                shake_hands(host, port);
                count(host, FlowState::Negotiating, any)
            }
            "refused" => {
                host.engine.set_policy(everything(Policy::Required));
                next(host, Side::Wire, &syn(port, false));
                count(host, FlowState::Closed, any)
            }
            "closed" => {
                let mut rst = connect_plain(host, port);
                rst.flags = RST;
                next(host, Side::Plain, &rst);
                count(host, FlowState::Closed, any)
            }
            "plain" => {
                connect_plain(host, port);
                count(host, FlowState::Plain, any)
            }
            "encrypted" => {
                connect_encrypted(host, port);
                count(host, FlowState::Encrypted, any)
            }
            "tombstones" => {
                // Reset by the peer, and the local kernel says nothing.
                let (init1, _) = shake_hands(host, port);
                let mut rst = Seg::new(address(2, 80), address(1, port));
                (rst.flags, rst.seq) = (RST, 5001);
                assert!(!init1.is_empty());
                next(host, Side::Wire, &rst);
                host.engine.reset_unconfirmed().len() - count(host, FlowState::Closed, any)
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
    host.engine.set_policy(everything(Policy::Required));
    let unknown = |port| {
        let mut seg = Seg::new(address(2, port), address(1, 80));
        (seg.flags, seg.seq, seg.ack) = (ACK | FIN, 1, 1);
        seg
    };
    (0..3000).map(|port| next(host, Side::Wire, &unknown(port)).wire.len()).sum()
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
        let mut host = self::host(bound, Policy::Opportunistic);
        let counters = |host: &Host| host.engine.counters().named().into_iter().collect::<BTreeMap<_, _>>();
        assert!(counters(&host).contains_key(counter.as_str()), "{table}: no counter {counter}");
        let (most, allowed) = match table.as_str() {
            // And those that came back in the time that it took.
            "refusals" => (refuse(&mut host), 1000 + 30),
            _ => (fill(table, &mut host), MOST),
        };
        assert!(most <= allowed, "{table}: {most} entries");
        assert!(most >= MOST, "{table}: {most} entries only, so it was not filled");
        host.now = host.now + Duration::from_millis(1);
        host.engine.handle_timeout(host.now, &mut host.env);
        assert!(counters(&host)[counter.as_str()] > 0, "{table}: {counter} did not count");
        assert_eq!(host.engine.timers().max(host.engine.len()), host.engine.len(), "{table}: a timer has no owner");
    }
}
