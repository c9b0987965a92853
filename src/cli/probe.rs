//! `enotun probe`: what the path to a service does with ENO.

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};

use clap::Args;
use serde_json::json;

use super::client;
use super::common::{CommandError, Common};
use super::output::{NOT_AUTHENTICATED, print, print_json};
use crate::daemon::diagnosis::{Certainty, ProbeReply, ProbeResult};
use crate::daemon::protocol::Command;
use crate::engine::{Finding, PathInfo};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Instead, forget what is remembered about all paths, those to and from HOST, or the one to HOST:PORT
    #[arg(long)]
    forget: bool,
    /// The service to probe, e.g. db.example:5432 or [2001:db8::1]:443
    #[arg(value_name = "HOST:PORT", required_unless_present = "forget")]
    target: Option<String>,
}

pub(super) fn run(common: &Common, arguments: &Arguments) -> Result<(), CommandError> {
    if arguments.forget {
        return forget(common, arguments.target.as_deref());
    }
    let target = arguments.target.as_deref().unwrap_or_default();
    let remote = service(target)?;
    let answer = client::ask(&common.instance()?, Command::Probe { remote })?;
    let probed: ProbeReply = client::decode(answer.clone())?;
    if common.json {
        print_json(&answer)?;
    } else {
        print(&show(target, &probed))?;
    }
    if probed.diagnosis.result == ProbeResult::Encrypted {
        Ok(())
    } else {
        Err(CommandError { status: 1, message: String::new() })
    }
}

/// The first address of a service.
fn service(target: &str) -> Result<SocketAddr, CommandError> {
    let shaped = target.rsplit_once(':').filter(|(host, port)| {
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        bare && !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if shaped.is_none() {
        return Err(CommandError::usage(format!(
            "`{target}` is not a service: write HOST:PORT, with an IPv6 address in brackets and a port from 1 to 65535"
        )));
    }
    let found = target.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let found = found.map(|found| SocketAddr::new(found.ip().to_canonical(), found.port()));
    found.ok_or_else(|| CommandError::new(format!("the host of `{target}` has no address; check the spelling")))
}

fn forget(common: &Common, target: Option<&str>) -> Result<(), CommandError> {
    let (host, port) = match target {
        None => (None, None),
        Some(target) => {
            if let Some(ip) = super::address::host(target) {
                (Some(ip), None)
            } else if target.contains(':') {
                let service = service(target)?;
                (Some(service.ip()), Some(service.port()))
            } else {
                let found = (target, 0).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
                let none = || CommandError::new(format!("the host `{target}` has no address; check the spelling"));
                (Some(found.ok_or_else(none)?.ip()), None)
            }
        }
    };
    let answer = client::ask(&common.instance()?, Command::ForgetPaths { host, port })?;
    let forgotten: u64 = client::decode(answer)?;
    if common.json {
        return print_json(&json!({ "forgotten": forgotten }));
    }
    print(&format!("{forgotten} {} forgotten\n", if forgotten == 1 { "path" } else { "paths" }))
}

fn show(target: &str, probed: &ProbeReply) -> String {
    let diagnosis = &probed.diagnosis;
    let (name, meaning) = in_words(&diagnosis.result);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |heading: &str, said: &str| {
        let _ = writeln!(text, "{heading:<12}{said}");
    };
    let address = probed.remote.to_string();
    let service = if address == target { address } else { format!("{target} ({address})") };
    line("service", &service);
    line("result", &format!("{name}: {meaning}"));
    line("certainty", how_known(diagnosis.certainty));
    for (number, evidence) in diagnosis.evidence.iter().enumerate() {
        line(if number == 0 { "evidence" } else { "" }, evidence);
    }
    for (number, hop) in probed.hops.iter().enumerate() {
        let saw = match hop.eno {
            Some(true) => "saw the SYN with ENO",
            Some(false) => "saw the SYN without ENO",
            None => "saw the SYN, but does not say whether it had ENO",
        };
        // A host with enotun forwards to its own device, and answers like a router.
        let peer = if hop.router == probed.remote.ip() { " (the peer itself)" } else { "" };
        line(if number == 0 { "routers" } else { "" }, &format!("{} {}{peer} {saw}", hop.hop, hop.router));
    }
    if let (Some(tep), Some(aead)) = (&probed.tep, &probed.aead) {
        line("keys", &format!("{tep}, {aead}"));
    }
    if let Some(id) = &probed.session_id {
        line("session ID", id);
    }
    let before = probed.remembered.as_ref().map_or("nothing".to_owned(), remembered);
    line("before", &format!("remembered: {before}"));
    if diagnosis.result == ProbeResult::Encrypted {
        text.push('\n');
        text.push_str(NOT_AUTHENTICATED);
        text.push('\n');
    }
    text
}

/// A result's name and meaning.
fn in_words(found: &ProbeResult) -> (&'static str, &'static str) {
    match found {
        ProbeResult::Encrypted => ("encrypted", "a connection was encrypted"),
        ProbeResult::NoEno => ("no-eno", "the peer does not support ENO"),
        ProbeResult::StrippedThere => ("stripped-there", "ENO is stripped from SYNs on the way to the peer"),
        ProbeResult::StrippedBack => ("stripped-back", "ENO is removed from SYN-ACKs on the way back"),
        ProbeResult::NonSynStripped => ("non-syn-stripped", "ENO is removed from segments without SYN"),
        ProbeResult::SynDropped => ("syn-dropped", "SYNs with ENO are dropped, those without are answered"),
        ProbeResult::Echoed => ("echoed", "unknown options come back as they were sent"),
        ProbeResult::NotNegotiated => ("not-negotiated", "the peer supports ENO, but does not agree to encrypt"),
        ProbeResult::Refused => ("refused", "no connection is accepted"),
        ProbeResult::NoAnswer => ("no-answer", "there is no answer, with ENO or without"),
        ProbeResult::Failed => ("failed", "encryption was agreed on, but no keys could be made"),
    }
}

fn how_known(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Seen => "seen",
        Certainty::Told => "told by the peer's enotun (whoever can forge a RST can say so, too)",
        Certainty::Inferred => "inferred: it fits what was seen, but something else might, too",
        Certainty::Open => "open: the likeliest explanation; it cannot be determined from this end",
    }
}

/// A finding's meaning, in a few words.
pub(super) fn meaning(finding: Finding) -> &'static str {
    match finding {
        Finding::Encrypted => "connections are encrypted",
        Finding::NoEno => "answers come without ENO: the peer does not support it, or it is stripped on the way",
        Finding::StrippedThere => "ENO is stripped from SYNs on the way there",
        Finding::StrippedBack => "ENO is removed from SYN-ACKs on the way back",
        Finding::Echoed => "unknown options come back as they were sent",
        Finding::StrippedHere => "ENO is stripped from SYNs on the way here",
        Finding::AckWithoutEno => "ENO is stripped from SYN-ACKs on the way to the peer, or from its acknowledgements",
        Finding::Unfinished => "encryption was agreed on, but the peer sent no keys",
        Finding::NonSynStripped => "ENO is removed from segments without SYN",
        Finding::SynDropped => "SYNs with ENO vanish",
        Finding::OneDirection => "packets of one direction take another path: nothing can be encrypted here",
    }
}

/// One path as a line.
pub(super) fn remembered(path: &PathInfo) -> String {
    let name = match path.port {
        Some(port) => format!("to {}", std::net::SocketAddr::new(path.address, port)),
        None => format!("from {}", path.address),
    };
    let avoided = path.avoided_seconds.map_or(String::new(), |seconds| format!(", no ENO for {seconds} s"));
    let times = if path.times > 1 { format!(", {} times", path.times) } else { String::new() };
    format!("{name}  {} ({}{times}, {} s ago{avoided})", path.finding, meaning(path.finding), path.seen_seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::diagnosis::Diagnosis;
    use crate::engine::Hop;

    #[test]
    fn services_have_a_host_and_a_port() {
        for good in ["192.0.2.1:443", "[2001:db8::1]:443"] {
            assert_eq!(service(good).unwrap().port(), 443);
        }
        for bad in ["", ":443", "192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:70000", "2001:db8::1:443"] {
            assert_eq!(service(bad).unwrap_err().status, 2, "{bad}");
        }
    }

    #[test]
    fn a_diagnosis_names_what_was_found_and_how_it_is_known() {
        let mut probed = ProbeReply {
            remote: "192.0.2.1:443".parse().unwrap(),
            diagnosis: Diagnosis {
                result: ProbeResult::StrippedThere,
                certainty: Certainty::Seen,
                evidence: vec!["one".into(), "two".into()],
            },
            hops: vec![Hop { hop: 2, router: "192.0.2.9".parse().unwrap(), eno: Some(false) }],
            tep: None,
            aead: None,
            session_id: None,
            authenticated: false,
            remembered: None,
        };
        let text = show("www.example:443", &probed);
        for line in [
            "service     www.example:443 (192.0.2.1:443)",
            "result      stripped-there: ENO is stripped from SYNs on the way to the peer",
            "certainty   seen",
            "            two",
            "routers     2 192.0.2.9 saw the SYN without ENO",
            "before      remembered: nothing",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        let json = serde_json::to_value(&probed).unwrap();
        assert_eq!((&json["result"], &json["certainty"]), (&json!("stripped-there"), &json!("seen")));
        probed.diagnosis.result = ProbeResult::Encrypted;
        let text = show("192.0.2.1:443", &probed);
        assert!(text.contains("does not mean authenticated") && !text.to_lowercase().contains("secure"), "{text}");
    }

    #[test]
    fn words_and_json_have_the_same_names() {
        for found in [
            ProbeResult::Encrypted,
            ProbeResult::NoEno,
            ProbeResult::StrippedThere,
            ProbeResult::StrippedBack,
            ProbeResult::NonSynStripped,
            ProbeResult::SynDropped,
            ProbeResult::Echoed,
            ProbeResult::NotNegotiated,
            ProbeResult::Refused,
            ProbeResult::NoAnswer,
            ProbeResult::Failed,
        ] {
            assert_eq!(serde_json::to_value(&found).unwrap(), in_words(&found).0);
        }
    }
}
