use super::*;
use crate::linux::RuleFact;
use crate::linux::facts::ForwardChain;
use crate::linux::netlink::LOCAL_TABLE;

fn link(name: &str, mtu: u32) -> Link {
    Link { name: name.to_owned(), mtu, up: true, loopback: name == "lo", ..Link::default() }
}

/// A host as Debian sets it up: no forwarding, an interface that accepts router advertisements.
fn host() -> HostFacts {
    let mut facts = HostFacts { links: vec![link("lo", 65_536), link("eth0", 1500)], ..HostFacts::default() };
    for family in Family::BOTH {
        let rule = RuleFact { family, preference: 0, table: LOCAL_TABLE, mark: None, matches_all: true };
        facts.rules.push(rule);
        for name in ["lo", "eth0", "all", "default"] {
            facts.sysctls.insert(conf(family, name, "forwarding"), "0".to_owned());
            facts.sysctls.insert(conf(Family::V4, name, "rp_filter"), "0".to_owned());
            facts.sysctls.insert(conf(Family::V6, name, "accept_ra"), "1".to_owned());
            facts.sysctls.insert(conf(Family::V6, name, "force_forwarding"), "0".to_owned());
        }
    }
    facts.sysctls.insert("net/ipv4/tcp_early_demux".to_owned(), "1".to_owned());
    facts
}

fn lines(facts: &HostFacts) -> Vec<String> {
    let settings = HostSettings::default();
    Plan::new(facts, &settings, &Divert::default()).expect("plan").lines(&settings)
}

fn sysctls(facts: &HostFacts) -> Vec<String> {
    let host = |line: &String| line.starts_with("sysctl ") && !line.contains("tun0");
    lines(facts).into_iter().filter(host).collect()
}

#[test]
fn a_plain_host_needs_three_sysctls() {
    assert_eq!(
        sysctls(&host()),
        [
            "sysctl net/ipv4/tcp_early_demux = 0 (was 1)",
            "sysctl net/ipv4/conf/eth0/forwarding = 1 (was 0)",
            "sysctl net/ipv6/conf/eth0/force_forwarding = 1 (was 0)",
        ]
    );
}

#[test]
fn without_force_forwarding_router_advertisements_go_on_being_accepted() {
    let mut facts = host();
    facts.sysctls.retain(|path, _| !path.ends_with("force_forwarding"));
    assert_eq!(
        sysctls(&facts)[2..],
        [
            "sysctl net/ipv6/conf/eth0/accept_ra = 2 (was 1)",
            "sysctl net/ipv6/conf/default/accept_ra = 2 (was 1)",
            "sysctl net/ipv6/conf/all/forwarding = 1 (was 0)",
        ]
    );
    assert!(
        lines(&facts).iter().any(|line| line.contains("set inet enotun_tun0 closed6") && line.contains("\"eth0\""))
    );
}

#[test]
fn the_reverse_path_filter_in_force_stays_in_force() {
    let mut facts = host();
    facts.sysctls.insert(conf(Family::V4, "all", "rp_filter"), "1".to_owned());
    facts.sysctls.insert(conf(Family::V4, "eth0", "rp_filter"), "2".to_owned());
    let changed: Vec<String> = sysctls(&facts).into_iter().filter(|line| line.contains("rp_filter")).collect();
    assert_eq!(
        changed,
        [
            "sysctl net/ipv4/conf/lo/rp_filter = 1 (was 0)",
            "sysctl net/ipv4/conf/default/rp_filter = 1 (was 0)",
            "sysctl net/ipv4/conf/all/rp_filter = 0 (was 1)",
        ]
    );
}

#[test]
fn a_router_is_left_open_and_a_host_stays_closed() {
    let closed = |facts: &HostFacts| -> Vec<String> {
        lines(facts).into_iter().filter(|line| line.starts_with("nft add set") && line.contains("closed")).collect()
    };
    let mut facts = host();
    assert!(closed(&facts).iter().all(|line| line.contains("\"eth0\"")));
    facts.sysctls.values_mut().for_each(|value| *value = "1".to_owned());
    assert!(closed(&facts).iter().all(|line| !line.contains("eth0")));
}

#[test]
fn the_local_rule_moves_only_if_it_is_in_the_way() {
    let moves = |facts: &HostFacts| lines(facts).iter().filter(|line| line.contains("lookup local")).count();
    let mut facts = host();
    assert_eq!(moves(&facts), 2);
    facts.rules.iter_mut().for_each(|rule| rule.preference = 100);
    assert_eq!(moves(&facts), 0);
}

#[test]
fn connections_are_tracked_in_a_zone_only_where_others_may_track_them() {
    let zones = |facts: &HostFacts| lines(facts).iter().filter(|line| line.contains("ct zone set 8547")).count();
    let mut facts = host();
    assert_eq!(zones(&facts), 0);
    facts.others_filter = true;
    assert_eq!(zones(&facts), 2);
    let listing = |table: &str| {
        let chain = serde_json::json!({"family": "inet", "table": table, "name": "input", "hook": "input"});
        serde_json::json!({"nftables": [{"metainfo": {}}, {"chain": {"table": "x", "name": "no hook"}}, {"chain": chain}]})
    };
    use crate::linux::facts::has_chains_of_others;
    assert!(has_chains_of_others(&listing("filter"), |table| table == "enotun_tun0"));
    assert!(!has_chains_of_others(&listing("enotun_tun0"), |table| table == "enotun_tun0"));
}

#[test]
fn the_mtu_is_the_largest_of_the_interfaces_that_are_up() {
    let mut facts = host();
    facts.links.push(link("eth1", 9000));
    facts.links.push(Link { up: false, ..link("eth2", 9216) });
    assert_eq!(Plan::new(&facts, &HostSettings::default(), &Divert::default()).expect("plan").mtu, 9000);
}

#[test]
fn a_plan_made_over_its_own_changes_is_the_same_plan() {
    let mut before = host();
    before.sysctls.insert(conf(Family::V4, "all", "rp_filter"), "1".to_owned());
    let chain = ForwardChain { family: "ip".into(), table: "filter".into(), name: "FORWARD".into(), drops: true };
    before.forward_chains.push(chain);
    let settings = HostSettings::default();
    let plan = Plan::new(&before, &settings, &Divert::default()).expect("plan");
    let mut after = before.clone();
    after.names_directory = true;
    for change in &plan.changes {
        match change {
            Change::Sysctl { path, value, .. } => drop(after.sysctls.insert(path.clone(), value.clone())),
            Change::LocalRule { to, .. } => after.rules.iter_mut().for_each(|rule| rule.preference = *to),
            Change::File { content, .. } => after.names_file = Some(content.clone()),
            _ => {}
        }
    }
    let again = Plan::new(&after.before(&plan.changes), &settings, &Divert::default()).expect("plan");
    assert_eq!(again, plan);
    let json = serde_json::to_string(&plan.changes).expect("serialises");
    assert_eq!(serde_json::from_str::<Vec<Change>>(&json).expect("parses"), plan.changes);
}

#[test]
fn marks_need_two_bits_and_gateway_interfaces_must_exist() {
    let refused = |settings: HostSettings| Plan::new(&host(), &settings, &Divert::default()).is_err();
    assert!(refused(HostSettings { mark_mask: 0x8000, ..HostSettings::default() }));
    assert!(refused(HostSettings { gateway: vec!["eth9".into()], ..HostSettings::default() }));
    let settings = HostSettings::default();
    assert_eq!((settings.mark_plain(), settings.mark_wire()), (0x1000_0000, 0x8000_0000));
}
