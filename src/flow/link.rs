//! The addresses of a connection and what its packets have in common; packets leave through here.

use std::cell::Cell;
use std::time::Duration;

use super::env::{Env, RandomFor, Side};
use super::lost::LostOption;
use crate::time::Instant;
use crate::wire::FlowKey;
use crate::wire::build::{self, IpFields, TcpFields};
use crate::wire::options::Timestamps;
use crate::wire::{Offload, Outgoing, Segment};

/// What the packets towards one side look like besides their TCP header.
#[derive(Debug, Clone)]
struct Direction {
    ip: IpFields,
    /// The next IPv4 identification, once one was needed.
    id: Cell<Option<u16>>,
}

impl Direction {
    /// Of which no packet was seen.
    fn unseen() -> Self {
        let ip = IpFields { traffic_class: 0, ttl: 64, flow_label: 0, id: 0, dont_fragment: true };
        Self { ip, id: Cell::new(None) }
    }

    /// The identification of the next `packets` packets: what may be fragmented has one of its own each (RFC 6864, section
    /// 4.2), from a beginning that nobody can guess.
    fn identify(&self, packets: usize, random: impl FnOnce() -> u16) -> u16 {
        let id = self.id.get().unwrap_or_else(random);
        #[expect(clippy::cast_possible_truncation, reason = "identifications wrap")]
        self.id.set(Some(id.wrapping_add(packets as u16)));
        id
    }
}

/// The connection's addresses and IP header fields for both directions.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) key: FlowKey,
    to_wire: Direction,
    to_plain: Direction,
}

/// The longest IP packet.
const MAX_PACKET: usize = 65_535;

impl Link {
    pub(crate) fn new(key: FlowKey) -> Self {
        Self { key, to_wire: Direction::unseen(), to_plain: Direction::unseen() }
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.key.local().is_ipv6()
    }

    /// Notes what a packet read on `from` looked like: the packets made from it, and those that enotun sends on its own,
    /// look the same.
    pub(crate) fn learn<S>(&mut self, from: Side, packet: &Segment<'_, S>) {
        let direction = match from {
            Side::Plain => &mut self.to_wire,
            Side::Wire => &mut self.to_plain,
        };
        direction.ip.traffic_class = packet.traffic_class;
        // The kernel forwards between the NIC and the wire device and takes one off each time.
        direction.ip.ttl = packet.ttl.saturating_add(1);
        direction.ip.flow_label = packet.flow_label;
        direction.ip.dont_fragment = packet.dont_fragment;
    }

    /// Marks packets to the local kernel as [congested](Packet::is_congested), until another packet comes from the wire.
    pub(super) fn mark_congested(&mut self) {
        self.to_plain.ip.traffic_class |= 3;
    }

    /// The same link, whose packets to the wire come to their end at router number `hop`, with `id` in a field that the
    /// router quotes.
    pub(crate) fn limited(&self, hop: u8, id: u16) -> Self {
        let mut link = self.clone();
        // One more for the way from the wire device to the NIC.
        link.to_wire.ip.ttl = hop.saturating_add(1);
        (link.to_wire.ip.id, link.to_wire.ip.flow_label) = (id, id.into());
        link
    }

    /// The most payload bytes in one packet with `options` bytes of TCP options.
    pub(crate) fn max_payload(&self, options: usize) -> usize {
        MAX_PACKET - if self.is_v6() { 40 } else { 20 } - 20 - options
    }

    /// Sends a segment (or, with `gso_size`, several) out on `side`.
    pub(crate) fn emit(
        &self,
        env: &mut dyn Env,
        side: Side,
        tcp: &TcpFields<'_>,
        payload: &[&[u8]],
        gso_size: Option<u16>,
    ) {
        let (src, dst, direction) = match side {
            Side::Wire => (self.key.local(), self.key.remote(), &self.to_wire),
            Side::Plain => (self.key.remote(), self.key.local(), &self.to_plain),
        };
        let len: usize = payload.iter().map(|p| p.len()).sum();
        let mut ip = direction.ip;
        if len == 0 {
            // Acknowledgements without data are not sent ECN-capable (RFC 3168, section 6.1.4).
            ip.traffic_class &= !3;
        }
        let gso_size = gso_size.filter(|size| len > usize::from(*size));
        if !ip.dont_fragment && ip.id == 0 {
            let packets = gso_size.map_or(1, |size| len.div_ceil(size.max(1).into()));
            ip.id = direction.identify(packets, || {
                let mut id = [0; 2];
                let (local, remote) = (self.key.local(), self.key.remote());
                env.random(&RandomFor { purpose: "IP ID", local, remote, context: &[] }, &mut id);
                u16::from_be_bytes(id)
            });
        }
        let Some((header, tcp_at)) = build::headers(src, dst, &ip, tcp, len) else {
            debug_assert!(false, "callers keep packets within what IP can say");
            return;
        };
        let header = header.as_slice();
        let mut offload = Offload::partial(tcp_at, header.len(), self.is_v6(), gso_size);
        if tcp.flags.any(crate::wire::Flags::CWR)
            && let Some(gso) = &mut offload.gso
        {
            gso.kind |= crate::wire::packet::GSO_ECN;
        }
        env.emit(side, &Outgoing { header, payload, offload });
    }
}

impl Link {
    /// Sends a RST out on `side`.
    pub(crate) fn reset(&self, env: &mut dyn Env, side: Side, seq: u32, ack: u32) {
        let flags = crate::wire::Flags::RST.with(crate::wire::Flags::ACK);
        self.emit(env, side, &TcpFields { seq, ack, flags, window: 0, urgent: 0, options: &[] }, &[], None);
    }

    /// Sends a RST to the peer that says which of its options were lost (RFC 9293, section 3.5.3, lets a RST carry a text
    /// that explains it).
    pub(crate) fn reset_saying(&self, env: &mut dyn Env, lost: LostOption, seq: u32, ack: u32) {
        let flags = crate::wire::Flags::RST.with(crate::wire::Flags::ACK);
        let tcp = TcpFields { seq, ack, flags, window: 0, urgent: 0, options: &[] };
        self.emit(env, Side::Wire, &tcp, &[lost.text()], None);
    }

    /// Sends a bare acknowledgement without a window out on `side`.
    pub(crate) fn acknowledge(&self, env: &mut dyn Env, side: Side, seq: u32, ack: u32, options: &[u8]) {
        let flags = crate::wire::Flags::ACK;
        self.emit(env, side, &TcpFields { seq, ack, flags, window: 0, urgent: 0, options }, &[], None);
    }
}

/// The timestamps of both ends, for the segments that enotun sends on its own and for those it translates.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clocks {
    /// Latest value of the local kernel's clock,
    kernel: u32,
    /// and when it came.
    kernel_at: Instant,
    /// Latest value of the kernel's clock that the peer has echoed.
    echo: u32,
    /// The value of the peer's clock to echo, and the latest that is believed: from a segment that began at or before the
    /// last acknowledgement sent (TS.Recent: RFC 7323, section 4.3). One further ahead in the window would be enough to
    /// have all that follows taken for old, here and by the kernel.
    recent: u32,
    recent_at: Instant,
}

/// After so long without a segment a peer's timestamps say nothing of its age (RFC 7323, section 5.5).
const TIMESTAMPS_VALID: Duration = Duration::from_secs(24 * 24 * 3600);

impl Clocks {
    /// As both SYNs say.
    pub(crate) fn new(kernel: Timestamps, peer: Timestamps, now: Instant) -> Self {
        Self { kernel: kernel.value, kernel_at: now, echo: peer.echo, recent: peer.value, recent_at: now }
    }

    /// Timestamps of a segment that enotun sends to the peer.
    pub(crate) fn to_wire(self) -> Timestamps {
        Timestamps { value: self.kernel, echo: self.recent }
    }

    /// Timestamps of a segment that enotun sends to the local kernel.
    pub(crate) fn to_plain(self) -> Timestamps {
        Timestamps { value: self.recent, echo: self.echo }
    }

    /// Takes in those of a segment from the local kernel.
    pub(crate) fn from_kernel(&mut self, ts: Timestamps, now: Instant) {
        if later(ts.value, self.kernel) || now.since(self.kernel_at) > TIMESTAMPS_VALID {
            self.kernel = ts.value;
            self.kernel_at = now;
        }
    }

    /// Whether a segment with this timestamp of the peer's is old (PAWS).
    pub(crate) fn is_old(&self, value: u32, now: Instant) -> bool {
        !later(value, self.recent) && now.since(self.recent_at) <= TIMESTAMPS_VALID
    }

    /// Takes in those of an acceptable segment from the peer; `in_order` says that it began at or before the last
    /// acknowledgement.
    pub(crate) fn from_peer(&mut self, ts: Timestamps, in_order: bool, now: Instant) {
        // The latest echo is the one that the least time has passed since; none comes from the future.
        let age = |echo| self.kernel.wrapping_sub(echo);
        if age(ts.echo) <= age(self.echo) {
            self.echo = ts.echo;
        }
        if in_order && !self.is_old(ts.value, now) {
            self.recent = ts.value;
            self.recent_at = now;
        }
    }
}

/// Whether timestamp `a` is not before `b`.
fn later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}
