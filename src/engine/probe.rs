//! Connections that are opened to find out what a path does with ENO. They are the local kernel's own; the engine
//! modifies their SYNs as requested, and records what it sees.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::{FlowState, LostOption, ProbeMode, hop_of};
use crate::time::Instant;
use crate::wire::icmp::IcmpError;
use crate::wire::options::{self, kind};
use crate::wire::{C, Flags, P, Segment};

/// A router's quote of a SYN with ENO whose TTL expired there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The router's number, counted from 1.
    pub hop: u8,
    /// Its address.
    pub router: IpAddr,
    /// Whether the option was there; `null` if the quote is too short.
    pub eno: Option<bool>,
}

/// The answer to a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SynAnswer {
    /// A SYN-ACK with an ENO option.
    Eno,
    /// A SYN-ACK without.
    NoEno,
    /// A SYN-ACK with exactly the SYN's option.
    Echo,
    /// A RST.
    Reset,
}

/// Observations of a probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeReport {
    /// SYNs sent, except those with a short TTL.
    pub syns: u32,
    /// The first answer.
    pub answer: Option<SynAnswer>,
    /// SYN-ACKs that came half a second or more after the acknowledgement was sent: it does not arrive.
    pub repeated_answers: u32,
    /// TTL of the SYN-ACK as received.
    pub answer_ttl: Option<u8>,
    /// The connection's state.
    pub state: Option<FlowState>,
    /// Why it is plain, or how it ended.
    pub reason: Option<String>,
    /// The peer has reset the connection after it was open.
    pub reset: bool,
    /// The peer has said that this end's SYN arrived without ENO.
    pub lost_syn: bool,
    /// The peer has said that this end's acknowledgement arrived without ENO.
    pub lost_ack: bool,
    /// This end's FIN was sent.
    pub fin_sent: bool,
    /// The peer has acknowledged it.
    pub fin_acked: bool,
    /// Segments from the peer since then.
    pub after_fin: u32,
    /// Routers' quotes.
    pub hops: Vec<Hop>,
}

/// A SYN-ACK this long after its acknowledgement is a timer's retransmission (RFC 6298: initially one second).
const REPEATED_AFTER: Duration = Duration::from_millis(500);

/// The records of one probe.
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

    /// Records a segment from the local kernel.
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

    /// Records a segment from the wire. `own`: the option of this host's SYN.
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

    /// Records an ICMP error; returns whether it was about a SYN whose TTL expired, which the kernel need not know.
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
