//! A host: an engine, its surroundings and a clock. The local kernel and the network are the test.

use std::net::SocketAddr;
use std::time::Duration;

use enotun::engine::{Config, Engine, Side};
use enotun::selector::{Policy, PolicyTable, Rule};
use enotun::time::Instant;
use enotun::wire::Offload;

use super::env::{Emitted, Generator, Source, TestEnv};
use super::packet::{self, Seg};

/// When every test begins.
pub const START: Instant = Instant::from_micros(1_000_000);

/// `policy` for every IPv4 address.
pub fn everything(policy: Policy) -> PolicyTable {
    PolicyTable::new([Rule::new("0.0.0.0/0".parse().expect("a selector"), policy)])
}

/// What a host sent: towards its kernel and towards the network, as single segments.
#[derive(Debug, Default)]
pub struct Sent {
    pub plain: Vec<Seg>,
    pub wire: Vec<Seg>,
}

impl Sent {
    /// The payload towards the kernel.
    pub fn delivered(&self) -> Vec<u8> {
        self.plain.iter().flat_map(|seg| seg.payload.clone()).collect()
    }

    /// The payload towards the network.
    pub fn wire_bytes(&self) -> Vec<u8> {
        self.wire.iter().flat_map(|seg| seg.payload.clone()).collect()
    }

    /// All of it but what the IP header counts: what two runs can be compared by.
    pub fn essence(&self) -> Vec<Seg> {
        self.plain.iter().chain(&self.wire).map(|seg| Seg { id: 0, ..seg.clone() }).collect()
    }
}

impl From<Vec<Emitted>> for Sent {
    fn from(emitted: Vec<Emitted>) -> Self {
        let mut sent = Self::default();
        for Emitted { side, bytes, offload, built } in emitted {
            for segment in packet::materialise(&bytes, offload, built).expect("a packet that can be sent") {
                let seg = Seg::parse(&segment).expect("TCP");
                match side {
                    Side::Plain => sent.plain.push(seg),
                    Side::Wire => sent.wire.push(seg),
                }
            }
        }
        sent
    }
}

/// See the module.
pub struct Host<S = Generator> {
    pub engine: Engine,
    pub env: TestEnv<S>,
    pub now: Instant,
}

impl Host {
    /// One that encrypts what it can.
    pub fn new(config: Config) -> Self {
        Self::with_policy(config, Policy::Opportunistic)
    }

    pub fn with_policy(config: Config, policy: Policy) -> Self {
        Self::with_table(config, everything(policy))
    }

    pub fn with_rule(config: Config, rule: Rule) -> Self {
        Self::with_table(config, PolicyTable::new([rule]))
    }

    fn with_table(config: Config, table: PolicyTable) -> Self {
        let mut engine = Engine::new(config, enotun::crypto::provider());
        engine.set_policy(table);
        Self::with_engine(engine, TestEnv::default())
    }
}

impl<S: Source> Host<S> {
    pub fn with_engine(engine: Engine, env: TestEnv<S>) -> Self {
        Self { engine, env, now: START }
    }

    /// Gives the engine a packet and lets it do what is due, as the packet loop does. What it sends is in `env`.
    pub fn give(&mut self, side: Side, offload: Offload, bytes: &mut [u8]) {
        self.engine.handle_packet(self.now, side, offload, bytes, &mut self.env);
        self.run_timers();
    }

    /// What the engine has put off until now.
    pub fn run_timers(&mut self) {
        while self.engine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.engine.handle_timeout(self.now, &mut self.env);
        }
    }

    /// Takes what was sent, as single segments.
    pub fn take(&mut self) -> Sent {
        self.env.take().into()
    }

    pub fn hear_bytes(&mut self, side: Side, mut bytes: Vec<u8>) -> Sent {
        self.give(side, Offload::NONE, &mut bytes);
        self.take()
    }

    pub fn hear(&mut self, side: Side, seg: &Seg) -> Sent {
        self.hear_bytes(side, seg.build())
    }

    /// A segment of the local kernel's.
    pub fn kernel(&mut self, seg: &Seg) -> Sent {
        self.hear(Side::Plain, seg)
    }

    /// One from the network.
    pub fn wire(&mut self, seg: &Seg) -> Sent {
        self.hear(Side::Wire, seg)
    }

    /// The kernel hands over a super-packet with segments of `size` bytes.
    pub fn kernel_super(&mut self, seg: &Seg, size: u16) -> Sent {
        self.give(Side::Plain, seg.partial_offload(Some(size)), &mut seg.build_partial());
        self.take()
    }

    /// What becomes on the other side of an ICMP error that came on `side`.
    fn icmp_from(&mut self, side: Side, error: &[u8]) -> Option<Vec<u8>> {
        self.give(side, Offload::NONE, &mut error.to_vec());
        self.env.take().into_iter().find(|sent| sent.side == side.other()).map(|sent| sent.bytes)
    }

    /// What becomes on the wire of an ICMP error from the plain side.
    pub fn icmp_on_wire(&mut self, error: &[u8]) -> Option<Vec<u8>> {
        self.icmp_from(Side::Plain, error)
    }

    /// What becomes for the kernel of an ICMP error from the wire.
    pub fn icmp_to_kernel(&mut self, error: &[u8]) -> Option<Vec<u8>> {
        self.icmp_from(Side::Wire, error)
    }

    /// Lets time pass, timers included.
    pub fn wait(&mut self, time: Duration) -> Sent {
        let end = self.now + time;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now, &mut self.env);
        }
        self.now = end;
        self.take()
    }

    pub fn rekey(&mut self, local: SocketAddr, remote: SocketAddr) -> Sent {
        self.engine.rekey(self.now, local, remote, &mut self.env).expect("an encrypted connection");
        self.take()
    }
}
