//! A host: smoltcp as its kernel, the engine between it and the network.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use enotun::engine::{Config, Engine, Env, Side};
use enotun::selector::{Policy, PolicyTable, Rule, Selected};
use enotun::time::Instant;
use enotun::wire::{Checksum, Offload};
use smoltcp::iface::{Config as IfaceConfig, Interface, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::harness::env::{Emitted, Generator, TestEnv};
use crate::harness::packet::{self, Seg};
use crate::harness::rng::Rng;
use crate::harness::seals;

/// Addresses of each host in either family: the same host is met under another one, too.
pub const ALIASES: usize = 3;

fn addresses(number: u8, alias: usize) -> [IpAddr; 2] {
    let alias = alias as u8;
    [IpAddr::from([10, 0, alias, number]), IpAddr::from([0xfd00, 0, 0, u16::from(alias), 0, 0, 0, u16::from(number)])]
}

/// smoltcp's device: two queues.
#[derive(Default)]
pub struct Queues {
    pub to_kernel: VecDeque<Vec<u8>>,
    pub from_kernel: Vec<Vec<u8>>,
    mtu: usize,
}

pub struct RxToken(Vec<u8>);
pub struct TxToken<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}
impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.push(bytes);
        result
    }
}
impl phy::Device for Queues {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;
    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(RxToken, TxToken<'_>)> {
        let bytes = self.to_kernel.pop_front()?;
        Some((RxToken(bytes), TxToken(&mut self.from_kernel)))
    }
    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<TxToken<'_>> {
        Some(TxToken(&mut self.from_kernel))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.mtu;
        caps
    }
}

/// How the device between kernel and engine, and the NIC, behave.
#[derive(Debug, Clone, Copy)]
pub struct DeviceModel {
    /// The kernel leaves checksums to be computed.
    pub checksum_offload: bool,
    /// The kernel sends super-packets.
    pub tso: bool,
    /// What arrives from the network is merged.
    pub gro: bool,
    /// Merged packets come with a partial checksum (as Linux does it) rather than marked as verified.
    pub gro_partial: bool,
    /// The kernel takes super-packets as they are; otherwise they are cut for it.
    pub kernel_takes_super: bool,
    /// Probability that a run of segments is not merged further.
    pub stop: f64,
    /// Arrivals are looked at this often.
    pub interval: Duration,
    /// Probability that a packet is lost between kernel and engine (a full TUN queue), either way.
    pub tun_loss: f64,
    /// The kernel's initial sequence numbers lie within this many bytes before the wrap, if set.
    pub near_wrap: Option<u32>,
}

/// Where a packet was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tap {
    /// From the kernel, before the engine.
    KernelOut,
    /// To the kernel, after the engine.
    KernelIn,
    /// To the network.
    WireOut,
    /// From the network.
    WireIn,
}

/// One packet at one place, for traces and checks.
pub struct Seen {
    pub tap: Tap,
    pub bytes: Vec<u8>,
    pub gso: Option<u16>,
}

pub struct Host {
    /// By alias, then family.
    pub addr: [[IpAddr; 2]; ALIASES],
    pub iface: Interface,
    pub sockets: SocketSet<'static>,
    pub queues: Queues,
    pub engine: Option<Engine>,
    pub model: DeviceModel,
    env: TestEnv,
    rng: Rng,
    /// Everything that passed a tap since it was last taken.
    pub seen: Vec<Seen>,
    /// Segments for the network.
    pub to_wire: Vec<Vec<u8>>,
    /// What the engine did that no engine may do.
    pub faults: Vec<String>,
    /// By addresses: what is added to the kernel's sequence numbers before anyone sees them.
    shifts: HashMap<(SocketAddr, SocketAddr), u32>,
    /// By addresses: the kernel's initial sequence numbers, and the last urgent byte written.
    isns: HashMap<(SocketAddr, SocketAddr), u32>,
    urgent: HashMap<(SocketAddr, SocketAddr), u64>,
}

/// Whether a host has an engine, and what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// None: kernel and network are connected directly.
    Without,
    /// An engine whose policy is empty: all passes through.
    Idle,
    /// Opportunistic encryption of everything.
    Opportunistic,
    /// The same, as B where this host opens (ENO-7).
    RoleB,
    /// Nothing goes plain.
    Required,
}

impl Host {
    pub fn new(number: u8, mtu: usize, setup: Setup, model: DeviceModel, config: Config, rng: &mut Rng) -> Self {
        let mut queues = Queues { mtu, ..Queues::default() };
        let mut iface_config = IfaceConfig::new(HardwareAddress::Ip);
        iface_config.random_seed = rng.next();
        let mut iface = Interface::new(iface_config, &mut queues, smoltcp::time::Instant::ZERO);
        let addr = std::array::from_fn(|alias| addresses(number, alias));
        iface.update_ip_addrs(|all| {
            for (ip, prefix) in addr.iter().flat_map(|[v4, v6]| [(*v4, 16), (*v6, 32)]) {
                all.push(IpCidr::new(IpAddress::from(ip), prefix)).expect("room for all addresses");
            }
        });
        let engine = match setup {
            Setup::Without => None,
            Setup::Idle => Some(Engine::new(config, seals::provider())),
            Setup::Opportunistic => {
                let mut engine = Engine::new(config, seals::provider());
                select_everything(&mut engine, Policy::Opportunistic);
                Some(engine)
            }
            Setup::RoleB => {
                let mut engine = Engine::new(config, enotun::crypto::provider());
                let rules = ["0.0.0.0/0,role-b", "::/0,role-b"]
                    .map(|text| text.parse::<Selected>().expect("a selector").rule(Policy::Opportunistic));
                engine.set_policy(PolicyTable::new(rules));
                Some(engine)
            }
            Setup::Required => {
                let mut engine = Engine::new(config, seals::provider());
                select_everything(&mut engine, Policy::Required);
                Some(engine)
            }
        };
        Self {
            addr,
            iface,
            sockets: SocketSet::new(Vec::new()),
            queues,
            engine,
            model,
            env: TestEnv::new(Generator::new(rng.next())),
            rng: rng.fork(),
            seen: Vec::new(),
            to_wire: Vec::new(),
            faults: Vec::new(),
            shifts: HashMap::new(),
            isns: HashMap::new(),
            urgent: HashMap::new(),
        }
    }

    /// The application has written urgent data up to and with byte `last` of its stream. What was urgent before is
    /// superseded, as in any TCP.
    pub fn urge(&mut self, local: SocketAddr, remote: SocketAddr, last: u64) {
        self.urgent.insert((local, remote), last);
    }

    /// What Linux does and smoltcp does not: URG and its pointer in every segment up to the urgent byte (RFC 9293,
    /// section 3.8.5). The pointer names the byte after it (RFC 6093).
    fn mark_urgent(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(mut seg) = Seg::parse(&bytes) else { return bytes };
        let key = (seg.src, seg.dst);
        if seg.has(packet::SYN) {
            if self.isns.insert(key, seg.seq) != Some(seg.seq) {
                self.urgent.remove(&key);
            }
            return bytes;
        }
        let (Some(last), Some(isn)) = (self.urgent.get(&key), self.isns.get(&key)) else { return bytes };
        let after = (isn.wrapping_add(2).wrapping_add(*last as u32)).wrapping_sub(seg.seq);
        if seg.payload.is_empty() || seg.has(packet::RST) || !(1..=0xffff).contains(&after) {
            return bytes;
        }
        seg.flags |= packet::URG;
        seg.urgent = after as u16;
        seg.build()
    }

    fn see(&mut self, tap: Tap, bytes: &[u8], gso: Option<u16>) {
        self.seen.push(Seen { tap, bytes: bytes.to_vec(), gso });
    }

    /// Puts an engine without connections, as after a crash, in the place of the one there is.
    pub fn replace_engine(&mut self, config: Config, policy: Policy) {
        let mut engine = Engine::new(config, seals::provider());
        select_everything(&mut engine, policy);
        self.engine = Some(engine);
    }

    /// Moves the kernel's sequence numbers near the wrap, if the model says so.
    fn shift_out(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let (Some(near), Some(mut seg)) = (self.model.near_wrap, Seg::parse(&bytes)) else { return bytes };
        let key = (seg.src, seg.dst);
        if seg.has(packet::SYN) {
            let place = 0u32.wrapping_sub(self.rng.range(1, u64::from(near)) as u32);
            let isn = seg.seq;
            self.shifts.entry(key).or_insert_with(|| place.wrapping_sub(isn));
        }
        let Some(shift) = self.shifts.get(&key) else { return bytes };
        seg.seq = seg.seq.wrapping_add(*shift);
        seg.build()
    }

    /// Hands a packet to the kernel, in the kernel's own numbers.
    fn to_kernel(&mut self, bytes: Vec<u8>) {
        let whole = packet::checksums_are_right(&bytes);
        let bytes = match Seg::parse(&bytes).filter(|_| whole) {
            Some(mut seg) => match self.shifts.get(&(seg.dst, seg.src)) {
                Some(shift) => {
                    seg.ack = seg.ack.wrapping_sub(*shift);
                    seg.shift_sack(shift.wrapping_neg());
                    seg.build()
                }
                None => bytes,
            },
            None => bytes,
        };
        self.queues.to_kernel.push_back(bytes);
    }

    /// Takes in what arrived from the network at this moment.
    pub fn arrive(&mut self, now: Instant, packets: Vec<Vec<u8>>) {
        if self.engine.is_none() {
            for bytes in packets {
                self.see(Tap::WireIn, &bytes, None);
                self.to_kernel(bytes);
            }
            return;
        }
        let mut run = Vec::new();
        for bytes in packets {
            // Only what is whole is merged, as with hardware that verifies checksums.
            let whole = self.model.gro && packet::checksums_are_right(&bytes);
            match Seg::parse(&bytes).filter(|_| whole) {
                Some(seg) => run.push(seg),
                None => {
                    self.arrive_merged(now, std::mem::take(&mut run));
                    self.see(Tap::WireIn, &bytes, None);
                    self.to_engine(now, Side::Wire, Offload::NONE, bytes);
                }
            }
        }
        self.arrive_merged(now, run);
    }

    fn arrive_merged(&mut self, now: Instant, run: Vec<Seg>) {
        let (stop, rng) = (self.model.stop, &mut self.rng);
        for (seg, gso) in packet::merge(run, || rng.chance(stop)) {
            let (bytes, offload) = if self.model.gro_partial && gso.is_some() {
                (seg.build_partial(), seg.partial_offload(gso))
            } else {
                let mut offload = seg.partial_offload(gso);
                offload.checksum =
                    if self.rng.chance(0.5) || gso.is_some() { Checksum::Verified } else { Checksum::Unverified };
                (seg.build(), offload)
            };
            self.see(Tap::WireIn, &bytes, gso);
            self.to_engine(now, Side::Wire, offload, bytes);
        }
    }

    /// Lets the kernel work; gives whether anything moved.
    pub fn poll_kernel(&mut self, now: Instant) -> bool {
        let at = smoltcp::time::Instant::from_micros(now.as_micros() as i64);
        let fed = !self.queues.to_kernel.is_empty();
        self.iface.poll(at, &mut self.queues, &mut self.sockets);
        let sent = std::mem::take(&mut self.queues.from_kernel);
        let moved = fed || !sent.is_empty();
        let marked: Vec<Vec<u8>> = sent.into_iter().map(|bytes| self.mark_urgent(bytes)).collect();
        let sent: Vec<Vec<u8>> = marked.into_iter().map(|bytes| self.shift_out(bytes)).collect();
        if self.engine.is_none() {
            for bytes in sent {
                self.see(Tap::WireOut, &bytes, None);
                self.to_wire.push(bytes);
            }
            return moved;
        }
        let segments: Vec<Seg> = sent
            .iter()
            .map(|bytes| Seg::parse(bytes).unwrap_or_else(|| panic!("smoltcp sends TCP only, not {bytes:02x?}")))
            .collect();
        let (tso, stop, rng) = (self.model.tso, self.model.stop, &mut self.rng);
        let merged = packet::merge(segments, || !tso || rng.chance(stop));
        for (seg, gso) in merged {
            let (bytes, offload) = if self.model.checksum_offload || gso.is_some() {
                (seg.build_partial(), seg.partial_offload(gso))
            } else {
                (seg.build(), Offload::NONE)
            };
            self.see(Tap::KernelOut, &bytes, gso);
            if self.rng.chance(self.model.tun_loss) {
                continue;
            }
            self.to_engine(now, Side::Plain, offload, bytes);
        }
        moved
    }

    fn to_engine(&mut self, now: Instant, side: Side, offload: Offload, mut bytes: Vec<u8>) {
        let Some(engine) = &mut self.engine else { return };
        engine.handle_packet(now, side, offload, &mut bytes, &mut self.env);
        self.drain();
    }

    /// When the engine or the kernel wants to be called.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let at = smoltcp::time::Instant::from_micros(now.as_micros() as i64);
        let kernel = self
            .iface
            .poll_at(at, &self.sockets)
            .map(|t| Instant::from_micros(u64::try_from(t.total_micros()).unwrap_or(0)));
        let engine = self.engine.as_ref().and_then(Engine::poll_timeout);
        match (kernel, engine) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Lets the engine's timers run.
    pub fn run_timers(&mut self, now: Instant) {
        let Some(engine) = &mut self.engine else { return };
        for _ in 0..50 {
            if engine.poll_timeout().is_none_or(|due| due > now) {
                self.drain();
                return;
            }
            engine.handle_timeout(now, &mut self.env);
        }
        self.faults.push(format!("the engine's timer stays due: {:?} at {now:?}", engine.poll_timeout()));
    }

    /// Calls the engine directly.
    pub fn with_engine<R>(&mut self, f: impl FnOnce(&mut Engine, &mut dyn Env) -> R) -> Option<R> {
        let engine = self.engine.as_mut()?;
        let result = f(engine, &mut self.env);
        self.drain();
        Some(result)
    }

    /// Passes on what the engine put out.
    fn drain(&mut self) {
        for Emitted { side, bytes, offload, built } in self.env.take() {
            let gso = offload.gso.map(|g| g.size);
            let segments = match packet::materialise(&bytes, offload, built) {
                Ok(segments) => segments,
                Err(fault) => {
                    self.faults.push(format!("to {side:?}: {fault}"));
                    continue;
                }
            };
            match side {
                Side::Plain => {
                    self.see(Tap::KernelIn, &bytes, gso);
                    if self.rng.chance(self.model.tun_loss) {
                        continue;
                    }
                    if self.model.kernel_takes_super && built {
                        let whole = Seg::parse(&bytes).map_or(bytes, |seg| seg.build());
                        self.to_kernel(whole);
                    } else {
                        segments.into_iter().for_each(|s| self.to_kernel(s));
                    }
                }
                Side::Wire => {
                    for segment in segments {
                        self.see(Tap::WireOut, &segment, None);
                        self.to_wire.push(segment);
                    }
                }
            }
        }
    }

    /// What the engine says of a connection.
    pub fn flow(&self, local: SocketAddr, remote: SocketAddr) -> Option<enotun::engine::FlowInfo> {
        self.engine.as_ref()?.flow(local, remote)
    }
}

/// `policy` for all addresses and ports.
pub fn select_everything(engine: &mut Engine, policy: Policy) {
    let rules = ["0.0.0.0/0", "::/0"].map(|net| Rule::new(net.parse().expect("a selector"), policy));
    engine.set_policy(PolicyTable::new(rules));
}
