//! The connections that this host forwards for others, as far as connection tracking knows them. They matter only
//! because they are tracked already: where nothing is tracked, none are known.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::sockets::Ends;

/// One line per tracked connection, of this thread's network namespace.
const TABLE: &str = "/proc/thread-self/net/nf_conntrack";

/// Open connections, in both directions, since either end may be on the plain side. Those in `local`, this host's
/// own, are left out.
pub(super) fn forwarded(local: &[Ends]) -> Vec<Ends> {
    let table = std::fs::read_to_string(TABLE).unwrap_or_default();
    let own: HashSet<Ends> = local.iter().flat_map(|&(local, remote)| [(local, remote), (remote, local)]).collect();
    let mut seen = HashSet::new();
    let open = table.lines().flat_map(tracked).filter(|ends| !own.contains(ends) && seen.insert(*ends));
    open.flat_map(|(one, other)| [(one, other), (other, one)]).collect()
}

/// The two ends of an open connection, as seen from each side of a translation.
fn tracked(line: &str) -> Vec<Ends> {
    let mut words = line.split_whitespace();
    let is_open = words.by_ref().take(6).any(|word| word == "ESTABLISHED");
    // One that was picked up in mid-stream, from one side only, is not assured.
    if !is_open || !line.contains("[ASSURED]") || !line.contains(" tcp ") {
        return Vec::new();
    }
    let values = |name: &'static str| line.split_whitespace().filter_map(move |word| word.strip_prefix(name));
    let addresses = |name| values(name).filter_map(|value| value.parse::<IpAddr>().ok());
    let ports = |name| values(name).filter_map(|value| value.parse::<u16>().ok());
    let (sources, destinations) = (addresses("src="), addresses("dst="));
    let (from, to) = (ports("sport="), ports("dport="));
    let source = sources.zip(from).map(SocketAddr::from);
    let destination = destinations.zip(to).map(SocketAddr::from);
    let mut ends: Vec<Ends> = source.zip(destination).collect();
    // The reply tuple runs in the other direction; without translation both tuples are equivalent.
    if let [(source, destination), answer] = ends[..]
        && answer == (destination, source)
    {
        ends.truncate(1);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn open_connections_are_read_as_either_side_has_them() {
        let plain = "ipv4     2 tcp      6 431998 ESTABLISHED src=10.0.0.1 dst=10.1.0.2 sport=5000 dport=80 src=10.1.0.2 \
             dst=10.0.0.1 sport=80 dport=5000 [ASSURED] mark=0 zone=0 use=2";
        assert_eq!(tracked(plain), [(address("10.0.0.1:5000"), address("10.1.0.2:80"))]);
        let translated = plain.replace("dst=10.0.0.1 sport=80 dport=5000", "dst=192.0.2.1 sport=80 dport=6000");
        let [_, answer] = tracked(&translated)[..] else { panic!("two") };
        assert_eq!(answer, (address("10.1.0.2:80"), address("192.0.2.1:6000")));
        let v6 = "ipv6     10 tcp      6 100 ESTABLISHED src=2001:db8::1 dst=2001:db8::2 sport=1 dport=2 src=2001:db8::2 \
             dst=2001:db8::1 sport=2 dport=1 [ASSURED] mark=0 use=2";
        assert_eq!(tracked(v6), [(address("[2001:db8::1]:1"), address("[2001:db8::2]:2"))]);
    }

    #[test]
    fn what_is_not_open_or_not_assured_is_left_out() {
        let line = "ipv4 2 tcp 6 5 SYN_RECV src=10.0.0.1 dst=10.1.0.2 sport=5000 dport=80 src=10.1.0.2 dst=10.0.0.1 sport=80 \
             dport=5000 [ASSURED] mark=0 use=2";
        assert!(tracked(line).is_empty());
        let open = line.replace("SYN_RECV", "ESTABLISHED");
        assert_eq!(tracked(&open).len(), 1);
        assert!(tracked(&open.replace("[ASSURED]", "")).is_empty());
        assert!(tracked("").is_empty());
    }
}
