use super::*;

fn rule(selector: &str, policy: Policy) -> Rule {
    Rule::new(selector.parse().unwrap(), policy)
}

fn shown(selectors: &Selectors) -> Vec<String> {
    selectors.rules().iter().map(|rule| format!("{} {}", rule.selector, rule.policy)).collect()
}

#[test]
fn enabling_again_changes_policy_and_options() {
    let mut selectors = Selectors::new(vec![rule("10.0.0.0/8", Policy::Opportunistic)], vec![], Policy::Opportunistic);
    selectors.enable("10.0.0.0/8,no-cache".parse().unwrap(), Policy::Required);
    assert_eq!(shown(&selectors), ["10.0.0.0/8 required"]);
    assert_eq!(selectors.rules()[0].options.words(), ["no-cache"]);
    selectors.enable("10.0.0.0/8".parse().unwrap(), Policy::Required);
    assert_eq!(selectors.entries().len(), 1);
    assert!(selectors.entries()[0].options.is_none());
}

#[test]
fn disabling_needs_the_selector_as_it_was_given() {
    let mut selectors = Selectors::new(vec![rule("10.0.0.0/8", Policy::Opportunistic)], vec![], Policy::Opportunistic);
    assert!(!selectors.disable(&"10.0.0.1".parse().unwrap()));
    assert!(selectors.disable(&"10.0.0.0/8".parse().unwrap()));
    assert!(shown(&selectors).is_empty());
}

#[test]
fn a_reload_keeps_what_was_changed_at_run_time() {
    let file = || vec![rule("10.0.0.0/8", Policy::Opportunistic), rule(":80", Policy::Opportunistic)];
    let mut selectors = Selectors::new(file(), vec![rule("192.0.2.1", Policy::Required)], Policy::Opportunistic);
    selectors.disable(&":80".parse().unwrap());
    selectors.enable("198.51.100.0/24".parse().unwrap(), Policy::Opportunistic);
    let mut changed = file();
    changed.push(rule(":443", Policy::Off));
    selectors.reload(changed, Policy::Opportunistic);
    assert_eq!(
        shown(&selectors),
        ["10.0.0.0/8 opportunistic", ":443 off", "192.0.2.1 required", "198.51.100.0/24 opportunistic"]
    );
}

#[test]
fn a_name_service_that_fails_does_not_switch_protection_off() {
    let mut selectors =
        Selectors::new(vec![rule("db.example:5432", Policy::Opportunistic)], vec![], Policy::Opportunistic);
    assert_eq!(selectors.unresolved(), ["db.example"]);
    assert!(shown(&selectors).is_empty());
    assert!(selectors.set_addresses("db.example", BTreeSet::from(["192.0.2.5".parse().unwrap()])));
    assert!(!selectors.set_addresses("db.example", BTreeSet::new()));
    assert_eq!(shown(&selectors), ["192.0.2.5:5432 opportunistic"]);
    assert!(selectors.unresolved().is_empty());
}

#[test]
fn names_and_routes_select_nothing_that_could_not_be_typed() {
    let mut selectors = Selectors::new(vec![rule("db.example", Policy::Off)], vec![], Policy::Opportunistic);
    let addresses = ["127.0.1.1", "::1", "fe80::7", "192.0.2.5"].map(|text| text.parse().unwrap());
    selectors.set_addresses("db.example", BTreeSet::from(addresses));
    selectors.set_routes(["127.0.0.0/8", "224.0.0.0/4", "fe80::/64"].map(|text| text.parse().unwrap()).into());
    assert_eq!(shown(&selectors), ["192.0.2.5 off"]);
    // They are in the record of changes, which is read again after a crash.
    for rule in selectors.rules() {
        let json = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
    }
}

#[test]
fn routes_select_with_the_default_policy_and_yield_to_what_was_said() {
    let mut selectors = Selectors::new(vec![rule("10.9.0.0/16", Policy::Required)], vec![], Policy::Opportunistic);
    let routes = BTreeSet::from(["10.9.0.0/16".parse().unwrap()]);
    assert!(selectors.set_routes(routes.clone()));
    assert!(!selectors.set_routes(routes));
    assert_eq!(shown(&selectors), ["10.9.0.0/16 required"]);
    assert_eq!(selectors.entries()[1].yields_to, ["10.9.0.0/16".parse().unwrap()]);
    // Even where a route has the stricter policy, since nobody gave that policy for this network.
    let mut selectors = Selectors::new(vec![rule("10.9.0.0/16", Policy::Off)], vec![], Policy::Required);
    selectors.set_routes(BTreeSet::from(["10.9.0.0/16".parse().unwrap(), "10.8.0.0/16".parse().unwrap()]));
    assert_eq!(shown(&selectors), ["10.8.0.0/16 required", "10.9.0.0/16 off"]);
}

#[test]
fn neither_a_name_nor_a_route_takes_connections_from_what_is_required() {
    let given = vec![
        rule("10.0.0.0/8", Policy::Required),
        rule("db.example:5432", Policy::Opportunistic),
        rule("www.example", Policy::Off),
        rule("10.7.0.0/16", Policy::Opportunistic),
    ];
    let mut selectors = Selectors::new(given, vec![], Policy::Opportunistic);
    selectors.set_addresses("db.example", ["10.1.0.5", "192.0.2.5"].map(|text| text.parse().unwrap()).into());
    selectors.set_addresses("www.example", BTreeSet::from(["10.1.0.6".parse().unwrap()]));
    selectors.set_routes(BTreeSet::from(["10.9.0.0/16".parse().unwrap()]));
    assert_eq!(shown(&selectors), ["10.0.0.0/8 required", "192.0.2.5:5432 opportunistic", "10.7.0.0/16 opportunistic"]);
    let required: Selector = "10.0.0.0/8".parse().unwrap();
    let yields: Vec<bool> = selectors.entries().iter().map(|entry| entry.yields_to.contains(&required)).collect();
    assert_eq!(yields, [false, true, true, false, true]);
}

#[test]
fn an_entry_says_to_whom_it_yields_a_few_at_most() {
    let mut given: Vec<Rule> = (1..=20).map(|port| rule(&format!(":{port}"), Policy::Required)).collect();
    given.push(rule("10.0.0.0/8", Policy::Opportunistic));
    let entries = Selectors::new(given, vec![], Policy::Opportunistic).entries();
    assert_eq!(entries[20].yields_to.len(), YIELDS_MAX);
    assert!(entries[..20].iter().all(|entry| entry.yields_to.is_empty()));
}
