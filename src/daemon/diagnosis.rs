//! What the probes of a path imply. Pure. One end alone cannot see everything: the diagnosis says what was seen or
//! told, what is inferred, and what remains open.

use serde::{Deserialize, Serialize};

use crate::engine::{Finding, FlowInfo, FlowState, Hop, PathInfo, ProbeReport, SynAnswer};

/// The result of `enotun probe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeResult {
    /// A connection was encrypted.
    Encrypted,
    /// Nothing suggests that the path strips ENO: the peer does not support it.
    NoEno,
    /// ENO is stripped from SYNs on the way to the peer.
    StrippedThere,
    /// ENO is stripped from SYN-ACKs on the way back.
    StrippedBack,
    /// ENO is stripped from non-SYN segments.
    NonSynStripped,
    /// SYNs with ENO are dropped; one without is answered.
    SynDropped,
    /// The option comes back as it was sent.
    Echoed,
    /// Both ends support ENO, but have nothing in common, or the peer does not want to encrypt.
    NotNegotiated,
    /// The peer, or something on the path, refuses every connection.
    Refused,
    /// No SYN is answered, with ENO or without.
    NoAnswer,
    /// Encryption was agreed on, but the keys could not be made.
    Failed,
}

/// How the result is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// It was seen.
    Seen,
    /// The peer's enotun has said so.
    Told,
    /// It follows from the peer's behaviour, which might have another cause.
    Inferred,
    /// It is the likeliest explanation, and cannot be determined from this end.
    Open,
}

/// The diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// What was found.
    pub result: ProbeResult,
    /// How the result is known.
    pub certainty: Certainty,
    /// What was seen, in the order of the attempts.
    pub evidence: Vec<String>,
}

/// The outcome of opening a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConnectOutcome {
    /// It is open.
    Open,
    /// A RST answered.
    Refused,
    /// There was no answer.
    Silent,
    /// This host reported an error.
    Failed(String),
}

/// One attempted connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) connect: ConnectOutcome,
    pub(super) report: ProbeReport,
}

/// All observations.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    /// With ENO.
    pub(super) offer: Attempt,
    /// Without.
    pub(super) bare: Option<Attempt>,
    /// With ENO although the answer had none, and with copies for routers to quote.
    pub(super) insist: Option<Attempt>,
    /// Seconds since a connection with this host, to any port, was encrypted.
    pub(super) known: Option<u64>,
}

/// What `evidence` implies.
pub(super) fn conclude(evidence: &Evidence) -> Diagnosis {
    let offer = &evidence.offer;
    let said = |result, certainty, lines: Vec<String>| Diagnosis { result, certainty, evidence: lines };
    match (&offer.connect, offer.report.answer) {
        (ConnectOutcome::Failed(why), _) => {
            said(ProbeResult::NoAnswer, Certainty::Seen, vec![format!("this host reports: {why}")])
        }
        (ConnectOutcome::Refused, _) => {
            let line = "the SYN was answered with a RST: the port is closed, or a firewall rejects it";
            said(ProbeResult::Refused, Certainty::Seen, vec![line.to_owned()])
        }
        (ConnectOutcome::Silent, _) => dropped(evidence),
        (ConnectOutcome::Open, Some(SynAnswer::NoEno)) => stripped(evidence),
        (ConnectOutcome::Open, Some(SynAnswer::Echo)) => {
            let line = "the SYN-ACK had the SYN's option, byte for byte: a middlebox or the peer echoes unknown options; whether the peer supports ENO is not known";
            said(ProbeResult::Echoed, Certainty::Seen, vec![line.to_owned()])
        }
        (ConnectOutcome::Open, _) => agreed(&offer.report),
    }
}

/// The SYN-ACK had an option.
fn agreed(report: &ProbeReport) -> Diagnosis {
    let reason = report.reason.clone().unwrap_or_else(|| "no reason is known".to_owned());
    let mut evidence = vec!["the SYN-ACK had an ENO option".to_owned()];
    let (result, certainty) = match report.state {
        Some(FlowState::Encrypted) => {
            evidence.push("keys were made".to_owned());
            (ProbeResult::Encrypted, Certainty::Seen)
        }
        Some(FlowState::Plain) => {
            evidence.push(format!("it did not lead to encryption: {reason}"));
            (ProbeResult::NotNegotiated, Certainty::Seen)
        }
        _ if report.lost_ack => {
            evidence.push("the peer says that the acknowledgement arrived without ENO".to_owned());
            (ProbeResult::NonSynStripped, Certainty::Told)
        }
        _ if report.reset => {
            evidence.push("the peer reset the connection before it sent keys".to_owned());
            evidence.push(
                "ENO stripped from non-SYN segments has that effect; so has a peer that cannot make keys".to_owned(),
            );
            (ProbeResult::NonSynStripped, Certainty::Open)
        }
        _ => {
            evidence.push(format!("the key exchange did not complete: {reason}"));
            (ProbeResult::Failed, Certainty::Seen)
        }
    };
    Diagnosis { result, certainty, evidence }
}

/// SYNs with ENO were not answered.
fn dropped(evidence: &Evidence) -> Diagnosis {
    let mut lines = vec![format!("{} SYNs with ENO were not answered", evidence.offer.report.syns)];
    let (result, certainty) = match evidence.bare.as_ref().map(|bare| &bare.connect) {
        Some(ConnectOutcome::Open) => {
            lines.push("one without ENO was".to_owned());
            (ProbeResult::SynDropped, Certainty::Inferred)
        }
        Some(ConnectOutcome::Refused) => {
            lines.push("one without ENO was, with a RST: the port is closed".to_owned());
            (ProbeResult::SynDropped, Certainty::Inferred)
        }
        _ => {
            lines.push("nor were those without ENO".to_owned());
            (ProbeResult::NoAnswer, Certainty::Seen)
        }
    };
    if result == ProbeResult::SynDropped
        && let Some(last) = evidence.insist.as_ref().and_then(|insist| insist.report.hops.last())
    {
        lines.push(format!(
            "the last router that reported a SYN with ENO is hop {}, {}; it or something after it drops them",
            last.hop, last.router
        ));
    }
    Diagnosis { result, certainty, evidence: lines }
}

/// The SYN-ACK had no option: there are three possible reasons.
fn stripped(evidence: &Evidence) -> Diagnosis {
    let mut lines = vec!["the SYN-ACK had no ENO option".to_owned()];
    let diagnosis = |result, certainty, evidence| Diagnosis { result, certainty, evidence };
    let Some(insist) = &evidence.insist else { return diagnosis(ProbeResult::NoEno, Certainty::Open, lines) };
    let hops = &insist.report.hops;
    if let Some(gone) = hops.iter().find(|hop| hop.eno == Some(false)) {
        let before = hops.iter().rfind(|hop| hop.hop < gone.hop && hop.eno == Some(true));
        lines.push(match before {
            Some(Hop { hop, router, .. }) => format!(
                "hop {hop}, {router}, saw the option; hop {}, {}, did not: it is stripped between them",
                gone.hop, gone.router
            ),
            None => {
                format!("hop {}, {}, did not see the option: it is stripped before it, or there", gone.hop, gone.router)
            }
        });
        return diagnosis(ProbeResult::StrippedThere, Certainty::Seen, lines);
    }
    if insist.report.lost_syn {
        lines.push("the peer's enotun says that the SYN arrived without ENO".to_owned());
        return diagnosis(ProbeResult::StrippedThere, Certainty::Told, lines);
    }
    // The peer's reaction to a FIN shows what it takes the connection for, provided that it accepts one without ENO.
    let control = evidence.bare.as_ref().filter(|bare| bare.connect == ConnectOutcome::Open);
    let control = control.is_some_and(|bare| bare.report.fin_acked && !bare.report.reset);
    let open = insist.connect == ConnectOutcome::Open && insist.report.fin_sent;
    if !control || !open {
        lines.push("the connections that would have told more failed: try again".to_owned());
        return diagnosis(ProbeResult::NoEno, Certainty::Open, lines);
    }
    if !insist.report.fin_acked {
        if insist.report.repeated_answers > 0 || (insist.report.after_fin == 0 && !insist.report.reset) {
            lines.push(
                "acknowledgements with ENO are not answered, those without are: non-SYN segments with ENO are dropped, and what happens to SYNs cannot be determined"
                    .to_owned(),
            );
            return diagnosis(ProbeResult::NoEno, Certainty::Open, lines);
        }
        lines.push(
            "the peer accepts a FIN after an acknowledgement without ENO but not after one with ENO: it has agreed to encrypt, and its option was lost on the way back"
                .to_owned(),
        );
        return diagnosis(ProbeResult::StrippedBack, Certainty::Inferred, lines);
    }
    stripped_before(evidence, hops, lines)
}

/// The peer takes the connection for plain TCP: whether the option reached it.
fn stripped_before(evidence: &Evidence, hops: &[Hop], mut lines: Vec<String>) -> Diagnosis {
    let diagnosis = |result, certainty, evidence| Diagnosis { result, certainty, evidence };
    lines.push("the peer takes the connection for plain TCP even if the acknowledgement has ENO".to_owned());
    let last = hops.iter().rfind(|hop| hop.eno == Some(true));
    if let Some(hop) = last {
        lines.push(format!("the option was there at hop {}, {}", hop.hop, hop.router));
    }
    if let Some(seconds) = evidence.known {
        lines.push(format!("a connection with that host was encrypted {seconds} s ago: it supports ENO, or did"));
        return diagnosis(ProbeResult::StrippedThere, Certainty::Inferred, lines);
    }
    let routers = evidence.offer.report.answer_ttl.map(distance);
    if last.is_some_and(|hop| routers.is_none_or(|routers| hop.hop >= routers)) || routers == Some(0) {
        lines.push(
            "no router is known after that one: if the option was stripped, then there or at the peer".to_owned(),
        );
        return diagnosis(ProbeResult::NoEno, Certainty::Inferred, lines);
    }
    lines.push("whether the option reached the peer cannot be determined from here".to_owned());
    diagnosis(ProbeResult::NoEno, Certainty::Open, lines)
}

/// Number of routers on the path, from the TTL of a received packet: hosts start with 64, 128 or 255.
pub(super) fn distance(ttl: u8) -> u8 {
    let initial = [64, 128].into_iter().find(|initial| *initial >= ttl).unwrap_or(255);
    initial - ttl
}

impl ProbeResult {
    /// The finding to remember, where the connections themselves have not recorded it.
    pub(super) fn remembered(&self) -> Option<Finding> {
        match self {
            Self::StrippedThere => Some(Finding::StrippedThere),
            Self::StrippedBack => Some(Finding::StrippedBack),
            Self::SynDropped => Some(Finding::SynDropped),
            _ => None,
        }
    }
}

/// The answer to `enotun probe`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProbeReply {
    /// Address and port that were probed.
    pub remote: std::net::SocketAddr,
    /// What was found and how it is known.
    #[serde(flatten)]
    pub diagnosis: Diagnosis,
    /// What routers on the path have quoted of SYNs with ENO; empty if none was asked.
    pub hops: Vec<Hop>,
    /// The TEP of the encrypted connection.
    pub tep: Option<String>,
    /// Its AEAD.
    pub aead: Option<String>,
    /// Its session ID in hexadecimal.
    pub session_id: Option<String>,
    /// Whether the peer is authenticated, which it never is in a probe.
    pub authenticated: bool,
    /// What was remembered about the path before.
    pub remembered: Option<PathInfo>,
}

impl ProbeReply {
    /// The diagnosis for `remote`, with what is known about the encrypted connection.
    pub(super) fn new(
        remote: std::net::SocketAddr,
        evidence: &Evidence,
        flow: Option<FlowInfo>,
        remembered: Option<PathInfo>,
    ) -> Self {
        let diagnosis = conclude(evidence);
        let flow = flow.filter(|_| diagnosis.result == ProbeResult::Encrypted);
        let hops = evidence.insist.as_ref().map(|insist| insist.report.hops.clone()).unwrap_or_default();
        let (tep, aead, session_id) = match flow {
            Some(flow) => (flow.tep.map(str::to_owned), flow.aead.map(str::to_owned), flow.session_id),
            None => (None, None, None),
        };
        Self { remote, diagnosis, hops, tep, aead, session_id, authenticated: false, remembered }
    }
}

#[cfg(test)]
mod tests;
