//! One run: two hosts, the network between them, virtual time, and what must hold at its end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enotun::engine::{Config, FlowState};
use enotun::selector::Policy;
use enotun::time::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::IpEndpoint;

use super::app::{self, App, Outcome, Plan};
use super::host::{DeviceModel, Host, Setup};
use super::net::{Counts, Direction, Link};
use super::watch::{Conn, Watch};
use crate::harness::rng::{Rng, Stream};
use crate::harness::seals;

/// One connection to be made.
#[derive(Debug, Clone)]
pub struct ConnPlan {
    pub v6: bool,
    /// By host: which of its addresses.
    pub aliases: [usize; 2],
    /// The host that opens it.
    pub client: usize,
    pub start: Duration,
    /// Uses the addresses and ports of that earlier connection, once it is over; `start` counts from then.
    pub after: Option<usize>,
    /// By host.
    pub plans: [Plan; 2],
    /// Nobody listens: it is refused.
    pub refused: bool,
    /// Both hosts open it at once.
    pub simultaneous: bool,
}

/// What becomes of the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Encrypted, if the SYN with ENO was not given up.
    Encrypted,
    Plain,
    Either,
    /// Nothing is delivered and nothing is on the wire in plain.
    Refused,
}

/// A whole run, as a profile makes it from a seed.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub setups: [Setup; 2],
    pub mtus: [usize; 2],
    pub models: [DeviceModel; 2],
    /// By sending host.
    pub links: [Link; 2],
    pub conns: Vec<ConnPlan>,
    pub expect: Expect,
    /// Every connection ends as its applications meant it to. Otherwise it may be reset, or hang.
    pub survive: bool,
    /// Every connection ends somehow.
    pub ends: bool,
    /// Rekeys asked for: when, by which host, on which connection.
    pub rekeys: Vec<(Duration, usize, usize)>,
    /// Policy becomes opportunistic only now (hosts set up as `Idle`).
    pub enable_at: Option<Duration>,
    /// That host's engine crashes and is started again.
    pub crash: Option<(Duration, usize)>,
    /// That host's engine goes down in order.
    pub down: Option<(Duration, usize)>,
    /// That host's cache of sessions is flushed.
    pub flushes: Vec<(Duration, usize)>,
    /// Milliseconds until the timestamps of both kernels wrap.
    pub clock_before_wrap: u32,
    pub deadline: Duration,
    /// By host.
    pub configs: [Config; 2],
}

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

struct Flight {
    at: u64,
    number: u64,
    to: usize,
    bytes: Vec<u8>,
    note: String,
}
impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Flight {}
impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What an engine said of a connection while it lived.
#[derive(Debug, Clone)]
struct Said {
    state: FlowState,
    session_id: Option<String>,
    role: Option<char>,
    resumed: bool,
}

struct Live {
    plan: ConnPlan,
    handles: [SocketHandle; 2],
    apps: [App; 2],
    ends: [SocketAddr; 2],
    started: bool,
    start_at: Option<Instant>,
    said: [Option<Said>; 2],
    /// By host: the highest generation it was seen to send with.
    generations: [u64; 2],
    /// By host: how many of its urgent bytes are written.
    urged: [usize; 2],
}

struct Sim<'a> {
    scenario: &'a Scenario,
    now: Instant,
    hosts: [Host; 2],
    /// By sending host.
    net: [Direction; 2],
    flights: BinaryHeap<Reverse<Flight>>,
    flights_made: u64,
    conns: Vec<Live>,
    watch: Watch,
    rekeys: Vec<(Duration, usize, usize)>,
    flushes: Vec<(Duration, usize)>,
    enabled: bool,
    crash: Option<(Duration, usize)>,
    down: Option<(Duration, usize)>,
    held_most: usize,
}

/// After the applications are done, time for TIME-WAIT, lingering, and what the network still holds.
const AFTERWARDS: Duration = Duration::from_secs(600);

/// No run of a profile needs so many packets: something answers itself.
const STORM: u64 = 1_500_000;

fn endpoint(addr: SocketAddr) -> IpEndpoint {
    IpEndpoint::from(addr)
}

/// Runs `scenario`.
pub fn run(scenario: &Scenario, seed: u64, trace: bool) -> Report {
    seals::begin();
    let mut rng = Rng::new(seed ^ 0x5eed);
    let mut host = |n: usize| {
        Host::new(
            n as u8 + 1,
            scenario.mtus[n],
            scenario.setups[n],
            scenario.models[n],
            scenario.configs[n].clone(),
            &mut rng,
        )
    };
    let hosts = [host(0), host(1)];
    let net =
        [Direction::new(scenario.links[0].clone(), rng.fork()), Direction::new(scenario.links[1].clone(), rng.fork())];
    let path_mtu = scenario.mtus[0].min(scenario.mtus[1]);
    let mut sim = Sim {
        scenario,
        now: Instant::ZERO,
        hosts,
        net,
        flights: BinaryHeap::new(),
        flights_made: 0,
        conns: Vec::new(),
        watch: Watch::new(path_mtu, trace),
        rekeys: scenario.rekeys.clone(),
        flushes: scenario.flushes.clone(),
        enabled: false,
        crash: scenario.crash,
        down: scenario.down,
        held_most: 0,
    };
    sim.prepare(&mut rng);
    let hung = sim.go();
    sim.judge(hung)
}

impl Sim<'_> {
    fn prepare(&mut self, rng: &mut Rng) {
        for (i, plan) in self.scenario.conns.iter().enumerate() {
            let family = usize::from(plan.v6);
            let addr = |host: usize, port: u16| -> SocketAddr {
                let ip: IpAddr = self.hosts[host].addr[plan.aliases[host]][family];
                SocketAddr::new(ip, port)
            };
            let (client, server) = (plan.client, 1 - plan.client);
            let mut ends = [addr(0, 0), addr(1, 0)];
            let mut first = i;
            while let Some(before) = self.scenario.conns[first].after {
                first = before;
            }
            let ports = first as u16;
            ends[client].set_port(49_152 + ports);
            ends[server].set_port(1_000 + ports);
            let streams = [Stream { key: rng.next() }, Stream { key: rng.next() }];
            let apps = [0, 1].map(|h: usize| App::new(plan.plans[h].clone(), streams[h], streams[1 - h], rng.fork()));
            let handles = [0, 1].map(|h: usize| self.hosts[h].sockets.add(apps[h].socket()));
            if !plan.refused && !plan.simultaneous && plan.after.is_none() {
                let socket = self.hosts[server].sockets.get_mut::<tcp::Socket>(handles[server]);
                socket.listen(endpoint(ends[server])).expect("a fresh socket listens");
            }
            self.watch.conns.push(Conn::new(ends, streams));
            let start_at = plan.after.is_none().then(|| Instant::ZERO + plan.start);
            self.conns.push(Live {
                plan: plan.clone(),
                handles,
                apps,
                ends,
                started: false,
                start_at,
                said: [None, None],
                generations: [0; 2],
                urged: [0; 2],
            });
        }
    }

    /// Runs to the end; gives how many connections were not done at the deadline.
    fn go(&mut self) -> usize {
        let deadline = Instant::ZERO + self.scenario.deadline;
        let mut done_at: Option<Instant> = None;
        loop {
            self.turn();
            if self.watch.packets > STORM {
                self.watch.faults.push(format!("a storm: {} packets by {:?}", self.watch.packets, self.now));
                return 0;
            }
            let unfinished = (0..self.conns.len()).filter(|&i| !self.is_done(i)).count();
            if unfinished == 0 && done_at.is_none() {
                done_at = Some(self.now);
                self.watch.note(self.now, || "all applications are done".into());
            }
            let end = done_at.map_or(deadline, |at| at + AFTERWARDS);
            match self.next_event() {
                Some(at) if at <= end => self.now = at,
                next => {
                    if done_at.is_none() {
                        let why = if next.is_none() { "nothing will happen any more" } else { "deadline" };
                        self.watch.note(self.now, || format!("{why}, {unfinished} unfinished"));
                        for i in 0..self.conns.len() {
                            let text = [0, 1].map(|h: usize| {
                                let app = &self.conns[i].apps[h];
                                format!(
                                    "{:?} {} of {} sent, {} received",
                                    app.outcome, app.sent, app.plan.send, app.received
                                ) + &format!(
                                    ", {}, {} waiting",
                                    self.socket(i, h).state(),
                                    self.socket(i, h).recv_queue()
                                )
                            });
                            self.watch.note(self.now, || format!("connection {i}: {text:?}"));
                        }
                    }
                    self.now = end;
                    return unfinished;
                }
            }
        }
    }

    fn socket(&self, i: usize, h: usize) -> &tcp::Socket<'static> {
        self.hosts[h].sockets.get::<tcp::Socket>(self.conns[i].handles[h])
    }

    fn is_done(&self, i: usize) -> bool {
        let conn = &self.conns[i];
        conn.started && [0, 1].iter().all(|&h| self.app_done(conn, h))
    }

    /// A reset in SYN-RECEIVED has sent smoltcp back to LISTEN, and nobody will connect there any more.
    fn stop_listening(&mut self, i: usize) {
        let conn = &self.conns[i];
        for (host, handle) in self.hosts.iter_mut().zip(conn.handles) {
            let socket = host.sockets.get_mut::<tcp::Socket>(handle);
            if socket.is_listening() {
                socket.close();
            }
        }
    }

    fn app_done(&self, conn: &Live, h: usize) -> bool {
        let socket = self.hosts[h].sockets.get::<tcp::Socket>(conn.handles[h]);
        // In SYN-RECEIVED a reset sends smoltcp back to LISTEN.
        let client = &conn.apps[1 - h];
        let never_open = !conn.apps[h].established && (client.aborted || client.outcome == Some(Outcome::Reset));
        if h != conn.plan.client && (conn.plan.refused || never_open) {
            return true;
        }
        conn.apps[h].done(socket)
    }

    /// Everything that happens at this moment.
    fn turn(&mut self) {
        app::set_clock(self.now, self.scenario.clock_before_wrap);
        let elapsed = self.now.since(Instant::ZERO);
        for i in 0..self.conns.len() {
            let Some(before) = self.conns[i].plan.after.filter(|_| self.conns[i].start_at.is_none()) else { continue };
            if !self.is_done(before) {
                continue;
            }
            self.stop_listening(before);
            if [0, 1].iter().all(|&h: &usize| self.socket(before, h).state() == tcp::State::Closed) {
                self.conns[i].start_at = Some(self.now + self.conns[i].plan.start);
            }
        }
        for (i, conn) in self.conns.iter_mut().enumerate() {
            if conn.started || conn.start_at.is_none_or(|at| at > self.now) {
                continue;
            }
            conn.started = true;
            self.watch.conns[i].active = true;
            if conn.plan.after.is_some() {
                let server = 1 - conn.plan.client;
                let socket = self.hosts[server].sockets.get_mut::<tcp::Socket>(conn.handles[server]);
                socket.listen(endpoint(conn.ends[server])).expect("a fresh socket listens");
            }
            let openers: &[usize] = if conn.plan.simultaneous { &[0, 1] } else { &[conn.plan.client] };
            for &h in openers {
                let host = &mut self.hosts[h];
                let socket = host.sockets.get_mut::<tcp::Socket>(conn.handles[h]);
                socket
                    .connect(host.iface.context(), endpoint(conn.ends[1 - h]), endpoint(conn.ends[h]))
                    .expect("a fresh socket connects");
            }
        }
        if !self.enabled && self.scenario.enable_at.is_some_and(|at| at <= elapsed) {
            self.enabled = true;
            for host in &mut self.hosts {
                host.with_engine(|engine, _| super::host::select_everything(engine, Policy::Opportunistic));
            }
        }
        if let Some((_, h)) = self.crash.take_if(|c| c.0 <= elapsed) {
            self.watch.note(self.now, || format!("{}'s engine crashes", ["A", "B"][h]));
            self.hosts[h].replace_engine(self.scenario.configs[h].clone(), Policy::Opportunistic);
            let open: Vec<_> = self.conns.iter().map(|conn| (conn.ends[h], conn.ends[1 - h])).collect();
            let now = self.now;
            self.hosts[h].with_engine(|engine, _| engine.refuse(now, &open));
        }
        if let Some((_, h)) = self.down.take_if(|c| c.0 <= elapsed) {
            self.watch.note(self.now, || format!("{}'s engine goes down", ["A", "B"][h]));
            let now = self.now;
            self.hosts[h].with_engine(|engine, env| engine.abort_all(now, env));
            self.look(h);
        }
        let mut arrivals = [Vec::new(), Vec::new()];
        while let Some(Reverse(flight)) = self.flights.peek()
            && flight.at <= self.now.as_micros()
        {
            let Some(Reverse(flight)) = self.flights.pop() else { break };
            if !flight.note.is_empty() {
                self.watch.note(self.now, || format!("next to {}:{}", ["A", "B"][flight.to], flight.note));
            }
            arrivals[flight.to].push(flight.bytes);
        }
        for (h, packets) in arrivals.into_iter().enumerate() {
            if !packets.is_empty() {
                self.hosts[h].arrive(self.now, packets);
                self.look(h);
            }
        }
        while let Some(&(at, h, conn)) = self.rekeys.iter().find(|r| r.0 <= elapsed) {
            self.rekeys.retain(|r| *r != (at, h, conn));
            let ends = self.conns[conn].ends;
            let now = self.now;
            // It may be over or not encrypted: then there is nothing to rekey.
            let asked = self.hosts[h].with_engine(|engine, env| engine.rekey(now, ends[h], ends[1 - h], env));
            self.watch.note(now, || format!("{} asked to rekey connection {conn}: {asked:?}", ["A", "B"][h]));
        }
        while let Some(&(at, h)) = self.flushes.iter().find(|f| f.0 <= elapsed) {
            self.flushes.retain(|f| *f != (at, h));
            let flushed = self.hosts[h].with_engine(|engine, _| engine.flush_sessions(None));
            self.watch.note(self.now, || format!("{}'s cache is flushed of {flushed:?} sessions", ["A", "B"][h]));
        }
        for h in 0..2 {
            self.hosts[h].run_timers(self.now);
            self.look(h);
            for _ in 0..1000 {
                let mut moved = self.hosts[h].poll_kernel(self.now);
                self.look(h);
                for (i, conn) in self.conns.iter_mut().enumerate() {
                    if !conn.started {
                        continue;
                    }
                    let socket = self.hosts[h].sockets.get_mut::<tcp::Socket>(conn.handles[h]);
                    moved |= conn.apps[h].step(self.now, socket);
                    self.watch.conns[i].written[h] = conn.apps[h].sent;
                    while let Some(last) =
                        conn.plan.plans[h].urgent.get(conn.urged[h]).filter(|u| **u < conn.apps[h].sent)
                    {
                        self.hosts[h].urge(conn.ends[h], conn.ends[1 - h], *last);
                        conn.urged[h] += 1;
                    }
                }
                if !moved {
                    break;
                }
            }
            self.ask(h);
            let held = self.hosts[h].engine.as_ref().map_or(0, |e| e.held_bytes());
            self.held_most = self.held_most.max(held);
        }
    }

    /// Takes the packets seen at a host to the watch, and those for the network to the network.
    fn look(&mut self, h: usize) {
        for seen in std::mem::take(&mut self.hosts[h].seen) {
            self.watch.see(self.now, h, &seen);
        }
        self.watch.faults.append(&mut self.hosts[h].faults);
        let packets = std::mem::take(&mut self.hosts[h].to_wire);
        let interval = match self.hosts[1 - h].model {
            model if model.gro => model.interval.as_micros() as u64,
            _ => 1,
        };
        for arrival in self.net[h].send(self.now.as_micros(), packets) {
            self.flights_made += 1;
            self.flights.push(Reverse(Flight {
                at: arrival.at.max(self.now.as_micros() + 1).next_multiple_of(interval.max(1)),
                number: self.flights_made,
                to: 1 - h,
                bytes: arrival.bytes,
                note: arrival.note,
            }));
        }
    }

    /// What the engine says of the connections.
    fn ask(&mut self, h: usize) {
        let begun: Vec<_> = self.conns.iter().map(|conn| (conn.ends, conn.started)).collect();
        for (i, conn) in self.conns.iter_mut().enumerate() {
            if begun[i + 1..].contains(&(conn.ends, true)) {
                // What is known is of a later connection on the same addresses and ports.
                continue;
            }
            let known = conn.said[h].as_ref().is_some_and(|s| s.session_id.is_some());
            if known && !conn.apps[h].done(self.hosts[h].sockets.get::<tcp::Socket>(conn.handles[h])) {
                let flow = self.hosts[h].flow(conn.ends[h], conn.ends[1 - h]);
                let now_at = flow.and_then(|flow| flow.generation_local).unwrap_or(0);
                conn.generations[h] = conn.generations[h].max(now_at);
            }
            if (known && self.watch.trace.is_none()) || !conn.started {
                continue;
            }
            if conn.plan.after.is_some() && !conn.apps[h].established {
                // What is known is of the connection before.
                continue;
            }
            if let Some(flow) = self.hosts[h].flow(conn.ends[h], conn.ends[1 - h])
                && !matches!(flow.state, FlowState::Negotiating)
            {
                if conn.said[h].as_ref().is_none_or(|s| s.state != flow.state) {
                    let text = format!("{}: connection {i} is {:?}, {:?}", ["A", "B"][h], flow.state, flow.reason);
                    self.watch.note(self.now, || text);
                }
                if !known || conn.said[h].as_ref().is_some_and(|s| s.session_id == flow.session_id) {
                    let (state, session_id, role, resumed) = (flow.state, flow.session_id, flow.role, flow.resumed);
                    conn.said[h] = Some(Said { state, session_id, role, resumed });
                }
            }
        }
    }

    fn next_event(&mut self) -> Option<Instant> {
        let now = self.now;
        let mut next = self.flights.peek().map(|Reverse(f)| Instant::from_micros(f.at));
        let mut consider = |at: Option<Instant>| {
            // Something that is due but did not happen is tried again soon, not for ever at this moment.
            let at = at.map(|at| if at <= now { now + Duration::from_micros(500) } else { at });
            next = match (next, at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        };
        for h in 0..2 {
            consider(self.hosts[h].due(now));
            for conn in &self.conns {
                let socket = self.hosts[h].sockets.get::<tcp::Socket>(conn.handles[h]);
                consider(conn.apps[h].due(now, socket));
                if !conn.started {
                    consider(conn.start_at);
                }
            }
        }
        for at in self.rekeys.iter().map(|r| r.0).chain(self.flushes.iter().map(|f| f.0)) {
            consider(Some(Instant::ZERO + at));
        }
        for (at, _) in self.crash.into_iter().chain(self.down) {
            consider(Some(Instant::ZERO + at));
        }
        if let Some(at) = self.scenario.enable_at.filter(|_| !self.enabled) {
            consider(Some(Instant::ZERO + at));
        }
        next
    }

    fn judge(mut self, hung: usize) -> Report {
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
