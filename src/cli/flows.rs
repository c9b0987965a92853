//! `enotun flows`.

use std::cmp::Reverse;

use serde::Deserialize;
use tcpcrypt::eno::option::GLOBAL_A;

use super::client;
use super::common::{CommandError, Common};
use super::output::{NOT_AUTHENTICATED, bytes, print, print_json, table};
use crate::daemon::protocol::Command;

/// Characters of a session ID in the table; `enotun session` shows all of it.
const SHORT_ID: usize = 16;

/// One connection, as reported by the daemon ([`crate::engine::FlowInfo`]).
#[derive(Debug, Deserialize)]
pub(super) struct Flow {
    pub(super) local: String,
    pub(super) remote: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) role: Option<char>,
    pub(super) tep: Option<String>,
    pub(super) aead: Option<String>,
    peer_gopt: Option<u8>,
    pub(super) resumed: bool,
    pub(super) session_id: Option<String>,
    pub(super) generation_local: Option<u64>,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) authenticated: bool,
}

pub(super) fn run(common: &Common) -> Result<(), CommandError> {
    let answer = client::ask(&common.instance()?, Command::Flows {})?;
    if common.json {
        return print_json(&answer);
    }
    print(&show(client::decode(answer)?))
}

fn show(mut flows: Vec<Flow>) -> String {
    if flows.is_empty() {
        return "no connections\n".to_owned();
    }
    // Most traffic first.
    flows.sort_by_cached_key(|flow| (Reverse(flow.bytes_sent.saturating_add(flow.bytes_received)), flow.local.clone()));
    let heading = ["LOCAL", "REMOTE", "STATE", "REASON", "ROLE", "TEP", "AEAD", "SESSION", "SENT", "RECEIVED"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(flows.iter().map(row));
    let mut text = table(&rows, &[8, 9]);
    if flows.iter().any(|flow| flow.session_id.is_some() && !flow.authenticated) {
        text.push('\n');
        text.push_str(NOT_AUTHENTICATED);
        text.push('\n');
    }
    text
}

fn row(flow: &Flow) -> Vec<String> {
    let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let session = match &flow.session_id {
        Some(id) if id.len() > SHORT_ID => format!("{}…", id.chars().take(SHORT_ID).collect::<String>()),
        id => dash(id.as_deref()),
    };
    vec![
        flow.local.clone(),
        flow.remote.clone(),
        flow.state.clone(),
        notes(flow),
        flow.role.map_or("-".to_owned(), |role| role.to_string()),
        dash(flow.tep.as_deref()),
        dash(flow.aead.as_deref()),
        session,
        bytes(flow.bytes_sent),
        bytes(flow.bytes_received),
    ]
}

/// Why it is plain or how it ended, and anything unusual about an encrypted one.
fn notes(flow: &Flow) -> String {
    let aware = flow.peer_gopt.is_some_and(|global| global & GLOBAL_A != 0);
    let notes = [
        flow.reason.as_deref(),
        flow.resumed.then_some("resumed").filter(|_| flow.reason.is_none()),
        aware.then_some("peer-aware"),
    ];
    match notes.into_iter().flatten().collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "-".to_owned(),
        notes => notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{FlowInfo, FlowState};

    fn info() -> FlowInfo {
        FlowInfo {
            local: "10.0.0.1:40000".parse().unwrap(),
            remote: "[2001:db8::2]:80".parse().unwrap(),
            state: FlowState::Encrypted,
            reason: None,
            role: Some('A'),
            tep: Some("ECDHE-Curve25519"),
            aead: Some("AEAD_AES_128_GCM"),
            self_gopt: Some(0),
            peer_gopt: Some(1),
            resumed: false,
            session_id: Some("23".repeat(33)),
            generation_local: Some(0),
            generation_remote: Some(0),
            bytes_sent: 12,
            bytes_received: 123_456,
            peer_confirmed: true,
            authenticated: false,
        }
    }

    #[test]
    fn json_has_exactly_the_documented_fields() {
        let value = serde_json::to_value(info()).unwrap();
        let fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut documented = [
            "local",
            "remote",
            "state",
            "reason",
            "role",
            "tep",
            "aead",
            "self_gopt",
            "peer_gopt",
            "resumed",
            "session_id",
            "generation_local",
            "generation_remote",
            "bytes_sent",
            "bytes_received",
            "peer_confirmed",
            "authenticated",
        ];
        documented.sort_unstable();
        let mut fields = fields;
        fields.sort_unstable();
        assert_eq!(fields, documented);
        assert_eq!(value["local"], "10.0.0.1:40000");
        assert_eq!(value["remote"], "[2001:db8::2]:80");
        assert_eq!(value["state"], "encrypted");
        assert_eq!(value["role"], "A");
    }

    #[test]
    fn eno_8_an_aware_peer_is_shown() {
        let note = |global, resumed| {
            let info = FlowInfo { peer_gopt: Some(global), resumed, ..info() };
            notes(&serde_json::from_value(serde_json::to_value(info).unwrap()).unwrap())
        };
        assert_eq!(note(1, false), "-");
        assert_eq!(note(3, false), "peer-aware");
        assert_eq!(note(3, true), "resumed, peer-aware");
    }

    #[test]
    fn unauthenticated_encryption_is_said_to_be_that() {
        let flow: Flow = serde_json::from_value(serde_json::to_value(info()).unwrap()).unwrap();
        let text = show(vec![flow]);
        assert!(text.contains("2323232323232323…"), "{text}");
        assert!(text.contains("does not mean authenticated"), "{text}");
        assert!(!text.to_lowercase().contains("secure"), "{text}");
    }
}
