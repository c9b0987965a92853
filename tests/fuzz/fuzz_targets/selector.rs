//! Selectors, as users type them: what is understood is written back in a form that means the same, and the table finds
//! what a plain walk over all rules finds. The input is a list of selectors, one a line.
#![no_main]

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enotun::selector::{Policy, PolicyTable, PortRange, Remote, Selected, Selector};
use libfuzzer_sys::fuzz_target;

/// How narrowly a selector matches a connection, if it does: prefix length, then number of ports.
fn matches(selector: &Selector, remote: IpAddr, remote_port: u16, local_port: u16) -> Option<(u8, Reverse<u32>)> {
    let width = |ports: &PortRange| Reverse(u32::from(ports.last) - u32::from(ports.first));
    match selector {
        Selector::Local(ports) => ports.contains(local_port).then(|| (0, width(ports))),
        Selector::Remote(remote_side, ports) => {
            let length = match remote_side {
                Remote::Any => 0,
                Remote::Net(net) => net.contains(&remote).then(|| net.prefix_len())?,
                Remote::Name(_) => return None,
            };
            ports.contains(remote_port).then(|| (length, width(ports)))
        }
    }
}

/// Addresses and ports at the edges of a selector, where mistakes are.
fn probes(selector: &Selector) -> Vec<(IpAddr, u16)> {
    let (addresses, ports) = match selector {
        Selector::Local(ports) => (vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))], ports),
        Selector::Remote(Remote::Net(net), ports) => (vec![net.network(), net.broadcast()], ports),
        Selector::Remote(..) => (vec![Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::LOCALHOST.into()], &PortRange::ALL),
    };
    let ports = [ports.first, ports.last, ports.first.wrapping_sub(1), ports.last.wrapping_add(1)];
    addresses.into_iter().flat_map(|address| ports.map(|port| (address, port))).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut rules = Vec::new();
    for line in text.lines().take(12) {
        let _ = line.parse::<Policy>();
        let Ok(selected) = line.parse::<Selected>() else { continue };
        let written = selected.to_string();
        assert_eq!(written.parse::<Selected>().as_ref(), Ok(&selected), "`{line}` is written back as `{written}`");
        let policy = [Policy::Opportunistic, Policy::Required, Policy::Off][rules.len() % 3];
        rules.push(selected.rule(policy));
    }
    let table = PolicyTable::new(rules.clone());
    for rule in &rules {
        for (remote, port) in probes(&rule.selector) {
            for (remote_port, local_port) in [(port, 40_000), (443, port)] {
                // `::ffff:a.b.c.d` is a.b.c.d on the wire.
                let remote = remote.to_canonical();
                let expected = rules
                    .iter()
                    .enumerate()
                    .filter_map(|(i, rule)| Some((matches(&rule.selector, remote, remote_port, local_port)?, i)))
                    .max()
                    .and_then(|(_, i)| rules.get(i));
                let found = table.lookup(remote, remote_port, local_port);
                assert_eq!(found, expected, "{remote}:{remote_port}, local port {local_port}");
            }
        }
    }
});
