//! Selectors, as users type them: what is understood is written back in a form that means the same, and the table finds
//! what its definition says. The input is a list of selectors, one a line.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enotun::selector::{Policy, PolicyTable, PortRange, Remote, Rule, Selected, Selector, check, overlaps};
use libfuzzer_sys::fuzz_target;

/// What a selector matches, as intervals: of remote addresses, remote ports and local ports.
fn intervals(selector: &Selector, v6: bool) -> Option<[(u128, u128); 3]> {
    let any = (0, if v6 { u128::MAX } else { u32::MAX.into() });
    let ports = |ports: &PortRange| (u128::from(ports.first.max(1)), u128::from(ports.last));
    let every_port = (1, u16::MAX.into());
    match selector {
        Selector::Local(local) => Some([any, every_port, ports(local)]),
        Selector::Remote(Remote::Any, remote) => Some([any, ports(remote), every_port]),
        Selector::Remote(Remote::Net(net), remote) if net.addr().is_ipv6() == v6 => {
            Some([(number(net.network()), number(net.broadcast())), ports(remote), every_port])
        }
        Selector::Remote(..) => None,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The policy by definition: of the rules that match, those to which no other is narrower; of these the strictest.
fn defined(rules: &[Rule], remote: IpAddr, remote_port: u16, local_port: u16) -> Option<Policy> {
    let point = [number(remote), remote_port.into(), local_port.into()];
    let within = |(at, (low, high)): (&u128, &(u128, u128))| low <= at && at <= high;
    let matching: Vec<_> = rules
        .iter()
        .filter_map(|rule| Some((rule.policy, intervals(&rule.selector, remote.is_ipv6())?)))
        .filter(|(_, axes)| point.iter().zip(axes).all(within))
        .collect();
    let part = |one: &[(u128, u128); 3], of: &[(u128, u128); 3]| {
        one != of && one.iter().zip(of).all(|(a, b)| b.0 <= a.0 && a.1 <= b.1)
    };
    let left: Vec<Policy> = matching
        .iter()
        .filter(|(_, axes)| !matching.iter().any(|(_, other)| part(other, axes)))
        .map(|(policy, _)| *policy)
        .collect();
    [Policy::Required, Policy::Off, Policy::Opportunistic].into_iter().find(|policy| left.contains(policy))
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
    let _ = (check(&rules).map_err(|error| error.to_string()), overlaps(&rules, 50));
    for rule in &rules {
        for (remote, port) in probes(&rule.selector) {
            for (remote_port, local_port) in [(port, 40_000), (443, port)] {
                // `::ffff:a.b.c.d` is a.b.c.d on the wire.
                let remote = remote.to_canonical();
                if remote_port == 0 || local_port == 0 {
                    continue;
                }
                let expected = defined(&rules, remote, remote_port, local_port);
                let found = table.lookup(remote, remote_port, local_port).map(|rule| rule.policy);
                assert_eq!(found, expected, "{remote}:{remote_port}, local port {local_port}");
            }
        }
    }
});
