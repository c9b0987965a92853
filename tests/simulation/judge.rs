//! What must hold at the end of a run.

use std::collections::HashSet;
use std::time::Duration;

use enotun::engine::FlowState;
use enotun::time::Instant;
use smoltcp::socket::tcp;

use super::app::Outcome;
use super::host::Setup;
use super::net::Counts;
use super::run::{AFTERWARDS, Sim};
use super::scenario::Expect;
use crate::harness::seals;

/// What came of a run.
pub struct Report {
    pub faults: Vec<String>,
    pub fingerprint: u64,
    pub packets: u64,
    pub delivered: u64,
    pub encrypted: usize,
    /// Of those, connections that resumed a session.
    pub resumed: usize,
    /// Generations beyond the first that were reached, at both ends together.
    pub generations: u64,
    /// Urgent bytes that were announced to the peer's kernel.
    pub urgent: usize,
    pub plain: usize,
    pub hung: usize,
    pub took: Duration,
    pub held_most: usize,
    pub counts: [Counts; 2],
    pub trace: Vec<String>,
    pub counters: Vec<Vec<(&'static str, u64)>>,
}

impl Sim<'_> {
    pub fn judge(mut self, hung: usize) -> Report {
        let mut faults = std::mem::take(&mut self.watch.faults);
        let scenario = self.scenario;
        let (mut delivered, mut encrypted, mut plain, mut deadlocks) = (0, 0, 0, 0);
        let (mut resumed, mut generations, mut urgent) = (0, 0, 0);
        let mut all_ids = HashSet::new();
        match seals::repeated() {
            0 => {}
            n => faults.push(format!("{n} frames were sealed with a key and nonce that had sealed another one")),
        }
        for (i, conn) in self.conns.iter().enumerate() {
            let watched = &self.watch.conns[i];
            // Plain TCP is at the mercy of whoever forges.
            let ids = [0, 1].map(|h: usize| conn.said[h].as_ref().and_then(|s| s.session_id.clone()));
            let any_encrypted = ids.iter().any(Option::is_some);
            if !any_encrypted && scenario.links.iter().any(|l| l.attack + l.tamper_payload + l.tamper_header > 0.0) {
                plain += 1;
                continue;
            }
            let mut fault = |text: String| faults.push(format!("connection {i}: {text}"));
            // smoltcp does not look at the acknowledgement of a segment outside the window. When both ends send again
            // what the other has, neither learns of it, and so on for ever. With engines between, that does not happen.
            let deadlocked = scenario.expect == Expect::Plain
                && [0, 1].iter().all(|&h: &usize| {
                    let socket = self.hosts[h].sockets.get::<tcp::Socket>(conn.handles[h]);
                    socket.state() == tcp::State::Established && socket.send_queue() > 0
                });
            // smoltcp does not send its FIN again after it was shown that all data before has arrived. Nothing can be said
            // of such a connection but that its data is there.
            let forgotten = [0, 1].iter().any(|&h: &usize| {
                let socket = self.hosts[h].sockets.get::<tcp::Socket>(conn.handles[h]);
                let waits = matches!(socket.state(), tcp::State::FinWait1 | tcp::State::Closing | tcp::State::LastAck);
                let silent = watched.last_fin[h].is_none_or(|at| self.now.since(at) > AFTERWARDS);
                waits && silent && conn.apps[1 - h].received == conn.apps[h].sent
            });
            deadlocks += usize::from(deadlocked || forgotten);
            for h in 0..2 {
                let (app, peer) = (&conn.apps[h], &conn.apps[1 - h]);
                delivered += app.received;
                // What a host sends is not kept back by what it does not read. Loss may cost some retransmissions.
                let slack = Duration::from_secs(100);
                if !peer.plan.deaf.is_zero() && app.last_received > peer.last_sent + slack {
                    fault(format!(
                        "host {h} got the last byte {:?} after it was written",
                        app.last_received.since(peer.last_sent)
                    ));
                }
                if let Some(wrong) = app.wrong.as_ref() {
                    fault(format!("host {h} was given wrong data: {wrong}"));
                }
                if app.outcome == Some(Outcome::Eof) && !(peer.closed && app.received == peer.sent) {
                    fault(format!(
                        "host {h} was told of an end of file after {} bytes; its peer wrote {} and {}",
                        app.received,
                        peer.sent,
                        if peer.closed { "closed" } else { "did not close" }
                    ));
                }
                if !scenario.survive {
                    continue;
                }
                let socket = self.hosts[h].sockets.get::<tcp::Socket>(conn.handles[h]);
                if conn.plan.refused {
                    if h == conn.plan.client && app.outcome != Some(Outcome::Reset) {
                        fault(format!("host {h}: not refused but {:?}, {}", app.outcome, socket.state()));
                    }
                } else if conn.plan.plans[1 - h].abort_after.is_some() {
                    let never_open = h != conn.plan.client && !app.established;
                    if app.outcome != Some(Outcome::Reset) && !never_open {
                        fault(format!("host {h}: the peer aborted, seen {:?}, {}", app.outcome, socket.state()));
                    }
                } else if conn.plan.plans[h].abort_after.is_some() {
                    if !app.aborted {
                        fault(format!("host {h} never got to abort: {:?}, {}", app.outcome, socket.state()));
                    }
                } else if deadlocked || forgotten {
                } else if app.outcome != Some(Outcome::Eof) || app.received != conn.plan.plans[1 - h].send {
                    fault(format!(
                        "host {h}: {} of {} bytes delivered, {} of {} written, end {:?}, state {}, {} waiting to be sent",
                        app.received,
                        conn.plan.plans[1 - h].send,
                        app.sent,
                        conn.plan.plans[h].send,
                        app.outcome,
                        socket.state(),
                        socket.send_queue(),
                    ));
                }
            }
            let both_established = conn.apps[0].established && conn.apps[1].established;
            generations += conn.generations.iter().sum::<u64>();
            if any_encrypted {
                encrypted += 1;
                resumed += usize::from(conn.said.iter().flatten().any(|s| s.resumed));
                // TC-10, TC-19: a session ID is of one connection.
                if let Some(id) = ids.iter().flatten().next()
                    && !all_ids.insert(id.clone())
                {
                    fault(format!("session ID {id} is that of another connection, too"));
                }
                if watched.urg_on_wire {
                    fault("URG on the wire of an encrypted connection".into());
                }
                // Who forges can make a plain connection of one that was reset.
                for h in (0..2).filter(|_| scenario.survive) {
                    let (sent, seen) = (&watched.urgent_sent[h], &watched.urgent_seen[1 - h]);
                    urgent += seen.len();
                    if let Some(never) = seen.difference(sent).next() {
                        fault(format!("host {}: byte {never} is called urgent, which is not", 1 - h));
                    }
                    // Earlier ones may have been superseded before they were sent.
                    let last = sent.last().filter(|_| conn.apps[1 - h].outcome == Some(Outcome::Eof));
                    if let Some(missed) = last.filter(|u| !seen.contains(u)) {
                        fault(format!("host {} was not told that byte {missed} is urgent", 1 - h));
                    }
                }
                if let Some(leak) = &watched.leak {
                    fault(format!("plaintext on the wire of an encrypted connection, {leak}"));
                }
            } else if both_established {
                plain += 1;
            }
            let completed = both_established && conn.apps.iter().all(|a| !a.aborted && a.outcome == Some(Outcome::Eof));
            match scenario.expect {
                Expect::Encrypted if watched.syn_without_eno && watched.syn_with_eno => {}
                Expect::Encrypted => {
                    if let Some(leak) = watched.leak.as_ref().filter(|_| !any_encrypted) {
                        fault(format!("plaintext on the wire, {leak}"));
                    }
                    if completed && ids.iter().any(Option::is_none) {
                        fault(format!("not encrypted at both ends: {:?}", conn.said));
                    }
                    if let [Some(a), Some(b)] = &ids
                        && a != b
                        // An engine that crashed may offer something else in the SYN that its kernel repeats (ENO-14): then
                        // the keys differ, and nothing gets through.
                        && (scenario.crash.is_none() || conn.apps.iter().any(|app| app.received > 0))
                    {
                        fault(format!("session IDs differ: {a} and {b}"));
                    }
                    let roles = [0, 1].map(|h: usize| conn.said[h].as_ref().and_then(|s| s.role));
                    if ids.iter().all(Option::is_some) {
                        let mut expected = [Some('B'); 2];
                        let a = match scenario.setups.iter().position(|setup| *setup == Setup::RoleB) {
                            Some(b) if conn.plan.simultaneous => 1 - b,
                            _ => conn.plan.client,
                        };
                        expected[a] = Some('A');
                        if roles != expected {
                            fault(format!("roles are {roles:?}, not {expected:?}"));
                        }
                    }
                }
                Expect::Plain if any_encrypted => fault("encrypted, but should be plain".into()),
                Expect::Plain | Expect::Either => {}
                Expect::Refused => {
                    if let Some(leak) = &watched.leak {
                        fault(format!("plaintext on the wire, {leak}"));
                    }
                    if conn.apps.iter().any(|a| a.received > 0 || a.outcome == Some(Outcome::Eof)) {
                        fault("something was delivered, but it should be refused".into());
                    }
                }
            }
        }
        if hung > deadlocks && (scenario.survive || scenario.ends) {
            faults.push(format!("{hung} connections were not done by the deadline"));
        }
        for (h, host) in self.hosts.iter_mut().enumerate() {
            host.run_timers(self.now);
            if let Some(held) =
                host.engine.as_ref().map(|e| e.held_bytes()).filter(|n| *n > 0 && scenario.survive && hung == 0)
            {
                faults.push(format!("host {h} still holds {held} bytes"));
            }
            if let Some(engine) = host.engine.as_ref().filter(|_| scenario.survive && hung == 0) {
                // A plain connection is forgotten only after a long silence.
                for flow in engine.flows().into_iter().filter(|f| f.state != FlowState::Plain) {
                    faults.push(format!("host {h} still holds {flow:?}"));
                }
            }
        }
        Report {
            faults,
            fingerprint: self.watch.fingerprint,
            packets: self.watch.packets,
            delivered,
            encrypted,
            resumed,
            generations,
            urgent,
            plain,
            hung,
            held_most: self.held_most,
            took: self.now.since(Instant::ZERO),
            counts: [self.net[0].counts, self.net[1].counts],
            trace: self.watch.trace.take().unwrap_or_default(),
            counters: self.hosts.iter().filter_map(|h| h.engine.as_ref()).map(|e| e.counters().named()).collect(),
        }
    }
}
