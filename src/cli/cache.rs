//! `enotun cache`: the sessions that can be resumed (TC-22). Nothing secret is shown.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::client;
use super::common::{CommandError, Common};
use super::output::{print, print_json, table};
use super::status::duration;
use crate::daemon::protocol::{self, Flushed};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List sessions: peer, age, expiry
    List,
    /// Erase all sessions, or those of one host or one connection
    ///
    /// Open connections continue. Later ones make fresh keys, and may be cached in turn; the selector option `no-cache` prevents that.
    Flush(FlushArguments),
}

#[derive(Debug, Args)]
pub(super) struct FlushArguments {
    /// Only sessions with the host at this address
    #[arg(value_name = "PEER", conflicts_with = "connection", value_parser = parse_peer)]
    peer: Option<IpAddr>,
    /// Only what this connection resumed and what it would let others resume; it caches nothing any more
    ///
    /// The first address is this side's, as in `enotun flows`.
    #[arg(long, num_args = 2, value_names = ["LOCAL", "REMOTE"], value_parser = super::address::end)]
    connection: Option<Vec<SocketAddr>>,
}

fn parse_peer(text: &str) -> Result<IpAddr, String> {
    super::address::host(text)
        .ok_or_else(|| format!("`{text}` is not an address; write one as `enotun cache list` does, without a port"))
}

/// One session, as reported by the daemon ([`crate::engine::SessionInfo`]).
#[derive(Debug, Deserialize)]
struct Session {
    peer: IpAddr,
    tep: String,
    aead: String,
    original_role: char,
    index: u64,
    age_seconds: u64,
    expires_seconds: u64,
}

pub(super) fn run(common: &Common, command: Command) -> Result<(), CommandError> {
    let FlushArguments { peer, connection } = match command {
        Command::List => {
            let answer = client::ask(&common.instance()?, protocol::Command::CacheList {})?;
            return if common.json { print_json(&answer) } else { print(&show(&client::decode::<Vec<_>>(answer)?)) };
        }
        Command::Flush(arguments) => arguments,
    };
    let command = match connection.as_deref() {
        Some(&[local, remote]) => protocol::Command::CacheFlushConnection { local, remote },
        _ => protocol::Command::CacheFlush { peer },
    };
    let answer = client::ask(&common.instance()?, command)?;
    if common.json {
        return print_json(&answer);
    }
    let Flushed { flushed } = client::decode(answer)?;
    print(&format!("{flushed} {} erased\n", if flushed == 1 { "session" } else { "sessions" }))
}

fn show(sessions: &[Session]) -> String {
    if sessions.is_empty() {
        return "no sessions\n".to_owned();
    }
    let heading = ["PEER", "TEP", "AEAD", "ROLE", "NEXT", "AGE", "EXPIRES IN"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(sessions.iter().map(|session| {
        vec![
            session.peer.to_string(),
            session.tep.clone(),
            session.aead.clone(),
            session.original_role.to_string(),
            session.index.to_string(),
            duration(session.age_seconds),
            duration(session.expires_seconds),
        ]
    }));
    table(&rows, &[4, 5, 6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tc_22_a_session_is_shown_with_its_peer_and_its_time() {
        let info = crate::engine::SessionInfo {
            peer: "2001:db8::2".parse().unwrap(),
            tep: "ECDHE-Curve25519",
            aead: "AEAD_AES_128_GCM",
            original_role: 'A',
            index: 3,
            age_seconds: 65,
            expires_seconds: 7_135,
        };
        let text = show(&[serde_json::from_value(serde_json::to_value(info).unwrap()).unwrap()]);
        let line = text.lines().nth(1).unwrap();
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words, "2001:db8::2 ECDHE-Curve25519 AEAD_AES_128_GCM A 3 1 min 5 s 1 h 58 min", "{text}");
        assert_eq!(show(&[]), "no sessions\n");
    }
}
