//! What paths do with ENO, in words.

use crate::engine::{Finding, PathInfo};

/// What a finding means, in a few words.
pub(super) fn meaning(finding: Finding) -> &'static str {
    match finding {
        Finding::Encrypted => "connections are encrypted",
        Finding::NoEno => "answers come without ENO: the peer has none, or it is removed on the way",
        Finding::StrippedThere => "ENO is removed from SYNs on the way there",
        Finding::StrippedBack => "ENO is removed from SYN-ACKs on the way back",
        Finding::Echoed => "unknown options come back as they were sent",
        Finding::StrippedHere => "ENO is removed from SYNs on the way here",
        Finding::AckWithoutEno => "ENO is removed from SYN-ACKs on the way to the peer, or from its acknowledgements",
        Finding::Unfinished => "it was agreed to encrypt, and then no keys came",
        Finding::NonSynStripped => "ENO is removed from segments without SYN",
        Finding::SynDropped => "SYNs with ENO vanish",
    }
}

/// One path in a line.
pub(super) fn remembered(path: &PathInfo) -> String {
    let name = match path.port {
        Some(port) => format!("to {}", std::net::SocketAddr::new(path.address, port)),
        None => format!("from {}", path.address),
    };
    let avoided = path.avoided_seconds.map_or(String::new(), |seconds| format!(", no ENO for {seconds} s"));
    let times = if path.times > 1 { format!(", {} times", path.times) } else { String::new() };
    format!("{name}  {} ({}{times}, {} s ago{avoided})", path.finding, meaning(path.finding), path.seen_seconds)
}
