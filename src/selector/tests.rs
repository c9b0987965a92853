//! What selectors match, and how they are written.

use super::*;

fn selector(text: &str) -> Selector {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn table(rules: &[(&str, Policy)]) -> PolicyTable {
    PolicyTable::new(rules.iter().map(|(text, policy)| Rule::new(selector(text), *policy)))
}

fn policy(table: &PolicyTable, remote: &str, remote_port: u16, local: u16) -> Option<Policy> {
    table.lookup(remote.parse().expect("address"), remote_port, local).map(|rule| rule.policy)
}

#[test]
fn every_form_survives_printing_and_parsing() {
    for text in [
        "10.0.0.0/8",
        "10.1.2.3",
        "10.1.2.3:22",
        "10.0.0.0/8:8000-8100",
        "db.example",
        "db.example:5432",
        "2001:db8::/32",
        "2001:db8::1",
        "[2001:db8::/32]:443",
        "[2001:db8::1]:443",
        ":5432",
        "local:22",
        "local:8000-8100",
        "0.0.0.0/0",
        "::/0",
    ] {
        assert_eq!(selector(text).to_string(), text);
        let json = serde_json::to_string(&selector(text)).expect("serialises");
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Selector>(&json).expect("parses"), selector(text));
    }
    assert_eq!(selector("[2001:db8::1]"), selector("2001:db8::1"));
    assert_eq!(selector("::ffff:10.1.2.3"), selector("10.1.2.3"));
    assert_eq!(selector("::ffff:10.1.0.0/112"), selector("10.1.0.0/16"));
    assert_eq!(selector("[::ffff:0:0/96]:80"), selector("0.0.0.0/0:80"));
    assert_eq!(selector("DB.Example."), selector("db.example."));
    assert_eq!(selector("LOCAL:22"), selector("local:22"));
}

#[test]
fn what_selects_nothing_is_an_error() {
    for text in [
        "",
        " ",
        ":",
        "local:",
        "local:0",
        ":0",
        ":70000",
        "10.0.0.1:",
        "10.0.0.1:+80",
        "10.0.0.1:90-80",
        "10.0.0",
        "300.1.1.1",
        "10.0.0.0/33",
        "10.0.0.1/8",
        "[10.0.0.1",
        "[::1]:80",
        "[fe80::1]80",
        "127.0.0.0/8",
        "::1",
        "224.0.0.0/4",
        "ff02::/16",
        "a b",
        "-x.example",
        "x..y",
        "0.0.0.0",
        "2001:db8::zz",
        "[db.example]:80",
        "::",
    ] {
        assert!(text.parse::<Selector>().is_err(), "{text:?} was accepted");
    }
    assert_eq!(
        "10.0.0.1/8".parse::<Selector>().expect_err("host bits").to_string(),
        "`10.0.0.1/8` has host bits set; did you mean `10.0.0.0/8`?"
    );
}

#[test]
fn names_resolve_to_one_selector_per_address() {
    let addresses = |name: &str| {
        assert_eq!(name, "db.example");
        vec!["10.0.0.1".parse().expect("v4"), "2001:db8::1".parse().expect("v6")]
    };
    assert_eq!(
        selector("db.example:5432").resolved(addresses),
        [selector("10.0.0.1:5432"), selector("[2001:db8::1]:5432")]
    );
    assert_eq!(selector(":80").resolved(|_| unreachable!()), [selector(":80")]);
}

#[test]
fn a_narrower_rule_is_an_exception_whatever_its_policy() {
    use Policy::{Off, Opportunistic, Required};
    let table = table(&[
        ("10.1.0.0/16", Required),
        ("10.0.0.0/8", Opportunistic),
        ("10.1.2.3:22", Off),
        ("10.0.0.0/8:8000-8100", Off),
        ("10.0.0.0/8:8050", Required),
        (":5432", Required),
        ("10.1.9.9:5432", Opportunistic),
        ("2001:db8::/32", Opportunistic),
    ]);
    assert_eq!(policy(&table, "10.9.9.9", 80, 40000), Some(Opportunistic));
    assert_eq!(policy(&table, "10.1.9.9", 80, 40000), Some(Required));
    assert_eq!(policy(&table, "10.1.2.3", 22, 40000), Some(Off));
    assert_eq!(policy(&table, "10.1.2.3", 23, 40000), Some(Required));
    assert_eq!(policy(&table, "10.2.0.1", 8000, 40000), Some(Off));
    assert_eq!(policy(&table, "10.2.0.1", 8100, 40000), Some(Off));
    assert_eq!(policy(&table, "10.2.0.1", 8050, 40000), Some(Required));
    assert_eq!(policy(&table, "10.1.9.9", 5432, 40000), Some(Opportunistic));
    assert_eq!(policy(&table, "192.0.2.1", 5432, 40000), Some(Required));
    assert_eq!(policy(&table, "192.0.2.1", 80, 40000), None);
    assert_eq!(policy(&table, "2001:db8::7", 80, 40000), Some(Opportunistic));
    assert_eq!(policy(&table, "2001:db9::7", 80, 40000), None);
    assert_eq!(policy(&table, "::ffff:10.1.9.9", 80, 1), Some(Required));
}

#[test]
fn of_rules_that_cross_required_decides_then_off() {
    use Policy::{Off, Opportunistic, Required};
    let table = table(&[("local:7000", Required), (":7001", Required), ("10.1.0.0/24", Opportunistic), (":22", Off)]);
    assert_eq!(policy(&table, "10.1.0.9", 40000, 7000), Some(Required), "a port offered here, in a network");
    assert_eq!(policy(&table, "10.1.0.9", 7001, 40000), Some(Required), "a port of any address, in a network");
    assert_eq!(policy(&table, "10.1.0.9", 22, 40000), Some(Off));
    assert_eq!(policy(&table, "10.1.0.9", 22, 7000), Some(Required));
    assert_eq!(policy(&table, "10.1.0.9", 80, 40000), Some(Opportunistic));
}

#[test]
fn a_local_port_is_a_part_of_every_address_and_of_no_network() {
    use Policy::{Off, Opportunistic, Required};
    let everywhere = [("0.0.0.0/0", Required), ("::/0", Required)];
    let table_of = |last| table(&[everywhere[0], everywhere[1], last]);
    assert_eq!(policy(&table_of(("local:22", Off)), "192.0.2.1", 40000, 22), Some(Off));
    assert_eq!(policy(&table_of((":22", Off)), "2001:db8::1", 22, 40000), Some(Off));
    let every_port = table(&[("local:1-65535", Required), (":1-65535", Off), ("10.0.0.0/8", Opportunistic)]);
    assert_eq!(policy(&every_port, "192.0.2.1", 22, 40000), Some(Required), "three spellings of everything");
    assert_eq!(policy(&every_port, "10.0.0.1", 22, 40000), Some(Opportunistic));
}

#[test]
fn a_segment_with_port_0_belongs_to_what_is_selected_whatever_the_port() {
    use Policy::{Off, Opportunistic, Required};
    let table = table(&[("10.0.0.0/8", Required), ("10.0.0.0/8:1-2", Opportunistic), (":1-65535", Off)]);
    assert_eq!(policy(&table, "10.0.0.1", 0, 40000), Some(Required));
    assert_eq!(policy(&table, "10.0.0.1", 1, 40000), Some(Opportunistic));
    assert_eq!(policy(&table, "192.0.2.1", 0, 40000), None);
}

#[test]
fn of_crossing_rules_of_one_policy_the_longest_prefix_the_fewest_ports_and_the_last_have_their_options() {
    let deciding = |texts: &[&str], remote_port| {
        let rules = texts.iter().map(|text| text.parse::<Selected>().unwrap().rule(Policy::Opportunistic));
        let remote = "10.1.2.3".parse().unwrap();
        PolicyTable::new(rules).lookup(remote, remote_port, 7000).map(|rule| rule.selector.to_string())
    };
    assert_eq!(deciding(&["10.1.0.0/16,aware", "local:7000"], 80).as_deref(), Some("10.1.0.0/16"));
    assert_eq!(deciding(&[":80-90,aware", ":75-80"], 80).as_deref(), Some(":75-80"));
    assert_eq!(deciding(&[":80-90,aware", ":70-80"], 80).as_deref(), Some(":70-80"));
    assert_eq!(deciding(&["0.0.0.0/0", ":1-65535,aware"], 80).as_deref(), Some(":1-65535"));
}

/// The same pseudorandom numbers every time.
fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    }
}

/// Selectors from a small space, where they collide a lot.
fn colliding(next: &mut impl FnMut(u64) -> u64) -> Vec<Rule> {
    let mut rules = Vec::new();
    for _ in 0..1 + next(7) {
        let first = 1 + next(6);
        let last = [first, first + next(4), 65_535][next(3) as usize];
        let length = [0, 6, 7, 8, 30, 31, 32][next(7) as usize];
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + next(4) as u32);
        let net = Ipv4Net::new(address, length).unwrap().trunc();
        let text = match next(7) {
            0 | 1 => format!("local:{first}-{last}"),
            2 => format!(":{first}-{last}"),
            3 => net.to_string(),
            4 => ["::/0", "2001:db8::/32", "[::/0]:3", "[2001:db8::/32]:2-4"][next(4) as usize].to_owned(),
            _ => format!("{net}:{first}-{last}"),
        };
        let policy = [Policy::Opportunistic, Policy::Required, Policy::Off][next(3) as usize];
        rules.extend(text.parse().ok().map(|selector| Rule::new(selector, policy)));
    }
    rules
}

/// What a selector matches, as intervals: of remote addresses, remote ports and local ports.
fn intervals(selector: &Selector, v6: bool) -> Option<[(u128, u128); 3]> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
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

/// The policy of a connection by nothing but the definition: rules that match; without those to which another is narrower;
/// the strictest.
fn defined(rules: &[Rule], remote: IpAddr, remote_port: u16, local_port: u16) -> Option<Policy> {
    let address = match remote {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let point = [address, remote_port.into(), local_port.into()];
    let within = |(at, (low, high)): (&u128, &(u128, u128))| low <= at && at <= high;
    let matching: Vec<_> = rules
        .iter()
        .filter_map(|rule| Some((rule.policy, intervals(&rule.selector, remote.is_ipv6())?)))
        .filter(|(_, axes)| point.iter().zip(axes).all(within))
        .collect();
    let part = |one: &[(u128, u128); 3], of: &[(u128, u128); 3]| {
        one != of && one.iter().zip(of).all(|(a, b)| b.0 <= a.0 && a.1 <= b.1)
    };
    let left = matching.iter().filter(|(_, axes)| !matching.iter().any(|(_, other)| part(other, axes)));
    let left: Vec<Policy> = left.map(|(policy, _)| *policy).collect();
    [Policy::Required, Policy::Off, Policy::Opportunistic].into_iter().find(|policy| left.contains(policy))
}

#[test]
fn the_table_finds_what_the_definition_says() {
    let mut next = numbers(7);
    for _ in 0..4000 {
        let rules = colliding(&mut next);
        let table = PolicyTable::new(rules.clone());
        let hosts = (0..5).map(|host| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + host)));
        let hosts = hosts.chain(["2001:db8::1".parse().unwrap(), "2001:db9::1".parse().unwrap()]);
        for (remote, remote_port) in hosts.flat_map(|host| (1..9).map(move |port| (host, port))) {
            for local_port in 1..9 {
                let found = table.lookup(remote, remote_port, local_port).map(|rule| rule.policy);
                let expected = defined(&rules, remote, remote_port, local_port);
                assert_eq!(found, expected, "{remote} {remote_port} {local_port}: {rules:?}");
            }
        }
    }
}

#[test]
fn a_lookup_does_not_depend_on_the_number_of_rules() {
    // What is compared for one connection: rules of the networks around it, and not those of others.
    let many = |count: u32| {
        let nets = (0..count).map(|n| Ipv4Net::new(std::net::Ipv4Addr::from(0x0a00_0000 + n * 4), 30).unwrap());
        let nets = nets.map(|net| Rule::new(Selector::net(net.into()), Policy::Opportunistic));
        let ports = (1..=count).map(|n| Rule::new(selector(&format!(":{}", 1 + n % 60_000)), Policy::Required));
        PolicyTable::new(nets.chain(ports))
    };
    let matching = |table: &PolicyTable| table.matching("10.0.0.1".parse().unwrap(), 5, 7000).count();
    assert_eq!(matching(&many(10)), 2);
    assert_eq!(matching(&many(20_000)), 2);
}

#[test]
fn contradictions_are_found_and_nothing_else() {
    use Policy::{Off, Opportunistic, Required};
    let said = |rules: &[(&str, Policy)]| {
        let rules: Vec<Rule> = rules.iter().map(|(text, policy)| Rule::new(selector(text), *policy)).collect();
        check(&rules).map_err(|error| error.to_string())
    };
    for fine in [
        &[("10.1.0.0/24", Required), ("10.1.0.0/24:7000", Off)][..],
        &[("0.0.0.0/0", Required), (":7000", Off)],
        &[("0.0.0.0/0", Required), ("::/0", Required), ("local:22", Off)],
        &[("10.1.0.0/24", Off), ("10.1.0.7", Required)],
        &[("10.1.0.0/24", Required), ("10.2.0.0/24", Off), ("2001:db8::/32", Off)],
        &[("local:7000", Required), ("10.1.0.0/24", Opportunistic), (":22", Opportunistic)],
        &[("10.0.0.0/8", Opportunistic), (":443", Off), ("local:443", Off)],
        &[("10.1.0.0/24", Required), (":7000", Off), ("10.1.0.0/24:7000", Off)],
        &[("10.1.0.0/24", Required), (":7000", Off), ("10.1.0.0/24:7000", Required)],
        &[("db.example:5432", Opportunistic), (":5432", Required)],
        &[("db.example", Off), ("10.0.0.0/8", Required)],
    ] {
        assert_eq!(said(fine), Ok(()), "{fine:?}");
    }
    for (rules, says) in [
        (&[("10.1.0.0/24", Required), (":7000", Off)][..], "also listing `10.1.0.0/24:7000` as off or as required"),
        (&[("10.1.0.0/24", Required), ("local:7000", Off)], "`local:7000` is off and `10.1.0.0/24` required"),
        (&[(":7000", Required), ("local:22", Off)], "leave one of them out"),
        (&[("10.1.0.0/24:80-90", Required), ("10.1.0.7", Off)], "listing `10.1.0.7:80-90`"),
        (&[("10.1.0.0/24:80-90", Required), ("10.1.0.0/24:85-95", Off)], "listing `10.1.0.0/24:85-90`"),
        (&[("local:1-65535", Required), ("0.0.0.0/0", Off)], "leave one of them out"),
        (&[("10.1.0.0/24", Required), ("10.1.0.0/24", Off)], "leave one of them out"),
        (&[("db.example", Required)], "is a host name"),
        (&[("db.example:5432", Required)], "or `:5432` for that port of every address"),
        (&[(":5432", Required), ("db.example", Off)], "makes no exception to `:5432`"),
        (&[("::/0", Required), ("db.example", Off)], "makes no exception"),
        (&[("local:22", Required), ("db.example:80", Off)], "makes no exception"),
    ] {
        let error = said(rules).unwrap_err();
        assert!(error.contains(says), "{rules:?}: {error}");
    }
}

#[test]
fn what_is_not_refused_is_never_required_and_off_without_a_word() {
    let mut next = numbers(11);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..4000 {
        let rules = colliding(&mut next);
        if check(&rules).is_err() {
            refused += 1;
            continue;
        }
        taken += 1;
        for host in 0..4 {
            let remote: IpAddr = std::net::Ipv4Addr::from(0x0a00_0000 + host).into();
            for (remote_port, local_port) in (1..9).flat_map(|r| (1..9).map(move |l| (r, l))) {
                let scope = |rule: &Rule| intervals(&rule.selector, false);
                let point = [u128::from(0x0a00_0000 + host), remote_port, local_port];
                let matching: Vec<_> = rules
                    .iter()
                    .filter_map(|rule| Some((rule, scope(rule)?)))
                    .filter(|(_, axes)| point.iter().zip(axes).all(|(at, (low, high))| low <= at && at <= high))
                    .collect();
                let part = |one: &[(u128, u128); 3], of: &[(u128, u128); 3]| {
                    one != of && one.iter().zip(of).all(|(a, b)| b.0 <= a.0 && a.1 <= b.1)
                };
                let left: Vec<Policy> = matching
                    .iter()
                    .filter(|(_, axes)| !matching.iter().any(|(_, other)| part(other, axes)))
                    .map(|(rule, _)| rule.policy)
                    .collect();
                let both = left.contains(&Policy::Off) && left.contains(&Policy::Required);
                assert!(!both, "{remote} {remote_port} {local_port}: {rules:?}");
            }
        }
    }
    assert!(refused > 500 && taken > 500, "{refused} refused, {taken} taken");
}

#[test]
fn who_yields_to_whom_is_told() {
    use Policy::{Off, Opportunistic, Required};
    let list = [("local:7000", Required), ("10.1.0.0/24", Opportunistic), (":22", Off), ("10.1.0.0/24:80", Required)];
    let rules: Vec<Rule> = list.iter().map(|(text, policy)| Rule::new(selector(text), *policy)).collect();
    let told: Vec<(usize, usize)> = overlaps(&rules, 99).iter().map(|it| (it.loser, it.winner)).collect();
    assert_eq!(told, [(1, 0), (1, 2), (2, 0)]);
    assert_eq!(overlaps(&rules, 1).len(), 1);
}

#[test]
fn enabling_again_changes_the_policy_and_disabling_takes_it_away() {
    let mut table = PolicyTable::default();
    let rule = |policy| Rule::new(selector("10.0.0.0/8"), policy);
    table.enable(rule(Policy::Opportunistic));
    table.enable(rule(Policy::Required));
    assert_eq!(table.rules(), [rule(Policy::Required)]);
    assert_eq!(policy(&table, "10.0.0.1", 1, 1), Some(Policy::Required));
    assert!(table.disable(&selector("10.0.0.0/8")));
    assert!(!table.disable(&selector("10.0.0.0/8")));
    assert_eq!(policy(&table, "10.0.0.1", 1, 1), None);
}
