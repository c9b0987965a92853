//! The network between the two hosts: each direction loses, repeats, delays, reorders, damages, cuts, joins and
//! forges as its parameters say.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::packet::{ACK, ENO, FIN, PSH, RST, SYN, Seg};
use crate::harness::rng::Rng;

/// What a middlebox does to ENO options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strip {
    Nothing,
    /// Takes ENO out of every SYN.
    Syn,
    /// Takes ENO out of every SYN-ACK.
    SynAck,
    /// Takes ENO out of everything but SYNs and SYN-ACKs.
    NonSyn,
    /// Takes ENO out of everything.
    All,
    /// Drops SYNs that have ENO.
    DropSyn,
}

/// Forgeries, each next to a genuine segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// The same place with other bytes, earlier than the genuine segment.
    BogusBefore,
    /// The same place with other bytes, later.
    BogusAfter,
    /// A frame header as it was, other bytes behind it, earlier.
    BogusBody,
    /// A frame header with the largest length, earlier.
    BogusLength,
    /// Bytes for the place after the segment.
    BogusNext,
    /// A FIN without data at the place after the segment.
    ForgedFin,
    /// FIN set on a segment whose bytes are bogus.
    BogusFin,
    /// RST with a sequence number in the window, but not the next one.
    RstInWindow,
    /// RST with a sequence number that is past.
    RstOld,
    /// RST with exactly the next sequence number, at least as seen here.
    RstExact,
    /// A SYN inside the window.
    SynInWindow,
    /// An acknowledgement of what was never sent.
    AckFuture,
    /// A run of duplicate acknowledgements.
    DupAcks,
    /// A window of 0.
    ZeroWindow,
    /// SACK blocks for what was not received.
    BogusSack,
    /// The genuine bytes with flags of no meaning here: URG and an urgent pointer.
    Urgent,
}

/// Attacks that a connection with its keys in place is expected to survive.
pub const SURVIVABLE: &[Attack] = &[
    Attack::BogusBefore,
    Attack::BogusAfter,
    Attack::BogusBody,
    Attack::BogusLength,
    Attack::BogusNext,
    Attack::RstInWindow,
    Attack::RstOld,
    Attack::SynInWindow,
    Attack::AckFuture,
    Attack::DupAcks,
    Attack::ZeroWindow,
    Attack::BogusSack,
    Attack::Urgent,
];

/// All of them.
pub const ANY: &[Attack] = &[
    Attack::BogusBefore,
    Attack::BogusAfter,
    Attack::BogusBody,
    Attack::BogusLength,
    Attack::BogusNext,
    Attack::ForgedFin,
    Attack::BogusFin,
    Attack::RstInWindow,
    Attack::RstOld,
    Attack::RstExact,
    Attack::SynInWindow,
    Attack::AckFuture,
    Attack::DupAcks,
    Attack::ZeroWindow,
    Attack::BogusSack,
    Attack::Urgent,
];

/// One direction's parameters. Probabilities are per packet.
#[derive(Debug, Clone)]
pub struct Link {
    pub delay: Duration,
    pub jitter: Duration,
    pub loss: f64,
    pub duplicate: f64,
    /// Probability of being held back by up to `reorder_by`.
    pub reorder: f64,
    pub reorder_by: Duration,
    /// Bytes per second, if limited.
    pub rate: Option<u64>,
    /// Bytes that wait for a limited rate; what comes on top is dropped.
    pub queue: u64,
    /// A bit flips and the checksum tells.
    pub damage: f64,
    /// A bit of the payload flips and the checksum is made right again.
    pub tamper_payload: f64,
    /// A bit anywhere behind the IP addresses flips and the checksum is made right again.
    pub tamper_header: f64,
    /// Cut and joined at odd places.
    pub resegment: f64,
    pub attack: f64,
    pub attacks: &'static [Attack],
    /// Payload bytes a connection has sent in this direction (a packet counts at least 40) before it is attacked or
    /// tampered with.
    pub attack_after: u64,
    pub strip: Strip,
    /// Packets larger than this are a failure of the sender.
    pub mtu: usize,
}

impl Link {
    /// A quick, faultless link.
    pub fn clean(delay: Duration) -> Self {
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_by: Duration::ZERO,
            rate: None,
            queue: 0,
            damage: 0.0,
            tamper_payload: 0.0,
            tamper_header: 0.0,
            resegment: 0.0,
            attack: 0.0,
            attacks: SURVIVABLE,
            attack_after: 2000,
            strip: Strip::Nothing,
            mtu: 1500,
        }
    }
}

/// A direction of the network, with its memory.
pub struct Direction {
    pub link: Link,
    rng: Rng,
    /// When a limited rate has sent what waits (microseconds).
    free_at: u64,
    sent: HashMap<(SocketAddr, SocketAddr), u64>,
    /// How often a payload that begins there was tampered with. Who never lets a clean copy through ends the connection,
    /// which is no failure (TC-28).
    tampered: HashMap<(SocketAddr, u32), u32>,
    pub counts: Counts,
}

/// What was done to packets, for statistics and to see that a profile does what it says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub packets: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub damaged: u64,
    pub tampered: u64,
    pub resegmented: u64,
    pub attacks: u64,
    pub stripped: u64,
}

/// A packet with its time of arrival, and how it came about if it is not genuine.
pub struct Arrival {
    pub at: u64,
    pub bytes: Vec<u8>,
    pub note: String,
}

impl Direction {
    pub fn new(link: Link, rng: Rng) -> Self {
        Self { link, rng, free_at: 0, sent: HashMap::new(), tampered: HashMap::new(), counts: Counts::default() }
    }

    /// Takes in what a host sent at one moment; gives what will arrive at the other.
    pub fn send(&mut self, now: u64, packets: Vec<Vec<u8>>) -> Vec<Arrival> {
        let packets = self.resegment(packets);
        let mut out = Vec::new();
        for bytes in packets {
            self.counts.packets += 1;
            self.pass(now, bytes, &mut out);
        }
        out
    }

    fn pass(&mut self, now: u64, mut bytes: Vec<u8>, out: &mut Vec<Arrival>) {
        let mut notes = String::new();
        if let Some(seg) = Seg::parse(&bytes) {
            match self.strip(seg.clone()) {
                None => return,
                Some(stripped) if stripped != seg => {
                    self.counts.stripped += 1;
                    notes.push_str(" (stripped)");
                    bytes = stripped.build();
                }
                Some(_) => {}
            }
            let sent = self.sent.entry((seg.src, seg.dst)).or_default();
            // Directions of mere acknowledgements come under attack too, some time.
            *sent += seg.payload.len().max(40) as u64;
            let established = *sent >= self.link.attack_after && !seg.has(SYN | RST);
            if established && self.rng.chance(self.link.attack) {
                self.counts.attacks += 1;
                let attack = self.rng.pick(self.link.attacks);
                let base = now + self.link.delay.as_micros() as u64;
                for (early, forged) in self.forge(attack, &seg) {
                    let skew = self.rng.range(1, 200);
                    let at = if early { base.saturating_sub(skew).max(now) } else { base + skew };
                    out.push(Arrival { at, bytes: forged.build(), note: format!(" (forged: {attack:?})") });
                }
            }
            let may_tamper = *self.sent.get(&(seg.src, seg.dst)).unwrap_or(&0) >= self.link.attack_after;
            let place = (seg.src, seg.seq);
            let again = self.tampered.get(&place).is_some_and(|times| *times >= 2);
            if may_tamper && !seg.payload.is_empty() && !again && self.rng.chance(self.link.tamper_payload) {
                *self.tampered.entry(place).or_default() += 1;
                let mut changed = seg.clone();
                let bit = self.rng.below(changed.payload.len() as u64 * 8);
                changed.payload[(bit / 8) as usize] ^= 1 << (bit % 8);
                notes.push_str(" (payload tampered with)");
                self.counts.tampered += 1;
                bytes = changed.build();
            } else if may_tamper && self.rng.chance(self.link.tamper_header) {
                self.counts.tampered += 1;
                notes.push_str(" (header tampered with)");
                bytes = self.tamper_header(&seg, bytes);
            }
        }
        if self.rng.chance(self.link.loss) {
            self.counts.lost += 1;
            return;
        }
        if self.rng.chance(self.link.damage) {
            self.counts.damaged += 1;
            notes.push_str(" (damaged)");
            // Not in the IP header: a router would have noticed; and two flips could cancel out.
            let start = if bytes[0] >> 4 == 4 { 20 } else { 40 };
            let bit = self.rng.range(start * 8, bytes.len() as u64 * 8 - 1);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let mut at = now;
        if let Some(rate) = self.link.rate {
            let waiting = self.free_at.saturating_sub(now) * rate / 1_000_000;
            if waiting > self.link.queue {
                self.counts.lost += 1;
                return;
            }
            self.free_at = self.free_at.max(now) + (bytes.len() as u64 * 1_000_000).div_ceil(rate);
            at = self.free_at;
        }
        at += self.link.delay.as_micros() as u64 + self.rng.below(self.link.jitter.as_micros() as u64 + 1);
        if self.rng.chance(self.link.reorder) {
            self.counts.reordered += 1;
            at += self.rng.below(self.link.reorder_by.as_micros() as u64 + 1);
        }
        if self.rng.chance(self.link.duplicate) {
            self.counts.duplicated += 1;
            let again = at + self.rng.below(self.link.reorder_by.as_micros() as u64 * 2 + 1000);
            out.push(Arrival { at: again, bytes: bytes.clone(), note: format!("{notes} (duplicate)") });
        }
        out.push(Arrival { at, bytes, note: notes });
    }

    fn strip(&mut self, mut seg: Seg) -> Option<Seg> {
        if !seg.eno() {
            return Some(seg);
        }
        let (syn, ack) = (seg.has(SYN), seg.has(ACK));
        let hit = match self.link.strip {
            Strip::Nothing => false,
            Strip::Syn => syn && !ack,
            Strip::SynAck => syn && ack,
            Strip::NonSyn => !syn,
            Strip::All => true,
            Strip::DropSyn if syn && !ack => return None,
            Strip::DropSyn => false,
        };
        if hit {
            let list: Vec<_> = seg.option_list()?.into_iter().filter(|(kind, _)| *kind != ENO).collect();
            seg.set_options(&list);
        }
        Some(seg)
    }

    /// Joins segments that continue each other and cuts the result anew.
    fn resegment(&mut self, packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        if self.link.resegment == 0.0 {
            return packets;
        }
        let mut out: Vec<Vec<u8>> = Vec::new();
        let mut run: Option<Seg> = None;
        for bytes in packets {
            let plain = |s: &Seg| !s.payload.is_empty() && s.flags & !(PSH | FIN) == ACK;
            let Some(seg) = Seg::parse(&bytes).filter(plain) else {
                self.cut(run.take(), &mut out);
                out.push(bytes);
                continue;
            };
            match &mut run {
                Some(r)
                    if (r.src, r.dst) == (seg.src, seg.dst)
                        && !r.has(FIN)
                        && r.seq.wrapping_add(r.payload.len() as u32) == seg.seq
                        && r.options.len() == seg.options.len() =>
                {
                    r.payload.extend(&seg.payload);
                    (r.ack, r.win, r.flags) = (seg.ack, seg.win, r.flags | seg.flags);
                    r.options.clone_from(&seg.options);
                }
                _ => {
                    self.cut(run.take(), &mut out);
                    run = Some(seg);
                }
            }
        }
        self.cut(run, &mut out);
        out
    }

    fn cut(&mut self, run: Option<Seg>, out: &mut Vec<Vec<u8>>) {
        let Some(mut seg) = run else { return };
        let header = seg.build().len() - seg.payload.len();
        let most = (self.link.mtu - header) as u64;
        while !seg.payload.is_empty() {
            let left = seg.payload.len() as u64;
            let size = if self.rng.chance(self.link.resegment) {
                self.counts.resegmented += 1;
                self.rng.scale(1, most)
            } else {
                most
            }
            .min(left) as usize;
            let mut piece = seg.clone();
            piece.payload.truncate(size);
            if (size as u64) < left {
                piece.flags &= !(FIN | PSH);
            }
            out.push(piece.build());
            seg.payload.drain(..size);
            seg.seq = seg.seq.wrapping_add(size as u32);
        }
    }

    fn tamper_header(&mut self, seg: &Seg, bytes: Vec<u8>) -> Vec<u8> {
        let mut bytes = bytes;
        let at = if seg.src.is_ipv4() { 20 } else { 40 };
        let header_len = bytes.len() - seg.payload.len();
        // Ports stay: with others it is another connection's packet.
        let bit = self.rng.range((at + 4) * 8, header_len as u64 * 8 - 1);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        match Seg::parse(&bytes) {
            // A data offset that leads out of the packet stays as it is, with a wrong checksum.
            None => bytes,
            Some(changed) => changed.build(),
        }
    }

    /// The forged segments, each with whether it comes before the genuine one.
    fn forge(&mut self, attack: Attack, seg: &Seg) -> Vec<(bool, Seg)> {
        let mut f = seg.clone();
        f.flags &= !FIN;
        let next = seg.seq.wrapping_add(seg.seq_len());
        let bogus = |rng: &mut Rng, n: usize| {
            let mut b = vec![0; n];
            rng.fill(&mut b);
            b
        };
        match attack {
            Attack::BogusBefore | Attack::BogusAfter => f.payload = bogus(&mut self.rng, seg.payload.len()),
            Attack::BogusBody => {
                let body = bogus(&mut self.rng, seg.payload.len().saturating_sub(3));
                f.payload.truncate(3);
                f.payload.extend(body);
            }
            Attack::BogusLength => {
                f.payload = bogus(&mut self.rng, seg.payload.len().max(10));
                f.payload[..3].copy_from_slice(&[0, 0xff, 0xff]);
            }
            Attack::BogusNext => {
                f.seq = next;
                let n = self.rng.range(1, 1000) as usize;
                f.payload = bogus(&mut self.rng, n);
            }
            Attack::ForgedFin => {
                f.seq = next;
                f.payload.clear();
                f.flags = ACK | FIN;
            }
            Attack::BogusFin => {
                f.payload = bogus(&mut self.rng, seg.payload.len().max(10));
                f.flags |= FIN;
            }
            Attack::RstInWindow => {
                f.seq = next.wrapping_add(self.rng.range(1, 30_000) as u32);
                f.flags = if self.rng.chance(0.5) { RST } else { RST | ACK };
                f.payload.clear();
            }
            Attack::RstOld => {
                f.seq = seg.seq.wrapping_sub(self.rng.range(1, 30_000) as u32);
                f.flags = RST | ACK;
                f.payload.clear();
            }
            Attack::RstExact => {
                f.seq = next;
                f.flags = RST | ACK;
                f.payload.clear();
            }
            Attack::SynInWindow => {
                f.seq = next.wrapping_add(self.rng.below(1000) as u32);
                f.flags = if self.rng.chance(0.5) { SYN } else { SYN | ACK };
                f.payload.clear();
                f.set_options(&[(2, vec![5, 180]), (ENO, vec![0x23])]);
            }
            Attack::AckFuture => {
                f.ack = seg.ack.wrapping_add(self.rng.range(1 << 20, 1 << 29) as u32);
                f.payload.clear();
            }
            Attack::DupAcks => {
                f.payload.clear();
                f.flags = ACK;
                return vec![(false, f.clone()), (false, f.clone()), (false, f.clone()), (false, f)];
            }
            Attack::ZeroWindow => {
                f.payload.clear();
                f.flags = ACK;
                f.win = 0;
            }
            Attack::BogusSack => {
                f.payload.clear();
                f.flags = ACK;
                let mut blocks = Vec::new();
                for _ in 0..self.rng.range(1, 3) {
                    let left = seg.ack.wrapping_add(self.rng.below(20_000) as u32);
                    blocks.extend(left.to_be_bytes());
                    blocks.extend(left.wrapping_add(self.rng.below(3000) as u32).to_be_bytes());
                }
                f.set_options(&[(5, blocks)]);
            }
            Attack::Urgent => {
                f.flags |= crate::harness::packet::URG;
                f.urgent = self.rng.below(0x1_0000) as u16;
            }
        }
        let early =
            !matches!(attack, Attack::BogusAfter) && (matches!(attack, Attack::BogusBefore) || self.rng.chance(0.6));
        vec![(early, f)]
    }
}
