//! `enotun status`.

use std::fmt::Write as _;

use tcpcrypt::constants::RESUME_NONCE_MAX;

use super::common::{CommandError, Common};
use super::output::{NOT_AUTHENTICATED, print, print_json};
use super::{client, probe, selectors};
use crate::daemon::protocol::Command;
use crate::daemon::status::{LastDisruption, Paths, Protocol, Status};

pub(super) fn run(common: &Common) -> Result<(), CommandError> {
    let answer = client::ask(&common.instance()?, Command::Status {})?;
    if common.json {
        return print_json(&answer);
    }
    print(&show(&client::decode(answer)?))
}

/// A block of lines under one heading.
fn block(text: &mut String, heading: &str, lines: &str) {
    let lines = if lines.is_empty() { "none" } else { lines };
    for (number, line) in lines.lines().enumerate() {
        let heading = if number == 0 { heading } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{heading:<13}{line}");
    }
}

fn show(status: &Status) -> String {
    let mut text = String::new();
    show_instance(&mut text, status);
    show_protection(&mut text, status);
    show_connections(&mut text, status);
    block(&mut text, "paths", &paths(&status.paths));
    show_counts(&mut text, status);
    show_host(&mut text, status);
    if status.connections.encrypted > 0 {
        text.push('\n');
        text.push_str(NOT_AUTHENTICATED);
        text.push('\n');
    }
    text
}

fn counter(status: &Status, name: &str) -> u64 {
    status.counters.get(name).copied().unwrap_or(0)
}

fn show_instance(text: &mut String, status: &Status) {
    block(text, "enotun", &format!("{}, instance {}, pid {}", status.version, status.instance, status.pid));
    block(text, "up", &format!("{} (since {})", duration(status.up_seconds), status.up_since));
    let devices: Vec<String> = status
        .devices
        .iter()
        .map(|device| {
            let slow = if device.offloads { "" } else { ", NO OFFLOADS (slow)" };
            format!("{} ({} side, MTU {}{slow})", device.name, device.side, device.mtu)
        })
        .collect();
    block(text, "devices", &devices.join(", "));
}

/// What is protected, and how.
fn show_protection(text: &mut String, status: &Status) {
    block(text, "policy", &status.policy.to_string());
    block(text, "offers", &offers(&status.protocol));
    block(text, "resumption", &resumption(&status.protocol));
    if counter(status, "resumptions_proposed")
        + counter(status, "resumptions_accepted")
        + counter(status, "resumptions_unknown")
        > 0
    {
        let counts = format!(
            "since start {} resumed; of {} proposed {} were refused and exchanged fresh keys; {} proposed by peers were unknown here",
            counter(status, "connections_resumed"),
            counter(status, "resumptions_proposed"),
            counter(status, "resumptions_refused"),
            counter(status, "resumptions_unknown")
        );
        block(text, "", &counts);
    }
    block(text, "protected", &selectors::show(&status.selectors));
}

fn show_connections(text: &mut String, status: &Status) {
    let now = &status.connections;
    block(
        text,
        "connections",
        &format!(
            "{} encrypted, {} plain, {} negotiating, {} closed",
            now.encrypted, now.plain, now.negotiating, now.closed
        ),
    );
    if !now.plain_reasons.is_empty() {
        let reasons: Vec<String> =
            now.plain_reasons.iter().map(|(reason, count)| format!("{reason} ({count})")).collect();
        block(text, "", &format!("plain because of {}", reasons.join(", ")));
    }
    if status.kept_connections > 0 {
        let kept =
            format!("{} of them stay diverted until they end, although no longer selected", status.kept_connections);
        block(text, "", &kept);
    }
    block(
        text,
        "since start",
        &format!(
            "{} encrypted, {} plain, {} refused (policy required), {} aborted",
            counter(status, "connections_encrypted"),
            counter(status, "connections_plain"),
            counter(status, "connections_refused"),
            counter(status, "connections_aborted")
        ),
    );
}

/// Counts that are worth a look.
fn show_counts(text: &mut String, status: &Status) {
    let suspicious = [
        "frames_rejected",
        "conflicting_segments",
        "bad_checksum",
        "malformed",
        "bad_acknowledgements",
        "resets_ignored",
        "unknown_refused",
        "orphans_refused",
    ];
    let named = |names: &[&str]| {
        let counts = names.iter().map(|name| (name, counter(status, name))).filter(|(_, count)| *count > 0);
        counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    block(text, "suspicious", &named(&suspicious));
    let limits: Vec<&str> = status.counters.keys().map(String::as_str).filter(|name| is_limit(name)).collect();
    block(text, "limits hit", &named(&limits));
}

/// The state of the host, and what went wrong.
fn show_host(text: &mut String, status: &Status) {
    block(text, "dropped", &dropped(&status.io));
    let random = if status.random_ready { "seeded" } else { "NOT SEEDED YET; nothing is encrypted until it is" };
    block(text, "random", random);
    if let Some(path) = &status.exporting_keys {
        let warning = format!("KEYS OF ALL CONNECTIONS to {}: whoever reads it can read the traffic", path.display());
        block(text, "exporting", &warning);
    }
    if let Some(last) = &status.last_disruption {
        block(text, "disrupted", &disrupted(last));
    }
    if status.recovered {
        block(text, "recovered", "after a crash; connections that were open then are refused");
    }
    let problems: Vec<String> =
        status.problems.iter().map(|problem| format!("{} {} {}", problem.at, problem.level, problem.message)).collect();
    block(text, "problems", &problems.join("\n"));
}

/// Lines about paths, those that cost something first.
fn paths(paths: &Paths) -> String {
    const SHOWN: usize = 8;
    if paths.remembered == 0 {
        return String::new();
    }
    let mut lines =
        vec![format!("{} remembered, {} of them used without ENO for now", paths.remembered, paths.avoided)];
    lines.extend(paths.list.iter().take(SHOWN).map(probe::remembered));
    if let Some(more) = paths.list.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(format!("and {more} more: `enotun status --json`"));
    }
    if paths.avoided > 0 {
        lines.push("`enotun probe HOST:PORT` tests again, `enotun probe --forget` forgets".to_owned());
    }
    lines.join("\n")
}

/// What is negotiated, best first, which is how people read a list.
fn offers(protocol: &Protocol) -> String {
    let best_first = |names: &[String]| names.iter().rev().map(String::as_str).collect::<Vec<_>>().join(", ");
    let mut text = format!("{}\n{}", best_first(&protocol.teps), best_first(&protocol.aeads));
    let set = [
        (protocol.aware, "application-aware"),
        (protocol.mandatory_aware, "encrypt only with application-aware peers"),
        (protocol.role_b, "ROLE B when this host opens: simultaneous opens only"),
    ];
    set.into_iter().filter(|(on, _)| *on).for_each(|(_, what)| text.push_str(&format!("\n{what}")));
    // Older daemons do not report it.
    if !protocol.cryptography.is_empty() {
        text.push_str(&format!("\ncryptography by {}", protocol.cryptography));
    }
    text
}

fn resumption(protocol: &Protocol) -> String {
    if !protocol.resumption {
        return "off".to_owned();
    }
    let sessions = if protocol.sessions == 1 { "session" } else { "sessions" };
    let nonces = match protocol.nonce_length {
        RESUME_NONCE_MAX => String::new(),
        short => format!(", NONCES OF {short} BYTES"),
    };
    format!("on, {} {sessions} kept{nonces}", protocol.sessions)
}

/// The last sign of a clone, a rollback or a stop.
fn disrupted(last: &LastDisruption) -> String {
    format!(
        "{} ago ({}): {}\n{} cached sessions erased, {} connections rekeyed, {} aborted",
        duration(last.seconds_ago),
        last.at,
        last.sign,
        last.sessions_flushed,
        last.connections_rekeyed,
        last.connections_aborted
    )
}

/// Packets that the kernel did not accept or deliver, by device.
fn dropped(io: &serde_json::Value) -> String {
    let mut counts = Vec::new();
    for (side, counters) in io.as_object().into_iter().flatten() {
        for (name, count) in counters.as_object().into_iter().flatten() {
            let harmless = name.ends_with("_packets") || name.ends_with("_bytes");
            if let Some(count) = count.as_u64().filter(|count| *count > 0 && !harmless) {
                counts.push(format!("{side} {name} {count}"));
            }
        }
    }
    counts.join(", ")
}

pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// Whether a counter reports that a limit was reached. Closed connections that make room do not count.
pub(super) fn is_limit(name: &str) -> bool {
    name.starts_with("limit_") || (name.starts_with("evicted_") && name != "evicted_closed")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::daemon::log::Problem;
    use crate::daemon::status::Connections;
    use crate::engine::Disruption;
    use crate::selector::Policy;

    fn status() -> Status {
        Status {
            version: "0.1.0".into(),
            instance: "tun0".into(),
            pid: 7,
            up_since: "2026-11-21T06:00:00Z".into(),
            up_seconds: 11_520,
            policy: Policy::Opportunistic,
            selectors: Vec::new(),
            protocol: Protocol {
                teps: vec!["P256".into(), "Curve25519".into()],
                aeads: vec!["AES-128-GCM".into()],
                resumption: true,
                nonce_length: 8,
                sessions: 2,
                cryptography: "aws-lc".into(),
                ..Default::default()
            },
            devices: Vec::new(),
            random_ready: true,
            recovered: false,
            exporting_keys: Some("/dev/shm/keys".into()),
            connections: Connections { encrypted: 1, ..Default::default() },
            paths: Paths::default(),
            kept_connections: 0,
            last_disruption: None,
            counters: BTreeMap::from([("limit_flows".to_owned(), 3), ("frames_rejected".to_owned(), 0)]),
            io: serde_json::json!({ "plain": { "read_packets": 9, "refused_full": 2 }, "wire": { "refused_down": 0 } }),
            problems: vec![Problem { at: "2026-11-21T06:01:00Z".into(), level: "warn".into(), message: "x".into() }],
        }
    }

    #[test]
    fn what_matters_at_night_is_there() {
        let text = show(&status());
        for line in [
            "up           3 h 12 min (since 2026-11-21T06:00:00Z)",
            "offers       Curve25519, P256",
            "             cryptography by aws-lc",
            "resumption   on, 2 sessions kept",
            "limits hit   limit_flows 3",
            "exporting    KEYS OF ALL CONNECTIONS to /dev/shm/keys: whoever reads it can read the traffic",
            "suspicious   none",
            "dropped      plain refused_full 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert!(text.contains("warn x"), "{text}");
        assert!(text.contains("does not mean authenticated"), "{text}");
        assert!(!text.to_lowercase().contains("secure"), "{text}");
    }

    #[test]
    fn every_field_is_in_the_documentation() {
        let text = include_str!("../../docs/output.md");
        let status = serde_json::to_value(status()).unwrap();
        let inner =
            ["protocol", "connections", "paths"].into_iter().flat_map(|of| status[of].as_object().unwrap().keys());
        for name in status.as_object().unwrap().keys().chain(inner) {
            assert!(text.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_clone_is_told_of_with_when_and_what_was_done() {
        assert!(!show(&status()).contains("disrupted"));
        let last = LastDisruption {
            sign: Disruption::VmGeneration,
            at: "2026-11-21T08:00:00Z".into(),
            seconds_ago: 65,
            sessions_flushed: 3,
            connections_rekeyed: 0,
            connections_aborted: 2,
        };
        let text = show(&Status { last_disruption: Some(last), ..status() });
        assert!(
            text.contains(
                "disrupted    1 min 5 s ago (2026-11-21T08:00:00Z): this virtual machine was cloned or rolled back\n\
                 \x20            3 cached sessions erased, 0 connections rekeyed, 2 aborted\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in [(5, "5 s"), (65, "1 min 5 s"), (3_661, "1 h 1 min"), (180_000, "2 d 2 h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
