//! `enotun session`: what an application (or a person) compares or signs to authenticate a connection (ENO-19).

use serde::Deserialize;

use super::client;
use super::common::{CommandError, Common, Connection};
use super::output::{NOT_AUTHENTICATED, print, print_json};
use crate::daemon::protocol::Command;

/// The part of the daemon's answer that is shown ([`crate::engine::FlowSession`]); JSON has all of it.
#[derive(Debug, Deserialize)]
struct Session {
    session_id: String,
    role: char,
    self_aware: bool,
    peer_aware: bool,
    peer_confirmed: bool,
    authenticated: bool,
}

pub(super) fn run(common: &Common, connection: &Connection) -> Result<(), CommandError> {
    let Connection { local, remote } = *connection;
    let answer = client::ask(&common.instance()?, Command::Session { local, remote })?;
    if common.json {
        return print_json(&answer);
    }
    print(&show(&client::decode(answer)?))
}

fn show(session: &Session) -> String {
    let Session { session_id, role, .. } = session;
    let mut text = format!("session ID  {session_id}\nrole        {role}\n");
    match (session.self_aware, session.peer_aware) {
        (false, false) => {}
        (true, false) => text.push_str("aware       this side only\n"),
        (false, true) => text.push_str("aware       the peer only\n"),
        (true, true) => text.push_str("aware       both sides\n"),
    }
    if !session.peer_confirmed {
        text.push_str("peer        has not proven yet that it has the keys\n");
    }
    if !session.authenticated {
        text.push('\n');
        text.push_str(NOT_AUTHENTICATED);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eno_8_19_what_is_shown_is_short_and_says_who_is_aware() {
        let info = crate::engine::FlowSession {
            local: "10.0.0.1:40000".parse().unwrap(),
            remote: "10.0.0.2:80".parse().unwrap(),
            session_id: "23".repeat(33),
            key_fingerprint: "5a".repeat(16),
            role: 'A',
            self_name: format!("00{}", "23".repeat(33)),
            peer_name: format!("01{}", "23".repeat(33)),
            tep: "ECDHE-Curve25519",
            tep_byte: 0x23,
            aead: Some("AEAD_AES_128_GCM"),
            self_gopt: 2,
            peer_gopt: 1,
            self_aware: true,
            peer_aware: false,
            transcript: "4504022345040123".to_owned(),
            resumed: false,
            peer_confirmed: true,
            authenticated: false,
        };
        let text = show(&serde_json::from_value(serde_json::to_value(info).unwrap()).unwrap());
        let id = "23".repeat(33);
        assert!(text.starts_with(&format!("session ID  {id}\nrole        A\naware       this side only\n")), "{text}");
        assert!(text.contains("does not mean authenticated"), "{text}");
    }
}
