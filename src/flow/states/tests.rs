use std::fmt::{self, Write};
use std::fs;
use std::path::Path;

use super::*;

fn all() -> Vec<State> {
    [OPENING, PLAIN, ENCRYPTED, &[S::Closed, S::Gone]].concat()
}

impl State {
    fn meaning(self) -> &'static str {
        match self {
            Self::New => "the local kernel's first SYN is at hand",
            Self::SynSent => "its SYN was sent with ENO; it has seen nothing of the peer's",
            Self::Answered => "it was given the peer's SYN-ACK; its acknowledgement decides",
            Self::Crossed => "SYNs have crossed: the local kernel was given the peer's",
            Self::CrossedAndAcked => "the same, and the peer has acknowledged the local kernel's",
            Self::CrossedSynAckSent => {
                "SYNs have crossed, and a SYN-ACK was sent: the peer's acknowledgement is awaited"
            }
            Self::SynReceived => "the peer's SYN was given to the local kernel",
            Self::SynAckSent => "the local kernel's SYN-ACK was sent with ENO: the peer's acknowledgement decides",
            Self::PlainOpening => "plain TCP: not both SYNs are acknowledged",
            Self::PlainOpen => "plain TCP: open",
            Self::PlainOver => "plain TCP: both FINs are acknowledged, or a RST was seen",
            Self::AwaitInit1 => "host B waits for Init1",
            Self::AwaitInit2 => "host A has sent Init1 and waits for Init2",
            Self::Ready => "frames are sealed and opened",
            Self::Failed => "keys could not be made: it is about to be aborted",
            Self::Closed => "over; stragglers are answered for a while",
            Self::Gone => "forgotten",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offered => "SYN sent with ENO",
            Self::KernelSyn => "local SYN again",
            Self::KernelSynAck => "local SYN-ACK sent",
            Self::PeerSyn => "peer's SYN",
            Self::PeerSynAck => "peer's SYN-ACK",
            Self::Agreed => "both acknowledged with ENO",
            Self::FellBack => "no encryption, and policy allows that",
            Self::Refused => "no encryption, and policy requires it",
            Self::Aborted => "aborted",
            Self::Reset => "RST",
            Self::ResetAfterAgreement => "RST after both had agreed",
            Self::Unacknowledged => "SYN-ACK never acknowledged",
            Self::TimedOut => "time is over",
            Self::ShutDown => "enotun goes down",
            Self::KeysMade => "keys made",
            Self::KeysFailed => "no keys",
            Self::BothSynsAcked => "both SYNs acknowledged",
            Self::BothFinsAcked => "both FINs acknowledged",
            Self::Evicted => "evicted for others",
            Self::Replaced => "its ports are reused",
        })
    }
}

const HEAD: &str = "# States of a connection

Generated from `src/flow/states.rs`; a test compares the two. To write it anew:

    ENOTUN_WRITE_DOCS=1 cargo test --lib flow::states

Every change of a connection's state is checked against this table where assertions are on: in the tests of engines and in the
simulation. What leads from a box leads from each state in it. Not shown: from everywhere a connection is forgotten when it is
evicted for others ([limits.md](limits.md)) or when its ports are reused.
";

fn id(state: State) -> String {
    match state {
        S::Gone => "[*]".to_owned(),
        state => format!("{state:?}"),
    }
}

fn name(states: &[State]) -> Vec<String> {
    match states {
        _ if states == OPENING => vec!["Opening".to_owned()],
        _ if states == PLAIN => vec!["Plain".to_owned()],
        _ if states == ENCRYPTED => vec!["Encrypted".to_owned()],
        states => states.iter().map(|state| id(*state)).collect(),
    }
}

fn edges(shown: impl Fn(&[State]) -> bool, into: &mut String, indent: &str) {
    for (froms, by, tos) in TABLE.iter().filter(|(.., by, _)| !matches!(by, By::Evicted | By::Replaced)) {
        let all = [*froms, *tos].concat();
        if !shown(&all) {
            continue;
        }
        for from in name(froms) {
            for to in name(tos) {
                writeln!(into, "{indent}{from} --> {to}: {by}").unwrap();
            }
        }
    }
}

fn document() -> String {
    let mut text = format!(
        "{HEAD}\n```mermaid\nstateDiagram-v2\n    [*] --> New: local SYN\n    [*] --> SynReceived: peer's SYN\n"
    );
    let boxes: [(&str, &[State]); 3] = [("Opening", OPENING), ("Plain", PLAIN), ("Encrypted", ENCRYPTED)];
    for (name, states) in boxes {
        writeln!(text, "    state {name} {{").unwrap();
        for state in states {
            writeln!(text, "        {state:?}").unwrap();
        }
        edges(|all| all.iter().all(|state| states.contains(state)), &mut text, "        ");
        writeln!(text, "    }}").unwrap();
    }
    let inside = |all: &[State]| boxes.iter().any(|(_, states)| all.iter().all(|state| states.contains(state)));
    edges(|all| !inside(all), &mut text, "    ");
    text.push_str("```\n\n| state | meaning |\n| --- | --- |\n");
    for state in all().into_iter().filter(|state| *state != S::Gone) {
        writeln!(text, "| {state:?} | {} |", state.meaning()).unwrap();
    }
    text
}

#[test]
fn docs_states_md_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/states.md");
    let text = document();
    if std::env::var_os("ENOTUN_WRITE_DOCS").is_some() {
        fs::write(&path, &text).expect("docs/states.md can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/states.md is out of date: ENOTUN_WRITE_DOCS=1 cargo test --lib flow::states writes it"
    );
}

#[test]
fn every_state_is_reached_and_left() {
    let reached = |to: &State| matches!(to, S::New | S::SynReceived) || TABLE.iter().any(|(.., tos)| tos.contains(to));
    let left = |from: &State| *from == S::Gone || TABLE.iter().any(|(froms, ..)| froms.contains(from));
    assert!(all().iter().all(|state| reached(state) && left(state)));
    // Nothing comes back from the end, and what is encrypted or over is never plain.
    assert!(!TABLE.iter().any(|(froms, ..)| froms.contains(&S::Gone)));
    for (froms, by, tos) in TABLE {
        let secret = froms.iter().any(|from| ENCRYPTED.contains(from) || *from == S::Closed);
        assert!(!(secret && tos.iter().any(|to| PLAIN.contains(to))), "{by:?}");
    }
}
