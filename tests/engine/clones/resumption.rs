//! Cloned and rolled-back machines (TC-13, TC-14, TC-19): the complete state of an engine is copied in mid-life, with
//! its cache of sessions, its counters and the state of its random source, and all copies go on, with sessions that are
//! resumed and with fresh keys. No (key, nonce) pair may seal two frames and no session ID may occur twice.
//!
//! The random source is the worst case (tests/harness/machine.rs). The same runs without the mixing that is asked of it show that
//! the test can fail. What becomes of connections that were open is in disruption.rs.

use std::collections::HashSet;

use crate::harness::machine::{Connection, Machine, Make, Numbers, Session};
use crate::harness::seals;

/// Who is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cloned {
    Client,
    Server,
    /// Both: a host and its peer are rolled back together. Each copy of the one meets one copy of the other.
    Both,
}

/// What a run is like.
#[derive(Debug, Clone, Copy)]
struct Run {
    cloned: Cloned,
    /// Whoever opens connections after the copying was the server before.
    swapped: bool,
    /// The copy goes before the original.
    second_first: bool,
    mixing: bool,
    resume: bool,
    /// Length of both hosts' nonces.
    nonces: [usize; 2],
}

/// What came of all connections of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    repeated_seals: u64,
    repeated_ids: usize,
    resumed: usize,
    fresh: usize,
}

/// One run: a session (or several) between two hosts, one or both copied, all copies go on.
fn run(seed: u64, run: Run) -> Tally {
    let Run { cloned, swapped, .. } = run;
    seals::begin();
    let mut ids = HashSet::new();
    let mut tally = Tally::default();
    let mut note = |came: Session, tally: &mut Tally| {
        tally.repeated_ids += usize::from(!ids.insert(came.id));
        *(if came.resumed { &mut tally.resumed } else { &mut tally.fresh }) += 1;
    };
    let [mut one, mut other] = [0, 1].map(|i| {
        let (mixing, resume, nonce_len) = (run.mixing, run.resume, run.nonces[i]);
        Machine::new(Make { seed: seed * 2 + i as u64, mixing, resume, nonce_len })
    });
    for n in 0..1 + (seed % 3) as u32 {
        let numbers = Numbers::new(seed, false, n);
        note(
            Connection::whole(&mut one, &mut other, numbers, [b"the first question", b"the first answer"]),
            &mut tally,
        );
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
    if run.second_first {
        order.reverse();
    }
    for round in 0..3 {
        for (turn, copy) in order.into_iter().enumerate() {
            let client = &mut clients[if cloned == Cloned::Server { 0 } else { copy }];
            let server = &mut servers[if cloned == Cloned::Client { 0 } else { copy }];
            // A cloned kernel may choose the same port and sequence number; the one that was not cloned goes on. With
            // both rolled back something must have changed: here it is one sequence number, by one.
            let mut of = Numbers::new(seed, swapped, 100 + round);
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
            note(Connection::whole(client, server, of, [data[0].as_bytes(), data[1].as_bytes()]), &mut tally);
        }
    }
    tally.repeated_seals = seals::repeated();
    tally
}

const SEEDS: u64 = 60;

/// All runs of a kind: seeds, both directions, both orders.
fn runs(cloned: Cloned, mixing: bool, resume: bool, nonces: impl Fn(u64) -> [usize; 2]) -> Tally {
    let mut sum = Tally::default();
    for seed in 0..SEEDS {
        for (swapped, second_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = Run { cloned, swapped, second_first, mixing, resume, nonces: nonces(seed) };
            let tally = run(seed, what);
            if mixing {
                assert_eq!((tally.repeated_seals, tally.repeated_ids), (0, 0), "seed {seed}, {what:?}");
            }
            sum.repeated_seals += tally.repeated_seals;
            sum.repeated_ids += tally.repeated_ids;
            sum.resumed += tally.resumed;
            sum.fresh += tally.fresh;
        }
    }
    sum
}

/// Both hosts with nonces of 8 bytes, or one of them without.
fn one_may_have_none(seed: u64) -> [usize; 2] {
    [[8, 8], [0, 8], [8, 0]][(seed % 3) as usize]
}

#[test]
fn tc_19_copies_of_a_client_share_no_key_and_no_session_id() {
    let sum = runs(Cloned::Client, true, true, one_may_have_none);
    assert!(sum.resumed > 0 && sum.fresh > 0, "{sum:?}");
}

#[test]
fn tc_19_copies_of_a_server_share_no_key_and_no_session_id() {
    let sum = runs(Cloned::Server, true, true, one_may_have_none);
    assert!(sum.resumed > 0, "{sum:?}");
}

#[test]
fn tc_14_two_hosts_rolled_back_together_share_no_key_if_one_sequence_number_differs() {
    let sum = runs(Cloned::Both, true, true, |_| [8, 8]);
    // Every connection after the copying resumes: nothing refuses a secret that was used in the other copy.
    assert_eq!(sum.resumed, (SEEDS * 4 * 6) as usize + repeated_before(), "{sum:?}");
}

/// Connections before the copying that resumed the one before them.
fn repeated_before() -> usize {
    (0..SEEDS).map(|seed| 4 * (seed % 3) as usize).sum()
}

#[test]
fn tc_14_fresh_keys_of_copies_differ_too() {
    for cloned in [Cloned::Client, Cloned::Server, Cloned::Both] {
        let sum = runs(cloned, true, false, |_| [8, 8]);
        assert!(sum.resumed == 0 && sum.fresh > 0, "{sum:?}");
    }
}

#[test]
fn tc_14_without_mixing_the_same_runs_repeat_keys() {
    for resume in [true, false] {
        let sum = runs(Cloned::Both, false, resume, |_| [8, 8]);
        assert!(sum.repeated_seals > 0 && sum.repeated_ids > 0, "the test cannot fail: {sum:?}");
    }
}
