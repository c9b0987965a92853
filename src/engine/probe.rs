//! Connections that are opened to find out what a path does with ENO. They are the local kernel's own; the engine
//! treats their SYNs as it is told, and writes down what is seen.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FlowState, Side};
use crate::flow::{Flow, FlowKey, LostOption};
use crate::time::Instant;
use crate::wire::icmp::IcmpError;
use crate::wire::options::{self, kind};
use crate::wire::{C, Flags, P, Segment};

/// How a probe is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeMode {
    /// Without ENO: what path and peer do with ordinary TCP.
    Bare,
    /// With ENO in every SYN, whatever is remembered, and no resumption.
    Offer,
    /// The same; and if the answer has no ENO, the acknowledgement and the FIN carry it all the same. A peer that has
    /// agreed to encrypt, whose option was lost, then takes the connection for encrypted, and can be told by that: it must not
    /// take a FIN for an end that no FINp frame announced (TC-29). Copies of the SYN go out with a TTL of 1 to `hops`, for the
    /// routers to quote.
    Insist {
        /// Routers to ask, at most.
        hops: u8,
    },
}

/// What a router has quoted of a SYN with ENO whose time had run out there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Which router it is, counted from 1.
    pub hop: u8,
    /// Its address.
    pub router: IpAddr,
    /// Whether the option was there; `null` if it quotes too little.
    pub eno: Option<bool>,
}

/// What a SYN was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SynAnswer {
    /// A SYN-ACK with an ENO option.
    Eno,
    /// A SYN-ACK without.
    NoEno,
    /// A SYN-ACK with the very option of the SYN.
    Echo,
    /// A RST.
    Reset,
}

/// What was seen of a probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// SYNs sent, those with a short TTL not counted.
    pub syns: u32,
    /// How the first one that was answered was.
    pub answer: Option<SynAnswer>,
    /// SYN-ACKs that came half a second or more after the acknowledgement was sent: it does not arrive.
    pub repeated_answers: u32,
    /// TTL of the SYN-ACK as it came.
    pub answer_ttl: Option<u8>,
    /// The connection's state.
    pub state: Option<FlowState>,
    /// Why it is plain, or how it ended.
    pub reason: Option<String>,
    /// The peer has reset the connection after it was open.
    pub reset: bool,
    /// It has said that this end's SYN came without ENO.
    pub lost_syn: bool,
    /// It has said that this end's acknowledgement came without ENO.
    pub lost_ack: bool,
    /// This end's FIN was sent.
    pub fin_sent: bool,
    /// The peer has acknowledged it.
    pub fin_acked: bool,
    /// Segments of the peer's since.
    pub after_fin: u32,
    /// What routers have quoted.
    pub hops: Vec<Hop>,
}

/// A SYN-ACK that comes so long after its acknowledgement is repeated by a timer (RFC 6298: a second at first).
const REPEATED_AFTER: Duration = Duration::from_millis(500);

/// One probe's notes.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) mode: ProbeMode,
    report: ProbeReport,
    /// When the local kernel first acknowledged something.
    acked: Option<Instant>,
    fin: Option<u32>,
}

impl Probe {
    pub(super) fn new(mode: ProbeMode) -> Self {
        Self { mode, report: ProbeReport::default(), acked: None, fin: None }
    }

    /// Takes in a segment from the local kernel.
    pub(super) fn from_kernel(&mut self, now: Instant, packet: &Segment<'_, P>) {
        if packet.flags.any(Flags::SYN) {
            self.report.syns += 1;
        } else if packet.flags.any(Flags::ACK) {
            self.acked.get_or_insert(now);
        }
        if packet.flags.any(Flags::FIN) {
            self.report.fin_sent = true;
            #[expect(clippy::cast_possible_truncation, reason = "a packet's payload is shorter than 2^16")]
            let len = packet.payload_len() as u32;
            self.fin = Some(packet.seq.0.wrapping_add(len).wrapping_add(1));
        }
    }

    /// Takes in a segment from the wire. `own`: the option of this host's SYN.
    pub(super) fn from_wire(&mut self, now: Instant, packet: &Segment<'_, C>, own: Option<&[u8]>) {
        let report = &mut self.report;
        if packet.flags.any(Flags::RST) {
            let said = LostOption::said(packet.payload());
            report.lost_syn |= said == Some(LostOption::Syn);
            report.lost_ack |= said == Some(LostOption::Ack);
            report.reset |= report.answer.is_some();
            report.answer.get_or_insert(SynAnswer::Reset);
        } else if packet.flags.any(Flags::SYN) {
            // Several SYNs of a probe may reach the peer, and each is answered at once.
            let late = self.acked.is_some_and(|acked| now.since(acked) >= REPEATED_AFTER);
            report.repeated_answers += u32::from(late);
            report.answer_ttl.get_or_insert(packet.ttl.saturating_add(1));
            let eno = options::walk(packet.options()).find(|(k, _)| *k == kind::ENO);
            report.answer.get_or_insert(match eno {
                None => SynAnswer::NoEno,
                Some((_, option)) if Some(option) == own => SynAnswer::Echo,
                Some(_) => SynAnswer::Eno,
            });
        }
        if let Some(fin) = self.fin {
            report.after_fin += 1;
            report.fin_acked |= packet.flags.any(Flags::ACK) && packet.ack.0 == fin;
        }
    }

    /// Takes in an ICMP error; whether it was about a SYN whose time had run out, which the kernel need not know.
    pub(super) fn from_router(&mut self, error: &IcmpError, bytes: &[u8]) -> bool {
        let Some(quote) = error.time_exceeded(bytes) else { return false };
        let Some(hop) = hop_of(quote.id) else { return false };
        if !self.report.hops.iter().any(|known| known.hop == hop) {
            let eno = quote.options.map(|area| options::walk(area).any(|(k, _)| k == kind::ENO));
            self.report.hops.push(Hop { hop, router: error.reporter(), eno });
            self.report.hops.sort_unstable_by_key(|hop| hop.hop);
        }
        true
    }

    pub(super) fn report(&self, state: Option<FlowState>, reason: Option<String>) -> ProbeReport {
        ProbeReport { state, reason, ..self.report.clone() }
    }
}

/// The IPv4 identification or IPv6 flow label of a SYN that `hop` routers may see: it comes back in the quote.
pub(crate) fn hop_id(hop: u8) -> u16 {
    0xe400 | u16::from(hop)
}

fn hop_of(id: u16) -> Option<u8> {
    let [high, hop] = id.to_be_bytes();
    (high == 0xe4 && hop > 0).then_some(hop)
}

impl super::Engine {
    /// From here on the connection between `local`, on the plain side, and `remote` is a probe, whatever its selector says.
    /// It is not there yet. [`Self::end_probe`] is to follow.
    pub fn begin_probe(&mut self, local: SocketAddr, remote: SocketAddr, mode: ProbeMode) {
        self.probes.insert(FlowKey::new(local, remote), Probe::new(mode));
    }

    /// What was seen of a probe so far.
    #[must_use]
    pub fn probe(&self, local: SocketAddr, remote: SocketAddr) -> Option<ProbeReport> {
        let key = FlowKey::new(local, remote);
        let (state, reason) = match self.table.get(&key) {
            None => (None, None),
            // Neither end has anything to send in a frame.
            Some(Flow::Encrypted(encrypted)) if encrypted.is_ready() => (Some(FlowState::Encrypted), None),
            Some(flow) => {
                let info = flow.info(&key);
                (Some(info.state), info.reason)
            }
        };
        self.probes.get(&key).map(|probe| probe.report(state, reason))
    }

    /// The connection, if it is still there, is one as others from here on.
    pub fn end_probe(&mut self, local: SocketAddr, remote: SocketAddr) {
        self.probes.remove(&FlowKey::new(local, remote));
    }

    /// Takes an ICMP error about a probe; whether it is dealt with.
    pub(super) fn probe_quoted(&mut self, side: Side, key: FlowKey, error: &IcmpError, bytes: &[u8]) -> bool {
        side == Side::Wire && self.probes.get_mut(&key).is_some_and(|probe| probe.from_router(error, bytes))
    }
}
