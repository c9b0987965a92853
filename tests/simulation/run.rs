//! One run: two hosts, the network between them, virtual time, and what must hold at its end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enotun::engine::FlowState;
use enotun::selector::Policy;
use enotun::time::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::IpEndpoint;

use super::app::{self, App, Outcome};
use super::host::Host;
use super::judge::Report;
use super::net::Direction;
use super::scenario::{ConnPlan, Scenario};
use super::watch::{Conn, Watch};
use crate::harness::rng::{Rng, Stream};
use crate::harness::seals;

pub struct Flight {
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
pub struct Said {
    pub state: FlowState,
    pub session_id: Option<String>,
    pub role: Option<char>,
    pub resumed: bool,
}

pub struct Live {
    pub plan: ConnPlan,
    pub handles: [SocketHandle; 2],
    pub apps: [App; 2],
    pub ends: [SocketAddr; 2],
    pub started: bool,
    pub start_at: Option<Instant>,
    pub said: [Option<Said>; 2],
    /// By host: the highest generation it was seen to send with.
    pub generations: [u64; 2],
    /// By host: how many of its urgent bytes are written.
    pub urged: [usize; 2],
}

pub struct Sim<'a> {
    pub scenario: &'a Scenario,
    pub now: Instant,
    pub hosts: [Host; 2],
    /// By sending host.
    pub net: [Direction; 2],
    pub flights: BinaryHeap<Reverse<Flight>>,
    pub flights_made: u64,
    pub conns: Vec<Live>,
    pub watch: Watch,
    pub rekeys: Vec<(Duration, usize, usize)>,
    pub flushes: Vec<(Duration, usize)>,
    pub enabled: bool,
    pub crash: Option<(Duration, usize)>,
    pub down: Option<(Duration, usize)>,
    pub held_most: usize,
}

/// After the applications are done, time for TIME-WAIT, lingering, and what the network still holds.
pub const AFTERWARDS: Duration = Duration::from_secs(600);

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
}
