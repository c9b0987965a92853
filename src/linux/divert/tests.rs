use super::*;

fn rules(texts: &[(&str, Policy)]) -> Vec<Rule> {
    texts.iter().map(|(text, policy)| Rule::new(text.parse().expect("selector"), *policy)).collect()
}

fn shown(entries: &[NetPorts]) -> Vec<String> {
    entries.iter().map(|(net, ports)| format!("{net} {ports}")).collect()
}

#[test]
fn nested_networks_and_overlapping_ports_become_disjoint() {
    use Policy::Opportunistic as On;
    let divert = Divert::new(
        &rules(&[
            ("10.1.0.0/16:150-300", On),
            ("10.0.0.0/8:100-200", On),
            ("10.0.0.0/8:180-250", On),
            ("10.2.3.4", On),
        ]),
        &[],
    );
    assert_eq!(
        shown(&divert.remote),
        [
            "10.0.0.0/8 100-200",
            "10.0.0.0/8 201-250",
            "10.1.0.0/16 251-300",
            "10.2.3.4/32 0-99",
            "10.2.3.4/32 251-65535",
        ]
    );
}

#[test]
fn any_address_is_both_families_and_local_ports_merge() {
    use Policy::Opportunistic as On;
    let divert = Divert::new(&rules(&[(":443", On), ("local:80-90", On), ("local:91", On), ("local:22", On)]), &[]);
    assert_eq!(shown(&divert.remote), ["0.0.0.0/0 443", "::/0 443"]);
    let local: Vec<String> = divert.local.iter().map(ToString::to_string).collect();
    assert_eq!(local, ["22", "80-91"]);
}

#[test]
fn only_ports_selected_at_every_address_of_both_families_are_looked_up_without_it() {
    use Policy::Opportunistic as On;
    let list = [(":443", On), ("0.0.0.0/0:25", On), ("10.0.0.0/8:80", On), ("::/0", On)];
    let divert = Divert::new(&rules(&list), &[]);
    assert_eq!(divert.anywhere().count(), 0, "the whole of IPv6 is no port");
    let divert = Divert::new(&rules(&list[..3]), &[]);
    assert_eq!(divert.anywhere().map(|ports| ports.to_string()).collect::<Vec<_>>(), ["443"]);
    assert_eq!(shown(&divert.nets(false).collect::<Vec<_>>()), ["0.0.0.0/0 25", "10.0.0.0/8 80"]);
    assert_eq!(shown(&divert.nets(true).collect::<Vec<_>>()), [""; 0]);
}

#[test]
fn an_exception_is_left_to_the_engine_where_something_inside_is_selected() {
    use Policy::{Off, Opportunistic as On};
    let divert =
        Divert::new(&rules(&[("0.0.0.0/0", On), ("10.0.0.0/8", Off), ("10.1.0.0/16", On), ("192.0.2.0/24", Off)]), &[]);
    assert_eq!(shown(&divert.except), ["192.0.2.0/24 0-65535"]);
}

#[test]
fn what_a_required_rule_crosses_is_no_exception_and_what_an_opportunistic_one_crosses_is() {
    use Policy::{Off, Opportunistic as On, Required};
    let divert = |other| Divert::new(&rules(&[("0.0.0.0/0", On), (":22", Off), other]), &[]);
    for crossing in ["local:80", "10.0.0.0/8"] {
        assert_eq!(shown(&divert((crossing, On)).except), ["0.0.0.0/0 22", "::/0 22"], "{crossing}");
    }
    assert_eq!(shown(&divert(("local:80", Required)).except), [""; 0]);
    assert_eq!(shown(&divert(("10.0.0.0/8", Required)).except), ["::/0 22"]);
}

#[test]
fn link_local_addresses_are_refused_where_they_are_required_and_nowhere_else() {
    use Policy::{Off, Opportunistic as On, Required};
    let refused = |list: &[(&str, Policy)]| {
        let rules = rules(list);
        let divert = Divert::new(&rules, &[]);
        let table = PolicyTable::new(rules);
        for remote in (1..12).chain([65_535]) {
            for local in (1..12).chain([65_535]) {
                let policy = table.lookup("fe80::1".parse().unwrap(), remote, local).map(|rule| rule.policy);
                let hits = divert.link_local.iter().filter(|(r, l)| r.contains(remote) && l.contains(local)).count();
                assert_eq!(hits, usize::from(policy == Some(Required)), "{remote} {local}: {list:?}");
            }
        }
        divert.link_local.iter().map(|(remote, local)| format!("{remote} {local}")).collect::<Vec<_>>()
    };
    assert_eq!(refused(&[("local:7", Required)]), ["1-65535 7"]);
    assert_eq!(refused(&[(":7", Required)]), ["7 1-65535"]);
    assert_eq!(refused(&[("::/0", Required)]), ["1-65535 1-65535"]);
    assert_eq!(refused(&[("::/0", Required), ("local:7", Off)]), ["1-65535 1-6", "1-65535 8-65535"]);
    assert_eq!(refused(&[("local:7", Required), (":5", On)]), ["1-65535 7"]);
    assert_eq!(refused(&[("local:7", Required), (":5", Required)]), ["1-4 7", "5 1-65535", "6-65535 7"]);
    let none: [&str; 0] = [];
    for others in [("local:7", On), ("2001:db8::/32", Required), ("0.0.0.0/0", Required), ("local:7", Off)] {
        assert_eq!(refused(&[others]), none);
    }
    let many: Vec<Rule> = (1..2000u16)
        .flat_map(|n| [format!(":{}", 2 * n), format!("local:{}", 2 * n)])
        .map(|text| Rule::new(text.parse().unwrap(), Required))
        .collect();
    assert_eq!(Divert::new(&many, &[]).link_local, [(PortRange::ALL, PortRange::ALL)]);
}

/// Whatever the table selects is diverted, with rules from a small space where they collide a lot.
#[test]
fn nothing_that_is_selected_goes_undiverted() {
    let mut state = 7_u64;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for _ in 0..3000 {
        let mut list = Vec::new();
        for _ in 0..1 + next(6) {
            let (first, more) = (1 + next(6), next(3));
            let last = first + more;
            let length = [0, 6, 7, 8, 30, 31, 32][next(7) as usize];
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + next(4) as u32);
            let net = ipnet::Ipv4Net::new(address, length).expect("length").trunc();
            let text = match next(6) {
                5 => ["::/0", "2001:db8::/32", "[::/0]:3", "[2001:db8::/32]:2-4"][next(4) as usize].to_owned(),
                0 => format!("local:{first}-{last}"),
                1 => format!(":{first}-{last}"),
                2 => net.to_string(),
                _ => format!("{net}:{first}-{last}"),
            };
            let policy = [Policy::Opportunistic, Policy::Required, Policy::Off][next(3) as usize];
            list.extend(text.parse().ok().map(|selector| Rule::new(selector, policy)));
        }
        let divert = Divert::new(&list, &[]);
        let table = PolicyTable::new(list.clone());
        let hosts = (0..4).map(|host| std::net::IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + host)));
        for remote in hosts.chain(["2001:db8::1", "2001:db9::1"].map(|text| text.parse().expect("address"))) {
            for (remote_port, local_port) in (0..10).flat_map(|r| (0..10).map(move |l| (r, l))) {
                let within = |entries: &[NetPorts]| {
                    entries.iter().filter(|(net, ports)| net.contains(&remote) && ports.contains(remote_port)).count()
                };
                assert!(within(&divert.remote) <= 1 && within(&divert.except) <= 1, "overlap: {list:?}");
                let apart = divert.anywhere().filter(|ports| ports.contains(remote_port)).count()
                    + divert
                        .nets(remote.is_ipv6())
                        .filter(|(net, p)| net.contains(&remote) && p.contains(remote_port))
                        .count();
                assert_eq!(apart, within(&divert.remote), "looked up: {list:?}");
                let diverted = within(&divert.except) == 0
                    && (within(&divert.remote) == 1 || divert.local.iter().any(|p| p.contains(local_port)));
                let selected = table.lookup(remote, remote_port, local_port).is_some_and(|r| r.policy != Policy::Off);
                assert!(diverted || !selected, "{remote} {remote_port} {local_port}: {list:?}");
            }
        }
    }
}
