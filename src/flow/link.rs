//! The addresses of a connection and what its packets have in common; packets leave through here.

use std::cell::Cell;

use super::env::{Env, RandomFor, Side};
use super::lost::LostOption;
use crate::wire::FlowKey;
use crate::wire::build::{self, IpFields, TcpFields};
use crate::wire::{Offload, Outgoing, Segment};

/// The properties of packets towards one side, apart from the TCP header.
#[derive(Debug, Clone)]
struct Direction {
    ip: IpFields,
    /// The next IPv4 identification, once one was needed.
    id: Cell<Option<u16>>,
}

impl Direction {
    /// A link of which no packet was seen.
    fn unseen() -> Self {
        let ip = IpFields { traffic_class: 0, ttl: 64, flow_label: 0, id: 0, dont_fragment: true };
        Self { ip, id: Cell::new(None) }
    }

    /// The identification of the next `packets` packets: packets that may be fragmented have one of their own each
    /// (RFC 6864, section 4.2), from an unpredictable start.
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

    /// Records the properties of a packet read on `from`: packets made from it, and those that enotun originates,
    /// have the same.
    pub(crate) fn learn<S>(&mut self, from: Side, packet: &Segment<'_, S>) {
        let direction = match from {
            Side::Plain => &mut self.to_wire,
            Side::Wire => &mut self.to_plain,
        };
        direction.ip.traffic_class = packet.traffic_class;
        // The kernel forwards between the NIC and the wire device and decrements it each time.
        direction.ip.ttl = packet.ttl.saturating_add(1);
        direction.ip.flow_label = packet.flow_label;
        direction.ip.dont_fragment = packet.dont_fragment;
    }

    /// Marks packets to the local kernel as [congested](Packet::is_congested), until another packet comes from the wire.
    pub(super) fn mark_congested(&mut self) {
        self.to_plain.ip.traffic_class |= 3;
    }

    /// The same link, whose packets to the wire expire at router number `hop`, with `id` in a field that the router
    /// quotes.
    pub(crate) fn limited(&self, hop: u8, id: u16) -> Self {
        let mut link = self.clone();
        // One more for the hop from the wire device to the NIC.
        link.to_wire.ip.ttl = hop.saturating_add(1);
        (link.to_wire.ip.id, link.to_wire.ip.flow_label) = (id, id.into());
        link
    }

    /// Maximum payload of a packet with `options` bytes of TCP options.
    pub(crate) fn max_payload(&self, options: usize) -> usize {
        MAX_PACKET - if self.is_v6() { 40 } else { 20 } - 20 - options
    }

    /// Sends a segment (or, with `gso_size`, several) on `side`.
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
    /// Sends a RST on `side`.
    pub(crate) fn reset(&self, env: &mut dyn Env, side: Side, seq: u32, ack: u32) {
        let flags = crate::wire::Flags::RST.with(crate::wire::Flags::ACK);
        self.emit(env, side, &TcpFields { seq, ack, flags, window: 0, urgent: 0, options: &[] }, &[], None);
    }

    /// Sends a RST to the peer that says which of its options were lost (RFC 9293, section 3.5.3, lets a RST carry an
    /// explanatory text).
    pub(crate) fn reset_saying(&self, env: &mut dyn Env, lost: LostOption, seq: u32, ack: u32) {
        let flags = crate::wire::Flags::RST.with(crate::wire::Flags::ACK);
        let tcp = TcpFields { seq, ack, flags, window: 0, urgent: 0, options: &[] };
        self.emit(env, Side::Wire, &tcp, &[lost.text()], None);
    }

    /// Sends a bare acknowledgement without a window on `side`.
    pub(crate) fn acknowledge(&self, env: &mut dyn Env, side: Side, seq: u32, ack: u32, options: &[u8]) {
        let flags = crate::wire::Flags::ACK;
        self.emit(env, side, &TcpFields { seq, ack, flags, window: 0, urgent: 0, options }, &[], None);
    }
}
